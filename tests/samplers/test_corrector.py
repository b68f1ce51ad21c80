"""Correctors: the noisy law is stationary, one token's exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import sedd_jax as sj
from sedd_jax.samplers import corrector
from tests import enumerated, oracles
from tests.samplers import test_samplers

NOISES = ('absorbing', 'uniform')
SCHEDULE = sj.noise_schedules.LogLinear(eps=0.1)


def noisy_law(space, t):
  return space.data_law @ space.noising(space.sigma(t))


def rates_of(space, t):
  """R + R̂ of every sequence, of the rate matrix: nothing of the package."""
  matrix = oracles.rate_matrix(space.name, space.num_states)
  states = np.asarray(space.states)
  return matrix[states] + matrix.T[states] * np.exp(space.log_score(t))


def rows_of(space, t, step):
  """The corrector's step on sequences, in the same way, clipped."""
  rates = rates_of(space, t)
  own = np.eye(space.num_states, dtype=bool)[np.asarray(space.states)]
  away = np.where(own, 0, step * rates)
  leave = away.sum(-1, keepdims=True)
  rows = np.where(own, np.maximum(1 - leave, 0), away)
  return oracles.product_kernel(rows / rows.sum(-1, keepdims=True))


def bounded(space, t, step):
  """What the step becomes."""
  hidden = -np.expm1(-space.sigma(t))
  slowest = hidden if space.name == 'absorbing' else hidden / (1 + hidden)
  return -slowest * np.expm1(-step / slowest)


@pytest.mark.parametrize('name', NOISES)
def test_the_noisy_law_is_stationary(name, x64):
  space = enumerated.Space(name, 2, 3, SCHEDULE)
  for t in (0.05, 0.6):
    law = noisy_law(space, t)
    ours = corrector.transition_probs(
      space.process, space.states, jnp.asarray(space.log_score(t)), 1.0
    )
    generator = oracles.generator(
      np.asarray(ours), space.num_states, space.length
    )
    np.testing.assert_allclose(law @ generator, 0, atol=1e-12)
    # Of the forward process alone it is not.
    forward = np.asarray(
      sj.processes.rates.forward_rate(space.process, space.states)
    )
    alone = oracles.generator(forward, space.num_states, space.length)
    assert np.abs(law @ alone).max() > 1e-3


@pytest.mark.parametrize('name', NOISES)
@pytest.mark.parametrize('step', [1e-3, 0.3, 50.0])
def test_one_position_is_kept_exactly(name, step, x64):
  space = enumerated.Space(name, 4, 1, SCHEDULE)
  for t in (0.01, 0.5, 1.0):
    law = noisy_law(space, t)
    alpha_bar = float(np.exp(-space.sigma(t)))
    raw = corrector.transition_probs(
      space.process,
      space.states,
      jnp.asarray(space.log_score(t)),
      corrector.bounded(space.process, step, jnp.asarray(alpha_bar)),
    )
    assert raw.min() >= -1e-12
    rows = np.asarray(
      corrector.probs(
        space.process,
        space.states,
        jnp.asarray(space.log_score(t)),
        jnp.asarray(alpha_bar),
        step,
      )
    )[:, 0]
    np.testing.assert_allclose(law @ rows, law, atol=1e-12)
    if name == 'absorbing':
      generator = oracles.generator(rates_of(space, t), space.num_states, 1)
      wanted = scipy.linalg.expm(step * generator)
      # A visible token comes back by the way of the mask, in another step.
      np.testing.assert_allclose(rows[-1], wanted[-1], atol=1e-9)
      np.testing.assert_allclose(rows[:, -1], wanted[:, -1], atol=1e-9)


@pytest.mark.parametrize('name', NOISES)
def test_several_are_kept_to_second_order(name, x64):
  space = enumerated.Space(name, 2, 2, SCHEDULE)
  law = noisy_law(space, 0.5)
  steps = np.array([0.04, 0.02, 0.01])
  drift = [
    np.abs(law @ rows_of(space, 0.5, bounded(space, 0.5, step)) - law).sum()
    for step in steps
  ]
  slope = np.polyfit(np.log(steps), np.log(drift), 1)[0]
  assert slope == pytest.approx(2, abs=0.1)


def law_of_steps(space, steps, t_min, correctors, size):
  """`Space.sampler_law` of Tweedie steps with correctors in between."""
  ts = np.linspace(1, t_min, steps + 1)
  law = space.start()
  for k, (t, s) in enumerate(zip(ts[:-1], ts[1:])):
    of = sj.samplers.reverse_probs
    if k == 0 and space.name == 'absorbing':
      of = sj.samplers.jump_probs
    weights = of(
      space.process, SCHEDULE, space.states, space.log_score(t), t, s
    )
    rows = np.asarray(weights / weights.sum(-1, keepdims=True))
    law = law @ oracles.product_kernel(rows)
    step = size * float(SCHEDULE.rate(s)) * (t - s)
    kernel = rows_of(space, s, bounded(space, s, step))
    law = law @ np.linalg.matrix_power(kernel, correctors)
  return law @ oracles.product_kernel(space.decoder(t_min, 1e-3))


@pytest.mark.parametrize('name', NOISES)
def test_draws_have_the_law_of_their_steps(name):
  space = enumerated.Space(name, 2, 2, SCHEDULE, wrong=0.7)
  steps, t_min, size = 3, 0.1, 0.8
  with jax.enable_x64(True):
    law, plain = (law_of_steps(space, steps, t_min, n, size) for n in (2, 0))
  ts = np.asarray(sj.samplers.time_grids.uniform(steps, t_min))
  score_fn = test_samplers.table_score_fn(space, ts)

  def drawn(keys, path=False):
    return sj.samplers.sample(
      score_fn,
      keys,
      (len(keys), 2),
      process=space.process,
      schedule=SCHEDULE,
      steps=steps,
      t_min=t_min,
      delta=1e-3,
      corrector_steps=2,
      corrector_size=size,
      return_path=path,
    )

  tokens = jax.jit(drawn)(jax.random.split(jax.random.key(0), 40_000))
  counts = test_samplers.empirical(space, tokens)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  assert oracles.chi_square_pvalue(counts, plain) < 1e-4
  keys = jax.random.split(jax.random.key(1), 3)
  together = drawn(jax.random.clone(keys), path=True)
  # The start, 3 steps with 2 correctors each, and the denoising.
  assert together.shape == (11, 3, 2)
  np.testing.assert_array_equal(together[:, 2:], drawn(keys[2:], path=True))


@pytest.mark.parametrize('name, share', [('absorbing', 0.6), ('uniform', 0.8)])
def test_few_steps_are_nearer_the_data_with_correctors(name, share, x64):
  space = enumerated.Space(name, 2, 2, test_samplers.CLEAN)
  space.__dict__['data_law'] = np.array([0.45, 0.05, 0.05, 0.45])
  plain, corrected = (
    np.abs(law_of_steps(space, 4, 1e-3, n, 1.0) - space.data_law).sum()
    for n in (0, 4)
  )
  assert corrected < share * plain


@pytest.mark.parametrize(
  'how, told',
  [
    ({'corrector_steps': -1}, 'corrector_steps must be at least 0'),
    ({'corrector_size': 0.0}, 'corrector_size must be above 0'),
  ],
)
def test_mistakes(how, told):
  with pytest.raises(ValueError, match=told):
    test_samplers.draw(jax.random.key(0), (2, 3), **how)
