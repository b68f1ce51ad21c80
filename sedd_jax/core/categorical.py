"""Exact draws at low probabilities and over large vocabularies.

JAX's default categorical takes the largest of V Gumbels whose noise tops out
at 15.9 in float32: drawn jointly with a heavy "stay" class, reveals at
probability 1/4096 come out a third too rare (arXiv 2409.02908 found the same
fault in PyTorch samplers).  Here *whether* and *where* are two draws, and
*where* inverts the CDF in two levels of blocks.
"""

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import numerics

BLOCK = 256


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
  """Uniform draws in (0, 1) that are fine near 0 (steps of 2^-32 in float32).

  Args:
    key: one typed key.
    shape: of the result.

  Returns:
    `shape`, of the compute dtype, never 0 nor 1.
  """
  dtype = numerics.compute_dtype()
  if dtype == jnp.float64:
    tiny = jnp.finfo(dtype).tiny
    return jax.random.uniform(key, shape, dtype, minval=tiny)
  bits = jax.random.bits(key, shape, jnp.uint32)
  u = (bits.astype(dtype) + 0.5) * 2.0**-32
  return jnp.minimum(u, 1 - 2.0**-24)


def bernoulli(key: Array, probability: Array, shape: tuple[int, ...]) -> Array:
  """True with the given probability, exact at 0 and 1.

  Args:
    key: one typed key.
    probability: broadcasts to `shape`.
    shape: of the result.

  Returns:
    Booleans of `shape`.
  """
  return uniform(key, shape) < probability


def _first_above(key: Array, weights: Array) -> Array:
  """Inverse CDF along the last axis; lands on positive weights only."""
  cumulative = jnp.cumsum(weights, axis=-1)
  u = uniform(key, weights.shape[:-1])[..., None]
  positive = weights > 0
  hit = positive & (cumulative > u * cumulative[..., -1:])
  n = weights.shape[-1]
  # Rounding can leave no hit at the top of the scale: the last positive one.
  last = n - 1 - jnp.argmax(positive[..., ::-1], axis=-1)
  first = jnp.argmax(hit, axis=-1)
  return jnp.where(jnp.any(hit, axis=-1), first, last).astype(jnp.int32)


def categorical(key: Array, weights: Array) -> Array:
  """Draws an index with probability proportional to its weight.

  A block of 256 entries is drawn by its sum, then an entry within it, each by
  inverting a CDF with a uniform of its own.

  Args:
    key: one typed key, or `[batch]` of them, one for each leading row.
    weights: `[..., n]`, non-negative, not all zero in a row.

  Returns:
    int32 `[...]`; an entry of weight 0 is never drawn.
  """
  return keys_lib.by_row(_categorical)(key, weights)


def _categorical(key: Array, weights: Array) -> Array:
  n = weights.shape[-1]
  if n <= BLOCK:
    return _first_above(key, weights)
  blocks = -(-n // BLOCK)
  padding = [(0, 0)] * (weights.ndim - 1) + [(0, blocks * BLOCK - n)]
  split = jnp.pad(weights, padding).reshape(
    (*weights.shape[:-1], blocks, BLOCK)
  )
  block_key, entry_key = jax.random.split(key)
  block = _first_above(block_key, jnp.sum(split, axis=-1))
  chosen = jnp.take_along_axis(split, block[..., None, None], axis=-2)
  entry = _first_above(entry_key, chosen[..., 0, :])
  return block * BLOCK + entry


def transition(key: Array, probs: Array, x: Array) -> Array:
  """Draws the next state: first whether to leave `x`, then where to.

  Args:
    key: one typed key, or `[batch]` of them, one for each leading row.
    probs: `[..., length, n]`, non-negative weights of the next states.
    x: `[..., length]` int32, the present states.

  Returns:
    int32 `[..., length]`.
  """
  return keys_lib.by_row(_transition)(key, probs, x)


def _transition(key: Array, probs: Array, x: Array) -> Array:
  whether_key, where_key = jax.random.split(key)
  leave, away = split_off_stay(probs, x)
  jumps = bernoulli(whether_key, leave, x.shape)
  return jnp.where(jumps, _categorical(where_key, away), x).astype(x.dtype)


def split_off_stay(probs: Array, x: Array) -> tuple[Array, Array]:
  """Splits next-state weights into the chance to leave and where to.

  Args:
    probs: `[..., length, n]`, non-negative weights of the next states.
    x: `[..., length]` int32, the present states.

  Returns:
    The probability to leave x `[..., length]` (0 for a row of zeros), and the
    weights with the own entry at 0, `[..., length, n]`.
  """
  own = jax.nn.one_hot(x, probs.shape[-1], dtype=bool)
  away = jnp.where(own, 0, probs)
  leave = jnp.sum(away, axis=-1)
  total = leave + jnp.sum(jnp.where(own, probs, 0), axis=-1)
  return jnp.where(total > 0, leave / jnp.where(total > 0, total, 1), 0), away
