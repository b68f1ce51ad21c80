"""Draws of the diffusion time t, one an example."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import numerics


def low_discrepancy(key: Array, index: Array, count: ArrayLike) -> Array:
  """t_i = (u0 + i / count) mod 1 with one shared offset u0 (arXiv 2107.00630).

  Over a whole batch the times are evenly spread, which lowers the variance of
  the loss; each is uniform on [0, 1).

  Args:
    key: one typed key, the same for every shard of the batch.
    index: `[batch]`, places in the global batch.
    count: size of the global batch.

  Returns:
    `[batch]` in [0, 1).
  """
  dtype = numerics.compute_dtype()
  offset = jax.random.uniform(key, (), dtype)
  return jnp.mod(offset + index.astype(dtype) / count, 1)


def independent(key: Array, index: Array, count: ArrayLike) -> Array:
  """Independent uniform times, from each example's own key.

  Args:
    key: one typed key.
    index: `[batch]`, places in the global batch.
    count: unused; there so that both draws are called alike.

  Returns:
    `[batch]` in [0, 1).
  """
  del count
  dtype = numerics.compute_dtype()
  keys = keys_lib.example_keys(key, index)
  return jax.vmap(lambda k: jax.random.uniform(k, (), dtype))(keys)


def spread(draws: np.ndarray, start: int = 0) -> np.ndarray:
  """n draws moved such that each of n equal intervals of [0, 1) has one.

  Neighbours get intervals far apart, so that what changes along the examples is
  not taken for a change in time.

  Args:
    draws: `[n]` in [0, 1), independent and uniform.
    start: the interval of the first; drawn evenly, each place is uniform.

  Returns:
    `[n]` float64 in [0, 1).

  >>> spread(np.full(5, 0.5)).tolist()
  [0.1, 0.7, 0.3, 0.9, 0.5]
  """
  count = len(draws)
  turn = round(count * (math.sqrt(5) - 1) / 2)
  while math.gcd(turn, count) > 1:
    turn += 1
  interval = (start + np.arange(count) * turn) % max(count, 1)
  return (interval + draws) / max(count, 1)


def stratified(keys: Array, points: int, within: Array | None = None) -> Array:
  """`points` times an example, one in each of as many equal intervals.

  Their mean is an unbiased average over [0, 1).  The place within the intervals
  is one an example, by default drawn from its own key: examples are
  independent.

  Args:
    keys: typed keys `[batch]`.
    points: times an example.
    within: `[batch]` in [0, 1), that place; uniform, as of `spread`.

  Returns:
    `[batch, points]` in [0, 1).
  """
  dtype = numerics.compute_dtype()
  if within is None:
    within = jax.vmap(lambda k: jax.random.uniform(k, (), dtype))(keys)
  within = within.astype(dtype)
  drawn = (jnp.arange(points)[None] + within[:, None]) / points
  # The last interval's end can be rounded up to.
  return jnp.minimum(drawn, 1 - jnp.finfo(drawn.dtype).epsneg)


TIMES = {'low_discrepancy': low_discrepancy, 'iid': independent}
