"""Multinomial diffusion: the reference's numbers, and the system whole."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import config_checks, default_config, systems
from sedd_jax.systems import multinomial, step_history
from tests import golden_numbers


def config_of(**changes):
  config = default_config.get_config()
  config.system.name = 'multinomial'
  config.process.name = 'uniform'
  config.schedule.name = 'step_betas'
  config.schedule.num_steps = 8
  config.data.seq_len = 6
  config.model.update({'hidden_size': 16, 'num_layers': 1, 'num_heads': 2})
  config.model.update({'cond_size': 8, 'dropout': 0.0, 'dtype': 'float32'})
  config.eval.points = 2
  config.sampling.update({'method': 'ancestral', 'steps': 8})
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  return config


def system_of(**changes):
  return systems.make(config_of(**changes), types.SimpleNamespace(vocab_size=5))


def batch_of(count=8):
  tokens = np.random.default_rng(0).integers(5, size=(count, 6))
  return {
    'tokens': jnp.asarray(tokens, jnp.int32),
    'index': jnp.arange(count),
    'count': jnp.asarray(count),
  }


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
  step, weight = step_history.drawn(history, u)
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
  params, aux = jax.jit(system.init)(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  params = jax.tree.unflatten(
    tree, [x + 0.2 * rng.standard_normal(x.shape, 'float32') for x in leaves]
  )
  if importance:
    skewed = step_history.StepHistory(
      jnp.asarray(np.linspace(1, 9, 8), 'float32'), jnp.full(8, 20.0)
    )
    aux = dict(aux, history=skewed)
  batch = batch_of(2000)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(1), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(2), batch)
  expected = bound.terms['diffusion'] + bound.terms['reconstruction']
  gap = np.asarray(loss.nats - expected, np.float64)
  assert abs(gap.mean()) < 4.5 * gap.std() / np.sqrt(len(gap))
  assert gap.std() / np.sqrt(len(gap)) < 0.05 * float(expected.mean())


def test_history_follows_training_and_times_the_bound():
  system = system_of()
  params, aux = jax.jit(system.init)(jax.random.key(0))
  batch = batch_of()
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  after = system.update_aux(aux, loss.stats)
  assert after['history'].counts.sum() == 8
  bound = jax.jit(system.bound)(params, aux, jax.random.key(0), batch)
  fitted = system.update_aux(after, bound.stats)
  assert fitted['times'].draws.sum() == 16
  np.testing.assert_array_equal(
    fitted['history'].counts, after['history'].counts
  )


def test_samples_are_those_of_single_requests():
  system = system_of()
  params, aux = jax.jit(system.init)(jax.random.key(0))
  request = systems.Request(
    length=6, seeds=[3, 4, 5], method='ancestral', steps=4, batch_size=2
  )
  together = system.sample(params, aux, request)
  alone = system.sample(params, aux, dataclasses.replace(request, seeds=[5]))
  assert together.tokens.shape == (3, 6) and together.calls == 4
  np.testing.assert_array_equal(together.tokens[2], alone.tokens[0])


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(process__name='absorbing'), 'multinomial: use uniform'),
    (dict(schedule__name='geometric'), 'multinomial: use step_betas'),
    (dict(sampling__method='tweedie'), 'multinomial: use ancestral'),
    (dict(eval__time_sampling='quadrature'), 'takes stratified or importance'),
    (dict(system__args__decoder='paper'), 'use posterior, x0'),
    (dict(system__args__parametrization='eps'), 'use x0, direct'),
  ],
)
def test_mistakes(changes, message):
  with pytest.raises(ValueError, match=message):
    system_of(**changes)


def test_sedd_refuses_a_chain_in_steps():
  with pytest.raises(ValueError, match='sedd: use log_linear, geometric'):
    system_of(system__name='sedd', sampling__method='tweedie')
  with pytest.raises(ValueError, match='sedd: use tweedie, euler'):
    system_of(system__name='sedd', schedule__name='log_linear')


def test_more_steps_than_the_chain_has():
  system = system_of()
  params, aux = jax.jit(system.init)(jax.random.key(0))
  request = systems.Request(length=6, seeds=[0], method='ancestral', steps=9)
  with pytest.raises(ValueError, match='1 to the 8 of the chain, not 9'):
    system.sample(params, aux, request)


class Letters:
  """Encodes a to e."""

  def encode(self, text):
    return [ord(letter) - ord('a') for letter in text]

  def decode(self, ids):
    return ''.join(chr(ord('a') + int(i)) for i in ids)


def test_spelling_is_checked_piece_by_piece():
  def corrected(tokens):
    assert tokens.shape[1] <= 4
    return jnp.where(tokens == 4, 0, tokens)

  answer = multinomial.checked_spelling(
    corrected, {'text': 'abeabcdee'}, Letters(), 4
  )
  assert answer == {
    'text': 'abeabcdee',
    'corrected': 'abaabcdaa',
    'marked': 'ab[e>a]abcd[e>a][e>a]',
    'changes': 3,
  }
  json.dumps(answer)
  short = multinomial.checked_spelling(corrected, {'text': 'be'}, Letters(), 4)
  assert short['corrected'] == 'ba'
  with pytest.raises(ValueError, match='needs --config.task.text'):
    multinomial.checked_spelling(corrected, {}, Letters(), 4)


def test_golden_spell_checking():
  """argmax of the raw network at the first step, of a table by position."""
  golden = golden_numbers.load('multinomial')
  weights, bias = golden['W'][0], golden['U']

  def corrected(tokens):
    return jnp.argmax(weights[:, tokens].transpose(1, 2, 0) + bias[None], -1)

  for tokens, expected in zip(golden['spell_x'], golden['spell_argmax']):
    answer = multinomial.checked_spelling(
      corrected, {'text': Letters().decode(tokens)}, Letters(), 6
    )
    assert answer['corrected'] == Letters().decode(expected)
