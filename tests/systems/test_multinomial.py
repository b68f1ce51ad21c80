"""Multinomial diffusion: the reference's numbers, and the system whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.systems.bounds import step_history
from tests import golden_numbers
from tests.systems import small


def system_of(**changes):
  changes = {'process__name': 'uniform', **changes}
  return small.made(small.in_steps('multinomial', 8, **changes))


def test_golden_importance_of_steps():
  golden = golden_numbers.load('multinomial')
  # The reference's counts start at 11 there.
  history = step_history.StepHistory(
    jnp.asarray(golden['Lt_history']), jnp.full(10, 11.0)
  )
  np.testing.assert_allclose(
    step_history.probs(history), golden['pt_importance'], rtol=1e-5
  )
  t = golden['train_t']
  nats = golden['Lt'][t, np.arange(3)]
  after = step_history.updated(history, jnp.asarray(t) + 1, jnp.asarray(nats))
  np.testing.assert_allclose(
    after.squares, golden['Lt_history_after'], rtol=1e-5
  )
  np.testing.assert_array_equal(after.counts, golden['Lt_count_after'])
  loss = nats / golden['pt_importance'][t] + golden['kl_prior']
  np.testing.assert_allclose(loss, golden['train_vb_loss'], rtol=1e-5)


def test_steps_are_drawn_by_their_probability():
  history = step_history.StepHistory(
    jnp.array([9.0, 1.0, 4.0, 16.0]), jnp.full(4, 11.0)
  )
  # The decoder's entry is that of the second step.
  p = np.array([1, 1, 2, 4]) / 8
  np.testing.assert_allclose(step_history.probs(history), p, rtol=1e-3)
  u = (jnp.arange(8000) + 0.5) / 8000
  step, weight = step_history.drawn(step_history.probs(history), u)
  share = np.bincount(np.asarray(step) - 1, minlength=4) / 8000
  np.testing.assert_allclose(share, p, atol=1e-3)
  np.testing.assert_allclose(weight, 1 / p[np.asarray(step) - 1], rtol=1e-3)
  # Unbiased for the sum over steps, whatever the losses.
  losses = np.array([5.0, -1.0, 2.0, 0.5])
  estimate = np.mean(weight * losses[np.asarray(step) - 1])
  assert estimate == pytest.approx(losses.sum(), rel=2e-3)
  cold = history._replace(counts=jnp.array([11.0, 11.0, 10.0, 11.0]))
  np.testing.assert_allclose(step_history.probs(cold), 0.25)


def test_draws_of_one_step_count_once():
  history = step_history.updated(
    step_history.empty(3), jnp.array([2, 2, 3]), jnp.array([1.0, 3.0, 2.0])
  )
  np.testing.assert_allclose(history.squares, [0, 0.5, 0.4], rtol=1e-6)
  np.testing.assert_array_equal(history.counts, [0, 2, 1])


@pytest.mark.parametrize(
  'importance, decoder', [(True, 'x0'), (False, 'posterior')]
)
def test_the_loss_is_unbiased_for_the_bound_without_its_prior(
  importance, decoder
):
  system = system_of(
    system__args__importance=importance, system__args__decoder=decoder
  )
  params, aux = small.started(system)
  if importance:
    skewed = step_history.StepHistory(
      jnp.asarray(np.linspace(1, 9, 8), 'float32'), jnp.full(8, 20.0)
    )
    aux = dict(aux, history=skewed)
  batch = small.batch_of(2000)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(1), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(2), batch)
  expected = bound.terms['diffusion'] + bound.terms['reconstruction']
  gap = np.asarray(loss.nats - expected, np.float64)
  assert abs(gap.mean()) < 4.5 * gap.std() / np.sqrt(len(gap))
  assert gap.std() / np.sqrt(len(gap)) < 0.05 * float(expected.mean())


@pytest.mark.slow
def test_one_step_a_sequence_is_the_sum_over_all():
  """On the same 64 sequences, within three combined standard errors."""
  batch, means, errors = small.batch_of(64), [], []
  for points in (1, 7):
    system = system_of(eval__points=points)
    params, aux = small.started(system)
    bound = jax.jit(system.bound)(params, aux, jax.random.key(points), batch)
    steps = 2 + np.floor(np.asarray(bound.stats['u']) * 7).astype(int)
    if points == 7:
      # Each of the steps 2 to 8 once.
      assert np.all(np.sort(steps, axis=1) == np.arange(2, 9))
    nats = np.asarray(bound.nats, np.float64)
    means.append(nats.mean())
    errors.append(nats.std(ddof=1) / 8)
  assert abs(means[0] - means[1]) < 3 * np.hypot(*errors)
  # Fewer or more steps, or another weight of them, would be seen.
  divergences = float(np.mean(bound.terms['diffusion']))
  assert divergences > 3 * np.hypot(*errors)


@pytest.mark.slow
def test_history_follows_training_and_times_the_bound():
  system = system_of()
  params, aux = jax.jit(system.init)(jax.random.key(0))
  batch = small.batch_of(8)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  after = system.update_aux(aux, loss.stats)
  assert after['history'].counts.sum() == 8
  bound = jax.jit(system.bound)(params, aux, jax.random.key(0), batch)
  fitted = system.update_aux(after, bound.stats)
  assert fitted['times'].draws.sum() == 16
  np.testing.assert_array_equal(
    fitted['history'].counts, after['history'].counts
  )


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(process__name='absorbing'), 'multinomial: use uniform'),
    (dict(schedule__name='geometric'), 'multinomial: use step_betas'),
    (dict(sampling__method='tweedie'), 'multinomial: use ancestral'),
    (dict(eval__time_sampling='quadrature'), 'takes stratified or importance'),
    (dict(system__args__decoder='paper'), 'use posterior, x0'),
    (dict(system__args__parametrization='eps'), 'use x0, direct'),
    (dict(sampling__steps=9), 'sampling: steps must be from 1 to the 8'),
    (dict(sampling__grid='sigma'), "must be uniform, not 'sigma'"),
    (
      dict(system__args__parametrization='direct', sampling__steps=4),
      'one by one, not 4',
    ),
    (
      dict(system__name='sedd', sampling__method='tweedie'),
      'sedd: use log_linear, geometric',
    ),
    (
      dict(system__name='sedd', schedule__name='log_linear'),
      'sedd: use tweedie, euler',
    ),
  ],
)
def test_mistakes(changes, message):
  with pytest.raises(ValueError, match=message):
    system_of(**changes)


def test_a_request_for_another_grid_or_more_steps():
  system = system_of()
  params, aux = jax.jit(system.init)(jax.random.key(0))
  request = systems.Request(length=6, seeds=[0], method='ancestral', steps=9)
  with pytest.raises(ValueError, match='1 to the 8 of the chain, not 9'):
    system.sample(params, aux, request)
  request = dataclasses.replace(request, steps=8, options={'grid': 'sigma'})
  with pytest.raises(ValueError, match="must be uniform, not 'sigma'"):
    system.sample(params, aux, request)
