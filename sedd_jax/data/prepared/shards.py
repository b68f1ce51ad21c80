"""Arrays that follow one another, read as one.

A split of many files is mapped file by file; what lies across two of them is
copied only when it is asked for.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike


class Joined:
  """Consecutive arrays `[n_i]` of one type: what an array `[sum n_i]` gives.

  `len`, `dtype`, `shape`, an index, a slice (step 1) and `np.asarray`; a slice
  inside one part is a view, one across parts a copy.

  >>> tokens = Joined([np.arange(3), np.arange(3, 7)])
  >>> len(tokens), int(tokens[-1]), tokens[1:3], tokens[2:5]
  (7, 6, array([1, 2]), array([2, 3, 4]))
  """

  ndim = 1

  def __init__(self, parts: Sequence[np.ndarray]):
    """At least one part."""
    self.parts = tuple(parts)
    self.dtype = self.parts[0].dtype
    self.begins = np.cumsum([0, *map(len, self.parts)])
    # Ten times faster to slice than a memmap, which makes a memmap.
    self.plain = tuple(np.asarray(part) for part in parts)

  def __len__(self) -> int:
    return int(self.begins[-1])

  @property
  def shape(self) -> tuple[int]:
    """`(len,)`."""
    return (len(self),)

  def __getitem__(self, key: int | slice) -> np.ndarray:
    if isinstance(key, slice):
      begin, end, step = key.indices(len(self))
      if step != 1:
        raise IndexError(f'slices of shards have step 1, not {step}')
      pieces = between(self, begin, end)
      return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if not -len(self) <= key < len(self):
      raise IndexError(f'index {key} of {len(self)} tokens')
    key %= len(self)
    part = int(np.searchsorted(self.begins, key, 'right')) - 1
    return self.plain[part][key - self.begins[part]]

  def __array__(
    self, dtype: DTypeLike | None = None, copy: bool | None = None
  ) -> np.ndarray:
    if copy is False and len(self.parts) > 1:
      raise ValueError('tokens of several shards are no array without a copy')
    return np.concatenate(self.plain).astype(dtype or self.dtype, copy=False)


Tokens = np.ndarray | Joined


def parts_of(tokens: Tokens) -> tuple[np.ndarray, ...]:
  """The arrays that tokens consist of."""
  return tokens.parts if isinstance(tokens, Joined) else (tokens,)


def joined(pieces: Sequence[np.ndarray]) -> Tokens:
  """Pieces as one, without a copy; one that is alone is itself."""
  filled = [piece for piece in pieces if len(piece)] or list(pieces[:1])
  return filled[0] if len(filled) == 1 else Joined(filled)


def between(tokens: Tokens, begin: int, end: int) -> list[np.ndarray]:
  """Views of the tokens from `begin` up to `end`, at least one.

  >>> between(Joined([np.arange(3), np.arange(3, 7)]), 2, 5)
  [array([2]), array([3, 4])]
  """
  parts = parts_of(tokens)
  begins = np.cumsum([0, *map(len, parts)])
  pieces = [
    part[max(begin - at, 0) : max(end - at, 0)]
    for part, at in zip(parts, begins.tolist())
  ]
  return [piece for piece in pieces if len(piece)] or [parts[0][:0]]


def chunks(tokens: Tokens, places: np.ndarray, length: int) -> np.ndarray:
  """Consecutive runs of tokens, by their number.

  Args:
    tokens: `[num_tokens]`.
    places: `[n]` numbers of whole runs.
    length: tokens a run.

  Returns:
    `[n, length]` integers.
  """
  if isinstance(tokens, Joined):
    return windows(tokens, places * length, length)
  whole = len(tokens) // length
  return tokens[: whole * length].reshape(whole, length)[places]


def windows(tokens: Tokens, starts: np.ndarray, length: int) -> np.ndarray:
  """Runs of tokens.

  Args:
    tokens: `[num_tokens]`.
    starts: `[n]` first tokens, at most `num_tokens - length`.
    length: tokens a run.

  Returns:
    int32 `[n, length]`.
  """
  if not isinstance(tokens, Joined):
    # A view: row i begins at token i.  Picking rows copies whole runs, ten
    # times faster than picking tokens.
    return sliding_window_view(tokens, length)[starts].astype(np.int32)
  rows = np.empty((len(starts), length), np.int32)
  places = np.searchsorted(tokens.begins, starts, 'right') - 1
  offsets = starts - tokens.begins[places]
  for row, place, offset in zip(rows, places.tolist(), offsets.tolist()):
    piece = tokens.plain[place][offset : offset + length]
    row[: len(piece)] = piece
    done = len(piece)
    while done < length:
      place += 1
      piece = tokens.plain[place][: length - done]
      row[done : done + len(piece)] = piece
      done += len(piece)
  return rows
