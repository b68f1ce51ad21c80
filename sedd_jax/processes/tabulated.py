"""Chains that are given by their matrices, one a step."""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import categorical, numerics, shapes, trees
from sedd_jax.processes import base

# What tables may take of memory unless the caller says otherwise.
MAX_GIB = 4.0

# From here on what tables take is told also to who asks for warnings alone.
_TOLD_GIB = 0.1


def require_memory(
  what: str, matrices: int, num_states: int, max_gib: float, instead: str
) -> None:
  """Says what tables will take, and refuses those that do not fit.

  It comes before they are allocated.

  Args:
    what: whose tables, for the message.
    matrices: how many there are, `[num_states, num_states]` each.
    num_states: symbols of the chain.
    max_gib: what they may take, in float64.
    instead: what to use where they do not fit.

  Raises:
    ValueError: with the memory that they would take.
  """
  gib = matrices * num_states**2 * 8 / 2**30
  told = f'{what}: {matrices} matrices of {num_states} x {num_states} take'
  if gib > max_gib:
    raise ValueError(
      f'{told} {gib:,.1f} GiB, above max_gib={max_gib:g}; {instead}'
    )
  level = logging.WARNING if gib >= _TOLD_GIB else logging.INFO
  logging.getLogger(__name__).log(level, '%s %.2g GiB', told, gib)


def blocks_of(num_steps: int) -> int:
  """The matrices that a chain of so many steps keeps: fewer than two a step.

  >>> blocks_of(10)
  18
  """
  return sum(num_steps >> order for order in range(num_steps.bit_length()))


class Products(base.TokenProcess):
  """A chain whose kernels are products of tabulated, non-negative factors.

  Products of non-negative numbers keep their relative accuracy, so that rare
  transitions are right in float32 too.
  """

  prior: Any

  def _check(self, level: float, name: str) -> None:
    """Raises ValueError for a number that is no level of this chain."""

  def _limited(self, level: Array) -> Array:
    """Levels, infinite where the chain is at its prior already."""
    return level

  def _factors(
    self, start: Array, stop: Array, *, from_data: bool
  ) -> list[tuple[Array, Array]]:
    """The kernel from start to stop, both finite, as factors in order.

    Args:
      start: levels, of rank 0 or of the tokens' rank.
      stop: levels, of the same rank.
      from_data: start is known to be 0.

    Returns:
      `(matrix, taken)` each: matrices `[..., n, n]`, rank 2 or with the leading
      axes of the tokens, and whether the factor belongs, a bool of the levels'
      rank.
    """
    raise NotImplementedError(type(self).__name__)

  def __eq__(self, other: object) -> bool:
    """Whether all fields are equal, tables included."""
    return trees.same(self, other)

  def __repr__(self) -> str:
    """Without the tables."""
    return f'{type(self).__name__}(num_states={self.num_states})'

  # Compared by value, with arrays among the values.
  __hash__ = None  # type: ignore[assignment]

  def prior_probs(self) -> Array:
    """The limit, `[num_states]`."""
    return jnp.asarray(self.prior, numerics.compute_dtype())

  def _kernel(
    self, rows: Array, start: ArrayLike, stop: ArrayLike, *, back: bool
  ) -> Array:
    """Rows times the kernel; times its transpose where `back`."""
    from_data = isinstance(start, int | float) and start == 0
    for level, name in ((start, 'start'), (stop, 'stop')):
      if isinstance(level, int | float) and not np.isinf(level):
        self._check(level, name)
    tokens = rows[..., 0]
    # Checks the levels' shapes and their order.
    shapes.increment(start, stop, tokens)
    first = self._limited(shapes.level_for(tokens, start, 'start'))
    last = self._limited(shapes.level_for(tokens, stop, 'stop'))
    rank = max(first.ndim, last.ndim)
    first, last = (
      level.reshape((1,) * (rank - level.ndim) + level.shape)
      for level in (first, last)
    )
    prior = shapes.along_last(self.prior_probs(), rows)
    limit = jnp.sum(rows * prior, -1, keepdims=True) if back else prior
    begin = jnp.where(jnp.isinf(first), 0, first)
    end = jnp.where(jnp.isinf(last), begin, last)
    factors = self._factors(begin, end, from_data=from_data)
    walked = rows
    for matrix, taken in reversed(factors) if back else factors:
      matrix = jnp.swapaxes(matrix, -1, -2) if back else matrix
      # Of one matrix a token, or one for many.
      how = (
        '...i,...ij->...j' if matrix.ndim > rows.ndim else '...li,...ij->...lj'
      )
      moved = jnp.einsum(
        how, walked, matrix, precision=jax.lax.Precision.HIGHEST
      )
      walked = jnp.where(shapes.expand(taken, rows), moved, walked)
    leaps = jnp.isinf(last) & ~jnp.isinf(first)
    return jnp.where(shapes.expand(leaps, rows), limit, walked)

  def forward(self, x: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """Row q(x_stop = . | x_start = x), `[..., length, num_states]`."""
    return self._kernel(self._as_distribution(x), start, stop, back=False)

  def backward(self, y: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """Column q(x_stop = y | x_start = .), `[..., length, num_states]`."""
    shapes.require_tokens(y, 'y')
    return self._kernel(self._as_distribution(y), start, stop, back=True)

  def sample(
    self, key: Array, x: Array, start: ArrayLike, stop: ArrayLike
  ) -> Array:
    """A draw of x_stop given x_start = x, int32 `[..., length]`.

    Args:
      key: one typed key.
      x: `[..., length]` int32.
      start: level of x.
      stop: level of the result.

    Returns:
      int32 `[..., length]`.
    """
    shapes.require_tokens(x, 'x')
    rows = self.forward(x, start, stop)
    return categorical.transition(key, rows, x).astype(jnp.int32)

  def sample_prior(self, key: Array, shape: tuple[int, ...]) -> Array:
    """A draw from the limit, int32 of `shape`."""
    return categorical.categorical(
      key, jnp.broadcast_to(self.prior_probs(), (*shape, self.num_states))
    )

  def prior_kl(self, x_0: Array, level: ArrayLike) -> Array:
    """KL(q(x_level | x_0) || prior) in nats, `[..., length]`, as it is.

    Args:
      x_0: int32 tokens `[..., length]` or a distribution with a last axis.
      level: of the chain; a scalar, or of the tokens' rank.
    """
    rows = self.forward(x_0, 0, level)
    prior = shapes.along_last(self.prior_probs(), rows)
    held = rows > 0
    ratio = jnp.where(held, rows, 1) / jnp.where(held & (prior > 0), prior, 1)
    nats = jnp.sum(jnp.where(held, rows * jnp.log(ratio), 0), axis=-1)
    return jnp.where(jnp.any(held & (prior == 0), axis=-1), jnp.inf, nats)


def read_array(path: str | os.PathLike, what: str) -> np.ndarray:
  """An array of a .npy file, which is read where it is looked at.

  Raises:
    ValueError: naming the file, where it has none.
  """
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except (OSError, ValueError) as error:
    raise ValueError(f'{what}: {path}: {error}') from error


@trees.register
@dataclasses.dataclass(frozen=True, eq=False, init=False, repr=False)
class Tabulated(Products):
  """Any chain in steps, by its matrices; a level is the number of the step.

  Besides the steps' own matrices, the products of 2, 4, 8, ... steps are kept,
  so that a kernel over any range of steps is a product of few factors: less
  than twice the memory, and skipped steps are exact.

  Attributes:
    vocab_size: data symbols, the first states.
    orders: order k `[num_steps >> k, num_states, num_states]`: entry j leads
      from step j 2^k to (j + 1) 2^k.
    prior: `[num_states]`, what generation starts from.

  >>> step = np.array([[0.75, 0.25], [0.25, 0.75]])
  >>> chain = Tabulated(vocab_size=2, matrices=[step] * 3)
  >>> print(chain.forward(jnp.array([0]), 0, 2))
  [[0.625 0.375]]
  """

  vocab_size: int = dataclasses.field(metadata={'static': True})
  orders: Sequence[Any]
  prior: Any

  def __init__(
    self,
    vocab_size: int,
    matrices: Any,
    prior: ArrayLike | None = None,
    max_gib: float = MAX_GIB,
  ):
    """Tabulates the chain.

    Args:
      vocab_size: data symbols.
      matrices: `[num_steps, num_states, num_states]`, the steps' own, or a file
        of numpy's (.npy) with them; num_states is vocab_size, or one more with
        a mask as the last state.
      prior: `[num_states]`, the chain's limit; by default uniform, or all on
        the mask where there is one.
      max_gib: the memory that tables may take.

    Raises:
      ValueError: for matrices that are not stochastic, or sizes or a file that
        do not fit.
    """
    if isinstance(matrices, str | os.PathLike):
      matrices = read_array(matrices, 'Tabulated: matrices')
    steps = np.asarray(matrices)
    if steps.ndim != 3 or steps.shape[1] not in (vocab_size, vocab_size + 1):
      raise ValueError(
        f'Tabulated: matrices of shape {steps.shape}, not [steps, n, n] with n '
        f'= {vocab_size}, or {vocab_size + 1} with a mask'
      )
    if prior is None:
      masked = steps.shape[1] > vocab_size
      prior = np.ones(vocab_size) / vocab_size
      prior = np.eye(vocab_size + 1)[-1] if masked else prior
    self._tabulate(
      lambda step: steps[step - 1], len(steps), vocab_size, max_gib, prior
    )

  def _tabulate(
    self,
    matrix: Callable[[int], np.ndarray],
    num_steps: int,
    vocab_size: int,
    max_gib: float,
    prior: ArrayLike | None = None,
  ) -> None:
    """Fills a new instance; `matrix` is called once a step, t = 1, ..., T."""
    kind = type(self).__name__
    prior = np.full(vocab_size, 1 / vocab_size) if prior is None else prior
    prior = np.asarray(prior, np.float64)
    size = len(prior)
    if not (prior >= 0).all() or abs(prior.sum() - 1) > 1e-6:
      raise ValueError(f'{kind}: the prior is no distribution')
    if not prior.all() and not (size > vocab_size and prior[-1] == 1):
      raise ValueError(
        f'{kind}: a prior without some symbol has to be all on the mask, the '
        'last of vocab_size + 1 states'
      )
    require_memory(
      kind,
      blocks_of(num_steps),
      size,
      max_gib,
      'use noise with a closed form (uniform, absorbing), or fewer steps',
    )
    steps = np.empty((num_steps, size, size))
    for step in range(num_steps):
      found = np.asarray(matrix(step + 1), np.float64)
      if found.shape != (size, size):
        raise ValueError(
          f'{kind}: the matrix of step {step + 1} has shape {found.shape}, and '
          f'the prior is over {size} states'
        )
      if not (found >= 0).all() or abs(found.sum(1) - 1).max() > 1e-6:
        raise ValueError(
          f'{kind}: the rows of step {step + 1} are no distributions'
        )
      steps[step] = found / found.sum(1, keepdims=True)
    orders = [steps]
    while len(orders[-1]) > 1:
      pairs = orders[-1][: len(orders[-1]) // 2 * 2]
      orders.append(pairs[::2] @ pairs[1::2])
    fields = {'vocab_size': vocab_size, 'orders': tuple(orders), 'prior': prior}
    for name, value in fields.items():
      object.__setattr__(self, name, value)

  @classmethod
  def examples(cls) -> tuple['Tabulated', ...]:
    """Instances for the contract tests."""
    # The mask is reached from two of three symbols, and kept.
    masked = np.array(
      [
        [0.7, 0.1, 0.2, 0.0],
        [0.0, 0.8, 0.1, 0.1],
        [0.1, 0.0, 0.6, 0.3],
        [0.0, 0.0, 0.0, 1.0],
      ]
    )
    return (Tabulated(vocab_size=3, matrices=[masked] * 5),)

  @property
  def num_states(self) -> int:
    """As many as the prior is over."""
    return np.shape(self.prior)[-1]

  @property
  def num_steps(self) -> int:
    """T."""
    return np.shape(self.orders[0])[0]

  def _check(self, level: float, name: str) -> None:
    if level != int(level) or not 0 <= level <= self.num_steps:
      raise ValueError(
        f'a level of a tabulated chain is a step from 0 to {self.num_steps}, '
        f'or infinite: {name} is {level:g}'
      )

  def _factors(
    self, start: Array, stop: Array, *, from_data: bool
  ) -> list[tuple[Array, Array]]:
    at, last = start.astype(jnp.int32), stop.astype(jnp.int32)
    factors = []

    def take(order, allowed, at):
      # A block that would end beyond the last step is not taken.
      blocks = jnp.asarray(self.orders[order], numerics.compute_dtype())
      taken = allowed & (at + (1 << order) <= last)
      index = jnp.minimum(at >> order, len(blocks) - 1)
      if index.ndim and index.shape[-1] == 1:
        index = index[..., 0]
      factors.append((blocks[index], taken))
      return jnp.where(taken, at + (1 << order), at)

    # Up to a multiple of ever higher powers of 2, where the start is not one.
    for order in range(0 if from_data else len(self.orders)):
      at = take(order, (at >> order) & 1 == 1, at)
    for order in reversed(range(len(self.orders))):
      at = take(order, True, at)
    return factors
