"""The likelihood bound of masked diffusion in continuous time.

-log p(x_0) <= prior + integral over [t_min, 1] + reconstruction at t_min, for
the reverse process that reveals at the rate of the noise: the bound of SEDD for
the scores that the predictions are (`losses.masked.log_score`).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from sedd_jax import losses
from sedd_jax.core import keys as keys_lib
from sedd_jax.losses import masked
from sedd_jax.noise_schedules import Continuous
from sedd_jax.processes import Absorbing
from sedd_jax.systems.base import Bound
from sedd_jax.systems.bounds import time_proposal
from sedd_jax.systems.common import parts

# 'mdlm': the integral over [t_min, 1] alone, as the papers report it.
PROTOCOLS = ('bound', 'mdlm')


def bound(
  nats_fn: Callable[[Array, Array, Array], Array],
  key: Array,
  x_0: Array,
  *,
  process: Absorbing,
  schedule: Continuous,
  index: Array,
  counted: Array | None = None,
  kept: Array | None = None,
  points: int = 1,
  times_by: str = 'stratified',
  proposal: time_proposal.Proposal | None = None,
  within: Array | None = None,
  t_min: float = 1e-3,
  protocol: str = 'bound',
) -> Bound:
  """An unbiased estimate of the bound on -log p(x_0), one row a sequence.

  Args:
    nats_fn: `(x_t, x_0, t [batch]) -> [batch, length]`, the cross entropy at
      masked positions, 0 elsewhere.
    key: one typed key; a sequence draws from fold_in(key, index).
    x_0: `[batch, length]` int32.
    process: absorbing noise.
    schedule: total noise in time.
    index: `[batch]`, places in the evaluated split.
    counted: `[batch, length]` bool, tokens that count; all by default.
    kept: `[batch, length]` bool, tokens outside the noise; none by default.
    points: times a sequence.
    times_by: see `time_proposal.drawn`.
    proposal: where the integrand is large; uniform by default.
    within: `[batch]` in [0, 1), a sequence's place in the intervals of times;
      drawn from its key by default.
    t_min: where the integral ends and the rest is revealed at once.
    protocol: 'bound', or 'mdlm' for the papers' shorter form: the mean of the
      integrand over [t_min, 1], neither prior nor reconstruction.

  Returns:
    Nats, counted tokens and terms 'diffusion', 'prior', 'reconstruction'; stats
    for `time_proposal.updated`.

  Raises:
    ValueError: for an unknown protocol or way to times, or fewer than one
      point.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
      f'unknown protocol {protocol!r}: use {", ".join(PROTOCOLS)}'
    )
  batch = x_0.shape[0]
  counted = parts.counted(x_0, counted, kept)
  keys = keys_lib.example_keys(key, index)

  def nats_at(place, t):
    """Of all masks of a draw at t."""
    place_keys = keys_lib.folded(keys, place)
    level = schedule.total(t)
    x_t = losses.sample_noisy(place_keys, x_0, level, process=process)
    x_t = x_t if kept is None else jnp.where(kept, x_0, x_t)
    return jnp.sum(jnp.where(counted, nats_fn(x_t, x_0, t), 0), axis=-1)

  def integrand(place, u):
    t = t_min + (1 - t_min) * u
    return masked.weight(schedule, t) * nats_at(place, t)

  diffusion, stats = time_proposal.integral(
    integrand, keys, points, times_by, proposal, within
  )
  weight = jnp.sum(counted, axis=-1).astype(diffusion.dtype)
  if protocol == 'mdlm':
    return Bound(diffusion, weight, {'diffusion': diffusion}, stats)
  terms = {
    'diffusion': diffusion * (1 - t_min),
    # From all masks, a first step reveals the share that is clean at t = 1.
    'prior': schedule.alpha_bar(1.0)
    * jnp.sum(
      jnp.where(
        counted,
        nats_fn(_all_masked(x_0, kept, process), x_0, jnp.ones(batch)),
        0,
      ),
      axis=-1,
    ),
    'reconstruction': nats_at(points, jnp.full(batch, t_min)),
  }
  return Bound(sum(terms.values()), weight, terms, stats)


def _all_masked(x_0: Array, kept: Array | None, process: Absorbing) -> Array:
  masks = jnp.full_like(x_0, process.mask)
  return masks if kept is None else jnp.where(kept, x_0, masks)
