"""Which steps to train on: the last losses of each (arXiv 2102.09672, eq. 18).

p(t) is proportional to the root of the mean square of the last losses, mixed
with a little of the uniform law, as the released codes of that paper, of
Diffusion-LM and of DiffuSeq have it (`LossSecondMomentResampler`).  Multinomial
diffusion's running means are `step_history`; the draws are shared.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# Losses kept of a step; until each has as many, all steps are alike.
KEPT = 10
# Share of the uniform law.
_UNIFORM = 1e-3


class LossWindow(NamedTuple):
  """The last losses of each step.

  Attributes:
    losses: `[T, KEPT]`, oldest first; places beyond the count are 0.
    counts: int32 `[T]`, how many are there, at most `KEPT`.
  """

  losses: Array
  counts: Array


def empty(num_steps: int) -> LossWindow:
  """Nothing seen: all steps are alike."""
  return LossWindow(
    jnp.zeros((num_steps, KEPT), jnp.float32), jnp.zeros(num_steps, jnp.int32)
  )


def probs(window: LossWindow) -> Array:
  """p(t), `[T]`: uniform until every step has come `KEPT` times."""
  root = jnp.sqrt(jnp.mean(jnp.square(window.losses), axis=-1))
  root = jnp.where(jnp.all(window.counts == KEPT), root, jnp.ones_like(root))
  total = jnp.sum(root)
  root = root / jnp.where(total > 0, total, 1)
  return (1 - _UNIFORM) * root + _UNIFORM / len(root)


def updated(window: LossWindow, step: Array, losses: Array) -> LossWindow:
  """With the losses of a batch, one after another.

  Args:
    window: what was seen before.
    step: int32 `[batch]`, from 1 to T.
    losses: `[batch]`, unweighted.

  Returns:
    The window after.
  """

  def pushed(window, drawn):
    place, loss = drawn[0] - 1, drawn[1].astype(window.losses.dtype)
    row, count = window.losses[place], window.counts[place]
    full = count == KEPT
    row = jnp.where(full, jnp.roll(row, -1), row)
    row = row.at[jnp.where(full, KEPT - 1, count)].set(loss)
    return LossWindow(
      window.losses.at[place].set(row),
      window.counts.at[place].set(jnp.minimum(count + 1, KEPT)),
    ), None

  window = LossWindow(*(jnp.asarray(x) for x in window))
  return jax.lax.scan(pushed, window, (step, losses))[0]
