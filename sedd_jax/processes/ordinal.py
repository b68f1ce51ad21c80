"""Noise between neighbours of an ordered vocabulary (arXiv 2107.03006, A.2)."""

import numpy as np
from numpy.typing import ArrayLike

from sedd_jax.core import trees
from sedd_jax.processes import tabulated


def gaussian_matrix(vocab_size: int, beta: float) -> np.ndarray:
  """One step of discretised Gaussian noise, `[vocab_size, vocab_size]`.

  Q[i, j] = exp(-4 (i - j)^2 / ((V - 1)^2 beta)) / Z for i != j, with Z the sum
  over all offsets from -(V - 1) to V - 1, and the rest on the diagonal
  (arXiv 2107.03006, A.2.3).
  """
  offsets = np.arange(vocab_size)
  weights = np.exp(-4 * offsets**2.0 / ((vocab_size - 1) ** 2 * beta))
  weights = weights / (2 * weights.sum() - weights[0])
  return _completed(weights[np.abs(offsets[:, None] - offsets)])


def band_matrix(vocab_size: int, beta: float, width: int) -> np.ndarray:
  """One step to any symbol at most `width` away, beta / vocab_size each."""
  offsets = np.arange(vocab_size)
  near = np.abs(offsets[:, None] - offsets) <= width
  return _completed(near * (beta / vocab_size))


def _completed(matrix: np.ndarray) -> np.ndarray:
  """The matrix with what its rows lack on the diagonal."""
  matrix = matrix - np.diag(np.diag(matrix))
  return matrix + np.diag(1 - matrix.sum(1))


def _checked_betas(
  kind: str, vocab_size: int, betas: ArrayLike, highest: float
) -> np.ndarray:
  if vocab_size < 2:
    raise ValueError(f'{kind}: vocab_size must be at least 2, not {vocab_size}')
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or not len(betas) or not (betas > 0).all():
    raise ValueError(f'{kind}: betas must be positive, one a step')
  if betas.max() > highest:
    raise ValueError(
      f'{kind}: a beta of {betas.max():g} leaves less than nothing on the '
      f'diagonal; {highest:g} is the highest'
    )
  return betas


@trees.register
class OrdinalGaussian(tabulated.Tabulated):
  """Discretised Gaussian noise: likelier to move to nearer symbols.

  Step t is `gaussian_matrix(vocab_size, betas[t - 1])`, symmetric, so that the
  limit is uniform.  Levels are steps.  The released code for text spreads
  offsets otherwise, by V / (V - 1).

  >>> import jax.numpy as jnp
  >>> process = OrdinalGaussian(vocab_size=3, betas=[0.5, 0.5])
  >>> print(process.forward(jnp.array([0]), 0, 1).round(2))
  [[0.89 0.11 0.  ]]
  """

  def __init__(
    self, vocab_size: int, betas: ArrayLike, max_gib: float = tabulated.MAX_GIB
  ):
    """Tabulates the chain.

    Args:
      vocab_size: V, symbols in their order.
      betas: `[num_steps]`, above 0: variances, relative to the symbols' range.
      max_gib: the memory that tables may take.

    Raises:
      ValueError: for betas or sizes that do not fit.
    """
    betas = _checked_betas('OrdinalGaussian', vocab_size, betas, np.inf)
    self._tabulate(
      lambda step: gaussian_matrix(vocab_size, betas[step - 1]),
      len(betas),
      vocab_size,
      max_gib,
    )

  @classmethod
  def examples(cls) -> tuple['OrdinalGaussian', ...]:
    """Instances for the contract tests."""
    return (cls(vocab_size=5, betas=np.linspace(0.1, 1.0, 5)),)


@trees.register
class Band(tabulated.Tabulated):
  """Moves to one of the nearest symbols, all equally likely.

  Step t is `band_matrix(vocab_size, betas[t - 1], width)`, symmetric, so that
  the limit is uniform.  Levels are steps.
  """

  def __init__(
    self,
    vocab_size: int,
    betas: ArrayLike,
    width: int = 1,
    max_gib: float = tabulated.MAX_GIB,
  ):
    """Tabulates the chain.

    Args:
      vocab_size: V, symbols in their order.
      betas: `[num_steps]`, in (0, V / (2 width)].
      width: how far one step goes.
      max_gib: the memory that tables may take.

    Raises:
      ValueError: for betas or sizes that do not fit.
    """
    if not 1 <= width < vocab_size:
      raise ValueError(
        f'Band: width must be from 1 to {vocab_size - 1}, not {width}'
      )
    highest = vocab_size / (2 * width)
    betas = _checked_betas('Band', vocab_size, betas, highest)
    self._tabulate(
      lambda step: band_matrix(vocab_size, betas[step - 1], width),
      len(betas),
      vocab_size,
      max_gib,
    )

  @classmethod
  def examples(cls) -> tuple['Band', ...]:
    """Instances for the contract tests."""
    return (cls(vocab_size=6, betas=np.linspace(0.2, 1.0, 5), width=2),)
