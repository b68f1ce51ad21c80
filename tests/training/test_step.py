import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.training import optimizer, state, step
from tests.training import toys

RATE = 0.5


def run(system=toys.SYSTEM, batch=None, start=None, rate=RATE, **options):
  updates = optimizer.make('sgd', learning_rate=rate)
  before = start or state.create(system.init, updates, 0)
  options = {'reduction': 'token', 'ema_decay': 0.9, **options}
  train_step = functools.partial(
    step.train_step, system=system, optimizer=updates, **options
  )
  batch = toys.batch() if batch is None else batch
  after, metrics = jax.jit(train_step)(before, batch)
  return before, after, metrics


def gradient(before, batch, normalizer):
  """Slow path: gradient of the whole batch's loss, divided by a number."""
  key = jax.random.fold_in(before.key, before.step)

  def objective(params):
    return jnp.sum(toys.loss(params, (), key, batch).nats) / normalizer

  return jax.value_and_grad(objective)(before.params)


@pytest.mark.parametrize('reduction', ['token', 'sequence'])
def test_update_is_the_gradient_of_the_normalised_loss(reduction):
  batch = toys.batch()
  tokens = batch['valid'].sum()
  before, after, metrics = run(batch=batch, reduction=reduction)
  normalizer = {'token': tokens, 'sequence': 8}[reduction]
  objective, expected = gradient(before, batch, normalizer)
  np.testing.assert_allclose(metrics['objective'], objective, rtol=1e-6)
  np.testing.assert_allclose(
    metrics['loss'], objective * normalizer / tokens, rtol=1e-6
  )
  squares = 0.0
  for name, value in expected.items():
    taken = (before.params[name] - after.params[name]) / RATE
    np.testing.assert_allclose(taken, value, rtol=1e-5, atol=1e-6)
    squares += np.sum(np.square(value))
  np.testing.assert_allclose(metrics['grad_norm'], squares**0.5, rtol=1e-5)


def test_state_after():
  before, after, metrics = run()
  assert int(after.step) == 1
  assert float(metrics['learning_rate']) == RATE
  np.testing.assert_array_equal(
    jax.random.key_data(before.key), jax.random.key_data(after.key)
  )
  share = 9 / 11
  for name in before.params:
    mean = (1 - share) * before.params[name] + share * after.params[name]
    np.testing.assert_allclose(after.ema[name], mean, rtol=1e-5, atol=1e-7)


def test_noise_depends_on_the_step():
  _, after, first = run(rate=1e-30)
  _, _, second = run(start=after, rate=1e-30)
  assert abs(float(first['loss']) - float(second['loss'])) > 1e-4


@pytest.mark.parametrize('reduction', ['token', 'sequence'])
@pytest.mark.parametrize('kind', ['index', 'weight'])
def test_padding_rows_do_not_count(kind, reduction):
  batch = toys.batch(6)
  padded = toys.batch(8) | {'count': np.int32(6)}
  if kind == 'weight':
    padded['count'] = np.int32(8)
    padded['valid'] = padded['valid'] & (np.arange(8) < 6)[:, None]
  _, expected, plain = run(batch=batch, reduction=reduction)
  _, after, metrics = run(batch=padded, reduction=reduction)
  for name in ('loss', 'objective', 'grad_norm'):
    np.testing.assert_allclose(metrics[name], plain[name], rtol=1e-6)
  assert float(metrics['sums']['examples']) == 6
  assert float(metrics['sums']['weight']) == batch['valid'].sum()
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
    after.params,
    expected.params,
  )


def test_terms_are_sums_and_weights():
  batch = toys.batch()
  batch['valid'][:3, 0] = False
  _, _, metrics = run(batch=batch)
  total, weight = metrics['terms']['first']
  assert float(weight) == 5
  assert 0 < float(total) < float(metrics['sums']['nats'])


@pytest.mark.parametrize('reduction', ['token', 'sequence'])
@pytest.mark.parametrize('accumulation', [2, 4, 8])
def test_accumulation_is_the_large_batch(accumulation, reduction):
  _, expected, plain = run(reduction=reduction)
  _, after, metrics = run(reduction=reduction, accumulation=accumulation)
  same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(same, after.params, expected.params)
  jax.tree.map(same, metrics, plain)


def test_accumulation_that_does_not_divide():
  with pytest.raises(ValueError, match='8 rows .* 3 micro-batches'):
    run(accumulation=3)


@pytest.mark.parametrize('accumulation', [1, 2, 4])
def test_stats_come_in_order_of_index(accumulation):
  system = toys.remembering(8)
  batch = toys.batch()
  before, expected, _ = run(system=system, batch=batch)
  key = jax.random.fold_in(before.key, before.step)
  nats = toys.loss(before.params, (), key, batch).nats
  np.testing.assert_allclose(expected.aux, nats, rtol=1e-6)
  order = np.array([3, 0, 7, 5, 1, 2, 6, 4])
  shuffled = {k: x[order] if np.ndim(x) else x for k, x in batch.items()}
  _, after, _ = run(system=system, batch=shuffled, accumulation=accumulation)
  np.testing.assert_allclose(after.aux, expected.aux, rtol=1e-5)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_non_finite_is_flagged(value):
  def loss(params, aux, key, batch):
    out = toys.loss(params, aux, key, batch)
    return out._replace(nats=out.nats.at[2].mul(value))

  system = dataclasses.replace(toys.SYSTEM, loss=loss)
  _, _, metrics = run(system=system)
  assert not metrics['finite']
  assert run()[2]['finite']


def test_gradient_alone_not_finite_is_flagged():
  def loss(params, aux, key, batch):
    out = toys.loss(params, aux, key, batch)
    # The value is 0, the derivative infinite.
    corner = jnp.sqrt(params['embed'][0, 0] - params['embed'][0, 0])
    return out._replace(nats=out.nats + corner)

  system = dataclasses.replace(toys.SYSTEM, loss=loss)
  _, _, metrics = run(system=system)
  assert np.isfinite(metrics['objective'])
  assert not metrics['finite']


def test_unknown_reduction():
  with pytest.raises(ValueError, match="'tokens'; nearest: token"):
    run(reduction='tokens')


def test_initial_params_are_copied():
  updates = optimizer.make('sgd', learning_rate=1.0)
  params = toys.init(jax.random.key(5))[0]
  start = state.create(toys.init, updates, 0, params)
  np.testing.assert_array_equal(start.params['embed'], params['embed'])
  leaves = [params['embed'], start.params['embed'], start.ema['embed']]
  assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == 3
