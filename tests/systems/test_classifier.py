"""The classifier of noisy embeddings: optimum, labels, generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import config_checks, systems
from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian
from sedd_jax.systems import classifier
from sedd_jax.systems.chains import embedding_chain
from tests.systems import small
from tests.two_words import TwoWords


def config_of(**changes):
  (fields,) = classifier.examples()
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  return small.example_of({'system.name': 'classifier', **fields, **changes})


def generator_of(**changes):
  fields = {'system.name': 'diffusion_lm', **embedding_chain.EXAMPLE}
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  config = small.example_of({**fields, **changes})
  return config, drawn(small.made(config))[0]


def drawn(system):
  """Parameters and aux by numpy: what draws them takes long to compile."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(leaf.dtype),
    jax.eval_shape(system.init, jax.random.key(0)),
  )


@pytest.fixture(scope='module')
def made():
  """The system, its compiled loss and its compiled log p of labels."""
  system = small.made(config_of())
  return system, jax.jit(system.loss), jax.jit(system.log_label)


def test_the_exact_posterior_is_the_optimum():
  """Two words and their labels: the loss is their entropy given x_t."""
  toy = TwoWords(Gaussian.of(GaussianSteps(num_steps=8)), 0.3)
  rows = 40_000
  words = (np.arange(rows) % 10 < 3).astype(np.int32)
  batch = {'tokens': words[:, None], 'index': np.arange(rows), 'count': rows}
  on_noise = classifier.noisy(config_of(), toy.process)
  fields = np.zeros(2, np.int32)
  counted = jnp.ones((rows, 1), bool)

  @jax.jit
  def nats(slope, offset):
    embedding = jnp.asarray(toy.vectors)[:, None]
    texts = on_noise(embedding, jax.random.key(1), batch)
    odds = slope * toy.log_odds(texts.x_t, texts.step) + offset
    logits = jnp.stack([jnp.zeros_like(odds), odds], -1)
    found = classifier.within_fields(logits, fields)
    return classifier.label_loss(found, words, counted, fields).nats

  exact = np.asarray(nats(1.0, 0.0), np.float64)
  error = exact.std() / np.sqrt(rows)
  assert abs(exact.mean() - toy.entropy()) < 4 * error
  assert error < 0.02 * toy.entropy()
  # Its derivatives are 0 there, in expectation, and elsewhere it costs more.
  for slope, offset in ((1, 0), (0, 1)):
    _, each = jax.jvp(nats, (1.0, 0.0), (float(slope), float(offset)))
    each = np.asarray(each, np.float64)
    assert abs(each.mean()) < 4 * each.std() / np.sqrt(rows)
  for other in ((0.6, 0.0), (1.6, 0.0), (1.0, 0.5), (1.0, -0.5)):
    gap = np.asarray(nats(*other), np.float64) - exact
    assert gap.mean() > 4 * gap.std() / np.sqrt(rows)


def test_each_field_has_its_own_law():
  fields = classifier.fields_of(small.LABELS)
  assert fields.tolist() == [0, 0, 1, 1, 1]
  logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  p = np.exp(classifier.within_fields(jnp.asarray(logits), fields))
  np.testing.assert_allclose(p[:, :2].sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(p[:, 2:].sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(
    p[:, 0] / p[:, 1], np.exp(logits[:, 0] - logits[:, 1]), rtol=1e-5
  )


def test_labels_of_texts_of_tokens_and_none():
  fields = classifier.fields_of(small.LABELS)
  logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  log_p = classifier.within_fields(jnp.asarray(logits), fields)
  counted = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1]], bool)
  found = classifier.label_loss(log_p, np.array([4, -1, 1]), counted, fields)
  np.testing.assert_array_equal(found.weight, [1, 0, 1])
  np.testing.assert_allclose(
    found.nats, [-log_p[0, 4], 0, -log_p[2, 1]], rtol=1e-6
  )
  wrong, weight = found.terms['wrong']
  best = [2 + logits[0, 2:].argmax(), 0, logits[2, :2].argmax()]
  np.testing.assert_array_equal(wrong, [best[0] != 4, 0, best[2] != 1])
  np.testing.assert_array_equal(weight, found.weight)
  label = np.array([[0, 0, -1], [2, 3, 3], [-1, -1, -1]])
  found = classifier.label_loss(log_p, label, counted, fields)
  np.testing.assert_array_equal(found.weight, [1, 1, 0])
  mean = -(log_p[1, 2] + log_p[1, 3]) / 2
  np.testing.assert_allclose(found.nats, [-log_p[0, 0], mean, 0], rtol=1e-6)


def test_embeddings_are_those_of_the_generator_and_stay(made):
  system, loss, _ = made
  params, aux = drawn(system)
  generator, weights = generator_of()
  taken = system.frozen(generator, weights)
  assert jax.tree.structure(taken) == jax.tree.structure(aux)
  np.testing.assert_array_equal(taken['embedding'], weights['embedding'])
  assert 'embedding' not in params and system.update_aux is None
  batch = small.batch_of(3, label=np.array([0, 1, 3], np.int32))
  key, table = jax.random.key(1), taken['embedding']
  one = loss(params, {'embedding': table}, key, batch).nats
  key = jax.random.clone(key)
  other = loss(params, {'embedding': 2 * table}, key, batch).nats
  assert np.all(np.asarray(one) != np.asarray(other))
  assert system.bound is None and system.sample is None


def test_what_it_says_of_labels_to_a_generator(made):
  system, _, log_label = made
  params, aux = drawn(system)
  x_t = np.random.default_rng(1).normal(size=(5, small.LENGTH, 4))
  x_t, step = x_t.astype(np.float32), jnp.array([0, 1, 3, 6, 6])
  told = [
    np.asarray(log_label(params, aux, x_t, step, jnp.full(5, label)))
    for label in range(-1, 5)
  ]
  np.testing.assert_array_equal(told[0], 0)
  np.testing.assert_allclose(np.exp(told[1:3]).sum(0), 1, rtol=1e-5)
  np.testing.assert_allclose(np.exp(told[3:6]).sum(0), 1, rtol=1e-5)
  mixed = log_label(params, aux, x_t, step, jnp.array([0, -1, 2, 3, 4]))
  expected = [told[1][0], 0, told[3][2], told[4][3], told[5][4]]
  np.testing.assert_allclose(mixed, expected, rtol=1e-5)


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'schedule__num_steps': 7, 'sampling__steps': 4}, 'gaussian .7 steps'),
    ({'schedule__args__law': 'cosine'}, 'law cosine.*must be the same'),
    ({'model__args__embedding_size': 6}, r'\(7, 6\).*classifier \(7, 4\)'),
  ],
)
def test_generators_that_do_not_fit(made, changes, told):
  with pytest.raises(ValueError, match=told):
    made[0].frozen(*generator_of(**changes))


def test_a_generator_of_tokens(made):
  system, config = made[0], small.config_of()
  with pytest.raises(ValueError, match=r'noise of the generator is log_linear'):
    system.frozen(config, {})
  config.schedule.update({'name': 'gaussian', 'num_steps': 6})
  with pytest.raises(ValueError, match="system 'sedd' has no embeddings"):
    system.frozen(config, {})


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'data__label': ''}, 'learns labels, and the data has none'),
    ({'init_from': ''}, 'needs init_from'),
    ({'schedule__name': 'log_linear'}, 'classifier: use gaussian'),
    ({'model__name': 'embedding_bert'}, 'classifier: use vector_classifier'),
  ],
)
def test_mistakes(changes, told):
  config = config_of()
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  with pytest.raises(ValueError, match=told):
    small.made(config)


def test_generators_take_no_classifier_for_a_network():
  config, _ = generator_of()
  config.model.name = 'vector_classifier'
  with pytest.raises(ValueError, match='diffusion_lm: use embedding_bert'):
    systems.make(config, small.INFO)
