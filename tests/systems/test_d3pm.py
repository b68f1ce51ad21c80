"""D3PM: the loss that is trained on, and every kind of noise it takes."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import config_checks, default_config, systems


def config_of(**changes):
  config = default_config.get_config()
  config.system.name = 'd3pm'
  config.schedule.name = 'step_betas'
  config.schedule.num_steps = 6
  config.data.seq_len = 6
  config.model.update({'hidden_size': 16, 'num_layers': 1, 'num_heads': 2})
  config.model.update({'cond_size': 8, 'dropout': 0.0, 'dtype': 'float32'})
  config.eval.points = 2
  config.sampling.update({'method': 'ancestral', 'steps': 6})
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  return config


def system_of(**changes):
  return systems.make(config_of(**changes), types.SimpleNamespace(vocab_size=5))


def batch_of(count):
  tokens = np.random.default_rng(0).integers(5, size=(count, 6))
  return {
    'tokens': jnp.asarray(tokens, jnp.int32),
    'index': jnp.arange(count),
    'count': jnp.asarray(count),
  }


def started(system):
  """Parameters away from the flat start."""
  params, aux = jax.jit(system.init)(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  leaves = [x + 0.2 * rng.standard_normal(x.shape, 'float32') for x in leaves]
  return jax.tree.unflatten(tree, leaves), aux


NOISES = [
  dict(process__name='uniform'),
  dict(process__name='absorbing'),
  dict(process__name='absorbing', schedule__betas='reciprocal'),
]


@pytest.mark.parametrize('noise', NOISES[2:])
def test_the_loss_is_unbiased_for_the_bound_without_its_prior(noise):
  system = system_of(**noise)
  params, aux = started(system)
  batch = batch_of(2000)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(1), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(2), batch)
  assert np.isfinite(bound.nats).all()
  expected = bound.terms['diffusion'] + bound.terms['reconstruction']
  gap = np.asarray(loss.nats - expected, np.float64)
  error = gap.std() / np.sqrt(len(gap))
  assert abs(gap.mean()) < 4.5 * error
  assert error < 0.05 * float(expected.mean())


@pytest.mark.parametrize('noise', NOISES[1:2])
def test_hybrid_adds_a_share_of_cross_entropy(noise):
  params, aux = started(system_of(**noise))
  batch = batch_of(16)
  plain, some, more = (
    jax.jit(system_of(**noise, system__args__hybrid=share).loss)(
      params, aux, jax.random.key(1), batch
    )
    for share in (0.0, 0.01, 0.02)
  )
  assert plain.terms == {}
  np.testing.assert_allclose(some.terms['bound'][0], plain.nats, rtol=1e-5)
  added = np.asarray(some.nats - plain.nats)
  assert np.all(added > 0)
  np.testing.assert_allclose(more.nats - plain.nats, 2 * added, rtol=1e-2)


@pytest.mark.parametrize('noise', NOISES)
def test_samples_are_data(noise):
  system = system_of(**noise)
  params, aux = started(system)
  request = systems.Request(
    length=6, seeds=[1, 2, 3], method='ancestral', steps=3, batch_size=2
  )
  samples = system.sample(params, aux, request)
  assert samples.tokens.shape == (3, 6)
  assert samples.tokens.min() >= 0 and samples.tokens.max() < 5
  # The clipped cosine leaves some signal: the mask's chain starts beyond it.
  assert samples.calls == 3 + (noise['process__name'] == 'absorbing')


def test_mistakes():
  with pytest.raises(ValueError, match='hybrid must be at least 0, not -1'):
    system_of(system__args__hybrid=-1.0)
  with pytest.raises(ValueError, match='d3pm: use step_betas'):
    system_of(schedule__name='log_linear')
