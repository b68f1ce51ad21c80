"""Randomness by place: an example's noise depends on its index alone."""

from collections.abc import Callable

import jax
from jax import Array
from jax.typing import ArrayLike


def example_keys(key: Array, index: Array) -> Array:
  """One key an example, fold_in(key, index), whatever the batch layout.

  Args:
    key: one typed key, that of the step.
    index: `[batch]` int32, places in the global batch.

  Returns:
    Typed keys `[batch]`.
  """
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def row_keys(key: Array, batch: int) -> Array:
  """Keys for the rows of a batch: given one a row, or fold_in(key, row).

  Args:
    key: one typed key, or `[batch]` of them.
    batch: the number of rows.

  Returns:
    Typed keys `[batch]`.

  Raises:
    ValueError: for a number of keys that is neither one nor `batch`, or for
      keys that are not typed (`jax.random.key`).
  """
  if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise ValueError(
      f'expected typed keys from jax.random.key, not an array of {key.dtype}'
    )
  if key.ndim == 0:
    return example_keys(key, jax.numpy.arange(batch))
  if key.shape != (batch,):
    raise ValueError(
      f'{key.shape} keys for a batch of {batch}: give one key or one a row'
    )
  return key


def folded(keys: Array, place: ArrayLike) -> Array:
  """fold_in(key, place) of every key: independent draws of one example.

  Args:
    keys: typed keys `[batch]`.
    place: one integer.

  Returns:
    Typed keys `[batch]`.
  """
  return jax.vmap(jax.random.fold_in, (0, None))(keys, place)


def by_row(draw: Callable[..., Array]) -> Callable[..., Array]:
  """Lets `draw(key, *args)` take one key, or one a row of every argument."""

  def mapped(key: Array, *args: Array) -> Array:
    return jax.vmap(draw)(key, *args) if key.ndim else draw(key, *args)

  return mapped
