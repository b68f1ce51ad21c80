"""Prepared folders survive a kill at any moment; kills are simulated here."""

import hashlib
import json
import os
import pathlib
import random
import shutil

import numpy as np
import pytest

from sedd_jax.core import atomic
from sedd_jax.data import DataError, streaming, tokenizers
from sedd_jax.data.files import durable
from sedd_jax.data.files.documents import Document
from sedd_jax.data.prepared import packing, writer

TEXTS = [f'{"some more words " * (i % 4)}document {i}' for i in range(24)]


class Killed(BaseException):
  """What a kill is here: nothing after it has an effect."""


class Faults:
  """Stops a writer before its n-th change on disk, in the middle of a write."""

  def __init__(self, monkeypatch, stop=None):
    self.count, self.stop = 0, stop
    for module, name in (
      (os, 'replace'),
      (os, 'fsync'),
      (os, 'truncate'),
      (writer.shutil, 'copyfile'),
      (writer.shutil, 'rmtree'),
      (pathlib.Path, 'unlink'),
      (pathlib.Path, 'rmdir'),
      (pathlib.Path, 'mkdir'),
    ):
      monkeypatch.setattr(module, name, self.counted(getattr(module, name)))
    for module in (atomic, durable):
      monkeypatch.setattr(module, 'open', self.opened, raising=False)

  def meets(self):
    self.count += 1
    return self.stop is not None and self.count > self.stop

  def counted(self, function):
    def wrapped(*args, **kwargs):
      if self.meets():
        raise Killed
      return function(*args, **kwargs)

    return wrapped

  def opened(self, path, mode='r', **kwargs):
    stream = open(path, mode, **kwargs)
    return stream if 'r' in mode else _Faulty(stream, self)


class _Faulty:
  def __init__(self, stream, faults):
    self._stream, self._faults = stream, faults

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._stream.close()

  def write(self, data):
    if self._faults.meets():
      self._stream.write(data[: len(data) // 2])
      raise Killed
    return self._stream.write(data)


def prepare(
  folder, file, division='document', shard_bytes=100, label='', **options
):
  """What the command does, in batches of some documents, each recorded."""
  tokenizer = tokenizers.make('bytes')
  split_of = _by_length if division == 'document' else streaming.train_only
  recipe = streaming.Recipe(tokenizer='bytes', split_of=split_of, label=label)
  with writer.Writer(
    folder,
    source='text_file',
    division=division,
    tokenizer=tokenizer,
    shard_bytes=shard_bytes,
    label=label,
    work={'files': writer.described(folder, [file])},
    **options,
  ) as written:
    if not written.done:
      if not written.held_out:
        streaming.write(written, [file], recipe, tokenizer)
      if division == 'position' and not written.held_out:
        written.hold_out(0.3)


def _by_length(document):
  return 'validation' if len(document.data) % 3 == 0 else 'train'


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setattr(streaming, 'BATCH_BYTES', 60)
  monkeypatch.setattr(streaming, 'RECORD_SECONDS', 0)
  # To wait for the disk takes long, and shows nothing here.
  monkeypatch.setattr(os, 'fsync', lambda handle: None)


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'in.jsonl'
  rows = [{'text': text, 'kind': i % 3} for i, text in enumerate(TEXTS)]
  path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
  return path


def whole(folder):
  """All files of a folder, and their bytes."""
  paths = pathlib.Path(folder).rglob('*')
  return {path.name: path.read_bytes() for path in paths if path.is_file()}


def killed_at(stop, *args, **options):
  """Whether the preparation was killed before it ended."""
  with pytest.MonkeyPatch.context() as patch:
    Faults(patch, stop)
    try:
      prepare(*args, **options)
    except Killed:
      return True
  return False


@pytest.mark.parametrize('division', ['document', 'position'])
@pytest.mark.parametrize('overwrite', [False, True])
def test_killed_anywhere_it_goes_on_and_gives_the_same_bytes(
  tmp_path, file, division, overwrite
):
  label = '' if overwrite else 'kind'
  options = {'division': division, 'overwrite': overwrite, 'label': label}
  with pytest.MonkeyPatch.context() as patch:
    faults = Faults(patch)
    prepare(tmp_path / 'whole', file, **options)
  wanted = whole(tmp_path / 'whole')
  assert not any(name.startswith('.') for name in wanted)
  assert faults.count > 150
  chance = random.Random(0)
  # First kills over the whole of it, each followed by kills at random.
  for trial in range(chance.randrange(11), faults.count, 11):
    folder = tmp_path / f'{trial}'
    if overwrite:
      prepare(folder, file, shard_bytes=30, label='kind')
    stop = trial
    while killed_at(stop, folder, file, **options):
      assert_whole_or_nothing(folder, wanted, overwrite)
      if packing.is_prepared(folder) and not overwrite:
        # Only the folder aside was left to be removed.
        shutil.rmtree(folder / writer.PARTIAL, ignore_errors=True)
        break
      # Far enough that some progress is made at times.
      stop = chance.randrange(faults.count)
    assert whole(folder) == wanted


def assert_whole_or_nothing(folder, wanted, overwrite):
  if packing.is_prepared(folder):
    packing.verify(folder)
    manifest = (folder / packing.MANIFEST).read_bytes()
    assert overwrite or manifest == wanted[packing.MANIFEST]


def test_what_was_recorded_is_not_done_again(tmp_path, file, monkeypatch):
  with pytest.MonkeyPatch.context() as patch:
    faults = Faults(patch)
    prepare(tmp_path / 'whole', file)
  assert killed_at(faults.count * 2 // 3, tmp_path / 'd', file)
  state = json.loads((tmp_path / 'd/.partial/progress.json').read_text())
  encoded = []
  encode = streaming.encoded

  def counted(recipe, tokenizer, batch):
    encoded.extend(document.data.decode() for document in batch)
    return encode(recipe, tokenizer, batch)

  monkeypatch.setattr(streaming, 'encoded', counted)
  prepare(tmp_path / 'd', file)
  assert 0 < state['place']['documents'] < len(TEXTS)
  assert encoded == TEXTS[state['place']['documents'] :]


def interrupted(folder, file, **options):
  """A folder with work that was recorded, but not ended."""
  with pytest.MonkeyPatch.context() as patch:
    faults = Faults(patch)
    prepare(folder.with_name('other'), file, **options)
  assert killed_at(faults.count // 2, folder, file, **options)
  assert writer.begun(folder)


@pytest.mark.parametrize(
  'changed', ['shard', 'division', 'input', 'batch', 'label']
)
def test_other_work_is_refused_and_named(tmp_path, file, changed):
  interrupted(tmp_path / 'd', file)
  before = whole(tmp_path / 'd')
  options = {}
  if changed == 'shard':
    options, named = {'shard_bytes': 64}, 'another tokens a shard'
  elif changed == 'division':
    options, named = {'division': 'position'}, 'another division'
  elif changed == 'label':
    options, named = {'label': 'kind'}, 'another label'
  elif changed == 'input':
    file.write_text('"another text"\n' + file.read_text())
    named = 'another files'
  else:
    named = 'another files'
    file = file.rename(tmp_path / 'b.jsonl')
  with pytest.raises(DataError, match=f'{named} made.*--restart'):
    prepare(tmp_path / 'd', file, **options)
  after = whole(tmp_path / 'd')
  assert after == before
  prepare(tmp_path / 'd', file, **options, restart=True)
  prepare(tmp_path / 'e', file, **options)
  assert whole(tmp_path / 'd') == whole(tmp_path / 'e')


def test_input_that_is_the_same_may_be_newer(tmp_path, file):
  interrupted(tmp_path / 'd', file)
  os.utime(file, ns=(1, 1))
  prepare(tmp_path / 'd', file)
  assert packing.verify(tmp_path / 'd')


@pytest.mark.parametrize('fault', ['shorter', 'other', 'gone', 'journal'])
def test_what_was_damaged_meanwhile_is_told(tmp_path, file, fault):
  interrupted(tmp_path / 'd', file)
  aside = tmp_path / 'd/.partial'
  path = max(aside.glob('train-0*.bin'))
  if fault == 'shorter':
    os.truncate(path, 1)
  elif fault == 'other':
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
  elif fault == 'gone':
    path.unlink()
  else:
    (aside / 'progress.json').write_text('{')
  with pytest.raises(DataError, match='anew with --restart'):
    prepare(tmp_path / 'd', file)
  prepare(tmp_path / 'd', file, restart=True)


def test_two_processes_do_not_write_one_folder(tmp_path, file):
  pytest.importorskip('fcntl')
  tokenizer = tokenizers.make('bytes')
  options = {'source': 'pydoc', 'division': 'position', 'tokenizer': tokenizer}
  with writer.Writer(tmp_path / 'd', **options) as first:
    with pytest.raises(DataError, match='another process'):
      prepare(tmp_path / 'd', file)
    first.append('train', np.ones(5, np.uint8), 5)
  assert packing.verify(tmp_path / 'd').splits['train']['num_tokens'] == 5


def test_an_error_keeps_what_was_recorded(tmp_path, file):
  text = file.read_text()
  file.write_text(text + '{\n')
  with pytest.raises(DataError, match='not a document'):
    prepare(tmp_path / 'd', file)
  assert writer.begun(tmp_path / 'd')
  # Nothing recorded: nothing left.
  file.write_text('{\n' + text)
  with pytest.raises(DataError, match='not a document'):
    prepare(tmp_path / 'e', file)
  assert not (tmp_path / 'e').exists()


@pytest.mark.parametrize('division', ['document', 'position'])
@pytest.mark.parametrize('shard_bytes', [1, 7, 100, 10_000])
def test_shards_and_begins(tmp_path, file, division, shard_bytes):
  prepare(tmp_path / 'd', file, division, shard_bytes)
  manifest = packing.verify(tmp_path / 'd')
  tokens = packing.read_tokens(tmp_path / 'd', manifest)
  for split, entry in manifest.splits.items():
    sizes = [shard['num_tokens'] for shard in entry['shards']]
    assert all(size == shard_bytes for size in sizes[:-1])
    assert 0 < sizes[-1] <= shard_bytes
    assert entry['num_characters'] == len(tokens[split]) == sum(sizes)
  text = {s: np.asarray(t).tobytes().decode() for s, t in tokens.items()}
  begins = {
    split: packing.read_begins(tmp_path / 'd', manifest, split).tolist()
    for split in tokens
  }
  if division == 'document':
    for split in ('train', 'validation'):
      ours = [
        text
        for text in TEXTS
        if _by_length(Document('', 0, text.encode())) == split
      ]
      assert text[split] == '\n'.join(ours)
      found = [text[split][b:].split('\n')[0] for b in begins[split]]
      assert found == ours
    return
  joined = '\n'.join(TEXTS)
  size = round(0.3 * len(joined))
  assert (text['train'], text['validation']) == (joined[:-size], joined[-size:])
  held_out = [len(text['train']) + begin for begin in begins['validation']]
  both = begins['train'] + held_out
  assert [joined[b:].split('\n')[0] for b in both] == TEXTS


def test_a_folder_of_one_file_a_split_is_read(tmp_path):
  """Format 1."""
  (tmp_path / 'train.bin').write_bytes(b'\1\2\3')
  digest = hashlib.sha256(b'\1\2\3').hexdigest()
  manifest = {
    'format': 1,
    'source': 'text_file',
    'division': 'position',
    'dtype': 'uint8',
    'vocab_size': 27,
    'tokenizer': {'name': 'text8', 'sha256': ''},
    'unit': 'character',
    'splits': {
      'train': {'num_tokens': 3, 'num_characters': 3, 'sha256': digest}
    },
    'sources': [],
  }
  (tmp_path / packing.MANIFEST).write_text(json.dumps(manifest))
  read = packing.verify(tmp_path)
  assert packing.read_tokens(tmp_path, read)['train'].tolist() == [1, 2, 3]
  with pytest.raises(DataError, match='documents are not known'):
    packing.read_begins(tmp_path, read, 'train')
  # Writing anew takes the old file away.
  with writer.Writer(
    tmp_path,
    source='pydoc',
    division='position',
    tokenizer=tokenizers.make('text8'),
    overwrite=True,
  ) as written:
    written.append('train', np.ones(2, int), 2)
  assert {p.name for p in tmp_path.iterdir()} == {
    'train-00000.bin',
    'manifest.json',
  }


@pytest.mark.parametrize('what', ['order', 'checksum', 'length', 'shard'])
def test_a_faulty_index_or_shard_is_found(tmp_path, file, what):
  prepare(tmp_path / 'd', file)
  path = tmp_path / 'd/train-documents.bin'
  begins = np.fromfile(path, '<u8')
  manifest = json.loads((tmp_path / 'd/manifest.json').read_text())
  if what == 'order':
    begins[[0, 1]] = begins[[1, 0]]
    begins.tofile(path)
    entry = manifest['splits']['train']['documents']
    entry['sha256'] = writer.documents.sha256(path)
    match = 'not where documents begin'
  elif what == 'checksum':
    begins[1] += 1
    begins.tofile(path)
    match = 'train-documents.bin: wrong checksum'
  elif what == 'length':
    os.truncate(path, 8)
    match = 'train-documents.bin: truncated'
  else:
    manifest['splits']['train']['shards'].pop()
    match = 'not a manifest'
  (tmp_path / 'd/manifest.json').write_text(json.dumps(manifest))
  with pytest.raises(DataError, match=match):
    packing.verify(tmp_path / 'd')


def test_a_shard_holds_a_token(tmp_path, file):
  with pytest.raises(DataError, match='shard of 0 bytes'):
    prepare(tmp_path / 'd', file, shard_bytes=0)


def test_a_full_disk_keeps_what_was_recorded(tmp_path, file, monkeypatch):
  interrupted(tmp_path / 'd', file)

  def refused(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', refused)
    with pytest.raises(DataError, match='the same command goes on'):
      prepare(tmp_path / 'd', file)
  prepare(tmp_path / 'e', file)
  prepare(tmp_path / 'd', file)
  assert whole(tmp_path / 'd') == whole(tmp_path / 'e')


def test_files_that_look_the_same_from_outside(tmp_path):
  """Of several folders: of one name, size and time."""
  files = [tmp_path / name / 'a.txt' for name in 'bc']
  for file, text in zip(files, ('one', 'two')):
    file.parent.mkdir()
    file.write_text(text)
    os.utime(file, (7, 7))
  found = writer.described(tmp_path, files)
  assert found[0]['sha256'] != found[1]['sha256']
  aside = tmp_path / writer.PARTIAL
  aside.mkdir()
  (aside / 'work.json').write_text(json.dumps({'files': found}))
  assert writer.described(tmp_path, files) == found
