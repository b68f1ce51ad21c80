"""DiffuSeq: which positions are noised and counted, and the law given a source.

The kernels, losses and steps are held to the released code's arrays in
tests/losses/test_embedding.py, tests/processes/test_gaussian.py and
tests/samplers/test_gaussian.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.samplers import gaussian
from sedd_jax.systems.bounds import embedding_bound, time_proposal
from sedd_jax.systems.chains import embedding_chain
from tests.linear_denoiser import Linear
from tests.systems import small

GIVEN = np.arange(small.LENGTH)[None].repeat(3, 0) < np.array([[2], [3], [4]])


def config_of(**changes):
  fields = {'system.name': 'diffuseq', **embedding_chain.EXAMPLE}
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  return small.example_of({**fields, **changes})


@functools.cache
def loss_fn(**args):
  system = small.made(config_of(system__args=args))
  return jax.jit(system.loss), small.started(system)


def losses_of(batch, **args):
  loss, started = loss_fn(**args)
  return loss(*started, jax.random.key(5), {**batch, 'given': GIVEN})


def test_the_loss_is_on_all_positions_or_on_the_target():
  batch = small.batch_of(3)
  # As released: on all, and steps are drawn by their losses.
  everywhere, target = losses_of(batch), losses_of(batch, loss_on='target')
  np.testing.assert_array_equal(everywhere.weight, small.LENGTH)
  np.testing.assert_array_equal(target.weight, (~GIVEN).sum(-1))
  # The same network on the same noise, of which more is counted.
  assert np.all(everywhere.nats > target.nats)
  for name, (sums, weight) in everywhere.terms.items():
    assert np.all(sums >= target.terms[name][0]), name
    np.testing.assert_array_equal(weight, small.LENGTH)
  np.testing.assert_allclose(
    everywhere.stats['losses'],
    np.asarray(everywhere.nats) / small.LENGTH,
    rtol=1e-5,
  )


def test_the_source_is_seen_and_its_own_losses_are_not_the_targets():
  """Another source changes the target's loss, through the network alone."""
  batch = small.batch_of(3)
  moved = (batch['tokens'] + 1) % small.VOCAB
  other = {**batch, 'tokens': np.where(GIVEN, moved, batch['tokens'])}
  before, after = (losses_of(x, loss_on='target') for x in (batch, other))
  for name, (sums, _) in before.terms.items():
    same = np.array_equal(sums, after.terms[name][0])
    assert same == (name != 'squares'), name


def chain_of(model, gain):
  """A linear denoiser of a target that leans on the source before it."""
  slope, offset = (
    jnp.asarray(x, jnp.float32) for x in (model.slope, model.offset)
  )

  def predict(x_t, step):
    free = slope[step][:, None, None] * x_t + offset[step][:, None, None]
    return free + gain * jnp.flip(x_t, 1)

  return predict


def given_source(model, gain, word):
  """The denoiser of the target alone, given a clean source."""
  told = Linear(model.process.num_steps, model.variance, 0)
  told.words, told.bias, told.slope = model.words, model.bias, model.slope
  told.offset = model.offset + gain * model.words[word]
  return told


def test_the_bound_is_the_exact_one_given_the_source():
  model, gain, rows = Linear(4, 'large', seed=3), 0.7, 6000
  tokens = np.tile([[1, 2]], (rows, 1))
  clean = jnp.asarray(model.words, jnp.float32)[tokens][..., None]
  words, bias = model.words[None, None], model.bias[None, None]
  found = jax.jit(
    lambda key: embedding_bound.bound(
      chain_of(model, gain),
      lambda x: x * words + bias,
      clean,
      key,
      x_0=jnp.asarray(tokens),
      index=jnp.arange(rows),
      counted=None,
      kept=jnp.asarray([[True, False]]).repeat(rows, 0),
      points=3,
      times_by='stratified',
      process=model.process,
      proposal=time_proposal.empty(),
      variance='large',
      released=False,
    )
  )(jax.random.key(0))
  np.testing.assert_array_equal(found.weight, 1)
  nats = np.asarray(found.nats, np.float64)
  error = nats.std() / np.sqrt(rows)
  told = given_source(model, gain, 1)
  assert abs(nats.mean() - told.bound(2)) < 4 * error
  assert error < 0.03 * told.bound(2)
  assert nats.mean() - 4 * error > told.nll()[2]
  # With the other source it is another law.
  assert abs(nats.mean() - given_source(model, gain, 0).bound(2)) > 9 * error


@pytest.mark.parametrize('word', [0, 1])
def test_draws_have_their_exact_law_given_the_source(word):
  model, gain, count = Linear(6, 'large', 5, (-0.8, 0.8)), 0.7, 20000
  source = jnp.full((count, 2, 1), model.words[word], jnp.float32)
  path = gaussian.sample(
    chain_of(model, gain),
    jax.random.key(1),
    (count, 2, 1),
    process=model.process,
    variance='large',
    vectors=source,
    keep=jnp.asarray([[True, False]]).repeat(count, 0),
    return_path=True,
  )
  assert np.all(np.asarray(path[:, :, 0]) == np.float32(model.words[word]))
  told, table = given_source(model, gain, word), model.process.tables
  mean, variance = 0.0, 1.0
  for t in range(6, 0, -1):
    slope = table['of_x_0'][t] * told.slope[t] + table['of_x_t'][t]
    mean = slope * mean + table['of_x_0'][t] * told.offset[t]
    variance = slope**2 * variance + (told.model_variance(t) if t > 1 else 0)
  x = np.asarray(path[-1, :, 1, 0], np.float64)
  assert abs(x.mean() - mean) < 4 * np.sqrt(variance / count)
  assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / count)


def test_a_source_stands_bit_by_bit_in_every_state(monkeypatch):
  """Of the system's own chain: its vectors, not the tokens they round to."""
  states = []
  draw = gaussian.sample

  def spied(*args, **options):
    found = draw(*args, **{**options, 'return_path': True})
    jax.debug.callback(lambda x: states.append(np.asarray(x)), found)
    return found if options['return_path'] else found[-1]

  monkeypatch.setattr(gaussian, 'sample', spied)
  system = small.made(config_of())
  params, aux = small.started(system)
  tokens = small.batch_of(3)['tokens']
  request = systems.Request(
    length=small.LENGTH,
    seeds=[3, 4, 5],
    tokens=np.where(GIVEN, tokens, 0),
    given=GIVEN,
    method='ancestral',
    steps=6,
    options={'clamp': 6, 'variance': 'large'},
  )
  found = system.sample(params, aux, request)
  jax.effects_barrier()
  np.testing.assert_array_equal(found.tokens[GIVEN], tokens[GIVEN])
  (path,) = states
  assert path.shape == (7, 3, small.LENGTH, 4)
  anchors = np.asarray(params['embedding'])[tokens]
  for state in path:
    np.testing.assert_array_equal(state[GIVEN], anchors[GIVEN])


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'data__source': 'seq2seq', 'data__layout': 'split'}, "not 'split'"),
    ({'system__args__loss_on': 'source'}, "'source': use target, all"),
    ({'model__name': 'transformer'}, 'diffuseq: use embedding_bert'),
    ({'sampling__method': 'tweedie'}, 'diffuseq: use ancestral, ddim'),
  ],
)
def test_mistakes(changes, told):
  config = config_of(**changes)
  if changes.get('model__name') == 'transformer':
    del config.model.args['embedding_size']
  with pytest.raises(ValueError, match=told):
    small.made(config)
