"""Times drawn by a fitted density: still a mean over the unit interval."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.systems.bounds import time_proposal

# Even places, enough for means over the interval to 1e-4.
GRID = (jnp.arange(20_000) + 0.5) / 20_000


def integrand(u):
  """A narrow peak on a low ground."""
  return 0.1 + 5 * jnp.exp(-jnp.square((u - 0.7) / 0.03))


def fitted(count=2000):
  u = jax.random.uniform(jax.random.key(0), (count,))
  return time_proposal.updated(time_proposal.empty(), u, integrand(u))


def test_nothing_seen_changes_nothing():
  u, weights = time_proposal.placed(time_proposal.empty(), GRID)
  np.testing.assert_allclose(u, GRID, atol=1e-6)
  np.testing.assert_array_equal(weights, 1)


def test_the_weighted_mean_is_that_of_the_interval():
  proposal = fitted()
  u, weights = time_proposal.placed(proposal, GRID)
  assert float(u.min()) >= 0 and float(u.max()) < 1
  assert np.all(np.diff(u) >= 0)
  np.testing.assert_allclose(jnp.mean(weights), 1, rtol=1e-3)
  np.testing.assert_allclose(
    jnp.mean(weights * integrand(u)), jnp.mean(integrand(GRID)), rtol=1e-3
  )


def test_the_density_follows_the_integrand_and_keeps_a_floor():
  density = np.asarray(time_proposal.density(fitted()))
  assert abs(np.mean(density) - 1) < 1e-5
  assert density.argmax() in (22, 23) and density.max() > 5
  assert density.min() >= 0.1


def test_the_spread_of_the_estimate_falls():
  proposal = fitted()
  v = jax.random.uniform(jax.random.key(1), (5000,))
  u, weights = time_proposal.placed(proposal, v)
  plain, weighted = integrand(v), weights * integrand(u)
  assert float(jnp.std(weighted)) < 0.4 * float(jnp.std(plain))


def test_what_was_seen_long_ago_counts_less():
  update, u = jax.jit(time_proposal.updated), GRID[::100]
  proposal, alone = fitted(), time_proposal.empty()
  for _ in range(1000):
    proposal = update(proposal, u, 1 - u)
    alone = update(alone, u, 1 - u)
  assert float(alone.draws.sum()) == pytest.approx(100 * len(u), rel=0.01)
  np.testing.assert_allclose(
    time_proposal.density(proposal), time_proposal.density(alone), rtol=0.01
  )


def test_bins_without_draws_have_weight():
  """All draws in one bin: the others could be anything."""
  proposal = time_proposal.updated(
    time_proposal.empty(), jnp.full(50, 0.5), jnp.full(50, 3.0)
  )
  density = np.asarray(time_proposal.density(proposal))
  np.testing.assert_allclose(density, 1, rtol=1e-5)


def test_integrands_of_nothing_are_uniform():
  proposal = time_proposal.updated(
    time_proposal.empty(), GRID[:10], jnp.zeros(10)
  )
  np.testing.assert_array_equal(time_proposal.density(proposal), 1)
