"""How a source and its target lie in a sequence of fixed length."""

from typing import NamedTuple

import numpy as np

# The pair in one sequence; each in its own; the target alone.
LAYOUTS = ('joint', 'split', 'target')
# Shortest sequences: two marks and a token, or a pair of them and a separator.
MIN_LENGTH = {'joint': 7, 'split': 3, 'target': 3}


class Marks(NamedTuple):
  """Ids of `[CLS]`, `[SEP]` and `[PAD]`."""

  cls: int
  sep: int
  pad: int


def kept_of_pair(source: int, target: int, length: int) -> tuple[int, int]:
  """How many tokens of a pair stay in a joint sequence.

  DiffuSeq's rule (released code, arXiv 2210.08933): with `[CLS]` counted, the
  longer of the two loses its last token until both, their last `[SEP]` and a
  separator fit; if they are as long, both do.

  Args:
    source: tokens of the source, without marks.
    target: tokens of the target.
    length: of the sequence.

  Returns:
    What stays of each.

  >>> kept_of_pair(9, 3, 14), kept_of_pair(9, 9, 14)
  ((6, 3), (4, 4))
  """
  room = length - 5
  if source + target <= room:
    return source, target
  shorter = min(source, target)
  if 2 * shorter > room:
    return room // 2, room // 2
  rest = room - shorter
  return (rest, shorter) if target == shorter else (shorter, rest)


def joint(
  source: np.ndarray, target: np.ndarray, length: int, marks: Marks
) -> tuple[np.ndarray, np.ndarray, int]:
  """`[CLS] x [SEP] [SEP] [CLS] y [SEP] [PAD] ...`, as DiffuSeq has it.

  Args:
    source: `[n]` ids of x.
    target: `[m]` ids of y.
    length: of the sequence, 7 or more; a longer pair is cut.
    marks: ids.

  Returns:
    Tokens int32 `[length]`, `given` bool `[length]`: True on x, its marks and
    the separator (where DiffuSeq's `input_mask` is 0), and the number of tokens
    before the padding.
  """
  first, second = kept_of_pair(len(source), len(target), length)
  tokens = np.full(length, marks.pad, np.int32)
  given = np.zeros(length, bool)
  end = first + 3
  tokens[:end] = [marks.cls, *source[:first], marks.sep, marks.sep]
  given[:end] = True
  used = end + second + 2
  tokens[end:used] = [marks.cls, *target[:second], marks.sep]
  return tokens, given, used


def framed(
  ids: np.ndarray, length: int, marks: Marks
) -> tuple[np.ndarray, int]:
  """`[CLS] x [SEP] [PAD] ...`.

  Args:
    ids: `[n]`.
    length: of the sequence, 3 or more; of longer texts the end is cut.
    marks: ids.

  Returns:
    Tokens int32 `[length]`, and the number of those before the padding.
  """
  tokens = np.full(length, marks.pad, np.int32)
  used = min(len(ids), length - 2) + 2
  tokens[:used] = [marks.cls, *ids[: length - 2], marks.sep]
  return tokens, used
