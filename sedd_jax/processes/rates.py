"""The continuous-time view of uniform and absorbing noise, and their mixture.

They relax to a prior: Q = 1 prior^T - I, so a row of rates is prior - delta_x
and the kernel of a step d is expm(d Q).  Rates are per unit of total noise;
multiply by the schedule's `rate(t)` for rates in time.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.processes import base


def _prior(process: base.Relaxing) -> Array:
  if not isinstance(process, base.Relaxing):
    raise TypeError(
      f'{type(process).__name__} has no rates: the continuous-time view is of '
      'a process that relaxes to a prior, as Uniform and Absorbing'
    )
  return process.prior_probs()


def _own(process: base.Relaxing, x: Array) -> Array:
  return jax.nn.one_hot(x, process.num_states, dtype=numerics.compute_dtype())


def forward_rate(process: base.Relaxing, x: Array) -> Array:
  """Rates out of x, the row Q[x, .].

  Source: arXiv 2310.16834, eqs. 15 and 16, whose Q is the transpose.

  Args:
    process: uniform or absorbing noise.
    x: `[..., length]` int32.

  Returns:
    `[..., length, num_states]`, rows summing to 0.

  Raises:
    ValueError: for x that is no integer tokens.
    TypeError: for a process without a prior to relax to.

  >>> from sedd_jax import processes
  >>> forward_rate(processes.Absorbing(vocab_size=2), jnp.array([0])).tolist()
  [[-1.0, 0.0, 1.0]]
  """
  shapes.require_tokens(x, 'x')
  own = _own(process, x)
  return shapes.along_last(_prior(process), own) - own


def backward_rate(process: base.Relaxing, x: Array) -> Array:
  """Rates into x, the column Q[., x].

  Args:
    process: uniform or absorbing noise.
    x: `[..., length]` int32.

  Returns:
    `[..., length, num_states]`.

  Raises:
    ValueError: for x that is no integer tokens.
    TypeError: for a process without a prior to relax to.

  >>> from sedd_jax import processes
  >>> backward_rate(processes.Absorbing(vocab_size=2), jnp.array([2])).tolist()
  [[1.0, 1.0, 0.0]]
  """
  shapes.require_tokens(x, 'x')
  return _prior(process)[x][..., None] - _own(process, x)


def reverse_rate(process: base.Relaxing, x_t: Array, score: Array) -> Array:
  """Rates of the reverse process, Q[y, x_t] s_y (arXiv 2310.16834, eq. 3).

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    score: `[..., length, num_states]`, p_t(y) / p_t(x_t).

  Returns:
    `[..., length, num_states]`; the own entry is minus the sum of the others.

  Raises:
    ValueError: for a score with another last axis.

  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> masked, score = jnp.array([2]), jnp.array([[0.5, 0.25, 1.0]])
  >>> print(reverse_rate(process, masked, score))
  [[ 0.5   0.25 -0.75]]
  """
  shapes.require_last_axis(score, (process.num_states,), 'score')
  score = numerics.as_float(score)
  own = _own(process, x_t)
  rates = jnp.where(own > 0, 0, backward_rate(process, x_t) * score)
  return rates - own * jnp.sum(rates, axis=-1, keepdims=True)


def staggered_score(
  process: base.Relaxing, score: Array, dsigma: ArrayLike
) -> Array:
  """Scores of the marginal at total noise sigma - dsigma relative to x_t.

  The vector (expm(-dsigma Q))^T s: for an exact score s_y = p_t(y) / p_t(x_t)
  it is p_{t'}(y) / p_t(x_t) at the lower level (arXiv 2310.16834, theorem 4.1).

  Args:
    process: uniform or absorbing noise.
    score: `[..., length, num_states]`.
    dsigma: how much less noise; a scalar or broadcast like a level.

  Returns:
    `[..., length, num_states]`; entries may be negative for a score that is not
    exact.

  Raises:
    ValueError: for shapes that do not fit.

  >>> from sedd_jax import processes
  >>> process = processes.Uniform(vocab_size=2)
  >>> print(staggered_score(process, jnp.ones((1, 2)), 0.5).round(2))
  [[1. 1.]]
  """
  shapes.require_last_axis(score, (process.num_states,), 'score')
  score = numerics.as_float(score)
  dsigma = shapes.level_for(score[..., 0], dsigma, 'dsigma')
  dsigma = shapes.expand(dsigma, score)
  prior = shapes.along_last(_prior(process), score)
  total = jnp.sum(score, axis=-1, keepdims=True)
  # score - total * prior, before e^dsigma scales its rounding up; where the
  # prior is one symbol, that is minus the sum of the others.
  others = jnp.sum(jnp.where(prior < 1, score, 0), axis=-1, keepdims=True)
  drift = jnp.where(prior < 1, score - total * prior, -others)
  return score + jnp.expm1(dsigma) * drift
