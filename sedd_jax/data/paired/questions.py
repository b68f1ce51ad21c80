"""Pairs whose targets are to be written: what of each a system is told.

They keep the order of their file, one question a pair, however many targets it
has.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sedd_jax.data.errors import DataError
from sedd_jax.data.info import DataInfo
from sedd_jax.data.paired import marked, seq2seq
from sedd_jax.data.paired import pairs as pairs_lib
from sedd_jax.data.paired.pairs import Pair


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
  """What a system is told of pairs; nothing of a target's tokens.

  Attributes:
    pairs: source and targets, whole, as the tokenizer spells what it has read.
    tokens: of the joint layout int32 `[n, seq_len]`, the source and its marks,
      0 elsewhere; else None.
    given: bool `[n, seq_len]`, where they stand; None likewise.
    source: of the layout 'split' int32 `[n, source_len]`, -1 behind its end;
      else None.
    cut: bool `[n]`, whether source or first target does not fit.
  """

  pairs: Sequence[Pair]
  tokens: np.ndarray | None
  given: np.ndarray | None
  source: np.ndarray | None
  cut: np.ndarray

  def __len__(self) -> int:
    return len(self.pairs)

  def at(self, rows: np.ndarray) -> dict[str, Any]:
    """The fields `tokens`, `given` and `source` of a request, of some rows."""
    return {
      name: None if x is None else x[rows]
      for name, x in (
        ('tokens', self.tokens),
        ('given', self.given),
        ('source', self.source),
      )
    }


def of_split(
  dataset: seq2seq.PairDataset, split: str, limit: int = 0
) -> Questions:
  """The pairs of a split.

  A source is laid out, and cut, as in training, with the first target beside
  it: what does not fit is cut by the rule of the released code, which knows
  how long the target is.

  Args:
    dataset: pairs.
    split: of the dataset.
    limit: pairs, the first; 0: all.

  Returns:
    The questions, in order.

  Raises:
    DataError: for a split that the dataset lacks, or targets alone.
  """
  if dataset.layout == 'target':
    raise DataError(
      "data.layout='target' has no sources that could be told: use joint, split"
    )
  places = dataset.places(split)
  firsts = np.flatnonzero(places[:, 1] == 0)
  firsts = firsts[: limit or None]
  batch = dataset.eval_batch(split, firsts, len(firsts))
  tokens = given = source = None
  if dataset.layout == 'joint':
    given = batch['given']
    tokens = np.where(given, batch['tokens'], 0).astype(np.int32)
  else:
    source = np.where(batch['source_valid'], batch['source'], -1)
    source = source.astype(np.int32)
  spelled, targets = dataset.spelled(split)
  ends = np.append(np.flatnonzero(places[:, 1] == 0), len(places))
  return Questions(
    pairs=[
      Pair(pair.id, text, tuple(targets[begin:end]))
      for pair, text, begin, end in zip(
        dataset.pairs(split), spelled, firsts, ends[1:]
      )
    ],
    tokens=tokens,
    given=given,
    source=source,
    cut=dataset.was_cut(split)[firsts],
  )


def of_files(
  path: str,
  info: DataInfo,
  *,
  seq_len: int,
  layout: str,
  source_len: int,
  limit: int = 0,
) -> Questions:
  """The pairs of files, as those of a split.

  Args:
    path: files, as for `pairs.find`.
    info: of the corpus that the system knows; its tokenizer is a
      `marked.Marked`.
    seq_len, layout, source_len: as for `PairDataset`.
    limit: pairs, the first; 0: all.

  Returns:
    The questions, in the order of the files.

  Raises:
    DataError: for what is missing, damaged, empty, or no pairs.
  """
  read = pairs_lib.read(pairs_lib.find(path))
  assert isinstance(info.tokenizer, marked.Marked)
  if not read:
    raise DataError(f'{path}: there are no pairs')
  dataset = seq2seq.PairDataset(
    info,
    {path: seq2seq.Rows(read[: limit or None], info.tokenizer)},
    seq_len,
    layout=layout,
    source_len=source_len,
  )
  return of_split(dataset, path)
