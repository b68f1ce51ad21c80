"""Levels that take the same share of the information away at every step.

1 - I(x_t; x_0) / H(x_0) = t / T, x_0 being drawn by the frequencies of symbols
(arXiv 2107.03006, A.7, whose entropies lack their minus signs).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from sedd_jax.processes.base import Relaxing, TokenProcess
from sedd_jax.processes.nearest_neighbor import NearestNeighbor

# Where levels are looked for, from the first noise to the last signal.
_LOWEST, _HIGHEST = 1e-8, 60.0


def removed(rows: ArrayLike, frequencies: ArrayLike) -> float:
  """1 - I(x_t; x_0) / H(x_0): the share of information that noise has taken.

  Args:
    rows: `[vocab_size, num_states]`, q(x_t = . | x_0).
    frequencies: `[vocab_size]`, weights of x_0.

  Returns:
    From 0, nothing, to 1, everything.
  """
  rows = np.asarray(rows, np.float64)
  p = _normalized(frequencies)
  noise = p @ _entropies(rows)
  return 1 - (_entropies(p @ rows) - noise) / _entropies(p)


def levels(
  process: TokenProcess, frequencies: ArrayLike, num_steps: int
) -> np.ndarray:
  """The levels of T steps, `[num_steps + 1]`, from 0 to infinity.

  For absorbing noise they are those of beta_t = 1 / (T - t + 1).

  Args:
    process: noise with a level in [0, infinity]: one that relaxes to a prior,
      or `NearestNeighbor`.
    frequencies: `[vocab_size]`, weights of symbols in the data.
    num_steps: T, at least 2.

  Raises:
    ValueError: another process, frequencies that do not fit, fewer than two
      steps, or more than the process has levels for, at the smallest or at the
      largest.

  >>> from sedd_jax import processes
  >>> uniform = processes.Uniform(vocab_size=3)
  >>> print(levels(uniform, [5, 3, 2], 4).round(3))
  [0.    0.095 0.269 0.601   inf]
  """
  if num_steps < 2:
    raise ValueError(
      f'mutual information shares among at least 2 steps, not {num_steps}'
    )
  size = np.shape(frequencies)
  if size != (process.vocab_size,):
    raise ValueError(
      f'frequencies of shape {size} for {process.vocab_size} symbols'
    )
  if not (np.asarray(frequencies) > 0).sum() > 1:
    raise ValueError('the data has fewer than two symbols: nothing to remove')
  if isinstance(process, NearestNeighbor):
    finest = float(process.finest)
    highest = finest * (2.0 ** len(process.powers) - 1)
    points = 4096 if process.vocab_size <= 256 else 256
    grid = np.geomspace(finest, highest, points)
    grid = np.unique(np.rint(grid / finest)) * finest
    removed_at: Callable[[float], float] = lambda level: removed(  # noqa: E731
      _kernel(process, round(level / finest)), frequencies
    )
  elif isinstance(process, Relaxing):
    grid = np.geomspace(_LOWEST, _HIGHEST, 4096)
    removed_at = _removed_by_relaxing(process, frequencies)
    finest = 0.0
  else:
    raise ValueError(
      f'{type(process).__name__} has levels of its own: mutual information '
      'chooses those of uniform, absorbing, absorbing_uniform and '
      'nearest_neighbor noise'
    )
  shares = np.array([removed_at(level) for level in grid])
  # Where rounding hides what still changes.
  rising = np.append(True, shares[1:] > np.maximum.accumulate(shares)[:-1])
  grid, shares = grid[rising], shares[rising]
  targets = np.arange(1, num_steps) / num_steps
  if targets[0] < shares[0]:
    raise ValueError(
      f'the smallest level takes {shares[0]:.2g} of the information, and a '
      f'step of {num_steps} is to take {targets[0]:.2g}: use fewer steps, or a '
      'smaller process.args.finest'
    )
  if targets[-1] > shares[-1]:
    raise ValueError(
      f'the largest level takes {shares[-1]:.4g} of the information, and the '
      f'last step but one of {num_steps} is to have taken {targets[-1]:.4g}: '
      'use fewer steps, or a larger process.args.furthest'
    )
  inner = np.exp(np.interp(targets, shares, np.log(grid)))
  if not finest:
    inner = np.array([_polished(removed_at, *x) for x in zip(inner, targets)])
  return np.concatenate([[0.0], inner, [np.inf]])


def _polished(
  removed_at: Callable[[float], float], level: float, target: float
) -> float:
  """A level from near it, by secant steps."""
  other = level * (1 + 1e-4)
  at_other = removed_at(other)
  for _ in range(3):
    at = removed_at(level)
    if at == at_other:
      break
    step = (target - at) * (level - other) / (at - at_other)
    level, other, at_other = level + step, level, at
  return level


def _normalized(frequencies: ArrayLike) -> np.ndarray:
  p = np.asarray(frequencies, np.float64)
  return p / p.sum()


def _entropies(probs: np.ndarray) -> np.ndarray:
  """Entropies of the rows, in nats."""
  return -np.sum(probs * np.log(np.where(probs > 0, probs, 1)), axis=-1)


def _kernel(process: NearestNeighbor, count: int) -> np.ndarray:
  """q(x_t | x_0) after `count` of the finest steps, `[vocab_size] * 2`."""
  rows = np.eye(process.vocab_size)
  for order, power in enumerate(np.asarray(process.powers)):
    if count >> order & 1:
      rows = rows @ power
  return rows


def _removed_by_relaxing(
  process: Relaxing, frequencies: ArrayLike
) -> Callable[[float], float]:
  """`removed` of a level, without the matrix."""
  p = _normalized(frequencies)
  prior = np.asarray(process.prior_probs(), np.float64)
  prior = prior / prior.sum()
  mine = prior[: len(p)]

  def xlogx(x):
    return x * np.log(np.where(x > 0, x, 1))

  def share(level: float) -> float:
    kept, moved = np.exp(-level), -np.expm1(-level)
    # Of a row, all entries but the symbol's own are those of the prior.
    rows = -(xlogx(moved * prior).sum() - xlogx(moved * mine))
    rows = rows - xlogx(kept + moved * mine)
    data = np.concatenate([p, np.zeros(len(prior) - len(p))])
    marginal = kept * data + moved * prior
    noise = p @ rows
    return 1 - (_entropies(marginal) - noise) / _entropies(p)

  return share
