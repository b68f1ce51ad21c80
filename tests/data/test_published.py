"""Corpora in their published splits; texts are of our own."""

import gzip
import io
import pathlib
import sys
import tarfile
import types
import zipfile

import pytest

from sedd_jax.data import DataError, load, prepare
from sedd_jax.data.files.documents import Document
from sedd_jax.data.prepared import packing
from sedd_jax.data.sources import published

LINES = {
  'train': ' \n = One = \n \n a b , c \n',
  'valid': ' it \n \n was 3 @.@ 5 \n',
  'test': ' so it \n',
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def text_of(folder, source):
  """Split to the documents of a prepared folder."""
  data = load(source=source, path=folder, tokenizer='bytes', seq_len=1)
  return {
    split: data.info.tokenizer.decode(data.tokens(split))
    for split in data.info.num_tokens
  }


def prepared(source, place, *options):
  arguments = [source, '--input', str(place), '--tokenizer', 'bytes']
  code = prepare.main([*arguments, '--output', 'd', '--workers', '1', *options])
  return text_of('d', source) if code == 0 else code


@pytest.mark.parametrize(
  'source, where, split',
  [
    ('wikitext2', 'wikitext-2-raw/wiki.train.raw', 'train'),
    ('wikitext103', 'a.zip:wikitext-103/wiki.valid.tokens', 'validation'),
    ('wikitext2', 'in/wikitext2-test.txt.xz', 'test'),
    ('wikitext2', 'in/train-00000-of-00002.parquet:row 17', 'train'),
    ('wikitext2', 'in/README.txt', None),
    ('wikitext2', 'in/pretrain.txt', None),
    ('ptb', 'a.tgz:./simple-examples/data/ptb.train.txt', 'train'),
    ('ptb', 'a.tgz:./simple-examples/data/ptb.char.train.txt', None),
    ('ptb', 'in/penn_treebank/validation/0000.parquet:row 1', 'validation'),
    ('ptb', 'in/ptb-valid.txt', 'validation'),
    ('lm1b', 'in/news.en-00001-of-00100', 'train'),
    ('lm1b', 'in/news.en.heldout-00000-of-00050', 'test'),
    ('lm1b', 'in/news.en.heldout-00010-of-00050', 'validation'),
    ('lm1b', 'in/lm1b-test.txt', 'test'),
    ('lambada', 'a.tar.gz:train-novels.tar:Romance/one.txt', 'train'),
    ('lambada', 'in/lambada_development_plain_text.txt', 'validation'),
    ('lambada', 'in/lambada_test.jsonl.xz:3', 'test'),
    ('lambada', 'in/lambada_openai.jsonl:3', 'test'),
    ('lambada', 'in/lambada_control_test_data_plain_text.txt', None),
  ],
)
def test_a_file_is_of_the_split_that_it_is_named_by(source, where, split):
  assert published.split_of(Document(where, 0, b''), source) == split


@pytest.mark.parametrize(
  ('where', 'split'),
  [
    ('in/train.txt', 'train'),
    ('in/my_train.jsonl.xz:12', 'train'),
    ('in/a.valid.txt', 'validation'),
    ('in/my-dev.txt', 'validation'),
    ('dev.txt', 'validation'),
    ('a.zip:b/test.txt', 'test'),
    ('test/train.txt', 'train'),
  ],
)
def test_own_files_are_of_the_split_that_they_are_named_by(where, split):
  assert published.split_named(Document(where, 0, b'')) == split


def test_own_files_in_splits(capsys):
  pathlib.Path('in').mkdir()
  for name in ('train', 'valid', 'test'):
    pathlib.Path(f'in/my-{name}.txt').write_text(f'{name} text')
  assert prepared('text_file', 'in', '--split-by=name') == {
    'train': 'train text',
    'validation': 'valid text',
    'test': 'test text',
  }
  pathlib.Path('in/more.txt').write_text('of no split')
  capsys.readouterr()
  again = ['--split-by=name', '--overwrite']
  assert prepared('text_file', 'in', *again) == 1
  assert 'more.txt: named as no split is' in capsys.readouterr().err


def test_wikitext_from_its_archive_and_from_its_files():
  with zipfile.ZipFile('wikitext-2-raw-v1.zip', 'w') as archive:
    for split, text in LINES.items():
      archive.writestr(f'wikitext-2-raw/wiki.{split}.raw', text)
      pathlib.Path('in').mkdir(exist_ok=True)
      pathlib.Path(f'in/wiki.{split}.raw').write_text(text)
    archive.writestr('wikitext-2-raw/README.md', 'not a text of it')
  wanted = {
    # Lines that have a word, with their ends, as the test set is read.
    'train': ' = One =\n a b, c\n',
    'validation': ' it\n was 3.5\n',
    'test': ' so it\n',
  }
  assert prepared('wikitext2', 'wikitext-2-raw-v1.zip') == wanted
  manifest = packing.read_manifest('d')
  assert manifest.division == 'published'
  assert packing.read_begins('d', manifest, 'train').tolist() == [0, 9]
  assert prepared('wikitext2', 'in', '--overwrite') == wanted
  as_is = prepared('wikitext2', 'in', '--overwrite', '--as-is')
  assert as_is['train'] == ' = One = \n a b , c \n'
  with pytest.raises(DataError, match='splits are fixed'):
    load(
      source='wikitext2',
      path='d',
      tokenizer='bytes',
      seq_len=1,
      test_fraction=0.1,
    )


def test_ptb_from_its_archive():
  with tarfile.open('simple-examples.tgz', 'w:gz') as archive:
    for split in LINES:
      for name in (f'ptb.{split}.txt', f'ptb.char.{split}.txt'):
        data = f' {split} of N N \n and more \n'.encode()
        info = tarfile.TarInfo(f'./simple-examples/data/{name}')
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
  assert prepared('ptb', 'simple-examples.tgz') == {
    'train': 'train of 1 N\nand more',
    'validation': 'valid of 1 N\nand more',
    'test': 'test of 1 N\nand more',
  }


def test_lm1b_from_its_folder():
  folder = pathlib.Path('in')
  for part, name in (
    ('training', 'news.en-00001-of-00100'),
    ('heldout', 'news.en.heldout-00000-of-00050'),
    ('heldout', 'news.en.heldout-00001-of-00050'),
  ):
    place = folder / f'{part}-monolingual.tokenized.shuffled' / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'From {name[:8]} , he said .\n')
  assert prepared('lm1b', 'in') == {
    'train': 'From news.en-, he said.',
    'validation': 'From news.en., he said.',
    'test': 'From news.en., he said.',
  }


def test_lambada_has_passages_and_whole_novels():
  novels = io.BytesIO()
  with tarfile.open(fileobj=novels, mode='w') as archive:
    for name in ('one', 'two'):
      data = f'{name}\n\nends .\n'.encode()
      info = tarfile.TarInfo(f'train-novels/{name}.txt')
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  pathlib.Path('in').mkdir()
  pathlib.Path('in/train-novels.tar').write_bytes(novels.getvalue())
  pathlib.Path('in/lambada_development_plain_text.txt').write_text('a\nb\n')
  pathlib.Path('in/lambada_test.jsonl').write_text(
    '{"context": " He said", "continuation": "no"}\n{"text": "All"}\n'
  )
  found = prepared('lambada', 'in')
  assert found['train'].split('\n') == (
    ['', 'one', '', 'ends .', 'two', '', 'ends .']
  )
  assert found['validation'] == '\na\nb'
  assert found['test'] == '\nHe said no\nAll'


def test_parquet_of_the_hub(monkeypatch, capsys):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  asked = []

  def snapshot_download(name, *, allow_patterns, local_dir, **options):
    asked.append((name, allow_patterns, options))
    folder = pathlib.Path(local_dir, 'penn_treebank')
    for split in ('train', 'validation'):
      (folder / split).mkdir(parents=True)
      table = pyarrow.table({'sentence': [f'{split} N', 'more']})
      parquet.write_table(table, folder / split / '0000.parquet')

  library = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', library)
  assert prepare.main(['ptb', '--tokenizer', 'bytes', '--output', 'd']) == 0
  [(name, patterns, options)] = asked
  repository, revision, files = published.HUB['ptb']
  assert (name, patterns) == (repository, [files])
  assert options['revision'] == revision
  assert options['repo_type'] == 'dataset'
  assert text_of('d', 'ptb') == {
    'train': 'train N\nmore',
    'validation': 'validation N\nmore',
  }


@pytest.mark.parametrize('source', ['wikitext2', 'wikitext103', 'lambada'])
def test_the_hub_s_books_are_no_text(monkeypatch, source):
  """As huggingface_hub leaves a `local_dir`, which is fetched to twice."""
  parts = ('train-00000-of-00001', 'validation-00000-of-00001')

  def snapshot_download(name, *, allow_patterns, local_dir, **options):
    [pattern] = allow_patterns
    inside = pathlib.Path(pattern).parent
    books = pathlib.Path(local_dir, '.cache', 'huggingface')
    for folder in (
      pathlib.Path(local_dir, inside),
      books / 'download' / inside,
    ):
      folder.mkdir(parents=True, exist_ok=True)
    (books / '.gitignore').write_text('*')
    for part in parts:
      # In place of parquet, which needs a library.
      pathlib.Path(local_dir, inside, f'{part}.jsonl').write_text(
        f'"{part[:5]} text"\n'
      )
      kept = books / 'download' / inside / f'{part}.jsonl'
      kept.with_name(f'{kept.name}.metadata').write_text('b08\n"e1"\n17.5\n')
      kept.with_name(f'{kept.name}.lock').write_text('')
      kept.with_name(f'{kept.name}.e1.incomplete').write_text('"tr')

  library = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', library)
  arguments = [source, '--tokenizer', 'bytes', '--output', 'd']
  for _ in range(2):
    assert prepare.main([*arguments, '--workers', '1', '--overwrite']) == 0
    assert {k: v.strip() for k, v in text_of('d', source).items()} == {
      'train': 'train text',
      'validation': 'valid text',
    }
    names = [entry['name'] for entry in packing.read_manifest('d').sources]
    assert names == [f'{part}.jsonl' for part in parts]


@pytest.mark.parametrize('source', published.HUB)
def test_without_the_hub_it_says_what_to_put_where(source, monkeypatch, capsys):
  def refused(*args, **kwargs):
    raise OSError('We have no connection\nto the hub')

  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  assert prepare.main([source, '--tokenizer', 'bytes']) == 1
  error = capsys.readouterr().err
  assert "pip install 'sedd_jax[hub,parquet]'" in error
  assert 'name a folder with --input: ' in error
  library = types.SimpleNamespace(snapshot_download=refused)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', library)
  assert prepare.main([source, '--tokenizer', 'bytes']) == 1
  error = capsys.readouterr().err
  assert 'cannot be fetched from the hub (We have no connection to' in error
  assert error.count('\n') == 1
  assert not pathlib.Path('data_cache').exists()


@pytest.mark.parametrize(
  'arguments, text',
  [
    (['ptb', '--input', 'in'], 'no files of ptb; wanted: simple-examples.tgz'),
    (
      ['ptb', '--input', 'in/ptb.test.txt,in/a.txt'],
      'in/a.txt: named as no split of ptb is; wanted: simple-examples.tgz or',
    ),
    (
      ['lm1b', '--input', 'in/a.txt.gz'],
      'the files hold no text, or none is named as a split is; wanted: '
      '1-billion-word-',
    ),
    (['ptb', '--split-by', 'document'], 'no --split-by'),
    (['ptb', '--validation-fraction', '0.5'], 'no --validation-fraction'),
    (['text_file', '--input', 'in/a.txt', '--as-is'], '--as-is is for lm1b'),
    (['text_file', '--input', 'in/a.txt', '--workers', '0'], '--workers is 0'),
    (['pydoc', '--split-by', 'document'], 'by position; no --split-by'),
  ],
)
def test_mistakes_are_told_in_one_line(arguments, text, capsys):
  pathlib.Path('in').mkdir()
  pathlib.Path('in/a.txt').write_text('a b\n')
  if 'in' not in arguments:
    pathlib.Path('in/ptb.test.txt').write_text('a b\n')
    pathlib.Path('in/a.txt.gz').write_bytes(gzip.compress(b'a b\n'))
  arguments = [*arguments, '--tokenizer', 'bytes', '--output', 'd']
  assert prepare.main(arguments) == 1
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith('error: ') and text in error
  assert not pathlib.Path('d').exists()


@pytest.mark.parametrize('source', published.CORPORA)
def test_a_run_is_told_what_prepares_them(source):
  with pytest.raises(DataError) as raised:
    load(source=source, tokenizer='gpt2', seq_len=8)
  assert f'sedd_jax.data.prepare {source} --input' in str(raised.value)
  assert published.CORPORA[source].files in str(raised.value)


def test_a_text_file_split_by_document():
  lines = [f'document {i}' for i in range(40)]
  with gzip.open('in.jsonl.gz', 'wt') as stream:
    stream.writelines(f'"{line}"\n' for line in lines)
  found = prepared(
    'text_file',
    'in.jsonl.gz',
    '--split-by',
    'document',
    '--validation-fraction',
    '0.3',
  )
  parts = {split: text.split('\n') for split, text in found.items()}
  assert sorted(parts['train'] + parts['validation']) == sorted(lines)
  assert 4 < len(parts['validation']) < 20
