"""The autoregressive yardstick: its likelihood is one, and is sampled from."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import systems
from tests import oracles
from tests.systems import small


def system_of(info=small.INFO, **changes):
  fields = {
    'system__name': 'autoregressive',
    'sampling__method': 'autoregressive',
    'model__num_layers': 2,
  }
  return systems.make(small.config_of(**{**fields, **changes}), info)


@pytest.fixture(scope='module')
def tiny():
  """A system over three symbols, and the law of its sequences of three."""
  info = type('Info', (), {'vocab_size': 3})
  system = system_of(info, data__seq_len=3)
  params, aux = small.started(system)
  sequences = oracles.states(3, 3)
  nats = jax.jit(system.bound)(
    params, aux, jax.random.key(0), batch_of(sequences)
  ).nats
  return system, params, np.exp(-np.asarray(nats, float))


def batch_of(tokens, **changes):
  batch = {
    'tokens': jnp.asarray(tokens, jnp.int32),
    'index': jnp.arange(len(tokens)),
    'count': jnp.asarray(len(tokens)),
  }
  return {**batch, **changes}


def test_the_likelihoods_of_all_sequences_sum_to_one(tiny):
  _, _, law = tiny
  assert law.sum() == pytest.approx(1, rel=1e-5)
  assert law.std() > 0.005


def test_samples_have_that_law(tiny):
  """Of the network with its cache, token by token."""
  system, params, law = tiny
  request = systems.Request(
    length=3, seeds=range(20_000), method='autoregressive'
  )
  samples = system.sample(params, (), request)
  assert samples.calls == 3
  counts = np.bincount(oracles.index_of(samples.tokens, 3), minlength=27)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  assert oracles.chi_square_pvalue(counts, law[::-1]) < 1e-4


def test_the_loss_is_the_likelihood(tiny):
  system, params, law = tiny
  tokens = oracles.states(3, 3)
  loss = jax.jit(system.loss)(params, (), jax.random.key(0), batch_of(tokens))
  np.testing.assert_allclose(loss.nats, -np.log(law), rtol=1e-5)
  whole = system_of(
    type('Info', (), {'vocab_size': 3}),
    data__seq_len=3,
    training__loss_chunk=0,
  )
  plain = jax.jit(whole.loss)(params, (), jax.random.key(0), batch_of(tokens))
  np.testing.assert_allclose(loss.nats, plain.nats, rtol=1e-5)
  np.testing.assert_array_equal(loss.weight, 3)
  # What is padded or given does not count; what comes after changes nothing.
  given = np.tile([True, False, False], (27, 1))
  part = jax.jit(system.loss)(
    params, (), jax.random.key(0), batch_of(tokens, given=jnp.asarray(given))
  )
  marginal = law.reshape(3, 9).sum(1)[tokens[:, 0]]
  np.testing.assert_allclose(part.nats, -np.log(law / marginal), rtol=1e-4)
  np.testing.assert_array_equal(part.weight, 2)


def test_a_prompt_is_kept_and_continued(tiny):
  system, params, law = tiny
  count = 5000
  given = np.tile([True, False, False], (count, 1))
  tokens = np.full((count, 3), 2, np.int32)
  request = systems.Request(
    length=3,
    seeds=range(count),
    tokens=tokens,
    given=given,
    method='autoregressive',
    batch_size=1000,
    record_path=True,
  )
  samples = system.sample(params, (), request)
  assert np.all(samples.tokens[:, 0] == 2)
  assert samples.path.shape == (4, 1000, 3)
  assert np.all(samples.path[0] == 3)
  counts = np.bincount(oracles.index_of(samples.tokens[:, 1:], 3), minlength=9)
  law = law.reshape(3, 9)[2]
  assert oracles.chi_square_pvalue(counts, law / law.sum()) > 1e-4


def test_a_batch_gives_what_single_requests_give(tiny):
  system, params, _ = tiny
  ask = dict(length=3, method='autoregressive', batch_size=4)
  together = system.sample(
    params, (), systems.Request(seeds=range(5), **ask)
  ).tokens
  alone = system.sample(params, (), systems.Request(seeds=[3], **ask)).tokens
  np.testing.assert_array_equal(together[3], alone[0])


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    (dict(sampling__method='tweedie'), 'autoregressive: use autoregressive'),
    (dict(eval__protocol='sedd'), 'autoregressive: use bound'),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(ValueError, match=told):
    system_of(**changes)


class WithoutCache(nn.Module):
  num_states: int
  causal: bool = False


def test_a_network_without_a_cache():
  name = 'tests.systems.test_autoregressive:WithoutCache'
  with pytest.raises(ValueError, match='has no method decode'):
    system_of(model__name=name)


def test_a_blank_before_given_text_is_refused(tiny):
  system, params, _ = tiny
  request = systems.Request(
    length=3,
    seeds=[0],
    tokens=np.zeros((1, 3), np.int32),
    given=np.array([[True, False, True]]),
    method='autoregressive',
  )
  with pytest.raises(ValueError, match='keeps the beginning of a text only'):
    system.sample(params, (), request)
