import errno
import functools
import hashlib
import http.server
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import zipfile

import numpy as np
import pytest

from sedd_jax.data import DataError, load, prepare, streaming, tokenizers
from sedd_jax.data.files import documents, downloads
from sedd_jax.data.files.documents import Document
from sedd_jax.data.prepared import packing, writer
from sedd_jax.data.sets import evaluation_sets
from tests.data.toys import tiny_bpe

TEXT = 'the quick brown fox jumps over the lazy dog ' * 50


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(tmp_path, monkeypatch):
  """text8.zip and GPT-2's files on an HTTP server of this machine."""
  root = tmp_path / 'served'
  root.mkdir()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      pass

  handler = functools.partial(Handler, directory=root)
  served = http.server.ThreadingHTTPServer(('localhost', 0), handler)
  thread = threading.Thread(target=served.serve_forever)
  thread.start()
  url = f'http://localhost:{served.server_port}/'
  with zipfile.ZipFile(root / 'text8.zip', 'w') as archive:
    archive.writestr('text8', TEXT)
  monkeypatch.setitem(
    downloads.PUBLISHED,
    'text8',
    downloads.PUBLISHED['text8']._replace(
      url=url + 'text8.zip',
      zip_size=(root / 'text8.zip').stat().st_size,
      zip_sha256=documents.sha256(root / 'text8.zip'),
      size=len(TEXT),
      md5=hashlib.md5(TEXT.encode()).hexdigest(),
      sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
    ),
  )
  for name in ('encoder.json', 'vocab.bpe'):
    (root / name).write_text(name)
  monkeypatch.setattr(tokenizers, 'GPT2_URL', url)
  monkeypatch.setattr(
    tokenizers,
    'GPT2_FILES',
    {
      name: documents.sha256(root / name)
      for name in ('encoder.json', 'vocab.bpe')
    },
  )
  yield root
  served.shutdown()
  thread.join()
  served.server_close()


@pytest.fixture
def no_network(monkeypatch):
  def refuse(*args, **kwargs):
    raise urllib.error.URLError('Name or service not known')

  monkeypatch.setattr(downloads.urllib.request, 'urlopen', refuse)


def test_text8_is_downloaded_checked_and_prepared(server, capsys):
  assert prepare.main(['text8', '--output', 'd']) == 0
  printed = capsys.readouterr().out
  assert 'downloading http://localhost' in printed
  assert 'd: train: 1,980 tokens, 1,980 characters' in printed
  assert '--config.data.source=text8 --config.data.path=d' in printed
  data = load(source='text8', path='d', seq_len=8)
  raw = load(source='text8', path=str(server / 'text8.zip'), seq_len=8)
  for split in ('train', 'validation', 'test'):
    np.testing.assert_array_equal(data.tokens(split), raw.tokens(split))
  assert data.info.files == raw.info.files
  # A second time nothing is downloaded.
  (server / 'text8.zip').unlink()
  assert prepare.main(['text8', '--output', 'd', '--overwrite']) == 0
  assert 'downloading' not in capsys.readouterr().out


def test_a_wrong_download_is_not_kept(server, capsys):
  data = bytearray((server / 'text8.zip').read_bytes())
  data[50] ^= 1
  (server / 'text8.zip').write_bytes(data)
  assert prepare.main(['text8', '--output', 'd']) == 1
  assert 'wrong checksum: sha256' in capsys.readouterr().err
  (server / 'text8.zip').write_bytes(data[:-9])
  assert prepare.main(['text8', '--output', 'd']) == 1
  assert 'truncated' in capsys.readouterr().err
  assert list(pathlib.Path('d').iterdir()) == []


def test_a_file_that_is_not_on_the_server(server, capsys):
  (server / 'text8.zip').unlink()
  assert prepare.main(['text8', '--output', 'd']) == 1
  assert 'text8.zip (File not found)' in capsys.readouterr().err


@pytest.mark.parametrize('source', ['text8', 'enwik8'])
def test_without_a_network_it_says_where_to_put_the_file(
  source, no_network, capsys
):
  assert prepare.main([source]) == 1
  error = capsys.readouterr().err
  assert f'cannot download http://mattmahoney.net/dc/{source}.zip' in error
  assert f'put {source}.zip into data_cache/{source}' in error
  assert f'--input {source}.zip' in error


def test_gpt2(server, no_network, capsys):
  assert prepare.main(['gpt2', '--output', 'g']) == 1
  assert 'put it into g' in capsys.readouterr().err
  assert prepare.main(['gpt2', '--output', 'g', '--input', str(server)]) == 0
  # Files that are there and right are not fetched again.
  assert prepare.main(['gpt2', '--output', 'g']) == 0
  pathlib.Path('g/vocab.bpe').write_text('x')
  assert prepare.main(['gpt2', '--output', 'h', '--input', 'g']) == 1
  assert 'wrong checksum' in capsys.readouterr().err


def test_gpt2_is_downloaded(server):
  assert prepare.main(['gpt2', '--output', 'g']) == 0
  assert pathlib.Path('g/vocab.bpe').read_text() == 'vocab.bpe'


@pytest.mark.parametrize('tokenizer', ['text8', 'bytes'])
def test_text_file_prepared_is_what_is_read_at_once(tokenizer):
  pathlib.Path('a.txt').write_text('Some Text.\n' * 300)
  pathlib.Path('b.jsonl').write_text('"more"\n{"text": "and more"}\n')
  arguments = ['text_file', '--input', 'a.txt,b.jsonl', '--output', 'd']
  arguments += ['--tokenizer', tokenizer, '--validation-fraction', '0.1']
  assert prepare.main(arguments) == 0
  keywords = {'source': 'text_file', 'tokenizer': tokenizer, 'seq_len': 8}
  keywords['validation_fraction'] = 0.1
  at_once = load(path='a.txt,b.jsonl', **keywords)
  prepared = load(path='d', **keywords)
  assert prepared.info.files == at_once.info.files
  assert prepared.info.num_characters == at_once.info.num_characters
  for split in ('train', 'validation'):
    np.testing.assert_array_equal(prepared.tokens(split), at_once.tokens(split))
  assert packing.verify('d').splits['train']['num_tokens'] == len(
    at_once.tokens('train')
  )


def lines(number, begin=0):
  return [f'document {i} of some words' for i in range(begin, begin + number)]


def write_jsonl(path, texts):
  pathlib.Path(path).parent.mkdir(exist_ok=True)
  pathlib.Path(path).write_text(''.join(f'"{text}"\n' for text in texts))


def test_openwebtext_keeps_every_document_once(monkeypatch, capsys):
  monkeypatch.setattr(streaming, 'BATCH_BYTES', 700)
  write_jsonl('in/a.jsonl', lines(300))
  write_jsonl('in/b.jsonl', lines(300, begin=300))
  arguments = ['openwebtext', '--input', 'in', '--tokenizer', 'bytes']
  arguments += ['--validation-fraction', '0.1', '--workers', '1']
  assert prepare.main([*arguments, '--output', 'd']) == 0
  data = load(source='openwebtext', path='d', tokenizer='bytes', seq_len=8)
  decode = data.info.tokenizer.decode
  train, held = (
    decode(data.tokens(split)).split('\n') for split in ('train', 'validation')
  )
  assert sorted(train + held) == sorted(lines(600))
  assert train == [line for line in lines(600) if line in set(train)]
  assert 30 < len(held) < 90
  assert set(held) == {
    line
    for line in lines(600)
    if streaming.split_of(Document('', 0, line.encode()), 0.1) == 'validation'
  }
  assert [entry['name'] for entry in data.info.files] == ['a.jsonl', 'b.jsonl']


def test_a_document_is_on_the_same_side_whatever_the_batch(monkeypatch):
  write_jsonl('in/a.jsonl', lines(200))
  arguments = ['openwebtext', '--input', 'in', '--tokenizer', 'bytes']
  arguments += ['--validation-fraction', '0.1', '--workers', '1']
  assert prepare.main([*arguments, '--output', 'd']) == 0
  monkeypatch.setattr(streaming, 'BATCH_BYTES', 1)
  assert prepare.main([*arguments, '--output', 'e']) == 0
  for name in ('train-00000.bin', 'validation-00000.bin'):
    assert pathlib.Path('d', name).read_bytes() == (
      pathlib.Path('e', name).read_bytes()
    )


def test_openwebtext_needs_both_splits(capsys):
  write_jsonl('in/a.jsonl', lines(3))
  assert (
    prepare.main(
      ['openwebtext', '--input', 'in', '--tokenizer', 'bytes', '--output', 'd']
    )
    == 1
  )
  assert 'validation split is empty' in capsys.readouterr().err
  assert not pathlib.Path('d').exists()


def test_byte_pairs_from_text_to_batches(capsys, tmp_path):
  pytest.importorskip('tiktoken')
  folder = tiny_bpe(tmp_path)
  write_jsonl('in/a.jsonl', lines(100))
  arguments = ['openwebtext', '--input', 'in', '--tokenizer', str(folder)]
  arguments += ['--validation-fraction', '0.2', '--output', 'd']
  assert prepare.main(arguments) == 0
  data = load(source='openwebtext', path='d', tokenizer=str(folder), seq_len=8)
  assert data.tokens('train').dtype == np.uint16
  train, held = data.tokens('train'), data.tokens('validation')
  texts = [
    text
    for tokens in (train, held)
    for text in data.info.tokenizer.decode(tokens).split('<|endoftext|>')
  ]
  assert sorted(texts) == sorted(lines(100))
  assert sum(data.info.num_characters.values()) == sum(map(len, lines(100)))
  assert data.info.unit == 'token'
  assert {'encoder.json', 'vocab.bpe'} <= set(os.listdir('d'))


@pytest.mark.parametrize(
  'arguments, text',
  [
    (['tex8'], "unknown source 'tex8'; nearest: text8"),
    (['verify'], '--input is missing'),
    (['openwebtext'], '--input is missing'),
    (['text_file'], 'text_file: --input is missing'),
    (['text_file', '--input', 'nope.txt'], 'no such file'),
    (['pydoc', '--tokenizer', 'byts'], 'nearest: bytes'),
    (['pydoc', '--validation-fraction', '1'], 'not in (0, 1)'),
    (['verify', '--input', '.'], 'manifest.json'),
    (['pydoc', '--tfds'], "no builder for 'pydoc'"),
  ],
)
def test_mistakes_are_told_in_one_line(arguments, text, capsys):
  assert prepare.main(arguments) == 1
  error = capsys.readouterr().err
  assert error.startswith('error: ') and text in error
  assert error.count('\n') == 1
  assert not pathlib.Path('data_cache').exists()


@pytest.mark.parametrize('text', ['', '<|endoftext|>\n\n', 'a'])
@pytest.mark.parametrize('split_by', ['position', 'document'])
def test_too_little_text_is_told(text, split_by, capsys):
  pathlib.Path('a.txt').write_text(text)
  arguments = ['text_file', '--input', 'a.txt', '--tokenizer', 'text8']
  arguments += ['--split-by', split_by, '--output', 'd']
  assert prepare.main(arguments) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert re.match('error: the (train|validation) split is empty: too l', error)
  assert not pathlib.Path('d').exists()


@pytest.mark.parametrize('place', ['file', 'file/below', 'shut'])
@pytest.mark.parametrize(
  'arguments',
  [
    ['gpt2'],
    ['held-out', '--input', 'in/a.jsonl'],
    ['train-words', '--input', 'pairs.tsv'],
    ['text_file', '--input', 'in/a.jsonl'],
    ['text8'],
  ],
)
def test_an_output_that_cannot_be_written_is_named(
  arguments, place, no_network, monkeypatch, capsys
):
  pathlib.Path('file').write_text('not a folder')
  pathlib.Path('pairs.tsv').write_text('one\ttwo\n')
  write_jsonl('in/a.jsonl', lines(9))
  made = pathlib.Path.mkdir

  def mkdir(path, *args, **kwargs):
    # A test may run as root, which may write anywhere.
    if path.parts[0] == 'shut':
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    made(path, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'mkdir', mkdir)
  assert prepare.main([*arguments, '--output', place]) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith(f'error: {place}: cannot write: ')
  assert pathlib.Path('file').read_text() == 'not a folder'


def test_what_else_the_system_refuses_is_told_in_one_line(monkeypatch, capsys):
  def refused(path, *args, **kwargs):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  pathlib.Path('a.txt').write_text('some text')
  monkeypatch.setattr(documents, 'sha256', refused)
  arguments = ['text_file', '--input', 'a.txt', '--tokenizer', 'bytes']
  assert prepare.main([*arguments, '--output', 'd']) == 1
  assert capsys.readouterr().err == 'error: a.txt: Permission denied\n'


def test_verify(capsys):
  assert prepare.main(['pydoc', '--output', 'd']) == 0
  assert prepare.main(['verify', '--input', 'd']) == 0
  data = bytearray(pathlib.Path('d/train-00000.bin').read_bytes())
  data[1000] ^= 1
  pathlib.Path('d/train-00000.bin').write_bytes(data)
  assert prepare.main(['verify', '--input', 'd']) == 1
  assert 'wrong checksum' in capsys.readouterr().err


def whole(folder):
  """All files of a folder, by name, and their bytes."""
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_process_goes_on_and_gives_the_same(tmp_path, capsys):
  """kill -9 in the middle of writing, with processes that encode."""
  write_jsonl('in/a.jsonl', lines(20_000))
  arguments = ['openwebtext', '--input', 'in', '--tokenizer', 'bytes']
  arguments += ['--validation-fraction', '0.1']
  command = [sys.executable, '-B', '-c', _IN_SMALL_BATCHES]
  root = pathlib.Path(prepare.__file__).parents[2]
  process = subprocess.Popen(
    [*command, *arguments, '--output', 'd', '--workers', '1'],
    env=os.environ | {'PYTHONPATH': str(root)},
    stderr=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
  )
  while not list(tmp_path.glob('d/.partial/progress.json')):
    assert process.poll() is None
    time.sleep(0.001)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert writer.begun('d')
  with pytest.raises(DataError, match="no data at 'd'.*the same goes on"):
    load(source='openwebtext', path='d', tokenizer='bytes', seq_len=8)
  begun = tmp_path.joinpath('d/.partial/train-00000.bin').stat().st_size
  streaming.BATCH_BYTES, before = 2**14, streaming.BATCH_BYTES
  try:
    assert prepare.main([*arguments, '--output', 'd', '--workers', '2']) == 0
    assert 'going on' in capsys.readouterr().out
    assert prepare.main([*arguments, '--output', 'e', '--workers', '1']) == 0
  finally:
    streaming.BATCH_BYTES = before
  assert begun and whole(tmp_path / 'd') == whole(tmp_path / 'e')


_IN_SMALL_BATCHES = """
import sys
from sedd_jax.data import prepare, streaming
streaming.BATCH_BYTES, streaming.RECORD_SECONDS = 2**14, 0.0
sys.exit(prepare.main(sys.argv[1:]))
"""


def test_words_of_pairs_are_a_vocabulary(tmp_path, capsys):
  path = tmp_path / 'pairs.tsv'
  path.write_text('one one\ta pub a\none\tpub , a\n')
  arguments = ['train-words', '--input', str(path), '--output', 'w']
  assert prepare.main([*arguments, '--more-than', '1']) == 0
  printed = capsys.readouterr().out
  assert 'w/words.txt: 6 words of 3, 4 of them special' in printed
  assert '--config.data.tokenizer=w' in printed
  special = ['[CLS]', '[SEP]', '[UNK]', '[PAD]']
  words = pathlib.Path('w', 'words.txt')
  assert words.read_text().split() == [*special, 'a', 'pub']
  assert prepare.main(arguments) == 1
  assert 'there already' in capsys.readouterr().err
  both = [*arguments, '--words-of', 'both', '--more-than', '2', '--overwrite']
  assert prepare.main(both) == 0
  assert words.read_text().split() == [*special, 'a', 'one']


def test_pairs_need_no_preparation(capsys):
  assert prepare.main(['seq2seq', '--input', 'pairs.tsv']) == 1
  assert 'without a preparation: --config.data.source' in (
    capsys.readouterr().err
  )


def test_the_last_documents_are_those_of_the_suite(capsys):
  """The hub's OpenWebText has no held-out split: MDLM took the end of it."""
  write_jsonl('in/a.jsonl', lines(30))
  write_jsonl('in/b.jsonl', lines(30, begin=30))
  argv = ['held-out', '--input', 'in', '--output', 'sets', '--documents', '40']
  assert prepare.main(argv) == 0
  path = pathlib.Path('sets/openwebtext-valid.jsonl')
  assert f'{path}: 40 documents; ' in capsys.readouterr().out
  assert evaluation_sets.located('openwebtext', pathlib.Path('sets')) == path
  found = list(evaluation_sets.examples_of('openwebtext', path))
  assert found == lines(40, begin=20)
  more = [*argv[:-1], '70', '--overwrite']
  assert prepare.main(more) == 0
  told = 'in: all of its 60 documents, fewer than --documents=70'
  assert told in capsys.readouterr().err
  assert prepare.main([*argv, '--overwrite']) == 0
  before = path.read_bytes()
  assert prepare.main(argv) == 1
  assert 'there already; replace it with --ov' in capsys.readouterr().err
  pathlib.Path('in/c.jsonl').write_text('"cut')
  assert prepare.main([*argv, '--overwrite']) == 1
  assert whole(pathlib.Path('sets')) == {path.name: before}
