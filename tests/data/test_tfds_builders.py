import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

from sedd_jax.data import DataError, load, prepare
from sedd_jax.data.sources import tfds_folders

TEXT = 'the quick brown fox jumps over the lazy dog ' * 9000


@pytest.fixture(scope='module')
def builders():
  with warnings.catch_warnings():
    # What importing TFDS says is not ours.
    warnings.simplefilter('ignore')
    from sedd_jax.data.sources import tfds_builders
  return tfds_builders


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('manual').mkdir()


def same(first, second):
  assert first.info.num_tokens == second.info.num_tokens
  for split in first.info.num_tokens:
    np.testing.assert_array_equal(first.tokens(split), second.tokens(split))


def test_text8_through_tfds(builders, capsys):
  pathlib.Path('manual/text8').write_text(TEXT)
  arguments = ['text8', '--tfds', '--input', 'manual', '--output', 'built']
  assert prepare.main(arguments) == 0
  path = 'built/text8/1.0.0'
  assert f'--config.data.path={path}' in capsys.readouterr().out
  assert tfds_folders.is_tfds(path)
  data = load(source='text8', path=path, seq_len=8)
  same(data, load(source='text8', path='manual', seq_len=8))
  assert all('array_record' in entry['name'] for entry in data.info.files)
  # And from there to token files.
  assert prepare.main(['text8', '--input', path, '--output', 'bin']) == 0
  same(data, load(source='text8', path='bin', seq_len=8))


def test_the_pieces_are_in_order_and_without_tensorflow(builders):
  text = np.random.default_rng(0).integers(256, size=700_000, dtype=np.uint8)
  pathlib.Path('manual/enwik8').write_bytes(text.tobytes())
  folder = builders.build('enwik8', 'built', 'manual')
  source = builders.tfds.builder_from_directory(str(folder)).as_data_source(
    split='train'
  )
  pieces = [source[i]['text'] for i in range(len(source))]
  assert len(pieces) == -(-630_000 // builders.PIECE_BYTES) > 2
  assert b''.join(pieces) == text[:630_000].tobytes()
  assert tfds_folders.read(folder) == text.tobytes()
  assert 'tensorflow' not in sys.modules


def test_local_text(builders):
  pathlib.Path('manual/a.txt').write_text('Some text, ' * 400)
  pathlib.Path('manual/b.jsonl').write_text('"more"\n')
  arguments = ['text_file', '--tfds', '--input', 'manual', '--output', 'built']
  assert prepare.main([*arguments, '--validation-fraction', '0.2']) == 0
  folder = 'built/local_text/1.0.0'
  keywords = {'source': 'text_file', 'validation_fraction': 0.2, 'seq_len': 8}
  for tokenizer in ('text8', 'bytes'):
    same(
      load(path=folder, tokenizer=tokenizer, **keywords),
      load(path='manual', tokenizer=tokenizer, **keywords),
    )


def test_mistakes_are_told(builders, monkeypatch, capsys):
  pathlib.Path('manual/a.txt').write_bytes(b'abc\xff')
  arguments = ['text_file', '--tfds', '--output', 'built', '--input']
  assert prepare.main([*arguments, 'manual']) == 1
  assert 'invalid UTF-8' in capsys.readouterr().err
  assert prepare.main([*arguments, 'nope']) == 1
  assert 'not a folder' in capsys.readouterr().err

  def refuse(*args, **kwargs):
    raise DataError('no network')

  monkeypatch.setattr(builders.downloads, 'fetch', refuse)
  assert prepare.main(['text8', '--tfds', '--output', 'built']) == 1
  assert 'no network' in capsys.readouterr().err
  pathlib.Path('broken').mkdir()
  pathlib.Path('broken/dataset_info.json').write_text('{}')
  with pytest.raises(DataError, match='cannot be read by TFDS'):
    load(source='text8', path='broken', seq_len=8)


def test_the_reader_imports_neither_tfds_nor_jax():
  code = (
    'import sys; from sedd_jax.data import pipeline, prepare\n'
    "print({'tensorflow_datasets', 'tqdm', 'flax'} & set(sys.modules))"
  )
  ended = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(prepare.__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  assert ended.stdout == 'set()\n'
