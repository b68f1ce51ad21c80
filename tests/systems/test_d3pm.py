"""D3PM: the loss that is trained on, and every kind of noise it takes."""

import jax
import numpy as np
import pytest

from sedd_jax import systems
from tests.systems import small


def system_of(**changes):
  return small.made(small.in_steps('d3pm', 6, **changes))


NOISES = [
  dict(process__name='uniform'),
  dict(process__name='absorbing'),
  dict(process__name='absorbing', schedule__betas='reciprocal'),
]


@pytest.mark.parametrize('noise', NOISES[2:])
def test_the_loss_is_unbiased_for_the_bound_without_its_prior(noise):
  system = system_of(**noise)
  params, aux = small.started(system)
  batch = small.batch_of(2000)
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
  params, aux = small.started(system_of(**noise))
  batch = small.batch_of(16)
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
  params, aux = small.started(system)
  request = systems.Request(
    length=6, seeds=[1, 2, 3], method='ancestral', steps=3, batch_size=2
  )
  samples = system.sample(params, aux, request)
  assert samples.tokens.shape == (3, 6)
  assert samples.tokens.min() >= 0 and samples.tokens.max() < small.VOCAB
  # The clipped cosine leaves some signal: the mask's chain starts beyond it.
  assert samples.calls == 3 + (noise['process__name'] == 'absorbing')


def test_mistakes():
  with pytest.raises(ValueError, match='hybrid must be at least 0, not -1'):
    system_of(system__args__hybrid=-1.0)
  with pytest.raises(ValueError, match='d3pm: use step_betas'):
    system_of(schedule__name='log_linear')
