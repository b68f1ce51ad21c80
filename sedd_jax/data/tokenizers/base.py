"""What a tokenizer is, and how documents of a corpus are joined."""

import abc
import functools
import hashlib
import importlib
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document

NEEDS_EXTRA = "pip install 'sedd_jax[tokenizers]'"


def storage_dtype(vocab_size: int) -> np.dtype:
  """The smallest unsigned little-endian type that holds every token.

  >>> storage_dtype(27), storage_dtype(50257)
  (dtype('uint8'), dtype('uint16'))
  """
  sizes = ((2**8, 'u1'), (2**16, '<u2'), (2**32, '<u4'))
  return np.dtype(next(name for top, name in sizes if vocab_size <= top))


class Tokenizer(abc.ABC):
  """What reads and writes text.

  Attributes:
    name: as the config says it; the base name for a file.
    vocab_size: number of tokens; ids are below it.
    unit: what a token is: 'character', 'byte' or 'token'.
    separator: id that stands where two documents of a corpus meet, or None.
    files: the files it was made from, by the names they are published under.
    adds_up: whether the characters of some tokens are the sum of each one's,
      whatever stands beside it.
  """

  name: str
  vocab_size: int
  unit: str
  separator: int | None = None
  adds_up: bool = False
  files: Mapping[str, pathlib.Path] = types.MappingProxyType({})

  @property
  def pieces(self) -> Sequence[bytes] | None:
    """The bytes of each token, empty for one that is no text.

    None where a token's text depends on its neighbours.
    """
    return None

  @property
  def vocabulary(self) -> Mapping[str, int] | None:
    """Token to id, as the libraries write tokens; None for plain symbols."""
    return None

  @abc.abstractmethod
  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[length]` of a text.

    Raises:
      DataError: for text that the tokenizer has no ids for.
    """

  @abc.abstractmethod
  def decode(self, ids: ArrayLike) -> str:
    """The text of ids `[length]`.

    Raises:
      ValueError: for a negative id.
    """

  @abc.abstractmethod
  def num_characters(self, ids: np.ndarray) -> int:
    """Characters (for unit 'byte': bytes) that stored ids `[length]` spell."""

  def encode_documents(self, batch: Sequence[Document]) -> list[np.ndarray]:
    """Ids of documents of a corpus, in `storage_dtype(vocab_size)`.

    Raises:
      DataError: for invalid UTF-8.
    """
    dtype = storage_dtype(self.vocab_size)
    return [self.encode(document.text(), dtype) for document in batch]

  @functools.cached_property
  def sha256(self) -> str:
    """SHA-256 over the tokenizer's files; empty where it has none."""
    if not self.files:
      return ''
    digests = ''.join(documents.sha256(path) for path in self.files.values())
    return hashlib.sha256(digests.encode()).hexdigest()


def seam(
  last: int | None, ids: np.ndarray, separator: int | None
) -> np.ndarray:
  """A document's ids, begun so that one separator stands before it.

  Args:
    last: the id before the document; None at the start of a corpus.
    ids: `[length]`, the document.
    separator: the tokenizer's.

  Returns:
    `[length - 1, length or length + 1]`: a separator that is there already, at
    the end of what was or at the beginning of what comes, is not doubled.

  >>> seam(7, np.array([5, 6]), 0), seam(0, np.array([0, 5]), 0)
  (array([0, 5, 6]), array([5]))
  """
  if last is None or separator is None or not len(ids):
    return ids
  if (last == separator) != (ids[0] == separator):
    return ids
  if last == separator:
    return ids[1:]
  return np.concatenate([np.array([separator], ids.dtype), ids])


def begin(size: int, joined: np.ndarray, ids: np.ndarray) -> int:
  """Where a document begins that `seam` joined to so many tokens.

  Args:
    size: tokens before.
    joined: what `seam` made of the document.
    ids: the document.

  >>> begin(2, seam(7, np.array([5, 6]), 0), np.array([5, 6]))
  3
  """
  return size + max(len(joined) - len(ids), 0)


def checked_ids(ids: ArrayLike, vocab_size: int) -> np.ndarray:
  """Ids as integers, everything from the mask up as `vocab_size`."""
  ids = np.asarray(ids)
  if ids.size == 0:
    return np.zeros(0, np.int64)
  if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(f'ids are {ids.dtype} {ids.shape}, not integers [length]')
  if ids.min() < 0:
    raise ValueError(f'id {ids.min()} is negative')
  # Wide enough for the mask of any vocabulary.
  return np.minimum(ids.astype(np.int64), vocab_size)


def optional_library(name: str) -> Any:
  """A library that may be absent, or None."""
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError:
    return None


def lines_of(path: pathlib.Path) -> list[str]:
  """The tokens of a vocabulary with one a line.

  Raises:
    DataError: for a file that is no UTF-8.
  """
  try:
    return path.read_text('utf-8').removesuffix('\n').split('\n')
  except UnicodeDecodeError as error:
    raise DataError(f'{path}: {error}') from error
