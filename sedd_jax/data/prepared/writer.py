"""Writes prepared folders, so that a kill at any moment loses little.

All is written aside, in `.partial` inside the folder: `work.json` says what is
being made, the token files grow, and `progress.json`, replaced whole once they
are flushed to disk, says how much of them counts.  Whoever comes next cuts the
files back to that and goes on; what comes out is the same bytes.  When all is
there its manifest is written aside too, and from then on what is left is to
move the files into place, the manifest last; also that can be begun again.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from sedd_jax.data import tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, durable, labels
from sedd_jax.data.prepared import packing, shards
from sedd_jax.data.tokenizers import Tokenizer

PARTIAL = '.partial'
SHARD_BYTES = 2**28
_WORK, _PROGRESS, _LOCK = 'work.json', 'progress.json', 'lock'
_HELD_OUT = 'held out'
_BLOCK = 2**24
# What is kept of each document: its file, and the type in it.
_INDEXES: dict[str, tuple[Callable[[str], str], np.dtype]] = {
  'documents': (packing.documents_name, packing.BEGIN),
  'labels': (packing.labels_name, labels.STORED),
}
# Of any format.
_TOKEN_FILE = re.compile(
  r'(train|validation|test)(-\d{5,}|-documents|-labels)?\.bin'
)


class Writer:
  """Writes a prepared folder; used as a context.

  Leaving the context without an error makes the folder whole.  Leaving it with
  one, or being killed, keeps what was recorded, for a writer of the same work
  to go on from; where nothing was recorded it leaves nothing.

  Attributes:
    sources: `{'name', 'sha256'}` of each file of the text, for the manifest.
    place: what `record` was last given, also by the process before; None at
      the beginning.
    done: the process before had all but moved the files: nothing is to be
      added.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    source: str,
    division: str,
    tokenizer: Tokenizer,
    overwrite: bool = False,
    restart: bool = False,
    work: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
    label: str = '',
  ):
    """Nothing is written yet.

    Args:
      folder: to be made or filled; what else it holds stays.
      source: name of the corpus.
      division: of `packing.DIVISIONS`.
      tokenizer: what the tokens were made by.
      overwrite: replace data that was prepared there before.
      restart: throw away what was begun there before.
      work: JSON values that, beside the arguments, decide what is written: only
        the same work is gone on with.
      shard_bytes: a token file's size at most.
      label: where documents' labels are read, for the manifest; '' for none.

    Raises:
      DataError: if the folder holds prepared data and is not to be replaced,
        and for shards without a token.
    """
    self._folder = pathlib.Path(folder)
    self._aside = self._folder / PARTIAL
    if (self._folder / packing.MANIFEST).exists() and not overwrite:
      raise DataError(
        f'{self._folder}: already holds prepared data; check it with: python '
        f'-m sedd_jax.data.prepare verify --input {self._folder}, or replace '
        'it with --overwrite'
      )
    self._tokenizer = tokenizer
    self._dtype = tokenizers.storage_dtype(tokenizer.vocab_size)
    self._shard_tokens = shard_bytes // self._dtype.itemsize
    if self._shard_tokens < 1:
      raise DataError(f'a shard of {shard_bytes} bytes holds no token')
    self._source = source
    self._division = division
    self._restart = restart
    self._work = {
      'source': source,
      'division': division,
      'tokenizer': packing.identity(tokenizer),
      'format': packing.FORMAT,
      'tokens a shard': self._shard_tokens,
      'label': label or None,
      **(work or {}),
    }
    self._splits: dict[str, dict[str, Any]] = {}
    self._files: dict[str, durable.Growing] = {}
    self._label = label
    self._names = labels.Names()
    self._made: list[pathlib.Path] = []
    self._lock: int | None = None
    self.sources: list[dict[str, str]] = []
    self.place: Any = None
    self.done = False

  def __enter__(self) -> Self:
    try:
      with self._explained():
        folder = self._aside
        while not folder.exists():
          self._made.append(folder)
          folder = folder.parent
        self._aside.mkdir(parents=True, exist_ok=True)
        self._lock = durable.locked(self._aside / _LOCK)
        self._resume()
    except BaseException:
      self._leave()
      raise
    return self

  def append(
    self,
    split: str,
    tokens: np.ndarray,
    num_characters: int,
    begins: np.ndarray | None = None,
    named: Sequence[str] | None = None,
  ) -> None:
    """Adds tokens at the end of a split.

    Args:
      split: of `packing.SPLITS`.
      tokens: `[n]` integers below the vocabulary's size.
      num_characters: that the tokens spell (bytes, where the unit is 'byte').
      begins: places in `tokens` that documents begin at; None: not known, for
        all of the split.
      named: the labels of these documents, where there are any.

    Raises:
      DataError: for a token outside the vocabulary, too many labels, and where
        writing fails.
    """
    vocab_size = self._tokenizer.vocab_size
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
      raise DataError(
        f'{split}: a token is not from 0 to {vocab_size - 1} (vocabulary of '
        f'{self._tokenizer.name!r})'
      )
    data = np.ascontiguousarray(tokens, self._dtype)
    entry = self._splits.setdefault(split, {'shards': []})
    numbers = None if named is None else self._names.numbers(named)
    with self._explained():
      if numbers is not None:
        counted = entry.setdefault('labels', {'num_documents': 0})
        self._opened(packing.labels_name(split), counted).write(numbers)
        counted['num_documents'] += len(numbers)
      if begins is not None:
        known = entry.setdefault('documents', {'num_documents': 0})
        index = np.asarray(begins, packing.BEGIN) + self.num_tokens(split)
        self._opened(packing.documents_name(split), known).write(
          index.astype(packing.BEGIN, copy=False)
        )
        known['num_documents'] += len(index)
      written = 0
      while written < len(data):
        number, shard = self._unfilled(entry)
        room = self._shard_tokens - shard['num_tokens']
        piece = data[written : written + room]
        name = packing.shard_name(split, number)
        self._opened(name, shard).write(piece)
        shard['num_tokens'] += len(piece)
        shard['num_characters'] += (
          int(num_characters)
          if len(piece) == len(data)
          else self._tokenizer.num_characters(piece)
        )
        written += len(piece)
        if shard['num_tokens'] == self._shard_tokens:
          self._close(name, shard)

  def num_tokens(self, split: str) -> int:
    """Tokens added to a split so far."""
    parts = self._splits.get(split, {'shards': []})['shards']
    return sum(shard['num_tokens'] for shard in parts)

  def last(self, split: str) -> int | None:
    """The last token of a split, or None."""
    parts = self._splits.get(split, {'shards': []})['shards']
    return int(self._mapped(split, len(parts) - 1)[-1]) if parts else None

  @property
  def held_out(self) -> bool:
    """Whether `hold_out` is done."""
    return self.place == _HELD_OUT

  def record(self, place: Any) -> None:
    """Makes what was added so far count, whatever happens from here on.

    Args:
      place: what to go on from, JSON values.
    """
    with self._explained():
      for name, file in self._files.items():
        file.flush()
        self._entry(name)['sha256'] = file.sha256
      durable.flush_folder(self._aside)
      self.place = place
      state = {'place': place, 'splits': self._splits}
      state |= {'labels': list(self._names)} if self._label else {}
      durable.write_json(self._aside / _PROGRESS, state)

  def hold_out(self, fraction: float) -> None:
    """Moves the end of the train split to a validation split, and records it.

    Args:
      fraction: share of the tokens that goes.
    """
    total = self.num_tokens('train')
    kept = total - round(total * fraction)
    entry = self._splits['train']
    with self._explained():
      stored = self._stored('train')
      begins = self._index('train', 'documents')
      numbers = self._index('train', 'labels')
      names = list(self._names)
      for first in range(kept, total, _BLOCK):
        block = stored[first : min(first + _BLOCK, total)]
        inside = named = None
        if begins is not None:
          ends = np.array([first, first + len(block)], packing.BEGIN)
          low, high = np.searchsorted(begins, ends)
          inside = begins[low:high] - np.uint64(first)
          if numbers is not None:
            named = [names[number] for number in numbers[low:high]]
        count = self._tokenizer.num_characters(block)
        self.append('validation', block, count, inside, named)
      self._shorten(entry, stored, begins, numbers, kept)
    self.record(_HELD_OUT)
    with self._explained():
      self._fit()

  def discard(self) -> None:
    """Throws away all that was written, recorded or not."""
    self._close_all()
    self._splits, self.place = {}, None
    self._names = labels.Names()
    with self._explained():
      (self._aside / _PROGRESS).unlink(missing_ok=True)

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    try:
      if error is None:
        with self._explained():
          self._commit()
    finally:
      self._leave()

  def _leave(self) -> None:
    """Closes files; takes away what nobody can go on from."""
    # Closing may fail as the write before it did.
    with contextlib.suppress(OSError):
      self._close_all()
    if self._lock is None:
      return
    try:
      if not begun(self._folder):
        shutil.rmtree(self._aside, ignore_errors=True)
    finally:
      os.close(self._lock)
      self._lock = None
    for folder in self._made:
      with contextlib.suppress(OSError):
        folder.rmdir()

  def _resume(self) -> None:
    """Takes up what a process before left, or begins."""
    progress = self._aside / _PROGRESS
    finished = (self._aside / packing.MANIFEST).exists()
    if self._restart or not (finished or progress.exists()):
      for path in self._aside.iterdir():
        if path.name != _LOCK:
          path.unlink()
      durable.write_json(self._aside / _WORK, self._work)
      return
    before = _compared(durable.read_json(self._aside / _WORK))
    now = _compared(self._work)
    differ = [name for name in now if before.get(name) != now[name]]
    if differ:
      raise DataError(
        f'{self._aside}: holds what an interrupted preparation with another '
        f'{" and another ".join(differ)} made; run that command again to go '
        'on with it, or throw it away with --restart'
      )
    self.done = finished
    if not finished:
      state = durable.read_json(progress)
      self.place, self._splits = state['place'], state['splits']
      self._names = labels.Names(state.get('labels', ()))
      self._fit()

  def _fit(self) -> None:
    """Cuts the files back to what counts, and removes the others."""
    self._close_all()
    lengths = {}
    for split, entry in self._splits.items():
      for number, shard in enumerate(entry['shards']):
        size = shard['num_tokens'] * self._dtype.itemsize
        lengths[packing.shard_name(split, number)] = size
      for what, (name_of, dtype) in _INDEXES.items():
        if what in entry:
          size = entry[what]['num_documents'] * dtype.itemsize
          lengths[name_of(split)] = size
    for path in self._aside.iterdir():
      if path.name not in (*lengths, _LOCK, _WORK, _PROGRESS):
        path.unlink()
    for name, size in lengths.items():
      path = self._aside / name
      if not path.exists() or path.stat().st_size < size:
        raise DataError(
          f'{path}: missing or shorter than what was written of it; begin anew '
          'with --restart'
        )
      if path.stat().st_size > size:
        os.truncate(path, size)

  def _unfilled(self, entry: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The last shard of a split, or a new one, and its number."""
    parts = entry['shards']
    if not parts or parts[-1]['num_tokens'] == self._shard_tokens:
      parts.append({'num_tokens': 0, 'num_characters': 0})
    return len(parts) - 1, parts[-1]

  def _entry(self, name: str) -> dict[str, Any]:
    """What is known of a file of a split."""
    split, _, what = name.removesuffix('.bin').partition('-')
    entry = self._splits[split]
    return entry['shards'][int(what)] if what.isdigit() else entry[what]

  def _opened(self, name: str, entry: Mapping[str, Any]) -> durable.Growing:
    if name not in self._files:
      path = self._aside / name
      self._files[name] = durable.Growing(path, entry.get('sha256'))
    return self._files[name]

  def _close(self, name: str, entry: dict[str, Any]) -> None:
    """Ends a file that is full."""
    file = self._files[name]
    file.flush()
    entry['sha256'] = file.sha256
    file.close()
    del self._files[name]

  def _close_all(self) -> None:
    for file in self._files.values():
      file.close()
    self._files = {}

  def _stored(self, split: str) -> shards.Tokens:
    """What was added to a split, mapped from its files."""
    numbers = range(len(self._splits[split]['shards']))
    return shards.joined([self._mapped(split, number) for number in numbers])

  def _mapped(self, split: str, number: int) -> np.ndarray:
    path = self._aside / packing.shard_name(split, number)
    count = self._splits[split]['shards'][number]['num_tokens']
    return packing.mapped(path, self._dtype, count)

  def _index(self, split: str, what: str) -> np.ndarray | None:
    """What is known of each document of a split, of `_INDEXES`, or None."""
    if what not in self._splits[split]:
      return None
    name_of, dtype = _INDEXES[what]
    count = self._splits[split][what]['num_documents']
    return packing.mapped(self._aside / name_of(split), dtype, count)

  def _shorten(
    self,
    entry: dict[str, Any],
    stored: shards.Tokens,
    begins: np.ndarray | None,
    numbers: np.ndarray | None,
    kept: int,
  ) -> None:
    """Leaves the first tokens of a split; its files stay until they are fit."""
    for name in [name for name in self._files if name.startswith('train')]:
      self._files.pop(name).close()
    full, rest = divmod(kept, self._shard_tokens)
    entry['shards'] = entry['shards'][: full + bool(rest)]
    if rest:
      left = stored[full * self._shard_tokens : kept]
      entry['shards'][-1] = {
        'num_tokens': rest,
        'num_characters': self._tokenizer.num_characters(left),
        'sha256': hashlib.sha256(left.data).hexdigest(),
      }
    if begins is not None:
      count = int(np.searchsorted(begins, np.uint64(kept)))
      for what, index in (('documents', begins), ('labels', numbers)):
        if index is not None:
          entry[what] = {
            'num_documents': count,
            'sha256': hashlib.sha256(index[:count].data).hexdigest(),
          }

  def _commit(self) -> None:
    if not self.done:
      self._seal()
    manifest = durable.read_json(self._aside / packing.MANIFEST)
    # From here to the last move the folder has no manifest: it holds nothing.
    (self._folder / packing.MANIFEST).unlink(missing_ok=True)
    (self._aside / _PROGRESS).unlink(missing_ok=True)
    wanted = {
      name
      for split, entry in manifest['splits'].items()
      for name in _file_names(split, entry)
    }
    for path in self._folder.iterdir():
      if _TOKEN_FILE.fullmatch(path.name) and path.name not in wanted:
        path.unlink()
    for path in self._aside.iterdir():
      if path.name in wanted or path.name in self._tokenizer.files:
        os.replace(path, self._folder / path.name)
    durable.flush_folder(self._folder)
    os.replace(self._aside / packing.MANIFEST, self._folder / packing.MANIFEST)
    durable.flush_folder(self._folder)

  def _seal(self) -> None:
    """Writes the manifest aside: all is there, but not in its place."""
    for name, file in self._files.items():
      file.flush()
      self._entry(name)['sha256'] = file.sha256
    self._close_all()
    for name, path in self._tokenizer.files.items():
      shutil.copyfile(path, self._aside / name)
    splits = {}
    for split in packing.SPLITS:
      if split in self._splits:
        entry = self._splits[split]
        counts = {
          count: sum(shard[count] for shard in entry['shards'])
          for count in ('num_tokens', 'num_characters')
        }
        splits[split] = counts | entry
    manifest = packing.Manifest(
      format=packing.FORMAT,
      source=self._source,
      division=self._division,
      dtype=self._dtype.name,
      vocab_size=self._tokenizer.vocab_size,
      tokenizer=packing.identity(self._tokenizer),
      unit=self._tokenizer.unit,
      splits=splits,
      sources=self.sources,
      labels=self._labels() if self._label else None,
    )
    fields = dataclasses.asdict(manifest)
    if not self._label:
      # As it was before there were labels.
      del fields['labels']
    durable.flush_folder(self._aside)
    durable.write_json(self._aside / packing.MANIFEST, fields, indent=1)
    (self._aside / _PROGRESS).unlink(missing_ok=True)

  def _labels(self) -> dict[str, Any]:
    """What the manifest says of labels."""
    names = list(self._names)
    counts = {}
    for split in packing.SPLITS:
      if split in self._splits:
        numbers = self._index(split, 'labels')
        assert numbers is not None
        counts[split] = np.bincount(numbers, minlength=len(names)).tolist()
    return {'from': self._label, 'names': names, 'documents': counts}

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      kept = (
        'the same command goes on from what was kept'
        if begun(self._folder)
        else 'nothing of it was kept'
      )
      raise DataError(
        f'{self._folder}: cannot write: {error.strerror or error}; {kept}'
      ) from error


def begun(folder: str | os.PathLike[str]) -> bool:
  """Whether a folder holds work that its command would go on with."""
  aside = pathlib.Path(folder, PARTIAL)
  return any((aside / n).exists() for n in (_PROGRESS, packing.MANIFEST))


def described(
  folder: str | os.PathLike[str], files: list[pathlib.Path]
) -> list[dict[str, Any]]:
  """Files of text, as the work of a writer names them.

  Args:
    folder: what was known of them to work that was begun there is not computed
      again, where size and time of change are the same.
    files: of the text.

  Returns:
    `{'name', 'sha256', 'size', 'changed'}` of each.
  """
  known: dict[Any, set[str]] = {}
  with contextlib.suppress(DataError, KeyError, TypeError):
    work = durable.read_json(pathlib.Path(folder, PARTIAL, _WORK))
    for entry in work['files']:
      key = entry['name'], entry['size'], entry['changed']
      known.setdefault(key, set()).add(entry['sha256'])
  result = []
  for path in files:
    state = path.stat()
    key = (path.name, state.st_size, state.st_mtime_ns)
    # Files of several folders may look the same from outside.
    digests = known.get(key, ())
    digest = (
      documents.sha256(path) if len(digests) != 1 else next(iter(digests))
    )
    result.append(
      dict(zip(('name', 'size', 'changed'), key)) | {'sha256': digest}
    )
  return result


def _compared(work: Mapping[str, Any]) -> dict[str, Any]:
  """What of a work must be the same to go on with it, as JSON gives it."""
  plain = json.loads(json.dumps(work))
  files = plain.get('files', [])
  plain['files'] = [[entry['name'], entry['sha256']] for entry in files]
  return plain


def _file_names(split: str, entry: Mapping[str, Any]) -> list[str]:
  """The files of a split."""
  numbers = range(len(entry['shards']))
  index = [of(split) for what, (of, _) in _INDEXES.items() if what in entry]
  return [packing.shard_name(split, number) for number in numbers] + index
