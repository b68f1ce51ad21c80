"""The whole likelihood bound of a score: prior, diffusion, reconstruction.

-log p(x_0) <= prior + integral over [t_min, 1] of rate(t) E[score entropy]
+ reconstruction, for the continuous-time generative law that starts at the
prior, follows the reverse rates s Q and ends in the decoder at t_min.  A
sampler of K steps has another law, which tends to this one.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from sedd_jax import losses
from sedd_jax.core import keys as keys_lib
from sedd_jax.noise_schedules import Continuous
from sedd_jax.processes import Relaxing, base
from sedd_jax.samplers import tweedie
from sedd_jax.systems.base import Bound
from sedd_jax.systems.bounds import time_proposal
from sedd_jax.systems.common import parts

PROTOCOLS = ('bound', 'sedd')
# What is made of scores, token by token.
ValueFn = Callable[[Array, Array, Array, Array], Array]
ValuesFn = Callable[[ValueFn, Array, Array, Array], Array]


def prior_nats(
  process: Relaxing,
  schedule: Continuous,
  x_0: Array,
  log_score: Array | None = None,
) -> Array:
  """KL between q(x_1 | x_0) and the law the generative process starts from.

  Uniform noise: the divergence to the uniform prior.  Absorbing noise: a share
  alpha_bar(1) of the tokens is still clean at t = 1, so the process starts all
  masked at infinite noise and jumps to the level of t = 1 by the network's own
  prediction, which costs alpha_bar(1) times -log p̂(x_0 | all masked).

  Args:
    process: `Uniform` or `Absorbing`.
    schedule: total noise in time.
    x_0: `[batch, length]` int32.
    log_score: `[batch, length, num_states]` of the all-masked sequence at
      sigma(1); needed for absorbing noise.

  Returns:
    `[batch, length]` in nats.
  """
  if not base.has_mask(process):
    return process.prior_kl(x_0, schedule.total(1.0))
  if log_score is None:
    raise ValueError('absorbing noise needs log_score at the all-masked state')
  masked = jnp.full_like(x_0, process.vocab_size)
  probs = tweedie.decoder_probs(
    process, masked, log_score, schedule.total(1.0), delta=0.0
  )
  return -schedule.alpha_bar(1.0) * jnp.log(_pick(probs, x_0))


def reconstruction_nats(
  process: Relaxing,
  x_t: Array,
  x_0: Array,
  log_score: Array,
  sigma: Array,
  *,
  delta: float = 1e-6,
) -> Array:
  """-log p(x_0 | x_t) under the decoder of the sampler's last step.

  Args:
    process: `Uniform` or `Absorbing`.
    x_t: `[batch, length]` int32 at t_min.
    x_0: `[batch, length]` int32.
    log_score: `[batch, length, num_states]` at t_min.
    sigma: total noise at t_min; a scalar or of the tokens' rank.
    delta: share of the uniform distribution in the decoder.

  Returns:
    `[batch, length]` in nats.
  """
  probs = tweedie.decoder_probs(process, x_t, log_score, sigma, delta)
  return -jnp.log(_pick(probs, x_0))


def _pick(probs: Array, x: Array) -> Array:
  return jnp.take_along_axis(probs, x[..., None], axis=-1)[..., 0]


def whole(score_fn: Callable[[Array, Array], Array]) -> ValuesFn:
  """Values of scores that are held whole.

  Args:
    score_fn: `(x_t [batch, length], sigma [batch]) -> log_score`.
  """

  def values_fn(value_fn, x_t, x_0, sigma):
    return value_fn(score_fn(x_t, sigma), x_t, x_0, sigma[:, None])

  return values_fn


def bound(
  values_fn: ValuesFn,
  key: Array,
  x_0: Array,
  *,
  process: Relaxing,
  schedule: Continuous,
  index: Array | None = None,
  counted: Array | None = None,
  kept: Array | None = None,
  points: int = 1,
  times_by: str = 'stratified',
  proposal: time_proposal.Proposal | None = None,
  within: Array | None = None,
  t_min: float = 1e-3,
  delta: float = 1e-6,
  protocol: str = 'bound',
) -> Bound:
  """An unbiased estimate of the bound on -log p(x_0), one row a sequence.

  Each sequence has its own times and noise; they are independent, unless
  `within` spreads the times over them.

  Args:
    values_fn: `(value_fn, x_t [batch, length], x_0 [batch, length],
      sigma [batch]) -> [batch, length]`: of each token by itself
      `value_fn(log_score [..., num_states], x_t [...], x_0 [...], sigma)`, so
      that not all scores need be held at once; see `whole`.
    key: one typed key; a sequence draws from fold_in(key, index).
    x_0: `[batch, length]` int32.
    process: `Uniform` or `Absorbing`.
    schedule: total noise in time.
    index: `[batch]`, places in the evaluated split; 0, 1, ... by default.
    counted: `[batch, length]` bool, tokens that count; all by default.
    kept: `[batch, length]` bool, tokens outside the noise; none by default.
    points: times a sequence.
    times_by: 'stratified' draws one time in each of as many equal intervals;
      'importance' one in each of as many intervals of equal mass under
      `proposal`, with weights; 'quadrature' takes the nodes of Gauss-Legendre,
      the same for all sequences, and is unbiased but for the error of that
      rule.
    proposal: where the integrand is large; uniform by default.
    within: `[batch]` in [0, 1), a sequence's place in the intervals of times;
      drawn from its key by default.
    t_min: where the integral ends and the decoder takes over.
    delta: share of the uniform distribution in the decoder.
    protocol: 'bound', or 'sedd' for the papers' shorter form: the mean of the
      integrand over [t_min, 1], neither prior nor reconstruction.

  Returns:
    Nats, counted tokens and terms 'diffusion', 'prior', 'reconstruction'; stats
    for `time_proposal.updated`: 'u' and 'integrand', `[batch, points]`.

  Raises:
    ValueError: for an unknown protocol or way to times, or fewer than one
      point.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
      f'unknown protocol {protocol!r}: use {", ".join(PROTOCOLS)}'
    )
  batch = x_0.shape[0]
  if index is None:
    index = jnp.arange(batch)
  counted = parts.counted(x_0, counted, kept)
  keys = keys_lib.example_keys(key, index)

  def total(nats):
    return jnp.sum(jnp.where(counted, nats, 0), axis=-1)

  def total_at(value_fn, place, t):
    sigma = schedule.total(t)
    place_keys = keys_lib.folded(keys, place)
    x_t = losses.sample_noisy(place_keys, x_0, sigma, process=process)
    x_t = x_t if kept is None else jnp.where(kept, x_0, x_t)
    return total(values_fn(value_fn, x_t, x_0, sigma))

  def entropy(log_score, x_t, x_0, sigma):
    return losses.score_entropy(log_score, x_t, x_0, sigma, process=process)

  def undecoded(log_score, x_t, x_0, sigma):
    return reconstruction_nats(process, x_t, x_0, log_score, sigma, delta=delta)

  def integrand(place, u):
    t = t_min + (1 - t_min) * u
    return schedule.rate(t) * total_at(entropy, place, t)

  diffusion, stats = time_proposal.integral(
    integrand, keys, points, times_by, proposal, within
  )
  weight = jnp.sum(counted, axis=-1).astype(diffusion.dtype)
  if protocol == 'sedd':
    return Bound(diffusion, weight, {'diffusion': diffusion}, stats)
  diffusion = diffusion * (1 - t_min)

  if base.has_mask(process):
    masked = jnp.full_like(x_0, process.vocab_size)
    masked = masked if kept is None else jnp.where(kept, x_0, masked)
    prior = values_fn(
      lambda log_score, _, x_0, __: prior_nats(
        process, schedule, x_0, log_score
      ),
      masked,
      x_0,
      jnp.broadcast_to(schedule.total(1.0), (batch,)),
    )
  else:
    prior = prior_nats(process, schedule, x_0)
  prior = total(prior)
  reconstruction = total_at(undecoded, points, jnp.full(batch, t_min))
  terms = {
    'diffusion': diffusion,
    'prior': prior,
    'reconstruction': reconstruction,
  }
  return Bound(diffusion + prior + reconstruction, weight, terms, stats)
