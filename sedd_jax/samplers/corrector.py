"""Corrector steps: the forward and the reverse process at once.

At one level of noise the rates R + R̂ of the two processes have the noisy law
p_t as their stationary law (arXiv 2205.14987): steps along them leave p_t as it
is, and mend what the steps before got wrong.

A step moves all tokens at once, each as if the others stood still.  A single
token's law it keeps exactly, that of several to second order in the step.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.processes import Relaxing, base, rates


def transition_probs(
  process: Relaxing, x_t: Array, log_score: Array, step: ArrayLike
) -> Array:
  """delta + step (R + R̂), raw (arXiv 2205.14987).

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    log_score: `[..., length, num_states]`; the own entry is not read.
    step: in units of total noise; a scalar or of the tokens' rank.

  Returns:
    `[..., length, num_states]` summing to 1; the own entry goes negative for
    steps too long for the rates.

  Raises:
    ValueError: for shapes that do not fit.

  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> x_t, log_score = jnp.array([0, 2]), jnp.zeros((2, 3))
  >>> print(transition_probs(process, x_t, log_score, 0.25))
  [[0.75 0.   0.25]
   [0.25 0.25 0.5 ]]
  """
  score = jnp.exp(numerics.as_float(log_score))
  step = shapes.expand(shapes.level_for(x_t, step, 'step'), score)
  own = jax.nn.one_hot(x_t, process.num_states, dtype=score.dtype)
  both = rates.reverse_rate(process, x_t, score)
  both += rates.forward_rate(process, x_t)
  return own + step * both


def bounded(process: Relaxing, step: ArrayLike, alpha_bar: Array) -> Array:
  """The step for which no chance to leave exceeds 1 at the true score.

  Under absorbing noise a token is revealed at the rate a / (1 - a) and masked
  at 1, a = alpha_bar: with (1 - a) (1 - e^(-step / (1 - a))) `transition_probs`
  is the exponential of these rates.  Under uniform noise they add up to at most
  1 + 1 / (1 - a), and the step is bounded in the same form by their inverse.

  Args:
    process: uniform or absorbing noise.
    step: in units of total noise.
    alpha_bar: share of signal, broadcasting to it.

  Returns:
    What `transition_probs` takes.
  """
  slowest = 1 - alpha_bar
  if not base.has_mask(process):
    slowest = slowest / (1 + slowest)
  safe = jnp.where(slowest > 0, slowest, 1)
  return -slowest * jnp.expm1(-jnp.asarray(step) / safe)


def probs(
  process: Relaxing,
  x_t: Array,
  log_score: Array,
  alpha_bar: Array,
  step: ArrayLike,
) -> Array:
  """Weights of the state after a `bounded` step, clipped at 0.

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    log_score: `[..., length, num_states]` at the level of x_t.
    alpha_bar: share of signal at that level, a scalar.
    step: in units of total noise, a scalar.

  Returns:
    `[..., length, num_states]`, non-negative, not normalised.
  """
  step = bounded(process, step, alpha_bar)
  return jnp.maximum(transition_probs(process, x_t, log_score, step), 0)


def require(steps: int, size: float) -> None:
  """Raises ValueError for numbers of steps and sizes that there are not."""
  if steps < 0:
    raise ValueError(f'corrector_steps must be at least 0, not {steps}')
  if not 0 < size < float('inf'):
    raise ValueError(f'corrector_size must be above 0, not {size}')
