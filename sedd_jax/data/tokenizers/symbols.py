"""Tokenizers of single characters and bytes, which need no files."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sedd_jax.data.errors import DataError
from sedd_jax.data.files.documents import Document
from sedd_jax.data.tokenizers.base import Tokenizer, checked_ids

_DIGITS = (
  (b'0', b' zero '),
  (b'1', b' one '),
  (b'2', b' two '),
  (b'3', b' three '),
  (b'4', b' four '),
  (b'5', b' five '),
  (b'6', b' six '),
  (b'7', b' seven '),
  (b'8', b' eight '),
  (b'9', b' nine '),
)
_LETTERS = b'abcdefghijklmnopqrstuvwxyz'
_TO_LETTERS = bytes.maketrans(
  bytes(range(256)),
  bytes(
    ord(c.lower()) if c.isascii() and c.isalnum() else 32
    for c in map(chr, range(256))
  ),
)
_NO_ID = 255
_TEXT8_IDS = np.full(256, _NO_ID, np.uint8)
_TEXT8_IDS[list(b' ' + _LETTERS)] = np.arange(27)
_MASK_CHARACTER = ord('_')


def normalise(text: str) -> str:
  """Text in the alphabet of text8: a to z and single spaces.

  The published rules for plain text: A to Z become lower case, digits are
  spelled out, every run of anything else becomes one space.  The result stays
  as it is under the same rules.

  Source: the filter on mattmahoney.net/dc/textdata.html, without its rules for
  wiki markup.

  >>> normalise('In 1905, Einstein: E=mc^2!')
  'in one nine zero five einstein e mc two '
  """
  data = text.encode('utf-8', 'replace').translate(_TO_LETTERS)
  for digit, word in _DIGITS:
    data = data.replace(digit, word)
  return re.sub(rb' {2,}', b' ', data).decode('ascii')


class Text8(Tokenizer):
  """Space (0) and a to z (1 to 26), one id a character.

  >>> tokenizer = Text8()
  >>> tokenizer.encode('a bz')
  array([ 1,  0,  2, 26], dtype=int32)
  >>> tokenizer.decode([1, 0, 27])
  'a _'
  """

  name = 'text8'
  vocab_size = 27
  unit = 'character'
  adds_up = True
  separator = 0

  @property
  def pieces(self) -> Sequence[bytes]:
    """A letter each."""
    return [bytes([letter]) for letter in b' ' + _LETTERS]

  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[length]`, one a character; nothing is normalised.

    Raises:
      DataError: for a character outside the alphabet, with its offset.
    """
    # 'replace' writes one '?' a character, so that offsets stay.
    ids = _TEXT8_IDS[np.frombuffer(text.encode('ascii', 'replace'), np.uint8)]
    if (ids == _NO_ID).any():
      offset = int((ids == _NO_ID).argmax())
      raise DataError(
        f'character {text[offset]!r} at offset {offset:,} is outside the '
        f"alphabet of tokenizer 'text8' (a to z and space)"
      )
    return ids.astype(dtype, copy=False)

  def decode(self, ids: ArrayLike) -> str:
    """One character an id; `_` from `vocab_size` up."""
    letters = np.frombuffer(b' ' + _LETTERS + b'_', np.uint8)
    return letters[checked_ids(ids, self.vocab_size)].tobytes().decode('ascii')

  def num_characters(self, ids: np.ndarray) -> int:
    """One a token."""
    return len(ids)

  def encode_documents(self, batch: Sequence[Document]) -> list[np.ndarray]:
    """Ids of the normalised documents."""
    return [
      self.encode(normalise(document.text()), np.uint8) for document in batch
    ]


class Bytes(Tokenizer):
  """The 256 bytes of UTF-8.

  >>> Bytes().encode('é')
  array([195, 169], dtype=int32)
  >>> Bytes().decode([195, 169, 256])
  'é_'
  """

  name = 'bytes'
  vocab_size = 256
  unit = 'byte'
  adds_up = True
  separator = ord('\n')

  @property
  def pieces(self) -> Sequence[bytes]:
    """A byte each."""
    return [bytes([byte]) for byte in range(256)]

  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[bytes]`.

    Raises:
      DataError: for a lone surrogate, which UTF-8 cannot spell.
    """
    try:
      data = text.encode('utf-8')
    except UnicodeEncodeError as error:
      raise DataError(
        f'character {text[error.start]!r} at offset {error.start:,} has no '
        'UTF-8 bytes'
      ) from error
    return np.frombuffer(data, np.uint8).astype(dtype, copy=False)

  def decode(self, ids: ArrayLike) -> str:
    """UTF-8, with U+FFFD for what is invalid; `_` from `vocab_size` up."""
    clipped = checked_ids(ids, self.vocab_size)
    data = np.where(clipped == self.vocab_size, _MASK_CHARACTER, clipped)
    return data.astype(np.uint8).tobytes().decode('utf-8', 'replace')

  def num_characters(self, ids: np.ndarray) -> int:
    """Bytes: one a token."""
    return len(ids)

  def encode_documents(self, batch: Sequence[Document]) -> list[np.ndarray]:
    """The documents' bytes as they are, valid UTF-8 or not."""
    return [np.frombuffer(document.data, np.uint8) for document in batch]
