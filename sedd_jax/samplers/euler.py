"""Euler steps: one jump along the reverse rates."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.processes import Relaxing, rates


def transition_probs(
  process: Relaxing, x_t: Array, log_score: Array, rate_dt: ArrayLike
) -> Array:
  """delta + rate_dt * reverse rate, raw (arXiv 2310.16834, eq. 17).

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    log_score: `[..., length, num_states]`; the own entry is not read.
    rate_dt: sigma'(t) times the step in time; a scalar or of the tokens' rank.

  Returns:
    `[..., length, num_states]` summing to 1; the own entry goes negative for
    steps too long for the rates.

  Raises:
    ValueError: for shapes that do not fit.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Uniform(vocab_size=2)
  >>> transition_probs(process, jnp.array([0]), jnp.zeros((1, 2)), 0.5).tolist()
  [[0.75, 0.25]]
  """
  score = jnp.exp(numerics.as_float(log_score))
  rate_dt = shapes.level_for(x_t, rate_dt, 'rate_dt')
  step = shapes.expand(rate_dt, score)
  own = jax.nn.one_hot(x_t, process.num_states, dtype=score.dtype)
  return own + step * rates.reverse_rate(process, x_t, score)
