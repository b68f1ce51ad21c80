"""The prepared form of a corpus: token files of each split, and a manifest.

A folder holds `{split}-00000.bin`, `{split}-00001.bin`, ... (consecutive
little-endian uint8, uint16 or uint32 tokens, all shards of a split but the last
of one length), where documents are known `{split}-documents.bin` (uint64: the
token each begins at), where they have labels `{split}-labels.bin` (uint16: the
number of each one's), `manifest.json`, and copies of the tokenizer's files.  In
format 1, which is read too, a split is one file `{split}.bin`.  `writer` makes
such folders; one with a manifest is whole.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sedd_jax.data import tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, labels
from sedd_jax.data.prepared import shards
from sedd_jax.data.tokenizers import Tokenizer

FORMAT = 2
_READ = (1, 2)
MANIFEST = 'manifest.json'
SPLITS = ('train', 'validation', 'test')

# 'position': the splits, one after another, are the corpus in its order;
# 'document': each document went to a split of its own accord; 'published': the
# splits are the corpus' own.
DIVISIONS = ('position', 'document', 'published')

# A document's first token, on disk.
BEGIN = np.dtype('<u8')

_COUNTS = ('num_tokens', 'num_characters')


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a prepared folder says of itself.

  Attributes:
    format: version of the layout: `FORMAT`, or 1.
    source: name of the corpus.
    division: of `DIVISIONS`.
    dtype: of a token: 'uint8', 'uint16' or 'uint32'.
    vocab_size: tokens are below it.
    tokenizer: `{'name', 'sha256'}`.
    unit: 'character', 'byte' or 'token'.
    splits: name to `{'num_tokens', 'num_characters', 'shards'}`, of each shard
      `{'num_tokens', 'num_characters', 'sha256'}`, and where documents are
      known `{'documents': {'num_documents', 'sha256'}}`, where they have
      labels `{'labels': {'num_documents', 'sha256'}}`.
    sources: `{'name', 'sha256'}` of each file that the text came from.
    labels: `{'from', 'names', 'documents'}`: what `--label` was, the labels in
      the order of their numbers, and of each split how many documents have
      each; None where there are none.
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
  labels: dict[str, Any] | None = None

  @property
  def storage(self) -> np.dtype:
    """The type of a token on disk."""
    return np.dtype(self.dtype).newbyteorder('<')


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
    if version not in _READ:
      raise DataError(
        f'{path}: format {version!r}, this version reads {FORMAT}; {again}'
      )
    if version == 1:
      for entry in fields['splits'].values():
        shard = {name: entry[name] for name in _COUNTS}
        entry['shards'] = [shard | {'sha256': entry.pop('sha256')}]
    manifest = Manifest(**fields)
    fault = next(_faults(manifest), None)
  except DataError:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise DataError(f'{path}: cannot be read ({error!r}); {again}') from error
  if fault:
    raise DataError(
      f'{path}: not a manifest of prepared data: {fault}; {again}'
    )
  return manifest


def _faults(manifest: Manifest) -> Iterator[str]:
  """The fields that are not of their form, or do not agree."""
  if not isinstance(manifest.source, str):
    yield 'source'
  if manifest.division not in DIVISIONS:
    yield 'division'
  if manifest.dtype not in ('uint8', 'uint16', 'uint32'):
    yield 'dtype'
  if not _is_count(manifest.vocab_size):
    yield 'vocab_size'
  if manifest.unit not in ('character', 'byte', 'token'):
    yield 'unit'
  if not _is_named(manifest.tokenizer):
    yield 'tokenizer'
  if not all(map(_is_named, manifest.sources)):
    yield 'sources'
  if not manifest.splits.keys() <= set(SPLITS):
    yield 'splits'
  for split, entry in manifest.splits.items():
    if not _adds_up(entry):
      yield f'splits, {split}'
  if manifest.labels is not None and not _labels_add_up(manifest):
    yield 'labels'


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and value >= 0


def _is_named(value: dict[str, Any]) -> bool:
  return all(isinstance(value[field], str) for field in ('name', 'sha256'))


def _adds_up(entry: dict[str, Any]) -> bool:
  """Whether what a manifest says of a split is of its form, and agrees."""
  parts = entry['shards']
  counts = [part[name] for part in parts for name in _COUNTS]
  indexes = [entry[what] for what in ('documents', 'labels') if what in entry]
  counts += [index['num_documents'] for index in indexes]
  return (
    all(map(_is_count, counts))
    and all(isinstance(part['sha256'], str) for part in [*parts, *indexes])
    and all(entry[n] == sum(part[n] for part in parts) for n in _COUNTS)
  )


def _labels_add_up(manifest: Manifest) -> bool:
  """Whether what a manifest says of labels agrees with its splits."""
  assert manifest.labels is not None
  known, counts = manifest.labels['names'], manifest.labels['documents']
  return (
    isinstance(manifest.labels['from'], str)
    and all(isinstance(name, str) for name in known)
    and len(set(known)) == len(known)
    and counts.keys() == manifest.splits.keys()
    and all(
      len(counts[split]) == len(known)
      and sum(counts[split])
      == entry['labels']['num_documents']
      == entry['documents']['num_documents']
      for split, entry in manifest.splits.items()
    )
  )


def shard_name(split: str, number: int) -> str:
  """The file of a shard.

  >>> shard_name('train', 12)
  'train-00012.bin'
  """
  return f'{split}-{number:05d}.bin'


def documents_name(split: str) -> str:
  """The file of where documents begin."""
  return f'{split}-documents.bin'


def labels_name(split: str) -> str:
  """The file of documents' labels."""
  return f'{split}-labels.bin'


def described(manifest: Manifest) -> dict[str, str]:
  """`name` and `sha256` of all tokens of a manifest, by those of its files."""
  parts = [
    f'{split} {shard["sha256"]}' for split, _, shard in token_files(manifest)
  ]
  digest = hashlib.sha256('\n'.join(parts).encode()).hexdigest()
  return {'name': MANIFEST, 'sha256': digest}


def token_files(manifest: Manifest) -> list[tuple[str, str, dict[str, Any]]]:
  """The token files of a folder.

  Returns:
    Split, name and `{'num_tokens', 'num_characters', 'sha256'}` of each.
  """
  return [
    (split, f'{split}.bin' if manifest.format == 1 else name, shard)
    for split, entry in manifest.splits.items()
    for number, shard in enumerate(entry['shards'])
    for name in [shard_name(split, number)]
  ]


def mapped(path: pathlib.Path, dtype: np.dtype, count: int) -> np.ndarray:
  """A file of numbers, mapped into memory.

  Args:
    path: the file.
    dtype: of a number.
    count: numbers that it must hold.

  Returns:
    `[count]`, read-only.

  Raises:
    DataError: for a file that is missing or of a wrong size.
  """
  wanted = count * dtype.itemsize
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
  return np.memmap(path, dtype, 'r') if size else np.zeros(0, dtype)


def read_tokens(
  folder: str | os.PathLike[str], manifest: Manifest
) -> dict[str, shards.Tokens]:
  """The token files of a prepared folder, mapped into memory.

  Returns:
    Split to `[num_tokens]`, read-only, of the type on disk.

  Raises:
    DataError: for a file that is missing or of a wrong size.
  """
  parts: dict[str, list[np.ndarray]] = {split: [] for split in manifest.splits}
  for split, name, shard in token_files(manifest):
    path = pathlib.Path(folder, name)
    parts[split].append(mapped(path, manifest.storage, shard['num_tokens']))
  none = [np.zeros(0, manifest.storage)]
  return {split: shards.joined(each or none) for split, each in parts.items()}


def read_begins(
  folder: str | os.PathLike[str], manifest: Manifest, split: str
) -> np.ndarray:
  """Where the documents of a split begin.

  Returns:
    `[num_documents]` uint64, mapped: of each document the first token.

  Raises:
    DataError: for a file that is missing or of a wrong size, and data whose
      documents were not known.
  """
  if 'documents' not in manifest.splits[split]:
    raise DataError(f'{folder}: its documents are not known; prepare it again')
  count = manifest.splits[split]['documents']['num_documents']
  return mapped(pathlib.Path(folder, documents_name(split)), BEGIN, count)


def read_labels(
  folder: str | os.PathLike[str], manifest: Manifest, split: str
) -> np.ndarray:
  """The labels of the documents of a split.

  Returns:
    `[num_documents]` uint16, mapped: places in `manifest.labels['names']`.

  Raises:
    DataError: for a file that is missing, of a wrong size, or with numbers that
      no label has.
  """
  assert manifest.labels is not None
  path, numbers = _mapped_labels(folder, manifest, split)
  there = len(manifest.labels['names'])
  if len(numbers) and (most := numbers.max()) >= there:
    raise DataError(
      f'{path}: label number {most}, where the manifest has {there} labels; '
      'prepare the data again'
    )
  return numbers


def _mapped_labels(
  folder: str | os.PathLike[str], manifest: Manifest, split: str
) -> tuple[pathlib.Path, np.ndarray]:
  path = pathlib.Path(folder, labels_name(split))
  count = manifest.splits[split]['labels']['num_documents']
  return path, mapped(path, labels.STORED, count)


def verify(folder: str | os.PathLike[str]) -> Manifest:
  """Reads a prepared folder whole: sizes, SHA-256 and range of the tokens.

  The tokenizer's files, copied there, are held to the manifest too, and to
  these its unit and its characters, where they can be told by the tokens alone
  (`Tokenizer.adds_up`).

  Raises:
    DataError: for whatever is wrong.
  """
  manifest = read_manifest(folder)
  for _, name, shard in token_files(manifest):
    path = pathlib.Path(folder, name)
    tokens = mapped(path, manifest.storage, shard['num_tokens'])
    _check_digest(path, shard['sha256'])
    step = 2**24
    for begin in range(0, len(tokens), step):
      if tokens[begin : begin + step].max() >= manifest.vocab_size:
        raise DataError(f'{path}: a token is not below {manifest.vocab_size}')
  for split, entry in manifest.splits.items():
    if 'documents' in entry:
      path = pathlib.Path(folder, documents_name(split))
      begins = read_begins(folder, manifest, split)
      _check_digest(path, entry['documents']['sha256'])
      ordered = (begins[:-1] <= begins[1:]).all()
      if not ordered or (len(begins) and begins[-1] > entry['num_tokens']):
        raise DataError(f'{path}: not where documents begin, in their order')
    if manifest.labels is not None:
      _check_labels(folder, manifest, split)
  tokenizer = _check_tokenizer(folder, manifest)
  if tokenizer.adds_up:
    for _, name, shard in token_files(manifest):
      path = pathlib.Path(folder, name)
      tokens = mapped(path, manifest.storage, shard['num_tokens'])
      found = tokenizer.num_characters(tokens)
      if found != shard['num_characters']:
        raise DataError(
          f'{path}: {found:,} characters (or bytes), where the manifest says '
          f'{shard["num_characters"]:,}; prepare the data again'
        )
  return manifest


def _check_tokenizer(
  folder: str | os.PathLike[str], manifest: Manifest
) -> Tokenizer:
  name = manifest.tokenizer['name']
  if name in tokenizers.TOKENIZERS:
    found = tokenizers.make(name, [folder])
  else:
    file = pathlib.Path(folder, name)
    found = tokenizers.make(str(file if file.is_file() else folder))
  for path in found.files.values():
    if path.parent != pathlib.Path(folder):
      raise DataError(
        f'{folder}: its copy of {path.name}, of tokenizer {name!r}, is missing'
      )
  for what, own, wanted in (
    ('sha256', found.sha256, manifest.tokenizer['sha256']),
    ('tokens', found.vocab_size, manifest.vocab_size),
    ('unit', found.unit, manifest.unit),
  ):
    if own != wanted:
      raise DataError(
        f'{folder}: its tokenizer is not that of the manifest, {name!r}: '
        f'{what} {own}, where the manifest says {wanted}'
      )
  return found


def _check_labels(
  folder: str | os.PathLike[str], manifest: Manifest, split: str
) -> None:
  assert manifest.labels is not None
  path, numbers = _mapped_labels(folder, manifest, split)
  _check_digest(path, manifest.splits[split]['labels']['sha256'])
  counts = manifest.labels['documents'][split]
  if np.bincount(numbers, minlength=len(counts)).tolist() != counts:
    raise DataError(f'{path}: not as many of each label as the manifest says')


def _check_digest(path: pathlib.Path, wanted: str) -> None:
  digest = documents.sha256(path)
  if digest != wanted:
    raise DataError(
      f'{path}: wrong checksum: sha256 {digest}, where the manifest says '
      f'{wanted}; prepare the data again'
    )
