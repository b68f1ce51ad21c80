"""Vocabularies of whole words."""

import collections
import pathlib
import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.tokenizers.base import Tokenizer, checked_ids, lines_of

WORDS_FILE = 'words.txt'
_UNKNOWN = '[UNK]'
# Diffusion-LM's START, END, UNK and PAD, by the names that `marked` looks for.
SPECIAL_WORDS = ('[CLS]', '[SEP]', _UNKNOWN, '[PAD]')
_WORDS = re.compile(
  r"\d+(?:[.,]\d+)*|\w+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+|[^\w\s]"
)


class Words(Tokenizer):
  """Whole words, from a `words.txt` with one a line in the order of the ids.

  Diffusion-LM's vocabulary (arXiv 2205.14217) with the first four its START,
  END, UNK and PAD.  Text is cut by `split_words`, and a word that is not there
  becomes `[UNK]`; decoding puts a space between words.
  """

  unit = 'token'

  def __init__(self, path: pathlib.Path, name: str):
    """Reads the words.

    Raises:
      DataError: for a file that is missing, has a word twice, or begins with
        other than `SPECIAL_WORDS`.
    """
    self.name = name
    self.files = {path.name: path}
    if not path.is_file():
      raise DataError(documents.missing(path))
    self._words = lines_of(path)
    if tuple(self._words[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
      raise DataError(f'{path}: does not begin with {" ".join(SPECIAL_WORDS)}')
    self._ids = {word: index for index, word in enumerate(self._words)}
    if len(self._ids) < len(self._words):
      seen = collections.Counter(self._words).most_common(1)[0][0]
      raise DataError(f'{path}: the word {seen!r} is there more than once')
    self.vocab_size = len(self._words)
    self.separator = self._ids['[SEP]']

  @property
  def vocabulary(self) -> Mapping[str, int]:
    """Word to id."""
    return self._ids

  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[words]`; names of special words in a text are cut like others."""
    unknown = self._ids[_UNKNOWN]
    ids = [self._ids.get(word, unknown) for word in split_words(text)]
    return np.array(ids, dtype)

  def decode(self, ids: ArrayLike) -> str:
    """Words with a space between; `[MASK]` from `vocab_size` up."""
    words = [*self._words, '[MASK]']
    return ' '.join(words[i] for i in checked_ids(ids, self.vocab_size))

  def num_characters(self, ids: np.ndarray) -> int:
    """Characters of the decoded text; special words, [UNK] too, have none."""
    return len(self.decode(ids[ids >= len(SPECIAL_WORDS)]))


def split_words(text: str) -> list[str]:
  """Words, numbers and single signs of a text, as they are written.

  A number keeps its points and commas, English contractions are cut (do n't,
  it 's), any other sign stands alone.

  >>> split_words("It's £10.50, isn't it?")
  ['It', "'s", '£', '10.50', ',', 'is', "n't", 'it', '?']
  """
  return _WORDS.findall(text)


def word_counts(texts: Iterable[str]) -> collections.Counter[str]:
  """How often each word of `split_words` is in texts."""
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    counts.update(split_words(text))
  return counts


def words_file(counts: Mapping[str, int], above: int) -> str:
  """The `words.txt` of words that are there more than so many times.

  Behind `SPECIAL_WORDS`, the most frequent first, equal ones by their letters.

  >>> words_file({'pub': 3, 'a': 3, 'inn': 1}, above=1).split()
  ['[CLS]', '[SEP]', '[UNK]', '[PAD]', 'a', 'pub']
  """
  kept = sorted(
    (word for word, count in counts.items() if count > above),
    key=lambda word: (-counts[word], word),
  )
  return '\n'.join([*SPECIAL_WORDS, *kept]) + '\n'
