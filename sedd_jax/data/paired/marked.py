"""A tokenizer with three marks: where a text begins and ends, and padding."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sedd_jax.data.errors import DataError
from sedd_jax.data.files.documents import Document
from sedd_jax.data.tokenizers import Tokenizer

# Before a text, behind it, and beyond.
MARKS = ('[CLS]', '[SEP]', '[PAD]')


class Marked(Tokenizer):
  """A tokenizer whose vocabulary has `[CLS]`, `[SEP]` and `[PAD]`.

  One that has a token of such a name, as BERT's WordPiece has, keeps its id;
  each of the three that is missing gets the next id behind the tokenizer's own,
  in this order, and `vocab_size` counts it.  No text is read as one of them.

  Attributes:
    cls, sep, pad: their ids.
    plain: the tokenizer without them.

  >>> from sedd_jax.data import tokenizers
  >>> tokenizer = Marked(tokenizers.make('text8'))
  >>> tokenizer.vocab_size, tokenizer.cls, tokenizer.sep, tokenizer.pad
  (30, 27, 28, 29)
  >>> tokenizer.decode([27, 1, 2, 28, 29])
  '[CLS] ab [SEP] [PAD]'
  >>> tokenizer.text([27, 1, 2, 28, 29])
  'ab'
  """

  def __init__(self, plain: Tokenizer):
    """Finds the marks, or adds them."""
    known = dict(plain.vocabulary or {})
    missing = [mark for mark in MARKS if mark not in known]
    added = {mark: plain.vocab_size + i for i, mark in enumerate(missing)}
    ids = known | added
    self.plain = plain
    self.name, self.unit, self.files = plain.name, plain.unit, plain.files
    self.vocab_size = plain.vocab_size + len(missing)
    self.cls, self.sep, self.pad = (ids[mark] for mark in MARKS)
    self.separator = self.sep
    self._added = added
    self._own = {mark: ids[mark] for mark in MARKS if mark not in added}

  @property
  def pieces(self) -> Sequence[bytes] | None:
    """Those of the tokenizer; a mark is no text."""
    pieces = self.plain.pieces
    return None if pieces is None else [*pieces, *[b''] * len(self._added)]

  @property
  def vocabulary(self) -> Mapping[str, int] | None:
    """The tokenizer's and the marks; None for plain symbols."""
    known = self.plain.vocabulary
    return None if known is None else {**known, **self._added}

  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[length]` of a text, without marks.

    Raises:
      DataError: for a text that the tokenizer has no ids for, or that it reads
        as a mark.
    """
    return self._without_marks(self.plain.encode(text, dtype), repr(text[:60]))

  def encode_documents(self, batch: Sequence[Document]) -> list[np.ndarray]:
    """Ids of texts as of a corpus: under 'text8' they are normalised."""
    found = self.plain.encode_documents(batch)
    for ids, document in zip(found, batch):
      self._without_marks(ids, document.where)
    return found

  def decode(self, ids: ArrayLike) -> str:
    """The text, marks between spaces; other ids from the marks up: a mask."""
    ids = np.asarray(ids)
    names = dict(zip((self.cls, self.sep, self.pad), MARKS))
    cuts = np.flatnonzero(np.isin(ids, list(names)))
    pieces = []
    for run in np.split(ids, np.unique([*cuts, *(cuts + 1)])):
      if len(run):
        mark = names.get(int(run[0]))
        pieces.append(mark or self._plainly(run))
    return ' '.join(pieces) if len(cuts) else ''.join(pieces)

  def text(self, ids: ArrayLike, *, cut: bool = False) -> str:
    """The text of ids without marks and white space around it.

    Args:
      ids: `[length]`.
      cut: whether it ends at the first `[SEP]` behind a token; without, what
        is behind one stays, as DiffuSeq's evaluator reads its samples.
    """
    ids = np.asarray(ids)
    marks = np.isin(ids, (self.cls, self.sep, self.pad))
    if cut:
      begun = np.cumsum(~marks) > 0
      ends = np.flatnonzero(begun & (ids == self.sep))
      if len(ends):
        ids, marks = ids[: ends[0]], marks[: ends[0]]
    return self._plainly(ids[~marks]).strip()

  def num_characters(self, ids: np.ndarray) -> int:
    """Characters that ids spell; marks have none."""
    ids = np.asarray(ids)
    marks = np.isin(ids, (self.cls, self.sep, self.pad))
    return self.plain.num_characters(ids[~marks])

  def _plainly(self, ids: np.ndarray) -> str:
    """What the tokenizer reads; ids beyond all are its mask."""
    beyond = self.plain.vocab_size
    # That id may be more than the type of a smaller one holds.
    ids = ids.astype(np.int64)
    return self.plain.decode(np.where(ids < self.vocab_size, ids, beyond))

  def _without_marks(self, ids: np.ndarray, where: str) -> np.ndarray:
    # An id that was added no text has.
    for mark, token in self._own.items():
      if (ids == token).any():
        raise DataError(
          f'{where}: its text holds {mark}, which tokenizer {self.name!r} '
          'reads as a mark'
        )
    return ids
