"""Exact, implicit and denoising score entropy over an enumerated space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from tests import enumerated, oracles

SCHEDULE = sj.noise_schedules.LogLinear()
NAMES = ['absorbing', 'uniform']
T = 0.6


@pytest.fixture(params=NAMES)
def space(request, x64):
  return enumerated.Space(request.param, 3, 2, SCHEDULE)


def random_table(space, seed):
  table = np.random.default_rng(seed).standard_normal(space.log_score(T).shape)
  own = np.eye(space.num_states, dtype=bool)[np.asarray(space.states)]
  return jnp.asarray(np.where(own, 0, table))


def denoising(space, table):
  """E over x_0 and x_t of the shipped denoising loss."""
  nats = enumerated.score_entropies(
    space.process,
    space.states,
    space.data,
    table[None],
    jnp.asarray([space.sigma(T)]),
  )[0]
  law = space.data_law[:, None] * space.noising(space.sigma(T))
  return jnp.sum(jnp.where(law > 0, law * nats, 0))


def exact(space, table):
  """E over x_t of the score entropy against the marginal's own ratios."""
  law = space.data_law @ space.noising(space.sigma(T))
  ratio = np.exp(space.log_score(T))
  rate = oracles.rate_matrix(space.name, space.num_states)
  weight = rate.T[np.asarray(space.states)]
  own = np.eye(space.num_states, dtype=bool)[np.asarray(space.states)]
  nats = sj.losses.score_entropy_exact(
    table, jnp.asarray(ratio), jnp.asarray(np.where(own, 0, weight))
  )
  return jnp.sum(law * jnp.sum(nats, axis=-1))


def implicit(space, table):
  """E over x_t of the implicit loss."""
  law = space.data_law @ space.noising(space.sigma(T))
  places = jnp.asarray(space.num_states ** np.arange(space.length)[::-1])

  def score_fn(x, sigma):
    return table[jnp.sum(x * places[None], axis=-1)]

  nats = sj.losses.implicit_score_entropy(
    score_fn,
    space.states,
    jnp.full(len(space.states), space.sigma(T)),
    process=space.process,
  )
  return jnp.sum(law * nats)


@pytest.mark.parametrize('form', [denoising, implicit])
def test_forms_differ_by_a_constant(space, form):
  gaps = [
    float(form(space, table) - exact(space, table))
    for table in (random_table(space, seed) for seed in range(3))
  ]
  np.testing.assert_allclose(gaps, gaps[0], rtol=1e-9)


def test_the_true_score_is_the_minimiser(space):
  true = jnp.asarray(space.log_score(T))
  # States of the prior's support that data cannot reach have no loss.
  slope = jax.grad(lambda table: denoising(space, table))(true)
  np.testing.assert_allclose(slope, 0, atol=1e-12)
  lowest = denoising(space, true)
  for seed in range(5):
    for size in (1e-3, 0.1, 1.0):
      moved = true + size * random_table(space, seed)
      assert denoising(space, moved) > lowest


def test_exact_form_is_zero_at_the_true_score(space):
  assert float(exact(space, jnp.asarray(space.log_score(T)))) == (
    pytest.approx(0, abs=1e-12)
  )
