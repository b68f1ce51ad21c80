"""Draws of the diffusion time t, one an example."""

import jax
import jax.numpy as jnp
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


def stratified(keys: Array, points: int) -> Array:
  """`points` times an example, one in each of as many equal intervals.

  Their mean is an unbiased average over [0, 1).  The place within the intervals
  is drawn once an example, from its own key: examples are independent.

  Args:
    keys: typed keys `[batch]`.
    points: times an example.

  Returns:
    `[batch, points]` in [0, 1).
  """
  dtype = numerics.compute_dtype()
  within = jax.vmap(lambda k: jax.random.uniform(k, (), dtype))(keys)
  drawn = (jnp.arange(points)[None] + within[:, None]) / points
  # The last interval's end can be rounded up to.
  return jnp.minimum(drawn, 1 - jnp.finfo(drawn.dtype).epsneg)


TIMES = {'low_discrepancy': low_discrepancy, 'iid': independent}
