import gzip
import io
import json
import lzma
import pathlib
import sys
import tarfile
import tracemalloc
import zipfile

import pytest

from sedd_jax.data import DataError
from sedd_jax.data.files import documents, parquets, tars


def texts(*paths):
  return [
    d.data.decode() for d in documents.read_documents(map(pathlib.Path, paths))
  ]


def zip_bytes(members):
  stream = io.BytesIO()
  zip_file(stream, members)
  return stream.getvalue()


def tar_bytes(members):
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as archive:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  return stream.getvalue()


def zip_file(path, members):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return path


KINDS = {
  'a.txt': b'one\ntwo\n',
  'a': b'one\ntwo\n',
  'a.gz': gzip.compress(b'one\ntwo\n'),
  'a.txt.xz': lzma.compress(b'one\ntwo\n'),
  'a.jsonl': b'{"text": "one\\ntwo\\n", "id": 3}\n',
  'a.jsonl.gz': gzip.compress(b'"one\\ntwo\\n"\n'),
  'a.tgz': gzip.compress(tar_bytes({'x/b.txt': b'one\ntwo\n'})),
  'a.tar': tar_bytes({'x/b.txt': b'one\ntwo\n'}),
  'a.tar.xz': lzma.compress(tar_bytes({'b.txt': b'one\ntwo\n'})),
  # A shard of OpenWebText: a tar without the name of one, in a tar.
  'owt.tar.xz': lzma.compress(
    tar_bytes({'s_data.xz': lzma.compress(tar_bytes({'1.txt': b'one\ntwo\n'}))})
  ),
}


@pytest.mark.parametrize('name', KINDS)
def test_kinds_of_files(tmp_path, name):
  (tmp_path / name).write_bytes(KINDS[name])
  assert texts(tmp_path / name) == ['one\ntwo\n']


def test_zip_members_and_order(tmp_path):
  path = zip_file(
    tmp_path / 'a.zip',
    {
      'd/b.txt': b'second',
      'a.jsonl': b'"x"\n"y"\n',
      'c.gz': gzip.compress(b'z'),
    },
  )
  assert texts(path, path) == ['second', 'x', 'y', 'z'] * 2


def test_lines_of_end_of_text_divide_a_file(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'one\n<|endoftext|>\n<|endoftext|>\ntwo <|endoftext|>\nx\n')
  assert texts(path) == ['one\n', 'two <|endoftext|>\nx\n']
  offsets = [d.offset for d in documents.read_documents([path])]
  assert offsets == [0, 32]


def test_parquet(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  table = pyarrow.table({'text': ['one', 'two', ''], 'id': [1, 2, 3]})
  parquet.write_table(table, tmp_path / 'a.parquet')
  assert texts(tmp_path / 'a.parquet') == ['one', 'two']
  parquet.write_table(pyarrow.table({'texts': ['a']}), tmp_path / 'b.parquet')
  with pytest.raises(DataError, match='nearest: texts'):
    texts(tmp_path / 'b.parquet')
  (tmp_path / 'c.parquet').write_bytes(b'no parquet at all')
  with pytest.raises(DataError, match='c.parquet'):
    texts(tmp_path / 'c.parquet')


def test_a_row_that_parquet_packs_small_fills_no_memory(tmp_path, monkeypatch):
  """A text that is stored once, and is there a thousand times."""
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  path, size = tmp_path / 'a.parquet', 2**19
  none = pyarrow.array([0, None] * 500, pyarrow.int32())
  text = pyarrow.DictionaryArray.from_arrays(none, pyarrow.array(['a' * size]))
  parquet.write_table(
    pyarrow.table({'text': text}), path, compression='zstd', store_schema=False
  )
  assert path.stat().st_size < 1000
  before = pyarrow.total_allocated_bytes()
  tracemalloc.start()
  found = documents.read_documents([path])
  first = next(found)
  # What is held while the first of them is in hand.
  taken = pyarrow.total_allocated_bytes() - before
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (first.where, first.data) == (f'{path}:row 1', b'a' * size)
  assert taken < 8 * size and peak < 8 * size
  assert sum(1 for _ in found) == 499
  monkeypatch.setattr(documents, 'MAX_BYTES', size - 1)
  with pytest.raises(DataError, match=r'a.parquet:row 1: more than 524,287 by'):
    texts(path)
  monkeypatch.setattr(documents, 'MAX_BYTES', 10 * size)
  with pytest.raises(DataError, match='its text is more than 1,000 times'):
    texts(path)


def test_rows_that_parquet_tells_by_those_before_fill_no_memory(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  path, size = tmp_path / 'a.parquet', 2**17
  parquet.write_table(
    pyarrow.table({'text': ['a' * size] * 200}),
    path,
    compression='zstd',
    use_dictionary=False,
    column_encoding='DELTA_BYTE_ARRAY',
  )
  assert path.stat().st_size < 2000
  before = pyarrow.total_allocated_bytes()
  found = documents.read_documents([path])
  assert next(found).data == b'a' * size
  assert pyarrow.total_allocated_bytes() - before < 8 * size
  assert sum(1 for _ in found) == 199


@pytest.mark.parametrize(
  'encoding', ['PLAIN', 'DELTA_BYTE_ARRAY', 'RLE_DICTIONARY']
)
@pytest.mark.parametrize('name', ['string', 'large_string', 'string_view'])
def test_parquet_of_any_text(tmp_path, monkeypatch, encoding, name):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  rows = [None, 'one', '', 'zwei \u00e4', 'one', None, 'one and', 'one andmore']
  table = pyarrow.table(
    {
      'id': range(8),
      'text': pyarrow.array(rows, getattr(pyarrow, name)()),
      'kind': [3, 1, 4, 1, 5, 9, 2, 6],
    }
  )
  path = tmp_path / 'a.parquet'
  how = {'use_dictionary': False, 'column_encoding': {'text': encoding}}
  how = {} if encoding == 'RLE_DICTIONARY' else how
  parquet.write_table(table, path, row_group_size=5, **how)
  found = parquet.ParquetFile(path).metadata.row_group(0).column(1)
  assert encoding in found.encodings
  monkeypatch.setattr(parquets, '_ROWS', 2)
  found = list(documents.read_documents([path], label='kind'))
  assert [d.data.decode() for d in found] == [row for row in rows if row]
  assert [d.label for d in found] == ['1', '1', '5', '2', '6']
  places = [d.where.removeprefix(f'{path}:row ') for d in found]
  assert places == ['2', '4', '5', '7', '8']


def test_few_long_rows_are_read_at_once(tmp_path, monkeypatch):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  size, path = 2**12, tmp_path / 'a.parquet'
  rows = [f'{i:0{size}}' for i in range(64)]
  parquet.write_table(pyarrow.table({'text': rows}), path, use_dictionary=False)
  monkeypatch.setattr(parquets, '_BYTES', 4 * size + 500)
  before = pyarrow.total_allocated_bytes()
  found = documents.read_documents([path])
  next(found)
  # The page itself is not in it: pyarrow hands it out in pieces.
  page = 64 * (size + 4)
  assert pyarrow.total_allocated_bytes() - before < page + 8 * size
  assert sum(1 for _ in found) == 63


@pytest.mark.parametrize(
  'rows, told',
  [
    ([b'a', b'b'], "column 'text' holds no texts .string. but binary"),
    ([1, 2], "column 'text' holds no texts .string. but int64"),
    ([['a'], []], "column 'text' holds no texts .string. but list<"),
    ([{'a': 'b'}], "column 'text' holds no texts .string. but struct<"),
  ],
)
def test_parquet_without_texts_is_named(tmp_path, rows, told):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  parquet.write_table(pyarrow.table({'text': rows}), tmp_path / 'a.parquet')
  with pytest.raises(DataError, match=f'a.parquet: {told}'):
    texts(tmp_path / 'a.parquet')
  table = pyarrow.table({'text': ['a'] * len(rows), 'kind': rows})
  parquet.write_table(table, tmp_path / 'b.parquet')
  if not isinstance(rows[0], int):
    with pytest.raises(DataError, match="b.parquet: column 'kind' holds no la"):
      list(documents.read_documents([tmp_path / 'b.parquet'], label='kind'))


def test_faulty_bytes_in_parquet_are_named(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  faulty = pyarrow.array([b'good', b'b\xff'])
  column = pyarrow.Array.from_buffers(pyarrow.string(), 2, faulty.buffers())
  path = tmp_path / 'a.parquet'
  parquet.write_table(pyarrow.table({'text': column}), path)
  found = list(documents.read_documents([path]))
  assert found[1].data == b'b\xff'
  with pytest.raises(DataError, match='a.parquet:row 2: invalid UTF-8 .* off'):
    found[1].text()
  parquet.write_table(pyarrow.table({'text': [None, None]}), path)
  assert texts(path) == []
  parquet.write_table(
    pyarrow.table({'text': ['abc' * i for i in range(2000)]}),
    path,
    use_dictionary=False,
  )
  data = bytearray(path.read_bytes())
  data[4:3000] = b'\xff' * 2996
  path.write_bytes(data)
  with pytest.raises(DataError, match='a.parquet: cannot be read to its end'):
    texts(path)


@pytest.mark.parametrize(
  'name, data, place',
  [
    ('a.txt', b'abc\xffdef', 'a.txt: invalid UTF-8 (byte 0xff) at offset 3'),
    (
      'a.txt',
      b'ab\n<|endoftext|>\nc\xe9',
      'a.txt: invalid UTF-8 (byte 0xe9) at offset 18',
    ),
    ('a.jsonl', b'"a"\n"b\xff"\n', 'a.jsonl:2: invalid UTF-8 (byte 0xff) at o'),
  ],
)
def test_invalid_utf8_names_file_and_offset(tmp_path, name, data, place):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(DataError) as raised:
    [d.text() for d in documents.read_documents([tmp_path / name])]
  assert place in str(raised.value)


def test_invalid_utf8_in_a_line_counts_from_the_start_of_the_file(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(b'"a"\n"b\xff"\n')
  with pytest.raises(DataError, match='offset 6;'):
    texts(tmp_path / 'a.jsonl')


@pytest.mark.parametrize(
  'line', ['{"txt": "a"}', '3', '{"text": 3}', '{', '["a"]', '"\\ud800"']
)
def test_a_line_that_is_no_document_is_named(tmp_path, line):
  (tmp_path / 'a.jsonl').write_text(json.dumps('good') + '\n' + line + '\n')
  with pytest.raises(DataError, match=r'a\.jsonl:2: not a document'):
    texts(tmp_path / 'a.jsonl')


@pytest.mark.parametrize('name', ['a.gz', 'a.xz', 'a.tar.xz', 'a.zip', 'a.tar'])
def test_truncated_files_are_named(tmp_path, name):
  path = tmp_path / name
  data = bytes(range(256)) * 40
  if name.endswith('.zip'):
    zip_file(path, {'b.txt': data})
  else:
    packed = tar_bytes({'b.txt': data}) if '.tar' in name else data
    if name.endswith('.xz'):
      packed = lzma.compress(packed)
    path.write_bytes(gzip.compress(packed) if name.endswith('.gz') else packed)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
  with pytest.raises(DataError, match='damaged or truncated') as raised:
    texts(path)
  assert str(path) in str(raised.value)


@pytest.mark.parametrize(
  'member', ['../evil.txt', '/etc/evil.txt', 'a/../../evil.txt', 'C:evil.txt']
)
@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_members_that_leave_their_archive_are_refused(tmp_path, kind, member):
  path = tmp_path / 'inside' / f'a.{kind}'
  path.parent.mkdir()
  if kind == 'zip':
    zip_file(path, {member: b'x'})
  else:
    path.write_bytes(tar_bytes({member: b'x'}))
  with pytest.raises(DataError, match='leaves the archive'):
    texts(path)
  assert {p.name for p in tmp_path.rglob('*')} == {'inside', f'a.{kind}'}


def test_the_size_of_a_member_is_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(documents, 'MAX_BYTES', 1000)
  bomb = b'0' * 2000
  zip_file(tmp_path / 'a.zip', {'b.txt': bomb})
  (tmp_path / 'a.gz').write_bytes(gzip.compress(bomb))
  (tmp_path / 'lines.gz').write_bytes(gzip.compress(b'0\n' * 1000))
  (tmp_path / 'a.tar').write_bytes(tar_bytes({'b.txt': bomb}))
  for name in ('a.zip', 'a.gz', 'lines.gz', 'a.tar'):
    with pytest.raises(DataError, match='more than 1,000 bytes'):
      texts(tmp_path / name)
  with pytest.raises(DataError, match=r'divide it by lines <\|endoftext\|>'):
    texts(tmp_path / 'lines.gz')
  for name in ('a.zip', 'a.gz'):
    with pytest.raises(DataError, match='more than 1,000 bytes'):
      documents.read_whole(tmp_path / name, 'b.txt')


@pytest.mark.parametrize(
  'kind',
  [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE],
)
def test_the_size_of_a_header_in_an_archive_is_bounded(
  tmp_path, monkeypatch, kind
):
  """Headers are read whole, also those that an archive packs small."""
  monkeypatch.setattr(tars, 'MAX_HEADER', 2**15)
  info = tarfile.TarInfo('a.txt')
  info.type, info.size = kind, 2**17
  header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
  if kind == tarfile.GNUTYPE_SPARSE:
    # More blocks of places follow, and each says so again.
    header[482] = 1
    header[148:156] = b'%06o\0 ' % (256 + sum(header) - sum(header[148:156]))
  block = bytes(504) + b'\1' + bytes(7)
  (tmp_path / 'a.tar.gz').write_bytes(
    gzip.compress(bytes(header) + 2**9 * block + bytes(1024))
  )
  with pytest.raises(DataError, match=r'a\.tar\.gz.*header.*32,768 bytes'):
    texts(tmp_path / 'a.tar.gz')


def test_large_members_come_after_large_ones(tmp_path, monkeypatch):
  monkeypatch.setattr(tars, 'MAX_HEADER', 2**15)
  members = {f'{i}.txt': bytes([65 + i]) * 2**17 for i in range(3)}
  (tmp_path / 'a.tar').write_bytes(tar_bytes({**members, 'b.png': b''}))
  wanted = [data.decode() for data in members.values()]
  assert texts(tmp_path / 'a.tar') == wanted


def test_what_a_file_swells_to_is_bounded(tmp_path, monkeypatch):
  """Many documents, each of them small."""
  text = gzip.compress(b''.join(b'"%d"\n' % i for i in range(400)))
  path = tmp_path / 'a.jsonl.gz'
  path.write_bytes(text)
  monkeypatch.setattr(documents, 'MAX_BYTES', 1000)
  assert len(texts(path)) == 400
  monkeypatch.setattr(documents, 'MAX_SWELL', 1)
  with pytest.raises(DataError, match='a.jsonl.gz: its text is more than 1 ti'):
    texts(path)
  # Little text is no harm.
  monkeypatch.setattr(documents, 'MAX_BYTES', 10_000)
  assert len(texts(path)) == 400


def test_a_document_of_short_lines_takes_little_more_than_its_size(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(2**20 * b'ab\n')
  tracemalloc.start()
  [text] = documents.read_documents([path])
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(text.data) == 3 * 2**20
  assert peak < 4 * len(text.data)


@pytest.mark.parametrize('pack', [bytes, gzip.compress])
def test_what_is_read_back_and_forth_inside_of_others(
  tmp_path, monkeypatch, pack
):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  table = io.BytesIO()
  parquet.write_table(pyarrow.table({'text': ['three', 'four']}), table)
  end = '' if pack is bytes else '.gz'
  zipped = zip_bytes({'1.txt': b'one', '2.txt': b'two'})
  inside = {
    f'a.zip{end}': pack(zipped),
    f'b.parquet{end}': pack(table.getvalue()),
  }
  (tmp_path / 'a.tar').write_bytes(tar_bytes(inside))
  (tmp_path / 'b.tgz').write_bytes(gzip.compress(tar_bytes(inside)))
  zip_file(tmp_path / 'c.zip', inside)
  for name in ('a.tar', 'b.tgz', 'c.zip'):
    assert texts(tmp_path / name) == ['one', 'two', 'three', 'four']
  monkeypatch.setattr(documents, 'MAX_INSIDE', len(zipped) - 1)
  for name in ('a.tar', 'c.zip'):
    with pytest.raises(DataError, match=rf'{name}:a.zip.*: take it out'):
      texts(tmp_path / name)


def test_a_byte_order_mark_before_lines_of_json(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "a"}\n"b"\n', 'utf-8-sig')
  assert texts(path) == ['a', 'b']
  path.write_text('"a"\n\ufeff"b"\n', 'utf-8')
  with pytest.raises(DataError, match=r'a.jsonl:2: not a document'):
    texts(path)


def test_archives_in_archives_end(tmp_path):
  data = b'x'
  for _ in range(6):
    data = tar_bytes({'a.tar': data})
  (tmp_path / 'a.tar').write_bytes(data)
  with pytest.raises(DataError, match='archives in archives'):
    texts(tmp_path / 'a.tar')


def test_find(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in (
    *('b.txt', 'a.jsonl', 'picture.png', 'sub/c.txt.gz', 'with,comma'),
    *('.hidden.jsonl', '.cache/hub/b.txt', 'sub/.git/d.txt'),
  ):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('x')
  (tmp_path / 'empty').mkdir()

  def found(path):
    return [str(file) for file in documents.find(path)]

  assert found('b.txt') == ['b.txt']
  assert found('b.txt, a.jsonl') == ['b.txt', 'a.jsonl']
  assert found('.') == ['a.jsonl', 'b.txt', 'sub/c.txt.gz']
  assert found('with,comma') == ['with,comma']
  assert found('picture.png') == ['picture.png']
  # Asked for by name, they are not left out.
  assert found('.hidden.jsonl,.cache') == ['.hidden.jsonl', '.cache/hub/b.txt']
  with pytest.raises(DataError, match='nearest: b.txt'):
    documents.find('bb.txt')
  with pytest.raises(DataError, match='no text files'):
    documents.find('empty')


def test_progress_adds_up_to_the_size_of_the_file(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('"abc"\n' * 50_000)
  told = []
  assert len(list(documents.read_documents([path], told.append))) == 50_000
  assert sum(told) == path.stat().st_size
  assert min(told) >= 0


def zst(data):
  return pytest.importorskip('zstandard').ZstdCompressor().compress(data)


def test_zst(tmp_path):
  text = b'one\ntwo\n' * 50_000
  # Two frames, as tools that append write them.
  (tmp_path / 'a.txt.zst').write_bytes(zst(text) + zst(b'end'))
  (tmp_path / 'b.tar.zst').write_bytes(zst(tar_bytes({'b.txt': b'in a tar'})))
  (tmp_path / 'c.jsonl.zst').write_bytes(zst(b'"x"\n"y"\n'))
  found = texts(*documents.find(str(tmp_path)))
  assert found == [text.decode() + 'end', 'in a tar', 'x', 'y']


@pytest.mark.parametrize('end', [3, 30, -1])
def test_a_truncated_zst_is_named(tmp_path, end):
  data = zst(bytes(range(256)) * 40)
  (tmp_path / 'a.zst').write_bytes(data[:end])
  with pytest.raises(DataError, match='damaged or truncated'):
    texts(tmp_path / 'a.zst')
  (tmp_path / 'a.zst').write_bytes(data + b'more')
  with pytest.raises(DataError, match='damaged or truncated'):
    texts(tmp_path / 'a.zst')


def test_a_zst_that_grows_without_end_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(documents, 'MAX_BYTES', 1000)
  (tmp_path / 'a.zst').write_bytes(zst(b'0' * 2000))
  with pytest.raises(DataError, match='more than 1,000 bytes'):
    texts(tmp_path / 'a.zst')


def test_without_zstandard_it_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'zstandard', None)
  (tmp_path / 'a.zst').write_bytes(b'x')
  with pytest.raises(DataError, match=r"pip install 'sedd_jax\[zstd\]'"):
    texts(tmp_path / 'a.zst')


def test_lines_as_documents(tmp_path):
  (tmp_path / 'a.txt').write_text('one\n\n two')
  (tmp_path / 'b.txt').write_text('one\n\n two')
  paths = [tmp_path / 'a.txt', tmp_path / 'b.txt']
  found = documents.read_documents(paths, lines=lambda where: 'a.txt' in where)
  assert [(d.offset, d.data) for d in found] == [
    (0, b'one\n'),
    (4, b'\n'),
    (5, b' two'),
    (0, b'one\n\n two'),
  ]
