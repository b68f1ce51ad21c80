"""How papers cut the examples of a set to sequences.

A perplexity a token belongs to its packing: where the ends of text stand, what
is dropped, what is told and not counted.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Examples that the released code joins at once.
_GROUP = 1000


class Rows(NamedTuple):
  """Sequences of a set.

  Attributes:
    tokens: `[n, length]` integers, 0 where not valid.
    valid: `[n, length]` bool, not padding.
    given: `[n, length]` bool, told and not counted.
  """

  tokens: np.ndarray
  valid: np.ndarray
  given: np.ndarray

  def counted(self) -> np.ndarray:
    """The tokens that count, in order, `[any]`."""
    return self.tokens[self.valid & ~self.given]


def _rows_of(pieces: Sequence[np.ndarray], length: int) -> Rows:
  """Each piece of at most a length as a row."""
  tokens = np.zeros((len(pieces), length), np.int64)
  valid = np.zeros(tokens.shape, bool)
  for row, piece in enumerate(pieces):
    tokens[row, : len(piece)] = piece
    valid[row, : len(piece)] = True
  return Rows(tokens, valid, np.zeros(tokens.shape, bool))


def _chunks(tokens: np.ndarray, length: int) -> Rows:
  """A text cut into rows, the last of which may be short."""
  count = -(-len(tokens) // length)
  padded = np.zeros(count * length, np.int64)
  padded[: len(tokens)] = tokens
  valid = np.arange(len(padded)) < len(tokens)
  shape = (count, length)
  return Rows(
    padded.reshape(shape), valid.reshape(shape), np.zeros(shape, bool)
  )


def slid(
  examples: Sequence[np.ndarray], length: int, end: int | None, stride: int
) -> Rows:
  """All of it, each example with an end behind, in windows that overlap.

  A window begins `stride` tokens after the one before, whose tokens it is told:
  every token counts once, after the first window with at least `length -
  stride` before it.

  Args:
    examples: ids `[tokens]` each.
    length: tokens a window.
    end: the token behind every example, or None.
    stride: in [1, length].

  Returns:
    The windows.
  """
  tokens = _joined(examples, end)
  starts = range(0, max(len(tokens) - length, 0) + stride, stride)
  found = _rows_of(
    [tokens[i : i + length] for i in starts if len(tokens)], length
  )
  found.given[1:, : length - stride] = True
  return found


def _joined(examples: Sequence[np.ndarray], end: int | None) -> np.ndarray:
  behind = np.array([] if end is None else [end], np.int64)
  pieces = [piece for ids in examples for piece in (ids, behind)]
  return np.concatenate([behind[:0], *pieces]).astype(np.int64)


def packed_whole(
  examples: Sequence[np.ndarray],
  length: int,
  begin: int | None,
  end: int | None,
) -> Rows:
  """All of it, in order, with ends; the last sequence may be short.

  Args:
    examples: ids `[tokens]` each.
    length: tokens a sequence.
    begin: not used.
    end: the token behind every example, or None.

  Returns:
    The sequences.
  """
  del begin
  return _chunks(_joined(examples, end), length)


def packed_apart(
  examples: Sequence[np.ndarray], length: int, begin: int, end: int
) -> Rows:
  """Each example a sequence of its own between begin and end, cut and padded.

  (MDLM's code without wrapping, arXiv 2406.07524.)  Both ends count.

  Args:
    examples: ids `[tokens]` each.
    length: tokens a sequence, at least 3.
    begin: the token before every example.
    end: the token behind it.

  Returns:
    The sequences.
  """
  pieces = [np.array([begin, *ids[: length - 2], end]) for ids in examples]
  return _rows_of(pieces, length)


def packed_as_mdlm(
  examples: Sequence[np.ndarray], length: int, begin: int, end: int
) -> Rows:
  """As SEDD's, cut two tokens shorter and each piece put between two tokens.

  (MDLM's code with wrapping, arXiv 2406.07524.)  Both ends count.

  Args:
    examples: ids `[tokens]` each.
    length: tokens a sequence, at least 3.
    begin: the token before every piece.
    end: the token behind every example and every piece.

  Returns:
    The sequences.
  """
  inner = packed_as_sedd(examples, length - 2, end).reshape(-1, length - 2)
  tokens = np.pad(inner, [(0, 0), (1, 1)])
  tokens[:, 0], tokens[:, -1] = begin, end
  return _chunks(tokens.reshape(-1), length)


def packed_as_sedd(
  examples: Sequence[np.ndarray], length: int, end: int
) -> np.ndarray:
  """Examples, each with an end behind, joined by the thousand and cut.

  What is left over of a thousand is dropped (the released code of SEDD, arXiv
  2310.16834).

  Args:
    examples: ids `[tokens]` each.
    length: tokens a sequence.
    end: the token behind every example.

  Returns:
    `[sequences * length]`.
  """
  pieces = []
  for first in range(0, len(examples), _GROUP):
    group = examples[first : first + _GROUP]
    joined = np.concatenate([piece for ids in group for piece in (ids, [end])])
    pieces.append(joined[: len(joined) // length * length])
  return np.concatenate([np.zeros(0, np.int64), *pieces]).astype(np.int64)


def _sedd(
  examples: Sequence[np.ndarray], length: int, begin: int, end: int
) -> Rows:
  del begin
  return _chunks(packed_as_sedd(examples, length, end), length)


# Name to `(examples, length, begin, end) -> Rows`.
PROTOCOLS: dict[str, Callable[..., Rows]] = {
  'mdlm': packed_as_mdlm,
  'mdlm_apart': packed_apart,
  'sedd': _sedd,
  'whole': packed_whole,
}
# Those that put tokens around a sequence.
BETWEEN = ('mdlm', 'mdlm_apart')
