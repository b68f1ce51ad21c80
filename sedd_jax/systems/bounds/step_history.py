"""Which steps to train on: a running mean of each step's squared loss.

p(t) is proportional to the root of E[L_t^2] (arXiv 2102.05379, section 4 and
its code; arXiv 2102.09672, eq. 18), and the loss is divided by it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import numerics

# Draws that every step must have had before the losses count.
_WARM = 10
_DECAY = 0.9


class StepHistory(NamedTuple):
  """What was seen of the losses.

  Attributes:
    squares: `[T]`, running means of L_t^2.
    counts: `[T]`, draws of each step.
  """

  squares: Array
  counts: Array


def empty(num_steps: int) -> StepHistory:
  """Nothing seen: all steps are alike."""
  zeros = jnp.zeros(num_steps, jnp.float32)
  return StepHistory(zeros, zeros)


def probs(history: StepHistory) -> Array:
  """p(t), `[T]`: uniform until every step has come more than ten times.

  The first entry, the decoder's, is replaced by the second.
  """
  root = jnp.sqrt(history.squares + 1e-10) + 1e-4
  root = root.at[0].set(root[1])
  flat = jnp.ones_like(root)
  root = jnp.where(jnp.all(history.counts > _WARM), root, flat)
  return root / jnp.sum(root)


def drawn(p: Array, u: Array) -> tuple[Array, Array]:
  """Steps and the weights that make their loss the sum over all.

  Args:
    p: `[T]`, the probability of each.
    u: `[batch]` in [0, 1), uniform.

  Returns:
    int32 `[batch]` from 1 to T, and 1 / p at each.
  """
  p = p.astype(numerics.compute_dtype(u))
  tops = jnp.cumsum(p)
  place = jnp.searchsorted(tops, u * tops[-1], side='right')
  place = jnp.minimum(place, len(p) - 1).astype(jnp.int32)
  return place + 1, 1 / p[place]


def updated(history: StepHistory, step: Array, nats: Array) -> StepHistory:
  """With the losses of a batch.

  Several draws of one step count once, by their mean square: the reference
  keeps an arbitrary one of them.

  Args:
    history: what was seen before.
    step: int32 `[batch]`, from 1 to T.
    nats: `[batch]`, the loss of each, summed over tokens.

  Returns:
    The history after.
  """
  squares, counts = (jnp.asarray(x) for x in history)
  size = len(squares)
  square = jnp.square(nats).astype(squares.dtype)
  sums = jax.ops.segment_sum(square, step - 1, size)
  times = jax.ops.segment_sum(jnp.ones_like(square), step - 1, size)
  mean = sums / jnp.maximum(times, 1)
  seen = times > 0
  return StepHistory(
    jnp.where(seen, _DECAY * squares + (1 - _DECAY) * mean, squares),
    counts + times,
  )
