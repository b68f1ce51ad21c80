"""Noise that moves a token to its neighbours in a space of embeddings."""

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, trees
from sedd_jax.processes import tabulated

# Neighbours of a symbol that the released text8 model has.
NUM_NEIGHBORS = 5


def neighbor_rates(embeddings: ArrayLike, k: int) -> np.ndarray:
  """The generator of a walk on the graph of nearest neighbours.

  With G[i, j] = 1 where j is among the k nearest of i (by the angle between
  their embeddings, i itself left out) and A = (G + G^T) / (2 k), it is R = A -
  diag(A 1) (arXiv 2107.03006, A.2.4; its off-diagonal entries are not negative,
  whatever A.4.2 says).  Symmetric, so that the uniform law is kept.

  Args:
    embeddings: `[vocab_size, width]`, no row of which is zero.
    k: neighbours of a symbol.

  Returns:
    `[vocab_size, vocab_size]` float64, rows summing to 0.

  Raises:
    ValueError: k or embeddings that do not fit.
  """
  embeddings = np.asarray(embeddings, np.float64)
  if embeddings.ndim != 2:
    raise ValueError(f'embeddings must be a matrix, not {embeddings.shape}')
  size = len(embeddings)
  if not 1 <= k < size:
    raise ValueError(
      f'NearestNeighbor: k must be from 1 to {size - 1}, one less than the '
      f'vocabulary, not {k}'
    )
  lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
  if not (np.isfinite(lengths).all() and lengths.all()):
    raise ValueError('NearestNeighbor: an embedding is zero or not finite')
  units = embeddings / lengths
  likeness = units @ units.T
  np.fill_diagonal(likeness, -np.inf)
  nearest = np.argsort(-likeness, axis=1, kind='stable')[:, :k]
  graph = np.zeros((size, size))
  np.put_along_axis(graph, nearest, 1, axis=1)
  moves = (graph + graph.T) / (2 * k)
  return moves - np.diag(moves.sum(1))


def parts_of(rates: np.ndarray) -> int:
  """The number of parts of the graph that no move connects."""
  joined = rates != 0
  unseen, parts = set(range(len(rates))), 0
  while unseen:
    parts += 1
    front = {unseen.pop()}
    while front:
      reached = set(np.flatnonzero(joined[sorted(front)].any(0)).tolist())
      front = reached & unseen
      unseen -= front
  return parts


def powers_of(rates: np.ndarray, finest: float, orders: int) -> np.ndarray:
  """exp(finest 2^k R) for k = 0, ..., orders - 1, by non-negative sums.

  Args:
    rates: the generator R.
    finest: the exponent of the first.
    orders: how many.

  Returns:
    `[orders, n, n]` float64, rows summing to 1.
  """
  # exp(u R) = sum_n Poisson(n; u r) P^n with P = I + R / r: nothing cancels.
  fastest = -np.diag(rates).min()
  jump = np.eye(len(rates)) + rates / fastest
  mean = finest * fastest
  # The sum is of few terms where the mean is small; squares make up for it.
  halvings = max(0, math.ceil(math.log2(mean)))
  mean = mean / 2**halvings
  weight, term = math.exp(-mean), np.eye(len(rates))
  power = weight * term
  for n in range(1, 30):
    weight *= mean / n
    term = term @ jump
    power += weight * term
  for _ in range(halvings):
    power = power @ power
  powers = []
  for _ in range(orders):
    # What rounding makes of the rows' sums would grow with each square.
    power = power / power.sum(1, keepdims=True)
    powers.append(power)
    power = power @ power
  return np.stack(powers)


@trees.register
@dataclasses.dataclass(frozen=True, eq=False, init=False, repr=False)
class NearestNeighbor(tabulated.Products):
  """q(x_t | x_0) = exp(level R), R the generator of `neighbor_rates`.

  Levels are exponents in [0, infinity], rounded to multiples of `finest`; those
  above `furthest` count as infinite: uniform.  exp(finest 2^k R) is tabulated
  for as many k as `furthest` needs.  Source: arXiv 2107.03006, A.2.4, A.4.

  Attributes:
    vocab_size: symbols.
    powers: `[orders, vocab_size, vocab_size]`, exp(finest 2^k R).
    finest: the smallest step between levels.
    prior: `[vocab_size]`, uniform.

  >>> process = NearestNeighbor(vocab_size=4, embeddings=np.eye(4), k=3)
  >>> print(process.forward(jnp.array([0]), 0.0, jnp.inf))
  [[0.25 0.25 0.25 0.25]]
  """

  vocab_size: int = dataclasses.field(metadata={'static': True})
  powers: Any
  finest: Any
  prior: Any

  def __init__(
    self,
    vocab_size: int,
    embeddings: ArrayLike | str | os.PathLike | None = None,
    k: int = NUM_NEIGHBORS,
    finest: float = 1e-6,
    furthest: float = 100.0,
    max_gib: float = tabulated.MAX_GIB,
    seed: int = 0,
  ):
    """Tabulates the powers.

    Args:
      vocab_size: symbols.
      embeddings: `[vocab_size, width]`, or a file of numpy's (.npy) with them;
        None: drawn at random, in 16 dimensions.
      k: neighbours of a symbol.
      finest: the smallest step between levels.
      furthest: the largest level that is not taken for infinity.
      max_gib: the memory that tables may take.
      seed: of random embeddings.

    Raises:
      ValueError: for sizes, levels or a file that do not fit, or a graph that
        falls into parts.
    """
    if not 0 < finest < furthest < math.inf or finest > 1:
      raise ValueError(
        'NearestNeighbor: levels must satisfy 0 < finest < furthest and finest '
        f'<= 1, not {finest} and {furthest}'
      )
    orders = math.ceil(math.log2(furthest / finest)) + 1
    if orders > 31:
      raise ValueError(
        f'NearestNeighbor: furthest / finest is {furthest / finest:.3g}, above '
        '2^30'
      )
    tabulated.require_memory(
      'NearestNeighbor',
      orders,
      vocab_size,
      max_gib,
      'use a coarser process.args.finest, or uniform noise',
    )
    if embeddings is None:
      rng = np.random.default_rng(seed)
      embeddings = rng.standard_normal((vocab_size, 16))
    if isinstance(embeddings, str | os.PathLike):
      embeddings = tabulated.read_array(
        embeddings, 'NearestNeighbor: embeddings'
      )
    if np.shape(embeddings)[:1] != (vocab_size,):
      raise ValueError(
        f'NearestNeighbor: embeddings of shape {np.shape(embeddings)} for a '
        f'vocabulary of {vocab_size}'
      )
    rates = neighbor_rates(embeddings, k)
    if (parts := parts_of(rates)) > 1:
      raise ValueError(
        f'NearestNeighbor: with k={k} the graph falls into {parts} parts, and '
        'noise never leaves one; use a larger k'
      )
    fields = {
      'vocab_size': vocab_size,
      'powers': powers_of(rates, finest, orders),
      'finest': np.float64(finest),
      'prior': np.full(vocab_size, 1 / vocab_size),
    }
    for name, value in fields.items():
      object.__setattr__(self, name, value)

  @classmethod
  def examples(cls) -> tuple['NearestNeighbor', ...]:
    """Instances for the contract tests."""
    embeddings = np.random.default_rng(0).standard_normal((6, 3))
    return (
      cls(vocab_size=6, embeddings=embeddings, k=2, finest=0.1, furthest=10.0),
    )

  def with_powers(self, powers: ArrayLike) -> 'NearestNeighbor':
    """The same with other tables, also in traced code; unchecked."""
    leaves, structure = jax.tree.flatten(self)
    return jax.tree.unflatten(structure, [powers, *leaves[1:]])

  @property
  def num_states(self) -> int:
    """The same as `vocab_size`."""
    return self.vocab_size

  def _limited(self, level: Array) -> Array:
    highest = 2 ** len(self.powers) - 1
    return jnp.where(self._count(level) > highest, jnp.inf, level)

  def _count(self, level: Array) -> Array:
    """The level in units of the finest step, a float."""
    finest = jnp.asarray(self.finest, numerics.compute_dtype())
    return jnp.round(level / finest)

  def _factors(
    self, start: Array, stop: Array, *, from_data: bool
  ) -> list[tuple[Array, Array]]:
    del from_data
    first = self._count(start).astype(jnp.int32)
    steps = self._count(stop).astype(jnp.int32) - first
    powers = jnp.asarray(self.powers, numerics.compute_dtype())
    return [
      (power, (steps >> order) & 1 == 1) for order, power in enumerate(powers)
    ]


def connected(
  vocab_size: int,
  embeddings: ArrayLike,
  k: int = NUM_NEIGHBORS,
  **settings: Any,
) -> NearestNeighbor:
  """The process with as many neighbours, from k on, as join the whole graph.

  Args:
    vocab_size: symbols.
    embeddings: `[vocab_size, width]`.
    k: neighbours of a symbol, at least.
    **settings: of `NearestNeighbor`.

  Raises:
    ValueError: for sizes, levels or embeddings that do not fit.
  """
  while k < vocab_size - 1 and parts_of(neighbor_rates(embeddings, k)) > 1:
    k += 1
  return NearestNeighbor(vocab_size, embeddings, k, **settings)
