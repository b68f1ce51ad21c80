"""The prepared form of a corpus: one token file a split, and a manifest.

A folder holds `{split}.bin` (consecutive little-endian uint8, uint16 or uint32
tokens), `manifest.json`, and copies of the tokenizer's files.  The files are
written aside, flushed to disk and moved into place, the manifest last: a folder
with a manifest is whole, whenever the writer was killed.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import types
from collections.abc import Iterator
from typing import Any, BinaryIO, Self

import numpy as np

from sedd_jax.data import documents, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.tokenizers import Tokenizer

FORMAT = 1
MANIFEST = 'manifest.json'
SPLITS = ('train', 'validation', 'test')

# 'position': the splits, one after another, are the corpus in its order;
# 'document': each document went to a split of its own accord.
DIVISIONS = ('position', 'document')


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a prepared folder says of itself.

  Attributes:
    format: version of the layout, `FORMAT`.
    source: name of the corpus.
    division: of `DIVISIONS`.
    dtype: of a token: 'uint8', 'uint16' or 'uint32'.
    vocab_size: tokens are below it.
    tokenizer: `{'name', 'sha256'}`.
    unit: 'character', 'byte' or 'token'.
    splits: name to `{'num_tokens', 'num_characters', 'sha256'}`.
    sources: `{'name', 'sha256'}` of each file that the text came from.
  """

  format: int
  source: str
  division: str
  dtype: str
  vocab_size: int
  tokenizer: dict[str, str]
  unit: str
  splits: dict[str, dict[str, Any]]
  sources: list[dict[str, str]]

  @property
  def storage(self) -> np.dtype:
    """The type of a token on disk."""
    return np.dtype(self.dtype).newbyteorder('<')


class Writer:
  """Writes a prepared folder; used as a context.

  Leaving the context without an error makes the folder whole; leaving it with
  one removes all that was written.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    source: str,
    division: str,
    tokenizer: Tokenizer,
    overwrite: bool = False,
  ):
    """Nothing is written yet.

    Args:
      folder: to be made or filled; what else it holds stays.
      source: name of the corpus.
      division: of `DIVISIONS`.
      tokenizer: what the tokens were made by.
      overwrite: replace data that was prepared there before.

    Raises:
      DataError: if the folder holds prepared data and is not to be replaced.
    """
    self._folder = pathlib.Path(folder)
    if (self._folder / MANIFEST).exists() and not overwrite:
      raise DataError(
        f'{self._folder}: already holds prepared data; check it with: python '
        f'-m sedd_jax.data.prepare verify --input {self._folder}, or replace '
        'it with --overwrite'
      )
    self._tokenizer = tokenizer
    self._dtype = tokenizers.storage_dtype(tokenizer.vocab_size)
    self._source = source
    self._division = division
    self._files: dict[str, BinaryIO] = {}
    self._splits: dict[str, dict[str, Any]] = {}
    self._hashes: dict[str, Any] = {}
    self._made: list[pathlib.Path] = []
    self.sources: list[dict[str, str]] = []

  def __enter__(self) -> Self:
    with self._explained():
      folder = self._folder
      while not folder.exists():
        self._made.append(folder)
        folder = folder.parent
      self._folder.mkdir(parents=True, exist_ok=True)
      aside = tempfile.mkdtemp(prefix='.partial-', dir=self._folder)
      self._aside = pathlib.Path(aside)
    return self

  def append(self, split: str, tokens: np.ndarray, num_characters: int) -> None:
    """Adds tokens at the end of a split.

    Args:
      split: of `SPLITS`.
      tokens: `[n]` integers below the vocabulary's size.
      num_characters: that the tokens spell (bytes, where the unit is 'byte').

    Raises:
      DataError: for a token outside the vocabulary and where writing fails.
    """
    vocab_size = self._tokenizer.vocab_size
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
      raise DataError(
        f'{split}: a token is not from 0 to {vocab_size - 1} (vocabulary of '
        f'{self._tokenizer.name!r})'
      )
    data = np.ascontiguousarray(tokens, self._dtype)
    with self._explained():
      if split not in self._files:
        path = self._aside / f'{split}.bin'
        self._files[split] = open(path, 'wb')
        self._hashes[split] = hashlib.sha256()
        self._splits[split] = {'num_tokens': 0, 'num_characters': 0}
      self._files[split].write(data.data)
    self._hashes[split].update(data)
    self._splits[split]['num_tokens'] += len(tokens)
    self._splits[split]['num_characters'] += int(num_characters)

  def num_tokens(self, split: str) -> int:
    """Tokens added to a split so far."""
    return self._splits.get(split, {'num_tokens': 0})['num_tokens']

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
      for stream in self._files.values():
        # Closing flushes, and may fail as the write before it did.
        with contextlib.suppress(OSError):
          stream.close()
      shutil.rmtree(self._aside, ignore_errors=True)
      for folder in self._made:
        with contextlib.suppress(OSError):
          folder.rmdir()

  def _commit(self) -> None:
    for split, stream in self._files.items():
      stream.flush()
      os.fsync(stream.fileno())
      stream.close()
      self._splits[split]['sha256'] = self._hashes[split].hexdigest()
    manifest = Manifest(
      format=FORMAT,
      source=self._source,
      division=self._division,
      dtype=self._dtype.name,
      vocab_size=self._tokenizer.vocab_size,
      tokenizer=identity(self._tokenizer),
      unit=self._tokenizer.unit,
      splits={s: self._splits[s] for s in SPLITS if s in self._splits},
      sources=self.sources,
    )
    for name, path in self._tokenizer.files.items():
      shutil.copyfile(path, self._aside / name)
    text = json.dumps(dataclasses.asdict(manifest), indent=1) + '\n'
    with open(self._aside / MANIFEST, 'wb') as written:
      written.write(text.encode())
      written.flush()
      os.fsync(written.fileno())
    # From here to the last line the folder has no manifest: it holds nothing.
    (self._folder / MANIFEST).unlink(missing_ok=True)
    for split in SPLITS:
      (self._folder / f'{split}.bin').unlink(missing_ok=True)
    for path in self._aside.iterdir():
      if path.name != MANIFEST:
        os.replace(path, self._folder / path.name)
    os.replace(self._aside / MANIFEST, self._folder / MANIFEST)

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise DataError(
        f'{self._folder}: cannot write: {error.strerror or error}; nothing of '
        'it was kept'
      ) from error


def identity(tokenizer: Tokenizer) -> dict[str, str]:
  """What a manifest says of a tokenizer: `{'name', 'sha256'}`."""
  return {'name': tokenizer.name, 'sha256': tokenizer.sha256}


def is_prepared(folder: str | os.PathLike[str]) -> bool:
  """Whether a folder holds prepared data."""
  return os.path.isfile(os.path.join(folder, MANIFEST))


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
  """The manifest of a prepared folder, checked.

  Raises:
    DataError: for a manifest that is missing, damaged, or of another version.
  """
  path = pathlib.Path(folder, MANIFEST)
  again = 'prepare the data again: python -m sedd_jax.data.prepare'
  try:
    fields = json.loads(path.read_text('utf-8'))
    version = fields['format']
    if version != FORMAT:
      raise DataError(
        f'{path}: format {version!r}, this version reads {FORMAT}; {again}'
      )
    manifest = Manifest(**fields)
    well_formed = (
      manifest.division in DIVISIONS
      and manifest.dtype in ('uint8', 'uint16', 'uint32')
      and manifest.splits.keys() <= set(SPLITS)
      and {'name', 'sha256'} <= manifest.tokenizer.keys()
      and all('sha256' in entry for entry in manifest.splits.values())
      and all(
        isinstance(entry[count], int) and entry[count] >= 0
        for entry in manifest.splits.values()
        for count in ('num_tokens', 'num_characters')
      )
    )
  except DataError:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise DataError(f'{path}: cannot be read ({error!r}); {again}') from error
  if not well_formed:
    raise DataError(f'{path}: not a manifest of prepared data; {again}')
  return manifest


def read_tokens(
  folder: str | os.PathLike[str], manifest: Manifest
) -> dict[str, np.ndarray]:
  """The token files of a prepared folder, mapped into memory.

  Returns:
    Split to `[num_tokens]`, read-only, of the type on disk.

  Raises:
    DataError: for a file that is missing or of a wrong size.
  """
  tokens: dict[str, np.ndarray] = {}
  for split, entry in manifest.splits.items():
    path = pathlib.Path(folder, f'{split}.bin')
    wanted = entry['num_tokens'] * manifest.storage.itemsize
    if not path.is_file():
      raise DataError(f'{documents.missing(path)}; prepare the data again')
    size = path.stat().st_size
    if size != wanted:
      fault = 'truncated' if size < wanted else 'too long'
      raise DataError(
        f'{path}: {fault}: {size:,} bytes, where the manifest says {wanted:,}; '
        'prepare the data again'
      )
    # An empty file cannot be mapped.
    tokens[split] = (
      np.memmap(path, manifest.storage, 'r')
      if size
      else np.zeros(0, manifest.storage)
    )
  return tokens


def verify(folder: str | os.PathLike[str]) -> Manifest:
  """Reads a prepared folder whole: sizes, SHA-256 and range of the tokens.

  Raises:
    DataError: for whatever is wrong.
  """
  manifest = read_manifest(folder)
  for split, tokens in read_tokens(folder, manifest).items():
    path = pathlib.Path(folder, f'{split}.bin')
    digest = documents.sha256(path)
    wanted = manifest.splits[split].get('sha256')
    if digest != wanted:
      raise DataError(
        f'{path}: wrong checksum: sha256 {digest}, where the manifest says '
        f'{wanted}; prepare the data again'
      )
    step = 2**24
    for begin in range(0, len(tokens), step):
      if tokens[begin : begin + step].max() >= manifest.vocab_size:
        raise DataError(f'{path}: a token is not below {manifest.vocab_size}')
  return manifest
