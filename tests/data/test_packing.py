import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sedd_jax.data import DataError, pipeline, tokenizers
from sedd_jax.data.files import durable
from sedd_jax.data.prepared import packing, writer
from tests.data.toys import tiny_bpe


def write(folder, tokenizer='text8', overwrite=False, **splits):
  with writer.Writer(
    folder,
    source='text_file',
    division='position',
    tokenizer=tokenizers.make(tokenizer),
    overwrite=overwrite,
  ) as written:
    for split, tokens in splits.items():
      tokens = np.asarray(tokens)
      # In two pieces, as a stream of documents comes.
      written.append(split, tokens[:3], len(tokens[:3]))
      written.append(split, tokens[3:], len(tokens[3:]))
    written.sources.append({'name': 'a.txt', 'sha256': '0'})
  return folder


def change(folder, **fields):
  path = folder / packing.MANIFEST
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_round_trip(tmp_path):
  train = np.random.default_rng(0).integers(27, size=1000)
  folder = write(tmp_path / 'a' / 'b', train=train, validation=[1, 2])
  manifest = packing.verify(folder)
  tokens = packing.read_tokens(folder, manifest)
  assert isinstance(tokens['train'], np.memmap)
  assert tokens['train'].dtype == np.uint8
  np.testing.assert_array_equal(tokens['train'], train)
  np.testing.assert_array_equal(tokens['validation'], [1, 2])
  assert manifest.splits['train']['num_tokens'] == 1000
  assert manifest.splits['train']['num_characters'] == 1000
  assert {p.name for p in folder.iterdir()} == {
    'train-00000.bin',
    'validation-00000.bin',
    'manifest.json',
  }


def test_wide_tokens_are_little_endian(tmp_path, monkeypatch):
  monkeypatch.setattr(tokenizers.Text8, 'vocab_size', 70_000)
  folder = write(tmp_path, train=[1, 65_537])
  assert (folder / 'train-00000.bin').read_bytes() == b'\1\0\0\0\1\0\1\0'
  tokens = packing.read_tokens(folder, packing.verify(folder))
  np.testing.assert_array_equal(tokens['train'], [1, 65_537])


@pytest.mark.parametrize('token', [27, -1])
def test_a_token_outside_the_vocabulary_is_refused(tmp_path, token):
  with pytest.raises(DataError, match='not from 0 to 26'):
    write(tmp_path / 'a', train=[1, 2, token])
  assert not (tmp_path / 'a').exists()


def test_prepared_data_is_not_replaced_unasked(tmp_path):
  write(tmp_path, train=[1, 2], test=[5])
  with pytest.raises(DataError, match='--overwrite'):
    write(tmp_path, train=[3])
  write(tmp_path, train=[3], overwrite=True)
  assert not (tmp_path / 'test-00000.bin').exists()
  tokens = packing.read_tokens(tmp_path, packing.verify(tmp_path))
  assert {k: v.tolist() for k, v in tokens.items()} == {'train': [3]}


def test_other_files_of_the_folder_stay(tmp_path):
  (tmp_path / 'text8.zip').write_text('x')
  write(tmp_path, train=[1])
  assert (tmp_path / 'text8.zip').exists()


@pytest.mark.parametrize(
  'size, fault', [(9, 'truncated: 9 bytes'), (11, 'too long: 11 bytes')]
)
def test_a_file_of_a_wrong_size_is_named(tmp_path, size, fault):
  write(tmp_path, train=np.ones(10, int))
  os.truncate(tmp_path / 'train-00000.bin', size)
  with pytest.raises(DataError, match=fault):
    packing.read_tokens(tmp_path, packing.read_manifest(tmp_path))


def test_a_missing_token_file_is_named(tmp_path):
  write(tmp_path, train=np.ones(10, int))
  (tmp_path / 'train-00000.bin').unlink()
  with pytest.raises(DataError, match=r'train-00000\.bin'):
    packing.read_tokens(tmp_path, packing.read_manifest(tmp_path))


def test_a_flipped_bit_is_found(tmp_path):
  write(tmp_path, train=np.ones(10, int))
  data = bytearray((tmp_path / 'train-00000.bin').read_bytes())
  data[4] ^= 2
  (tmp_path / 'train-00000.bin').write_bytes(data)
  with pytest.raises(DataError, match='wrong checksum'):
    packing.verify(tmp_path)


def test_a_vocabulary_that_does_not_hold_the_tokens_is_found(tmp_path):
  write(tmp_path, train=[20])
  change(tmp_path, vocab_size=20)
  with pytest.raises(DataError, match='not below 20'):
    packing.verify(tmp_path)


def test_a_tokenizer_that_is_not_the_manifest_s_is_found(tmp_path):
  words = tmp_path / 'words'
  words.mkdir()
  (words / 'words.txt').write_text(tokenizers.words_file({'a': 3, 'b': 1}, 0))
  folder = write(tmp_path / 'd', tokenizer=str(words), train=[4, 5])
  packing.verify(folder)
  copied = folder / 'words.txt'
  text = copied.read_text()
  copied.write_text(text.replace('b', 'c'))
  with pytest.raises(DataError, match="not that of the manifest, 'words': sha"):
    packing.verify(folder)
  copied.write_text(text)
  change(folder, vocab_size=7)
  with pytest.raises(DataError, match='tokens 6, where the manifest says 7'):
    packing.verify(folder)
  with pytest.raises(DataError, match='says 7 tokens, where .words. has 6'):
    pipeline.load(
      source='text_file', path=str(folder), tokenizer=str(words), seq_len=2
    )


@pytest.mark.parametrize(
  'fields, text',
  [
    ({'format': 99}, 'format 99'),
    ({'dtype': 'float32'}, 'not a manifest of prepared data: dtype'),
    ({'vocab_size': '256'}, 'not a manifest of prepared data: vocab_size'),
    ({'tokenizer': {'name': 3, 'sha256': ''}}, 'not a .* data: tokenizer'),
    ({'tokenizer': {'name': 'text8'}}, "cannot be read .KeyError.'sha256'"),
    ({'tokenizer': 'text8'}, 'cannot be read'),
    ({'unit': 'letter'}, 'not a manifest of prepared data: unit'),
    ({'source': 3}, 'not a manifest of prepared data: source'),
    ({'sources': [{'name': 'a', 'sha256': 3}]}, 'not a .* data: sources'),
    ({'sources': 3}, 'cannot be read'),
    ({'division': 'x'}, 'not a manifest'),
    ({'splits': {'../x': {'num_tokens': 1, 'num_characters': 1}}}, 'not a man'),
    ({'splits': {'train': {}}}, 'cannot be read'),
    ({'splits': {'train': {'shards': []}}}, 'cannot be read'),
    (
      {
        'splits': {
          'train': {'num_tokens': 1, 'num_characters': 1, 'shards': []}
        }
      },
      'not a manifest',
    ),
    ({'splits': 3}, 'cannot be read'),
    ({'surplus': 3}, 'cannot be read'),
  ],
)
def test_faulty_manifests_are_named(tmp_path, fields, text):
  write(tmp_path, train=[1])
  change(tmp_path, **fields)
  with pytest.raises(DataError, match=text):
    packing.read_manifest(tmp_path)


@pytest.mark.parametrize('what', ['documents', 'labels'])
@pytest.mark.parametrize(
  'index, text',
  [
    ({'num_documents': 1}, "KeyError.'sha256'"),
    ({'num_documents': 1, 'sha256': 3}, 'not a man.* data: splits, train'),
    ({'num_documents': '1', 'sha256': ''}, 'not a man.* data: splits, train'),
    (3, 'cannot be read'),
  ],
)
def test_faulty_indexes_are_named(tmp_path, what, index, text):
  write(tmp_path, train=[1])
  fields = json.loads((tmp_path / packing.MANIFEST).read_text())
  fields['splits']['train'][what] = index
  change(tmp_path, **fields)
  with pytest.raises(DataError, match=text):
    packing.verify(tmp_path)


def test_characters_and_unit_that_are_not_the_tokens_are_found(tmp_path):
  folder = tiny_bpe(tmp_path)
  tokenizer = tokenizers.make(str(folder))
  # Pieces of one to four characters, a character of two bytes, and the end.
  tokens = np.array([*'ä'.encode(), 256, 257, 258, 259, 33] * 9)
  path = tmp_path / 'd'
  with writer.Writer(
    path,
    source='text_file',
    division='position',
    tokenizer=tokenizer,
    shard_bytes=30,
  ) as written:
    written.append('train', tokens, tokenizer.num_characters(tokens))
  manifest = packing.verify(path)
  assert manifest.splits['train']['num_characters'] == 9 * (1 + 2 + 3 + 4 + 1)
  splits = json.loads(json.dumps(manifest.splits))
  for entry in (splits['train'], splits['train']['shards'][1]):
    entry['num_characters'] -= 1
  change(path, splits=splits)
  packing.read_manifest(path)
  with pytest.raises(
    DataError, match='train-00001.bin: .* characters .* where'
  ):
    packing.verify(path)
  change(path, splits=manifest.splits, unit='byte')
  with pytest.raises(
    DataError, match='unit token, where the manifest says byt'
  ):
    packing.verify(path)


def test_a_manifest_cut_short_is_named(tmp_path):
  write(tmp_path, train=[1])
  os.truncate(tmp_path / packing.MANIFEST, 50)
  with pytest.raises(DataError, match=r'manifest\.json'):
    packing.read_manifest(tmp_path)


class FullDisk:
  """A file on a disk that has no room left."""

  def __init__(self, stream):
    self._stream = stream

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._stream.close()

  def write(self, data):
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(
    durable, 'open', lambda *a, **k: FullDisk(open(*a, **k)), raising=False
  )
  with pytest.raises(DataError, match='No space left on device'):
    write(tmp_path / 'a' / 'b', train=[1])
  assert list(tmp_path.iterdir()) == []


# Limited within the child: a function run between fork and exec is refused
# once JAX has started its threads.
_LIMITED = """
import resource, signal, sys, numpy as np
from sedd_jax.data import DataError, tokenizers
from sedd_jax.data.prepared import writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))
try:
  with writer.Writer(sys.argv[1], source='text_file', division='position',
                      tokenizer=tokenizers.make('text8')) as written:
    for _ in range(10):
      written.append('train', np.ones(100_000, np.uint8), 100_000)
except DataError as error:
  print(error)
"""


def test_a_real_limit_on_files_leaves_nothing(tmp_path):
  """The kernel refuses to let the file grow, as on a full disk."""
  ended = subprocess.run(
    [sys.executable, '-B', '-c', _LIMITED, tmp_path / 'a'],
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'File too large; nothing of it was kept' in ended.stdout
  assert not (tmp_path / 'a').exists()


def test_an_error_of_the_caller_leaves_nothing(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    with writer.Writer(
      tmp_path / 'a',
      source='text_file',
      division='position',
      tokenizer=tokenizers.make('text8'),
    ) as written:
      written.append('train', np.ones(5, int), 5)
      raise KeyboardInterrupt
  assert list(tmp_path.iterdir()) == []


def test_killed_at_any_move_the_folder_is_whole_or_empty(tmp_path, monkeypatch):
  """Replacing old data by new, stopped before each change of a name."""
  moves = []

  class Killed(BaseException):
    pass

  def counted(function):
    def wrapped(*args, **kwargs):
      if len(moves) == stop:
        raise Killed
      moves.append(function)
      return function(*args, **kwargs)

    return wrapped

  seen = set()
  for stop in range(20):
    folder = tmp_path / str(stop)
    write(folder, train=[1, 1], validation=[1])
    moves.clear()
    with monkeypatch.context() as patch:
      patch.setattr(os, 'replace', counted(os.replace))
      unlink = writer.pathlib.Path.unlink
      patch.setattr(writer.pathlib.Path, 'unlink', counted(unlink))
      # A killed process tidies nothing.
      patch.setattr(writer.shutil, 'rmtree', lambda *a, **k: None)
      try:
        write(folder, train=[2, 2], validation=[2], overwrite=True)
      except Killed:
        pass
    if packing.is_prepared(folder):
      tokens = packing.read_tokens(folder, packing.verify(folder))
      values = {int(t) for array in tokens.values() for t in array}
      assert len(values) == 1
      seen |= values
    else:
      seen.add('nothing')
  assert seen == {1, 2, 'nothing'}
