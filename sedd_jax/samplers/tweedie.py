"""Tweedie steps: the exact reverse kernel of one token at a time."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.processes import Relaxing, base, rates


def transition_probs(
  process: Relaxing,
  x_t: Array,
  log_score: Array,
  sigma_t: ArrayLike,
  sigma_s: ArrayLike,
) -> Array:
  """q(x_s = . | x_t) by the score, raw (arXiv 2310.16834, theorem 4.2).

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    log_score: `[..., length, num_states]` at sigma_t; the own entry is not
      read.
    sigma_t: total noise of x_t; a scalar or of the tokens' rank.
    sigma_s: total noise to go to, at most sigma_t.

  Returns:
    `[..., length, num_states]`; rows sum to 1 for the true score only, and
    entries can be negative for another.

  Raises:
    ValueError: for shapes or levels that do not fit.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Uniform(vocab_size=2)
  >>> x_t, log_score = jnp.array([0]), jnp.zeros((1, 2))
  >>> print(transition_probs(process, x_t, log_score, 1.0, 0.0).round(3))
  [[0.684 0.316]]
  """
  dsigma = shapes.increment(sigma_s, sigma_t, x_t)
  shapes.require_last_axis(log_score, (process.num_states,), 'log_score')
  own = jax.nn.one_hot(x_t, process.num_states, dtype=bool)
  score = jnp.where(own, 1, jnp.exp(numerics.as_float(log_score)))
  return rates.staggered_score(process, score, dsigma) * process.backward(
    x_t, 0.0, dsigma
  )


def denoise_probs(
  process: Relaxing, x_t: Array, log_score: Array, sigma_t: ArrayLike
) -> Array:
  """p(x_0 = . | x_t) by the score, raw: `transition_probs` to level 0.

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    log_score: `[..., length, num_states]` at sigma_t.
    sigma_t: total noise of x_t; a scalar or of the tokens' rank.

  Returns:
    `[..., length, vocab_size]`: over data symbols only, also for absorbing.

  Raises:
    ValueError: for shapes or levels that do not fit.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> masked, log_score = jnp.array([2]), jnp.zeros((1, 3))
  >>> probs = denoise_probs(process, masked, log_score, jnp.log(1.5))
  >>> print(probs.round(2))
  [[0.5 0.5]]
  """
  probs = transition_probs(process, x_t, log_score, sigma_t, 0.0)
  return probs[..., : process.vocab_size]


def decoder_probs(
  process: Relaxing,
  x_t: Array,
  log_score: Array,
  sigma_t: ArrayLike,
  delta: float = 1e-6,
) -> Array:
  """The decoder of the last step and of the likelihood bound: a distribution.

  `denoise_probs` clipped at 0, normalised, mixed with delta / V, for a learned
  score's denoising can be negative.  A visible token under absorbing noise is
  copied, never mixed.

  Args:
    process: uniform or absorbing noise.
    x_t: `[..., length]` int32.
    log_score: `[..., length, num_states]` at sigma_t.
    sigma_t: total noise of x_t; a scalar or of the tokens' rank.
    delta: share of the uniform distribution.

  Returns:
    `[..., length, vocab_size]`, rows summing to 1.

  Raises:
    ValueError: for shapes or levels that do not fit.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> x_t, log_score = jnp.array([1, 2]), jnp.zeros((2, 3))
  >>> print(decoder_probs(process, x_t, log_score, 1.0).round(2))
  [[0.  1. ]
   [0.5 0.5]]
  """
  raw = denoise_probs(process, x_t, log_score, sigma_t)
  probs, total = numerics.safe_normalize(jnp.maximum(raw, 0))
  uniform = 1 / process.vocab_size
  mixed = (1 - delta) * probs + delta * uniform
  mixed = jnp.where((total > 0)[..., None], mixed, uniform)
  if not base.has_mask(process):
    return mixed
  visible = (x_t < process.vocab_size)[..., None]
  own = jax.nn.one_hot(x_t, process.vocab_size, dtype=mixed.dtype)
  return jnp.where(visible, own, mixed)
