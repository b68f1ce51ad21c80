"""The corpora: a name to what finds and what reads its text.

A source is first asked to find its text, so that missing data is told before
anything else, and then, with the tokenizer and the share held out, for all
tokens in order and the shares of the splits.
"""

import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from sedd_jax.data import tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, downloads, labels
from sedd_jax.data.files.documents import Document
from sedd_jax.data.prepared import shards, writer
from sedd_jax.data.sources import published, tfds_folders
from sedd_jax.data.tokenizers import Tokenizer

CACHE = 'data_cache'
QUICKSTART = (
  'python -m sedd_jax.main --config=configs/quickstart.py runs at once, on '
  'text that Python carries'
)
# text8 and enwik8: 90, 5 and 5 million characters, by position.
PUBLISHED_SHARES = {'train': 0.9, 'validation': 0.05, 'test': 0.05}


class Corpus(NamedTuple):
  """A whole corpus in memory.

  Attributes:
    tokens: `[num_tokens]`, in the corpus' order.
    shares: split to its share of the tokens, by position.
    files: `{'name', 'sha256'}` of each file of the text.
    labelled: the labels of its tokens, where it has any.
    names: of the labels, in the order of their numbers.
  """

  tokens: np.ndarray
  shares: Mapping[str, float]
  files: tuple[dict[str, str], ...]
  labelled: labels.Index | None = None
  names: tuple[str, ...] = ()


def default_path(source: str) -> str:
  """Where `prepare` writes and a source looks if neither is told.

  >>> default_path('text8')
  'data_cache/text8'
  """
  return os.path.join(CACHE, source)


class Source(NamedTuple):
  """One way to come by a corpus.

  Attributes:
    locate: (path) -> place: finds the text without reading it; raises a
      DataError that says what is missing and how to get it.
    read: (place, tokenizer, validation_fraction) -> Corpus; of a source in
      `LABELLED` also `label`.
  """

  locate: Callable[[str], Any]
  read: Callable[..., Corpus]


def find_pydoc(path: str) -> Mapping[str, str]:
  """The help texts of the running Python: topic to text.

  Args:
    path: not used; must be empty.

  Raises:
    DataError: where this Python lacks the module.
  """
  if path:
    raise DataError(
      f"data.source='pydoc' takes no data.path ({path!r}): for a file set "
      "data.source='text_file'"
    )
  try:
    return importlib.import_module('pydoc_data.topics').topics
  except (ImportError, AttributeError) as error:
    raise DataError(
      'this Python lacks the text of pydoc_data.topics, which some '
      'distributions leave out; use a text of your own: '
      '--config.data.source=text_file --config.data.path=FILE'
    ) from error


def read_pydoc(
  topics: Mapping[str, str], tokenizer: Tokenizer, validation_fraction: float
) -> Corpus:
  """The help texts in order of their topics' names, about 0.4 MB.

  They differ a little between versions of Python: the checksum is of the text
  that the tokens spell, under 'text8' the normalised one.
  """
  texts = [
    Document(f'pydoc_data.topics:{name}', 0, topics[name].encode())
    for name in sorted(topics)
  ]
  tokens, _ = _joined(tokenizer.encode_documents(texts), tokenizer)
  digest = hashlib.sha256(tokenizer.decode(tokens).encode()).hexdigest()
  files = ({'name': 'pydoc_data.topics', 'sha256': digest},)
  return Corpus(tokens, held_out(validation_fraction), files)


def find_waves(path: str) -> int:
  """The seed of the waves, which are drawn and not read.

  Args:
    path: not used; must be empty.
  """
  if path:
    raise DataError(f"data.source='waves' takes no data.path ({path!r})")
  return 0


def read_waves(
  seed: int, tokenizer: Tokenizer, validation_fraction: float
) -> Corpus:
  """A wave of changing pitch and height in 26 levels, a the lowest, z the top.

  A toy for noise on ordered symbols: 400,000 letters, of which neighbours in
  time are neighbours in the alphabet.
  """
  rng = np.random.default_rng(seed)
  # Pitch and height change at random every 64 letters, and smoothly between.
  knots = rng.uniform([0.02, 4.0], [0.08, 12.5], (6251, 2))
  places = np.arange(400_000)
  pitch, height = (
    np.interp(places, 64 * np.arange(6251), column) for column in knots.T
  )
  levels = 12.5 + height * np.sin(2 * np.pi * np.cumsum(pitch))
  text = bytes((ord('a') + np.rint(levels)).astype(np.uint8))
  pieces = tokenizer.encode_documents([Document('waves', 0, text)])
  digest = hashlib.sha256(text).hexdigest()
  files = ({'name': 'waves', 'sha256': digest},)
  tokens, _ = _joined(pieces, tokenizer)
  return Corpus(tokens, held_out(validation_fraction), files)


def find_text_file(path: str) -> list[pathlib.Path]:
  """Text files: a file, a folder, or several separated by commas.

  Raises:
    DataError: for no path, and for a missing one.
  """
  if not path:
    raise DataError(
      "data.source='text_file' needs data.path: a text file, a folder, or "
      'several separated by commas'
    )
  return (
    [pathlib.Path(path)] if tfds_folders.is_tfds(path) else documents.find(path)
  )


def read_text_file(
  files: list[pathlib.Path],
  tokenizer: Tokenizer,
  validation_fraction: float,
  label: str = '',
) -> Corpus:
  """The documents of text files, joined.

  Args:
    files: kinds as in `documents.read_documents`, or a folder that TFDS wrote.
    tokenizer: under 'text8' the text is normalised, under 'bytes' any bytes
      serve, otherwise it must be UTF-8.
    validation_fraction: share held out at the end.
    label: as `documents.read_documents` takes it.

  Raises:
    DataError: for a damaged or invalid file, and a document without a label
      where it must have one.
  """
  texts = documents.read_documents(files, label=label)
  if tfds_folders.is_tfds(files[0]):
    if label:
      raise DataError(f'{files[0]}: what TFDS wrote has no labels ({label!r})')
    texts = iter([Document(str(files[0]), 0, tfds_folders.read(files[0]))])
  # One at a time: the text of one document is in memory beside the tokens.
  known = labels.Names()
  pieces: list[np.ndarray] = []
  numbers: list[int] = []
  for text in texts:
    (piece,) = tokenizer.encode_documents([text])
    if len(piece):
      pieces.append(piece)
      if label:
        numbers += known.numbers([text.label]).tolist()
  described = [entry for file in files for entry in _described(file)]
  tokens, begins = _joined(pieces, tokenizer)
  shares = held_out(validation_fraction)
  if not label:
    return Corpus(tokens, shares, tuple(described))
  index = labels.Index(begins, np.array(numbers, np.int32))
  return Corpus(tokens, shares, tuple(described), index, tuple(known))


def find_published(source: str, path: str) -> pathlib.Path:
  """The file of text8 or enwik8, or the folder that TFDS wrote.

  Args:
    source: a name of `downloads.PUBLISHED`.
    path: the file, plain or as .zip, .gz or .xz; its folder; a folder that TFDS
      wrote; or empty for `default_path`.

  Raises:
    DataError: if there is none.
  """
  place = pathlib.Path(path or default_path(source))
  if place.is_file() or tfds_folders.is_tfds(place):
    return place
  endings = ('', '.zip', '.gz', '.xz', '.txt')
  inside = (place / f'{source}{ending}' for ending in endings)
  file = next((file for file in inside if file.is_file()), None)
  if file is None:
    raise DataError(missing(source, str(place)))
  return file


def read_published(source: str, file: pathlib.Path) -> bytes:
  """The text of text8 or enwik8, checked.

  A zip, and a text of the published length, must be the published one; a text
  of another length is taken for a part of it and announced.

  Raises:
    DataError: for what is damaged, empty or not the published file.
  """
  published = downloads.PUBLISHED[source]
  if file.suffix == '.zip':
    downloads.check_file(
      file,
      size=published.zip_size,
      sha256=published.zip_sha256,
      url=published.url,
    )
  if tfds_folders.is_tfds(file):
    data = tfds_folders.read(file)
  else:
    data = documents.read_whole(file, published.member)
  if not data:
    raise DataError(f'{file}: empty')
  if len(data) == published.size:
    downloads.check_content(str(file), data, published)
  else:
    logging.warning(
      '%s: %s bytes, where %s has %s: split 90/5/5 %% by position, unchecked',
      file,
      f'{len(data):,}',
      source,
      f'{published.size:,}',
    )
  return data


def read_text8(
  file: pathlib.Path, tokenizer: Tokenizer, validation_fraction: float
) -> Corpus:
  """100,000,000 characters of Wikipedia in a to z and space.

  Source: mattmahoney.net/dc/textdata.html.

  Args:
    file: as `find_published` finds it.
    tokenizer: any; under 'text8' nothing is normalised.
    validation_fraction: not used: 90, 5 and 5 %.

  Raises:
    DataError: for a file that is not the published one, and a character outside
      the alphabet.
  """
  del validation_fraction
  document = Document(str(file), 0, read_published('text8', file))
  dtype = tokenizers.storage_dtype(tokenizer.vocab_size)
  try:
    tokens = tokenizer.encode(document.text(), dtype)
  except DataError as error:
    raise DataError(f'{file}: {error}') from error
  return Corpus(tokens, PUBLISHED_SHARES, _described(file))


def read_enwik8(
  file: pathlib.Path, tokenizer: Tokenizer, validation_fraction: float
) -> Corpus:
  """100,000,000 bytes of Wikipedia's XML.

  Source: mattmahoney.net/dc/textdata.html.

  Args:
    file: as `find_published` finds it.
    tokenizer: 'bytes'.
    validation_fraction: not used: 90, 5 and 5 %.

  Raises:
    DataError: for another tokenizer, and a file that is not the published one.
  """
  del validation_fraction
  if tokenizer.name != 'bytes':
    raise DataError(
      f"enwik8 is counted in bytes: data.tokenizer='bytes', not "
      f'{tokenizer.name!r}'
    )
  tokens = np.frombuffer(read_published('enwik8', file), np.uint8)
  return Corpus(tokens, PUBLISHED_SHARES, _described(file))


def find_prepared(source: str, path: str) -> list[pathlib.Path]:
  """A corpus that is not turned into tokens at the start of a run.

  Raises:
    DataError: always: says what prepares it.
  """
  raise DataError(missing(source, path or default_path(source)))


def find_pairs(path: str) -> Any:
  """Pairs are no corpus of one text.

  Raises:
    DataError: always: says that they need no preparation.
  """
  raise DataError(
    'pairs are read from their files as they are, without a preparation: '
    '--config.data.source=seq2seq --config.data.path=FILE'
  )


def read_pairs(
  place: Any, tokenizer: Tokenizer, validation_fraction: float
) -> Corpus:
  """As `find_pairs`."""
  return find_pairs(str(place))


# Whose documents may have labels.
LABELLED = ('text_file', 'openwebtext', 'seq2seq')
# Text that every Python has, or that is drawn: no folder is looked for.
AT_HAND = ('pydoc', 'waves')

# Read by `seq2seq`, not as one text.
PAIRS = 'seq2seq'

SOURCES: dict[str, Source] = {
  'pydoc': Source(find_pydoc, read_pydoc),
  'waves': Source(find_waves, read_waves),
  'text_file': Source(find_text_file, read_text_file),
  'text8': Source(functools.partial(find_published, 'text8'), read_text8),
  'enwik8': Source(functools.partial(find_published, 'enwik8'), read_enwik8),
  **{
    source: Source(functools.partial(find_prepared, source), read_text_file)
    for source in ('openwebtext', *published.CORPORA)
  },
  PAIRS: Source(find_pairs, read_pairs),
}


def held_out(fraction: float) -> dict[str, float]:
  """Shares of a corpus without splits of its own.

  Raises:
    DataError: for a fraction that is not between 0 and 1.
  """
  if not 0 < fraction < 1:
    raise DataError(f'data.validation_fraction is {fraction}, not in (0, 1)')
  return {'train': 1 - fraction, 'validation': fraction}


def with_test(shares: Mapping[str, float], fraction: float) -> dict[str, float]:
  """Shares with a test split at the end, taken from the train split.

  Args:
    shares: split to share, without a test split if the fraction is above 0.
    fraction: share of the test split; 0: none.

  Raises:
    DataError: the corpus has a test split of its own, or nothing is left.

  >>> with_test({'train': 0.75, 'validation': 0.25}, 0.25)
  {'train': 0.5, 'validation': 0.25, 'test': 0.25}
  """
  if not fraction:
    return dict(shares)
  if 'test' in shares:
    raise DataError(
      f'data.test_fraction is {fraction}, but this corpus has a test split of '
      'its own: leave it 0'
    )
  left = shares['train'] - fraction
  if left <= 0:
    raise DataError(
      f'data.test_fraction {fraction} and data.validation_fraction '
      f'{shares["validation"]} leave nothing to train on'
    )
  return {**shares, 'train': left, 'test': fraction}


def split_by_position(
  parts: Sequence[np.ndarray], shares: Mapping[str, float], limit: int = 0
) -> dict[str, shards.Tokens]:
  """Splits a corpus that is in consecutive parts.

  Args:
    parts: `[n_i]` tokens each.
    shares: split to share; the train split takes what rounding the others
      leaves.
    limit: tokens used, from the beginning; 0: all.

  Returns:
    Split to tokens, without a copy: one that lies inside a part is a view of
    it.

  >>> shares = {'train': 0.8, 'validation': 0.2}
  >>> split_by_position([np.arange(4), np.arange(4, 9)], shares, limit=5)
  {'train': array([0, 1, 2, 3]), 'validation': array([4])}
  """
  total = sum(map(len, parts))
  total = min(total, limit) if limit else total
  sizes = {
    split: round(total * share)
    for split, share in shares.items()
    if split != 'train'
  }
  sizes = {'train': total - sum(sizes.values()), **sizes}
  whole = shards.joined(parts)
  splits, begin = {}, 0
  for split, size in sizes.items():
    pieces = shards.between(whole, begin, begin + size)
    splits[split] = shards.joined(pieces)
    begin += size
  return splits


def missing(source: str, path: str) -> str:
  """What to say where the data of a source is missing."""
  # What is missing may be a file; data is prepared into a folder.
  folder = default_path(source) if pathlib.Path(path).suffix else path
  if source in downloads.PUBLISHED:
    known = downloads.PUBLISHED[source]
    hint = (
      f' (it downloads {known.zip_size / 1e6:.0f} MB; without a network '
      f'put {source}.zip from {known.url} into {folder})'
    )
    given = ''
  elif source in published.CORPORA:
    hint = (
      f' (FOLDER holds {published.CORPORA[source].files}; without --input it '
      'is fetched from the Hugging Face hub)'
    )
    given = ' --input FOLDER'
  else:
    hint = (
      ' (FOLDER: its text as .txt, .jsonl, .parquet, .tar, .xz or .zst files; '
      'without --input it is fetched from the Hugging Face hub)'
    )
    given = ' --input FOLDER'
  if writer.begun(path):
    hint += '; a preparation that was interrupted is there: the same goes on'
  return (
    f'{source}: no data at {path!r}; prepare it with: python -m '
    f'sedd_jax.data.prepare {source}{given} --output '
    f'{folder}{hint}; or {QUICKSTART}'
  )


def _described(file: pathlib.Path) -> tuple[dict[str, str], ...]:
  if file.is_dir():
    return documents.described(sorted(file.glob('*.array_record*')))
  return documents.described([file])


def _joined(
  pieces: list[np.ndarray], tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
  """Documents one after another, a separator where two meet.

  Returns:
    The tokens, and uint64, where each document that is not empty begins.
  """
  joined: list[Any] = [
    np.zeros(0, tokenizers.storage_dtype(tokenizer.vocab_size))
  ]
  begins, size, last = [], 0, None
  for piece in pieces:
    if len(piece):
      joined.append(tokenizers.seam(last, piece, tokenizer.separator))
      begins.append(tokenizers.begin(size, joined[-1], piece))
      size += len(joined[-1])
      last = piece[-1]
  return np.concatenate(joined), np.array(begins, np.uint64)
