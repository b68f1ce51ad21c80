"""The classifier of noisy tokens: Bayes' law, generators, guidance."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sedd_jax import config_checks, systems
from sedd_jax.systems import token_classifier
from tests.systems import small

UNIFORM = {'process.name': 'uniform', 'schedule.name': 'geometric'}
# Of one token, of two labels; one of three texts has the second.
SYMBOLS = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
SHARES = np.array([2 / 3, 1 / 3])


def config_of(**changes):
  fields, _ = token_classifier.examples()
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  return small.example_of(
    {'system.name': 'token_classifier', **fields, **changes}
  )


@pytest.fixture(scope='module')
def made():
  return small.made(config_of())


def posterior(process, x_t, level):
  """p(label | x_t) by Bayes, `[states, 2]`, tokens being independent."""
  kept = np.exp(-level)
  moved = np.full((3, 3), (1 - kept) / 3) + kept * np.eye(3)
  if process == 'absorbing':
    moved = np.concatenate([kept * np.eye(3), np.full((3, 1), 1 - kept)], 1)
  law = np.log(SYMBOLS @ moved)
  joint = np.log(SHARES) + law[:, x_t].sum(-1).T
  return np.exp(joint - np.logaddexp(*joint.T)[:, None])


@pytest.mark.parametrize('process', ['absorbing', 'uniform'])
def test_trained_it_says_bayes_law(process):
  """600 steps on two kinds of texts of two tokens, at all levels."""
  fields = UNIFORM if process == 'uniform' else {}
  config = config_of(data__seq_len=2, training__time_sampling='iid', **fields)
  info = types.SimpleNamespace(vocab_size=3, labels=('a', 'b'))
  system = systems.make(config, info)
  rows, steps = 512, 600
  rng = np.random.default_rng(0)
  label = (rng.random((steps, rows)) < SHARES[1]).astype(np.int32)
  below = SYMBOLS.cumsum(-1)[label][:, :, None]
  tokens = np.sum(rng.random((steps, rows, 2, 1)) > below, -1)
  tokens = np.minimum(tokens, 2).astype(np.int32)
  index = np.arange(rows, dtype=np.int32)
  optimizer = optax.adam(optax.cosine_decay_schedule(0.01, steps))

  def step(carry, drawn):
    params, state = carry
    key, own_tokens, own_label = drawn
    batch = {'tokens': own_tokens, 'label': own_label}
    batch |= {'index': index, 'count': np.int32(rows)}

    def mean(params):
      return jnp.mean(system.loss(params, {}, key, batch).nats)

    nats, slope = jax.value_and_grad(mean)(params)
    change, state = optimizer.update(slope, state)
    return (optax.apply_updates(params, change), state), nats

  @jax.jit
  def trained(key):
    params, _ = system.init(key)
    keys = jax.random.split(jax.random.key(1), steps)
    carry = params, optimizer.init(params)
    (params, _), nats = jax.lax.scan(step, carry, (keys, tokens, label))
    return params, nats

  params, nats = trained(jax.random.key(0))
  assert np.mean(nats[-50:]) < np.mean(nats[:20])
  states = 4 if process == 'absorbing' else 3
  x_t = np.stack(np.divmod(np.arange(states**2), states), -1).astype(np.int32)
  for level in (0.05, 0.7, 3.0):
    told = jnp.full(len(x_t), level)
    found = [
      system.log_label(params, {}, x_t, told, jnp.full(len(x_t), k))
      for k in (0, 1)
    ]
    wanted = posterior(process, x_t, level)
    np.testing.assert_allclose(np.exp(found).T, wanted, atol=0.06)
  # Bayes' law itself is far from flat there.
  assert np.ptp(posterior(process, x_t, 0.05)[:, 0]) > 0.8


def test_noise_of_another_schedule_fits_and_of_another_process_not(made):
  other = small.example_of({'schedule.name': 'geometric'})
  assert made.frozen(other, {}) == {}
  with pytest.raises(ValueError, match="'uniform'.*'absorbing': process must"):
    made.frozen(small.example_of(UNIFORM), {})
  # An earlier classifier is no generator either: no weights are taken over.
  for name in ('multinomial', 'autoregressive', 'token_classifier'):
    other = small.config_of(system__name=name)
    with pytest.raises(ValueError, match=f"'{name}' takes no classifier of to"):
      made.frozen(other, {})


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'data__label': ''}, 'learns labels, and the data has none'),
    ({'data__label': '@spans'}, 'token_classifier is of labels of texts'),
    ({'model__name': 'transformer'}, 'classifier: use token_classifier'),
    ({'schedule__name': 'gaussian'}, 'schedule.name'),
  ],
)
def test_mistakes(changes, told):
  config = config_of()
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  with pytest.raises(ValueError, match=told):
    small.made(config)
