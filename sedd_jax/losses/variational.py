"""The variational bound of a chain in steps whose network predicts x_0.

-log p(x_0) <= KL(q(x_T | x_0) || p(x_T)) + sum over t = T, ..., 1 of
               E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))

with p(x_{t-1} | x_t) = theta_post(x_t, x̂_0) (arXiv 2102.05379, eq. 13 to 15;
arXiv 2107.03006, eq. 1 and 4).  At t = 1 the first argument is all on x_0, and
the divergence is the decoder's -log p(x_0 | x_1).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.processes import base


def step_nats(
  log_x_hat: Array,
  x_t: Array,
  x_0: Array,
  s: ArrayLike,
  t: ArrayLike,
  *,
  process: base.TokenProcess,
) -> Array:
  """KL(q(x_s | x_t, x_0) || theta_post(x_t, x̂_0)) of each token.

  Args:
    log_x_hat: `[..., length, n]` logits of the clean symbol, n one of
      `vocab_size`, `num_states`; normalised here.
    x_t: `[..., length]` int32, noisy tokens.
    x_0: `[..., length]` int32, clean tokens.
    s: level of the cleaner state; at level 0 this is -log p(x_0 | x_t).
    t: level of x_t, at least s, also infinite.
    process: the noise process.

  Returns:
    `[..., length]` in nats, not negative but for rounding; infinite where the
    network excludes x_0.

  Raises:
    ValueError: for shapes or levels that do not fit.

  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> masked, clean = jnp.array([[2]]), jnp.array([[0]])
  >>> logits = jnp.zeros((1, 1, 2))
  >>> print(step_nats(logits, masked, clean, 0.0, 0.5, process=process))
  [[0.6931472]]
  """
  truth = base.posterior(process, x_t, x_0, s, t)
  model = base.log_posterior(process, x_t, log_x_hat, s, t)
  return divergence(truth, model)


def decoder_nats(log_x_hat: Array, x_0: Array) -> Array:
  """-log x̂_0(x_0) of each token, the last step's loss of decoder 'x0'.

  The papers' other decoder, 'posterior', is `step_nats` at level 0.

  Args:
    log_x_hat: `[..., length, n]` logits.
    x_0: `[..., length]` int32.

  Returns:
    `[..., length]` in nats.

  Raises:
    ValueError: for x_0 that is no integer tokens.
  """
  shapes.require_tokens(x_0, 'x_0')
  log_probs = jax.nn.log_softmax(numerics.as_float(log_x_hat))
  return -jnp.take_along_axis(log_probs, x_0[..., None], axis=-1)[..., 0]


def reveal_nats(
  log_x_hat: Array,
  masked: Array,
  x_0: Array,
  rate: Array,
  own: Array | None = None,
) -> Array:
  """KL(q || p) of a step back where every symbol has a schedule of its own.

  q reveals a masked x_0 at its own rate; p, who does not know x_0, reveals each
  candidate at that candidate's (`processes.reveal_rate`).  Where all symbols
  share one schedule it is `step_nats` of absorbing noise.

  Args:
    log_x_hat: `[..., length, vocab_size]` logits of the clean symbol.
    masked: `[..., length]` bool, where x_t is the mask; elsewhere it is 0.
    x_0: `[..., length]` int32.
    rate: chances that p reveals, broadcasting to log_x_hat.
    own: `[..., length]`, the chance that q reveals; that of x_0 in `rate` by
      default.

  Returns:
    `[..., length]` in nats.
  """
  log_x_hat = jax.nn.log_softmax(numerics.as_float(log_x_hat))
  rate = jnp.broadcast_to(rate, log_x_hat.shape)

  def of_own(table):
    return jnp.take_along_axis(table, x_0[..., None], axis=-1)[..., 0]

  by_p = of_own(rate)
  own = by_p if own is None else own
  stays = jnp.sum(jnp.exp(log_x_hat) * (1 - rate), axis=-1)

  def nats(q, p):
    """q log(q / p), 0 where q is."""
    some = q > 0
    log_q, log_p = (jnp.log(jnp.where(some, x, 1)) for x in (q, p))
    return jnp.where(some, q * (log_q - log_p), 0)

  revealed = jnp.where(own > 0, own * of_own(log_x_hat), 0)
  total = nats(own, by_p) - revealed + nats(1 - own, stays)
  return jnp.where(masked, total, 0)


def base_transition_nats(
  log_x_hat: Array,
  x_t: Array,
  x_0: Array,
  level_s: ArrayLike,
  beta: ArrayLike,
  *,
  process: base.TokenProcess,
) -> Array:
  """The released DiffusionBERT's KL of a step, which is no part of a bound.

  Both sides are forward(., 0, s) times the column of *one base step* beta,
  whatever the schedule, and the prediction's level is that of the true token.

  Args:
    log_x_hat: `[..., length, n]` logits, n one of vocab_size and num_states.
    x_t: `[..., length]` int32.
    x_0: `[..., length]` int32.
    level_s: total noise at s, broadcasting to the tokens.
    beta: share that the base step masks, broadcasting to the tokens.
    process: absorbing noise.

  Returns:
    `[..., length]` in nats.
  """
  column = process.backward(x_t, 0.0, -jnp.log1p(-jnp.asarray(beta)))
  x_hat = jax.nn.softmax(numerics.as_float(log_x_hat))

  def law(x):
    return numerics.safe_normalize(process.forward(x, 0.0, level_s) * column)[0]

  return divergence(law(x_0), numerics.log_or_nothing(law(x_hat)))


def divergence(probs: Array, log_other: Array) -> Array:
  """KL(probs || other) over the last axis, 0 where probs is 0.

  Args:
    probs: `[..., n]`, rows summing to 1 or all 0.
    log_other: `[..., n]` log probabilities.

  Returns:
    `[...]` in nats.
  """
  counts = probs > 0
  log_probs = jnp.log(jnp.where(counts, probs, 1))
  # Entries that do not count may be -inf, also for the gradient.
  gap = log_probs - jnp.where(counts, log_other, 0)
  return jnp.sum(jnp.where(counts, probs * gap, 0), axis=-1)
