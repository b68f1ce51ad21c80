"""Pairs with labels: what meanings and tagged words have in common."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sedd_jax.data.paired import seq2seq


class Labelled:
  """Pairs with a `label` in each batch; all else is as of the pairs.

  A kind of labels defines `train_labels` and `eval_labels`.

  Attributes:
    info: that of the pairs, with the labels.
  """

  def __init__(self, pairs: seq2seq.PairDataset, known: Sequence[str]):
    """Pairs, and the names of their labels in the order of their numbers."""
    self._pairs = pairs
    self.info = dataclasses.replace(pairs.info, labels=tuple(known))

  def __getattr__(self, name: str) -> Any:
    """What is not changed here."""
    if name.startswith('_'):
      raise AttributeError(name)
    return getattr(self._pairs, name)

  def train_labels(
    self, seed: int, step: int, indices: np.ndarray
  ) -> np.ndarray:
    """int32 `[b, ...]`, by seed, step and index alone."""
    raise NotImplementedError

  def eval_labels(self, split: str, indices: np.ndarray) -> np.ndarray:
    """int32 `[b, ...]`, by the row alone; none behind the last row."""
    raise NotImplementedError

  def train_batch(
    self, seed: int, step: int, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """As `PairDataset.train_batch`, with `label [b, ...]`."""
    batch = self._pairs.train_batch(seed, step, indices, count)
    index = np.asarray(indices, np.int64)
    return batch | {'label': self.train_labels(seed, step, index)}

  def eval_batch(
    self, split: str, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """As `PairDataset.eval_batch`, with `label [b, ...]`."""
    batch = self._pairs.eval_batch(split, indices, count)
    index = np.asarray(indices, np.int64)
    return batch | {'label': self.eval_labels(split, index)}
