"""The bound of chains in steps against enumeration."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import sedd_jax as sj
from sedd_jax.noise_schedules import StepBetas
from sedd_jax.samplers import ancestral, time_grids
from sedd_jax.systems.bounds import step_bound, time_proposal
from tests import enumerated_steps, tabulated_noise

SCHEDULES = {
  'cosine': StepBetas(num_steps=4),
  'open end': StepBetas(num_steps=4, min_alpha=0.2),
  'reciprocal': StepBetas(num_steps=4, betas='reciprocal', min_alpha=0.0),
}
PROCESSES = {
  'uniform': sj.processes.Uniform(vocab_size=3),
  'absorbing': sj.processes.Absorbing(vocab_size=2),
}


def parts_of(noise, name):
  if noise in tabulated_noise.CASES:
    return tabulated_noise.CASES[noise][:2]
  return PROCESSES[noise], SCHEDULES[name]


def enumerated(noise, name, seed=0, **how):
  if noise in tabulated_noise.CASES:
    return tabulated_noise.chain_of(noise, seed, **how)
  process, schedule = PROCESSES[noise], SCHEDULES[name]
  jump = ancestral.jumps_from_the_prior(process, schedule)
  return enumerated_steps.of(
    noise, schedule.betas_table(), process.vocab_size, 2, seed, jump, **how
  )


def with_tables(chain):
  """A process for an argument of a program, as in the systems; its chain."""
  process = chain.process
  jump = ancestral.jumps_from_the_prior(process, chain.schedule)
  return jax.tree.map(jnp.asarray, process), dataclasses.replace(
    chain, jump=jump
  )


def bounds(
  table, chain, key, x_0, points=1, times_by='stratified', proposal=None
):
  process, chain = with_tables(chain)

  @jax.jit
  def compiled(table, process, key, x_0, proposal):
    def logits_fn(x_t, step):
      place = x_t[:, 0] * chain.process.num_states + x_t[:, 1]
      return jnp.log(table[step, place])

    return step_bound.bound(
      logits_fn,
      key,
      x_0,
      chain=dataclasses.replace(chain, process=process),
      index=jnp.arange(len(x_0)),
      points=points,
      times_by=times_by,
      proposal=proposal,
    )

  return compiled(table, process, key, x_0, proposal)


ONE, ALL, FITTED = (1, 'stratified'), (3, 'stratified'), (2, 'importance')
CASES = [
  *((name, '', {}, ALL) for name in tabulated_noise.CASES),
  ('masked', '', {'decoder': 'x0'}, ONE),
  ('uniform', 'cosine', {}, ONE),
  ('uniform', 'open end', {}, FITTED),
  ('uniform', 'reciprocal', {}, ALL),
  ('absorbing', 'cosine', {}, ALL),
  ('absorbing', 'open end', {}, ONE),
  ('absorbing', 'reciprocal', {}, FITTED),
  ('uniform', 'cosine', {'decoder': 'x0'}, FITTED),
  ('absorbing', 'open end', {'decoder': 'x0'}, ALL),
  ('uniform', 'cosine', {'parametrization': 'direct'}, ALL),
  # The law of three steps of a chain of four: 4 -> 2 -> 1 -> 0, or alike.
  *((name, '', {'strides': 3}, ONE) for name in tabulated_noise.CASES),
  ('uniform', 'cosine', {'strides': 2}, ALL),
  ('uniform', 'open end', {'strides': 3, 'decoder': 'x0'}, FITTED),
  ('absorbing', 'open end', {'strides': 2}, FITTED),
  ('absorbing', 'reciprocal', {'strides': 1}, ONE),
  ('absorbing', 'open end', {'strides': 4}, ALL),
]


def grid_of(strides):
  return None if strides is None else time_grids.strided(4, strides).tolist()


@pytest.mark.parametrize('noise, name, how, drawn', CASES)
def test_the_estimate_has_the_enumerated_mean(noise, name, how, drawn):
  points, times_by = drawn
  direct = how.get('parametrization') == 'direct'
  decoder = how.get('decoder', 'posterior')
  space = enumerated(noise, name, decoder=decoder, direct=direct)
  chain = step_bound.Chain(*parts_of(noise, name), **how)
  exact = space.bound(grid_of(how.get('strides')))
  repeats = 3000
  x_0 = jnp.asarray(np.repeat(space.data, repeats, axis=0), jnp.int32)
  proposal = time_proposal.empty()
  if times_by == 'importance':
    u = jnp.linspace(0, 0.999, 64)
    proposal = time_proposal.updated(proposal, u, 1 + 3 * u)
  result = bounds(
    jnp.asarray(space.x_hat, 'float32'),
    chain,
    jax.random.key(0),
    x_0,
    points,
    times_by,
    proposal,
  )
  nats = np.asarray(result.nats, np.float64).reshape(len(exact), repeats)
  error = nats.std(axis=1) / np.sqrt(repeats)
  assert np.all(np.abs(nats.mean(axis=1) - exact) < 4.5 * error + 1e-6)
  assert np.all(error < 0.1)
  np.testing.assert_allclose(
    sum(result.terms.values()), result.nats, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  'noise, name',
  [
    *((n, s) for n in PROCESSES for s in SCHEDULES),
    *((n, '') for n in tabulated_noise.CASES),
  ],
)
def test_the_bound_is_never_below_the_law(noise, name):
  for seed in range(3):
    space = enumerated(noise, name, seed)
    for grid in (None, grid_of(3), grid_of(2), grid_of(1)):
      gap = space.bound(grid) + np.log(space.law(grid))
      assert np.all(gap > -1e-12)


@pytest.mark.parametrize('noise', [*PROCESSES, *tabulated_noise.CASES])
def test_at_the_best_independent_network_the_bound_is_the_entropy(noise):
  """For independent positions, whose best prediction is their own law.

  Where the chain does not end at its prior, that divergence is added.
  """
  space = enumerated(noise, 'reciprocal')
  rows = np.random.default_rng(5).dirichlet(
    np.ones(space.vocab_size), size=space.length
  )
  space.x_hat[:] = rows
  law = np.kron(rows[0], rows[1])
  end = rows @ space.kernel(0, space.num_steps)[: space.vocab_size]
  away = 0 if space.jump else scipy.special.rel_entr(end, space.prior).sum()
  np.testing.assert_allclose(
    law @ space.bound(), -law @ np.log(law) + away, rtol=1e-12
  )
  if away < 1e-12:
    np.testing.assert_allclose(space.law(), law, rtol=1e-12)


def correlated_pair(num_steps):
  """Two equal symbols, masked by 1/(T - t + 1), and the best prediction."""
  betas = 1 / np.arange(num_steps, 0, -1)
  space = enumerated_steps.of('absorbing', betas, 2, 2)
  for place, (first, second) in enumerate(space.states):
    seen = [x for x in (first, second) if x != 2]
    space.x_hat[:, place] = np.eye(2)[seen[0]] if seen else 0.5
  return space


def test_a_correlated_pair_costs_what_a_step_reveals_at_once():
  """Its entropy, and (ln V) / T for both being revealed in one step."""
  data = np.array([1, 0, 0, 1]) / 2
  for steps in (1, 2, 5, 20):
    nats = correlated_pair(steps).bound()
    np.testing.assert_allclose(
      data @ np.where(data > 0, nats, 0), np.log(2) * (1 + 1 / steps), rtol=1e-9
    )
  # And so it is by the package.
  space = correlated_pair(4)
  schedule = StepBetas(num_steps=4, betas='reciprocal', min_alpha=0.0)
  chain = step_bound.Chain(PROCESSES['absorbing'], schedule)
  x_0 = jnp.asarray(np.repeat([[0, 0], [1, 1]], 5000, axis=0), jnp.int32)
  table = jnp.asarray(space.x_hat, 'float32')
  nats = bounds(table, chain, jax.random.key(0), x_0, 3).nats
  error = float(nats.std()) / 100
  assert abs(float(nats.mean()) - np.log(2) * 1.25) < 4.5 * error < 0.03


def uniform_pair(num_steps):
  """Two equal symbols under uniform noise, each predicted by the other."""
  betas = 1 / np.arange(num_steps, 0, -1)
  space = enumerated_steps.of('uniform', betas, 2, 2)
  for t in range(num_steps + 1):
    for place, x_t in enumerate(space.states):
      given = space.kernel(0, t)[:, x_t[::-1]].T
      space.x_hat[t, place] = given / given.sum(-1, keepdims=True)
  return space


def shared(space, data, s, t):
  """I(first of x_s; second of x_s | x_t), in nats."""
  to_s, to_t = space.kernel(0, s), space.kernel(s, t)
  joint = (data @ np.kron(to_s, to_s))[:, None] * np.kron(to_t, to_t)
  joint = joint.reshape(2, 2, 4)
  alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
  alone = alone / joint.sum((0, 1))
  return scipy.special.rel_entr(joint, alone).sum()


def test_a_correlated_pair_under_uniform_noise():
  """Its entropy, and what is common to two symbols drawn in one step."""
  data, means = np.array([1, 0, 0, 1]) / 2, []
  for steps in (1, 2, 5, 20):
    space = uniform_pair(steps)
    nats = space.bound()
    means.append(data @ np.where(data > 0, nats, 0))
    cost = sum(shared(space, data, t - 1, t) for t in range(1, steps + 1))
    np.testing.assert_allclose(means[-1], np.log(2) + cost, rtol=1e-9)
  assert means[0] == pytest.approx(2 * np.log(2))
  assert np.all(np.diff(means) < 0) and means[-1] < 1.2 * np.log(2)
  # And so it is by the package.
  space = uniform_pair(4)
  schedule = StepBetas(num_steps=4, betas='reciprocal', min_alpha=0.0)
  chain = step_bound.Chain(sj.processes.Uniform(vocab_size=2), schedule)
  x_0 = jnp.asarray(np.repeat([[0, 0], [1, 1]], 5000, axis=0), jnp.int32)
  table = jnp.asarray(space.x_hat, 'float32')
  nats = bounds(table, chain, jax.random.key(0), x_0, 3).nats
  expected = data @ np.where(data > 0, space.bound(), 0)
  error = float(nats.std()) / 100
  assert abs(float(nats.mean()) - expected) < 4.5 * error < 0.06


def test_names_are_checked():
  process, schedule = PROCESSES['uniform'], SCHEDULES['cosine']
  x_0, key = jnp.zeros((1, 2), jnp.int32), jax.random.key(0)
  ask = functools.partial(
    step_bound.bound,
    lambda x_t, step: jnp.zeros((1, 2, 3)),
    key,
    x_0,
    index=jnp.arange(1),
  )
  with pytest.raises(ValueError, match="decoder 'x1': use posterior, x0"):
    ask(chain=step_bound.Chain(process, schedule, decoder='x1'))
  with pytest.raises(ValueError, match="'v': use x0, direct"):
    ask(chain=step_bound.Chain(process, schedule, parametrization='v'))
  with pytest.raises(ValueError, match='1 to the 4 of the chain, not 5'):
    ask(chain=step_bound.Chain(process, schedule, strides=5))
  with pytest.raises(ValueError, match='takes the 4 steps of its chain one by'):
    ask(
      chain=step_bound.Chain(
        process, schedule, parametrization='direct', strides=2
      )
    )
  with pytest.raises(ValueError, match='no quadrature'):
    ask(chain=step_bound.Chain(process, schedule), times_by='quadrature')


def test_the_marginal_of_the_oracle_is_that_of_the_process(x64):
  for noise, process in PROCESSES.items():
    for name, schedule in SCHEDULES.items():
      space = enumerated(noise, name)
      level = schedule.level(np.arange(5))
      for s, t in ((0, 4), (1, 3), (2, 2)):
        np.testing.assert_allclose(
          process.forward(jnp.arange(process.num_states), level[s], level[t]),
          space.kernel(s, t),
          rtol=1e-9,
          atol=1e-12,
        )


@pytest.mark.parametrize('name', tabulated_noise.CASES)
def test_tabulated_kernels_are_products_of_the_matrices(name, x64):
  process, schedule, _, _ = tabulated_noise.CASES[name]
  space = tabulated_noise.chain_of(name)
  level = schedule.level(np.arange(5))
  states = jnp.arange(process.num_states)
  for s, t in ((0, 1), (0, 4), (1, 3), (2, 3), (3, 4), (2, 2)):
    np.testing.assert_allclose(
      process.forward(states, level[s], level[t]),
      space.kernel(s, t),
      rtol=1e-9,
      atol=1e-12,
    )
