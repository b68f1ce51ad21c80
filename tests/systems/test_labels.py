"""Systems that are told labels: their loss, their law, what they draw."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sedd_jax import systems
from sedd_jax.core import keys as keys_lib
from sedd_jax.core import shapes
from sedd_jax.models import Bert
from sedd_jax.samplers import conditions
from sedd_jax.systems import base
from sedd_jax.systems.common import parts, requests
from sedd_jax.training import parallel
from tests import oracles
from tests.systems import small

NAMES = ('prose', 'verse')
INFO = types.SimpleNamespace(
  vocab_size=small.VOCAB, token_counts=small.INFO.token_counts, labels=NAMES
)


def system_of(info=INFO, **fields):
  return systems.make(
    small.config_of(**{'training__label_dropout': 0.25, **fields}), info
  )


MASKED = {'system__name': 'masked_diffusion', 'sampling__method': 'ancestral'}


@pytest.mark.parametrize('model', ['transformer', 'bert'])
def test_a_network_begins_without_labels(model):
  """The same parameters, and a table of zeros."""
  plain = system_of(small.INFO, **MASKED, model__name=model)
  told = system_of(**MASKED, model__name=model)
  shapes_of = [
    jax.eval_shape(system.init, jax.random.key(0))[0]
    for system in (plain, told)
  ]
  table = shapes_of[1].pop('label_embed')
  assert shapes_of[0] == shapes_of[1]
  assert table['embedding'].shape == (2, 16)


def test_labels_at_their_places():
  network = Bert(
    num_states=4, hidden_size=8, num_layers=1, num_heads=2, num_labels=2
  )
  x_t, time = jnp.array([[0, 1, 2]]), jnp.zeros(1)
  label = jnp.array([[0, 1, shapes.NO_LABEL]])

  @jax.jit
  def trunk(params, label=None):
    return network.apply(
      {'params': params}, x_t, time, None, None, label, method='_trunk'
    )

  init = jax.jit(network.init)
  params = init(jax.random.key(0), x_t, time, label=label)['params']
  assert not params['label_embed']['embedding'].any()
  rows = jnp.array([[1.0] * 8, [2.0] * 8])
  params['label_embed']['embedding'] = rows
  ours = trunk(params, label)
  # As tokens that are embedded so.
  params['embed']['embedding'] += jnp.concatenate([rows, jnp.zeros((2, 8))])
  np.testing.assert_allclose(ours, trunk(params), rtol=1e-4, atol=1e-5)
  for bad, said in ((label[:, :2], 'label'), (label + 0.5, 'integer')):
    with pytest.raises(ValueError, match=said):
      network.apply({'params': params}, x_t, time, label=bad)
  with pytest.raises(ValueError, match='no labels'):
    network.clone(num_labels=0).apply(
      {'params': params}, x_t, time, label=label
    )


def test_the_share_of_sequences_without_labels():
  """By an example's own key: all of a sequence, whatever the batch."""
  labels, count = parts.Labels(2, 0.3), 20_000
  keys = keys_lib.example_keys(jax.random.key(0), jnp.arange(count))
  label = np.tile([[0, 1, 1]], (count, 1)).astype(np.int32)
  batch = {'tokens': label, 'label': label}
  found = np.asarray(parts.trained_label(labels, keys, batch))
  dropped = np.all(found == shapes.NO_LABEL, axis=1)
  assert np.all((found == label).all(1) | dropped)
  spread = np.sqrt(0.3 * 0.7 / count)
  assert abs(dropped.mean() - 0.3) < 4 * spread
  # A label a sequence is one a token.
  single = {'tokens': label, 'label': label[:, 1]}
  assert np.all(np.asarray(parts.label_of(single)) == 1)
  every = parts.trained_label(parts.Labels(2, 0.0), keys, batch)
  np.testing.assert_array_equal(every, label)


def test_the_same_on_any_devices():
  system = system_of(training__label_dropout=0.5, **MASKED)
  params, aux = small.started(system)
  label = np.tile([[0], [1]], (4, small.LENGTH)).astype(np.int32)
  batch = small.batch_of(8, label=label)

  def rows(params, aux, key, batch):
    return system.loss(params, aux, key, batch)[:2]

  found = []
  for devices in (1, 2):
    layout = parallel.make('pmap', jax.devices()[:devices])
    compiled = layout.compile_rows(rows)
    placed = layout.place(params), layout.place(aux)
    found.append(compiled(*placed, jax.random.key(1), batch)[0])
  np.testing.assert_allclose(*found, rtol=1e-5)
  other = {**batch, 'label': 1 - label}
  changed = compiled(*placed, jax.random.key(1), other)[0] != found[1]
  # Those that are trained on without their labels do not see them.
  assert 0 < changed.sum() < 8


LAWS = np.array(
  [
    [0.5, 0.1, 0.05, 0.02, 0.1, 0.03, 0.05, 0.05, 0.1],
    [0.02, 0.03, 0.2, 0.05, 0.3, 0.05, 0.25, 0.05, 0.05],
  ]
)


@pytest.fixture(scope='module')
def trained():
  """A toy of two labels: the law of two tokens given each."""
  info = types.SimpleNamespace(vocab_size=3, labels=NAMES)
  config = small.config_of(
    system__name='masked_diffusion',
    sampling__method='first_hitting',
    data__seq_len=2,
    training__label_dropout=0.3,
    training__time_sampling='low_discrepancy',
    # Where 1 / t is large the loss is noisy.
    training__t_min=0.2,
    training__loss_chunk=0,
  )
  system = systems.make(config, info)
  params, aux = jax.jit(system.init)(jax.random.key(0))
  rows, steps = 512, 1000
  optimizer = optax.adam(optax.linear_schedule(0.01, 0.0, steps))
  states = jnp.asarray(oracles.states(3, 2), jnp.int32)

  @jax.jit
  def fitted(params):
    def step(carry, number):
      params, state = carry
      keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number), 3)
      label = jax.random.bernoulli(keys[0], 0.5, (rows,)).astype(jnp.int32)
      x_0 = jax.random.categorical(keys[1], jnp.log(LAWS)[label])
      batch = {
        'tokens': states[x_0],
        'label': label,
        'index': jnp.arange(rows),
        'count': jnp.asarray(rows),
      }

      def mean(params):
        return jnp.mean(system.loss(params, aux, keys[2], batch).nats)

      updates, state = optimizer.update(jax.grad(mean)(params), state)
      return (optax.apply_updates(params, updates), state), None

    carry = params, optimizer.init(params)
    return jax.lax.scan(step, carry, jnp.arange(steps))[0][0]

  params = fitted(params)
  return system, params, aux, predictions(system, params, aux)


def predictions(system, params, aux):
  """p(x_0 | x_t) given each label, and none, of every state."""
  states = jnp.asarray(oracles.states(4, 2), jnp.int32)
  label = np.repeat([0, 1, shapes.NO_LABEL], len(states))
  label = np.broadcast_to(label[:, None], (len(label), 2))
  score = jax.jit(system.score_fn(params, aux))(
    jnp.tile(states, (3, 1)), jnp.ones(len(label)), jnp.asarray(label)
  )
  return np.split(np.asarray(jax.nn.softmax(score[..., :3]), float), 3)


def law_of(table):
  """Of both orders alike, one token a call."""
  law = np.zeros(9)
  for index, x_0 in enumerate(oracles.states(3, 2)):
    for first in (0, 1):
      seen = np.array([3, 3])
      seen[first] = x_0[first]
      law[index] += (
        table[15, first, x_0[first]]
        * table[oracles.index_of(seen, 4), 1 - first, x_0[1 - first]]
        / 2
      )
  return law


def test_each_label_has_its_law_and_none_the_mixture(trained):
  wanted = [*LAWS, LAWS.mean(0)]
  for table, law in zip(trained[3], wanted):
    found = law_of(table)
    gaps = [0.5 * np.abs(found - other).sum() for other in wanted]
    assert gaps[np.argmin(gaps)] == 0.5 * np.abs(found - law).sum() < 0.05
    assert sorted(gaps)[1] > 0.2


def test_what_is_drawn(trained):
  """Labels row by row, at scales of 1 and of 2; and without."""
  system, params, aux, tables = trained
  count = 6000
  label = np.repeat([0, 1, -1], count)
  for scale in (1.0, 2.0):
    request = systems.Request(
      length=2,
      seeds=range(3 * count),
      method='first_hitting',
      steps=2,
      label=label,
      options={'label_scale': scale} if scale != 1 else {},
    )
    samples = system.sample(params, aux, request)
    for tokens, table in zip(np.split(samples.tokens, 3), tables):
      guided = table**scale * tables[2] ** (1 - scale)
      law = law_of(guided / guided.sum(-1, keepdims=True))
      counts = np.bincount(oracles.index_of(tokens, 3), minlength=9)
      assert oracles.chi_square_pvalue(counts, law) > 1e-4
      wrong = law_of(tables[1] if table is not tables[1] else tables[0])
      assert oracles.chi_square_pvalue(counts, 0.8 * law + 0.2 * wrong) < 1e-4


def test_the_bound_is_given_the_labels(trained):
  """Near the entropy of each label's law, and of the mixture without."""
  system, params, aux, _ = trained
  x_0 = jnp.asarray(oracles.states(3, 2), jnp.int32)
  batch = {
    'tokens': jnp.tile(x_0, (600, 1)),
    'index': jnp.arange(5400),
    'count': jnp.asarray(5400),
  }
  bound = jax.jit(system.bound)
  for number, law in enumerate([*LAWS, LAWS.mean(0)]):
    label = jnp.full(5400, number if number < 2 else -1)
    nats = bound(params, aux, jax.random.key(0), {**batch, 'label': label}).nats
    mean = np.asarray(nats).reshape(600, 9).mean(0) @ law
    entropy = -law @ np.log(law)
    assert entropy - 0.02 < mean < entropy + 0.06


SYSTEMS = {
  'sedd uniform': {
    'process__name': 'uniform',
    'schedule__name': 'geometric',
  },
  'sedd cached': {'system__args__timed': False},
  'sedd unmasked': {'sampling__method': 'first_hitting'},
  'ancestral': MASKED,
  'remasking': {**MASKED, 'sampling__method': 'remasking'},
  'multinomial': {
    'system__name': 'multinomial',
    'process__name': 'uniform',
    'schedule__name': 'step_betas',
    'schedule__num_steps': 4,
    'sampling__method': 'ancestral',
  },
  'd3pm': {
    'system__name': 'd3pm',
    'schedule__name': 'step_betas',
    'schedule__num_steps': 4,
    'sampling__method': 'ancestral',
    'model__name': 'bert',
    'model__args__time': 'layer',
  },
}


# Of those that the others have most of.
QUICK = ('sedd unmasked', 'multinomial')


@pytest.mark.parametrize(
  'name',
  [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in SYSTEMS
  ],
)
def test_every_system(name):
  """A row without a label is as in a request without any."""
  system = system_of(**SYSTEMS[name], sampling__steps=4)
  params, aux = small.started(system)
  options = {'cached': True} if name == 'sedd cached' else {}
  request = systems.Request(
    length=small.LENGTH,
    seeds=[1, 2, 3],
    method=SYSTEMS[name].get('sampling__method', 'tweedie'),
    steps=4,
    options=options,
  )
  if name == 'multinomial':
    asked = conditions.contains([3, 4], small.VOCAB)
    request = dataclasses.replace(request, conditions=(asked,) * 3)
  label = np.array([0, 1, -1])
  plain = system.sample(params, aux, request).tokens
  told = dataclasses.replace(
    request, label=label, options={**options, 'label_scale': 9.0}
  )
  found = system.sample(params, aux, told).tokens
  np.testing.assert_array_equal(found[2], plain[2])
  requests.require_satisfied(systems.Samples(found, None), told)
  assert np.any(found[:2] != plain[:2])
  # A row is itself, whatever stands beside it.
  turned = dataclasses.replace(told, seeds=[3, 2, 1], label=label[::-1])
  np.testing.assert_array_equal(
    system.sample(params, aux, turned).tokens[::-1], found
  )


@pytest.mark.slow
def test_blocks_and_a_prompt_and_a_guide():
  """All at once, in blocks: what is given is kept, and labels count."""
  system = system_of(**MASKED, sampling__steps=3)
  params, aux = small.started(system)
  length = small.LENGTH + 2
  given = np.tile(np.arange(length) == 0, (2, 1))
  request = systems.Request(
    length=length,
    seeds=[1, 2],
    tokens=np.full((2, length), 4, np.int32),
    given=given,
    method='ancestral',
    steps=3,
    label=np.array([0, 1]),
    guides=(lambda x_t, level: 0.1 * jnp.sum(x_t == 3, axis=-1),),
    options={'label_scale': 9.0, 'prompt_scale': 2.0, 'block': 2},
  )
  tokens = system.sample(params, aux, request).tokens
  assert np.all(tokens[given] == 4)
  other = dataclasses.replace(request, label=np.array([1, 1]))
  again = system.sample(params, aux, other).tokens
  np.testing.assert_array_equal(tokens[1], again[1])
  assert np.any(tokens[0] != again[0])


@pytest.mark.parametrize(
  'fields, info, changes, said',
  [
    ({}, small.INFO, {'label': np.array([0])}, 'trained without .data.label'),
    ({}, INFO, {'label': np.array([2])}, 'labels are from 0 to 1'),
    ({}, INFO, {'label': np.array([0, 1])}, 'label must be 1 integers'),
    ({}, INFO, {'label': np.array([0.0])}, 'label must be 1 integers'),
    ({}, INFO, {'options': {'label_scale': -1.0}}, 'label_scale must be at'),
    (
      {'training__label_dropout': 0.0},
      INFO,
      {'label': np.array([0]), 'options': {'label_scale': 2.0}},
      'never trained without labels .training.label_dropout is 0',
    ),
  ],
)
@pytest.mark.parametrize('name', ['ancestral', 'sedd unmasked', 'd3pm'])
def test_requests_that_cannot_be(name, fields, info, changes, said):
  system = system_of(info, **SYSTEMS[name], **fields, sampling__steps=4)
  request = systems.Request(
    length=6,
    seeds=[0],
    steps=4,
    method=SYSTEMS[name]['sampling__method'],
    **changes,
  )
  with pytest.raises(ValueError, match=said):
    system.check_request(request)


def test_systems_and_networks_without_a_place():
  for name, method in (
    ('autoregressive', 'autoregressive'),
    ('diffuser', 'greedy'),
    ('diffusion_lm', 'ancestral'),
  ):
    with pytest.raises(ValueError, match=f'{name} takes no labels'):
      system_of(system__name=name, sampling__method=method)
  with pytest.raises(ValueError, match='has no place for labels'):
    system_of(model__name='tests.systems.test_labels:Unlabelled')
  with pytest.raises(base.TaskError, match='trained with labels'):
    system = system_of()
    params, _ = jax.eval_shape(system.init, jax.random.key(0))
    system.tasks['export'](params, None, {'path': 'nowhere'}, None)


class Unlabelled:
  """A network of somebody else."""

  def __init__(self, num_states, hidden_size):
    self.num_states, self.hidden_size = num_states, hidden_size
