"""The times of a bound, among them those of a density that is fitted.

The bound's integral is a mean over times of an integrand f.  Drawn from a
density p and divided by it, the estimate stays unbiased; its variance is least
where p is proportional to the root of E[f^2 | t].  The density here is constant
on equal bins of the unit interval, and fitted to other draws than those made
from it: training's last ones, and some of the evaluation's own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import numerics, times

TIMES = ('stratified', 'importance', 'quadrature')
BINS = 32
# Share of the uniform density, which keeps weights below its inverse.
_FLOOR = 0.1
# Of what was seen before, at every update: training's losses change.
_KEPT = 0.99


class Proposal(NamedTuple):
  """What was seen of the integrand, by bins.

  Attributes:
    draws: `[BINS]`, their number, the earlier ones faded.
    squares: `[BINS]`, sums of the integrand's square, faded alike.
  """

  draws: Array
  squares: Array


def empty() -> Proposal:
  """Nothing seen: the density is uniform."""
  zeros = jnp.zeros(BINS, jnp.float32)
  return Proposal(zeros, zeros)


def updated(proposal: Proposal, u: Array, integrand: Array) -> Proposal:
  """With more draws.

  Args:
    proposal: what was seen before.
    u: `[...]` in [0, 1), places on the unit interval, drawn from any density.
    integrand: `[...]`, f at each, in whatever unit.

  Returns:
    The proposal after.
  """
  place = jnp.clip(jnp.floor(u * BINS).astype(jnp.int32), 0, BINS - 1)
  square = jnp.square(integrand).astype(jnp.float32)
  draws, squares = (jnp.asarray(x) for x in proposal)
  return Proposal(
    (_KEPT * draws).at[place].add(1.0),
    (_KEPT * squares).at[place].add(square),
  )


def density(proposal: Proposal) -> Array:
  """The density, `[BINS]`, of mean 1.

  A bin counts as having seen the mean of all once besides, so that one without
  draws is no bin without weight.

  >>> density(empty()).tolist() == [1.0] * BINS
  True
  """
  draws, squares = proposal
  total = jnp.sum(squares)
  overall = total / jnp.maximum(jnp.sum(draws), 1)
  root = jnp.sqrt((squares + overall) / (draws + 1))
  mean = jnp.mean(root)
  fitted = root / jnp.where(mean > 0, mean, 1)
  return jnp.where(total > 0, (1 - _FLOOR) * fitted + _FLOOR, 1)


def update_aux(aux: Proposal, stats: dict[str, Array]) -> Proposal:
  """`System.update_aux` where aux is a proposal, which serves the bound alone.

  Args:
    aux: what was seen so far.
    stats: of `integral`, or of a loss in continuous time.
  """
  return updated(aux, **stats)


def placed(proposal: Proposal, v: Array) -> tuple[Array, Array]:
  """Uniform draws moved to the proposal's density.

  Args:
    proposal: what was seen.
    v: `[...]` in [0, 1), uniform, also stratified.

  Returns:
    u `[...]` in [0, 1), and the weight 1 / density at each: the mean of
    weight * f(u) is that of f over the unit interval.
  """
  heights = density(proposal).astype(numerics.compute_dtype(v))
  tops = jnp.cumsum(heights) / BINS
  # The last edge is 1 but for rounding.
  tops = tops / tops[-1]
  bottoms = jnp.concatenate([jnp.zeros(1, tops.dtype), tops[:-1]])
  place = jnp.clip(jnp.searchsorted(tops, v, side='right'), 0, BINS - 1)
  within = (v - bottoms[place]) / (tops[place] - bottoms[place])
  u = (place + jnp.clip(within, 0, 1)) / BINS
  return jnp.minimum(u, 1 - jnp.finfo(u.dtype).epsneg), 1 / heights[place]


def drawn(
  keys: Array,
  points: int,
  times_by: str = 'stratified',
  proposal: Proposal | None = None,
  within: Array | None = None,
) -> tuple[Array, Array]:
  """Places on the unit interval, and each one's share in the mean over it.

  Args:
    keys: typed keys `[batch]`, one an example.
    points: places an example.
    times_by: 'stratified' draws one in each of as many equal intervals;
      'importance' one in each of as many intervals of equal mass under
      `proposal`, with weights; 'quadrature' takes the nodes of Gauss-Legendre,
      the same for all examples.
    proposal: where the integrand is large; uniform by default.
    within: `[batch]`, each example's place in the intervals; drawn from its key
      by default.

  Returns:
    u in [0, 1) and shares, `[batch, points]`: the sum of share * f(u) estimates
    the mean of f.

  Raises:
    ValueError: for an unknown way, or fewer than one point.
  """
  if times_by not in TIMES:
    raise ValueError(f'unknown times {times_by!r}: use {", ".join(TIMES)}')
  if points < 1:
    raise ValueError(f'points must be at least 1, not {points}')
  dtype = numerics.compute_dtype()
  shape = (len(keys), points)
  if times_by == 'quadrature':
    nodes, masses = np.polynomial.legendre.leggauss(points)
    u = jnp.asarray((nodes + 1) / 2, dtype)
    shares = jnp.asarray(masses / 2, dtype)
    return jnp.broadcast_to(u[None], shape), jnp.broadcast_to(
      shares[None], shape
    )
  u = times.stratified(keys, points, within)
  if times_by == 'stratified' or proposal is None:
    return u, jnp.full(shape, 1 / points, dtype)
  u, weights = placed(proposal, u)
  return u, weights / points


def integral(
  integrand: Callable[[Array, Array], Array],
  keys: Array,
  points: int,
  times_by: str = 'stratified',
  proposal: Proposal | None = None,
  within: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
  """An unbiased estimate of the integral over [0, 1), one row an example.

  Args:
    integrand: `(place, u [batch]) -> [batch]`, place being the number of the
      point, 0, 1, ..., for the noise's keys.
    keys: typed keys `[batch]`, of the examples.
    points: see `drawn`, also for what follows.
    times_by: 'stratified', 'importance' or 'quadrature'.
    proposal: where the integrand is large.
    within: `[batch]`, each example's place in the intervals.

  Returns:
    `[batch]`, and stats for `updated`: 'u' and 'integrand', `[batch, points]`.

  Raises:
    ValueError: for an unknown way, or fewer than one point.
  """

  def at_point(_, inputs):
    return None, integrand(*inputs)

  # The places of the noise come before: the points, and one for the rest.
  times_keys = keys_lib.folded(keys, points + 1)
  u, shares = drawn(times_keys, points, times_by, proposal, within)
  _, values = jax.lax.scan(at_point, None, (jnp.arange(points), u.T))
  values = values.T
  return jnp.sum(shares * values, axis=-1), {'u': u, 'integrand': values}
