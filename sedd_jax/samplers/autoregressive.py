"""Sampling from left to right."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import categorical, numerics
from sedd_jax.core import keys as keys_lib


def sample(
  logits_fn: Callable[[Array, Any, Array], tuple[Array, Any]],
  cache: Any,
  key: Array,
  shape: tuple[int, int],
  *,
  first: int,
  tokens: Array | None = None,
  given: Array | None = None,
) -> Array:
  """Draws each token given those before.

  Args:
    logits_fn: `(x [batch], cache, position) -> (logits [batch, vocab_size],
      cache)`, those of the token at `position` given x, the one before it, and
      the cache.
    cache: of no position yet.
    key: one typed key (row i uses fold_in(key, i)), or one a row.
    shape: (batch, length).
    first: what stands before the first token.
    tokens: `[batch, length]` int32, the prompt where `given`.
    given: `[batch, length]` bool, True where the result is `tokens`; what comes
      before such a position does not know of it.

  Returns:
    int32 `[batch, length]`.

  >>> flat = lambda x, cache, position: (jnp.zeros((2, 5)), cache)
  >>> sample(flat, None, jax.random.key(0), (2, 3), first=5).shape
  (2, 3)
  """
  batch, length = shape
  keys = keys_lib.row_keys(key, batch)
  tokens = jnp.zeros(shape, jnp.int32) if tokens is None else tokens
  given = jnp.zeros(shape, bool) if given is None else given

  def advance(carry, inputs):
    x, cache = carry
    position, wanted, kept = inputs
    logits, cache = logits_fn(x, cache, position)
    probs = jax.nn.softmax(numerics.as_float(logits))
    drawn = categorical.categorical(keys_lib.folded(keys, position), probs)
    x = jnp.where(kept, wanted, drawn).astype(jnp.int32)
    return (x, cache), x

  start = jnp.full(batch, first, jnp.int32), cache
  inputs = jnp.arange(length), tokens.T, given.T
  return jax.lax.scan(advance, start, inputs)[1].T
