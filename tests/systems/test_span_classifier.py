"""The classifier of words and phrases: its loss, its guide, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import config_checks
from sedd_jax.data.labelling import spans
from sedd_jax.systems import span_classifier
from sedd_jax.systems.common import guides
from tests import compilations
from tests.systems import small
from tests.systems.test_classifier import drawn, generator_of

LABELS = small.SPAN_LABELS
FIELDS = {'pos': slice(0, 2), 'span': slice(2, 5)}


def config_of(**changes):
  (fields,) = span_classifier.examples()
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  fields = {'system.name': 'span_classifier', **fields, **changes}
  return small.example_of(fields)


def by_hand(logits, label):
  """-log p of a label by the softmax of its own field."""
  own = FIELDS['pos' if label < 2 else 'span']
  odds = np.exp(np.asarray(logits, np.float64))
  return -np.log(odds[label] / odds[own].sum())


@pytest.fixture(scope='module')
def made():
  system = small.made(config_of())
  return system, *drawn(system), jax.jit(system.log_label)


def test_the_loss_is_the_mean_over_the_labels_of_a_text():
  logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
  label = np.array([[0, 3, 2, -1], [-1, -1, -1, -1], [4, -1, 1, 1]])
  found = span_classifier.span_loss(jnp.asarray(logits), label, LABELS)
  np.testing.assert_array_equal(found.weight, [1, 0, 1])
  expected = [
    np.mean([by_hand(z, k) for z, k in zip(rows, own) if k >= 0] or [0])
    for rows, own in zip(logits, label)
  ]
  np.testing.assert_allclose(found.nats, expected, rtol=1e-5)
  for field, own in FIELDS.items():
    wrong, weight = found.terms[f'wrong_{field}']
    counted = (label >= 0) & (label >= own.start) & (label < own.stop)
    best = own.start + logits[..., own].argmax(-1)
    np.testing.assert_array_equal(weight, counted.sum(1))
    np.testing.assert_array_equal(wrong, (counted & (best != label)).sum(1))


def test_the_guide_is_the_sum_of_the_log_p_of_its_facts(made):
  system, params, aux, log_label = made
  x_t = np.random.default_rng(1).normal(size=(3, small.LENGTH, 4))
  x_t, step = x_t.astype(np.float32), jnp.array([0, 3, 6])
  texts = [['pos: A * B', 'Q[0:3]'], [], ['parse: P[0:2]', 'B[1]']]
  wanted = [[f for x in own for f in spans.read(x)] for own in texts]
  label = spans.numbered(wanted, LABELS, [4] * 3)
  guide = guides.OfLabels(params, aux, label, log_label)
  found = np.asarray(guide(x_t, step))
  assert found.shape == (3,) and found[1] == 0
  # One fact at a time; a softmax over all labels of its field.
  for row, own in enumerate(wanted):
    total = 0.0
    for fact in own:
      place = [fact.start + 1, fact.end + 1]
      field = 'pos' if fact.label.startswith('pos') else 'span'
      numbers = np.arange(5)[FIELDS[field]]
      each = [
        log_label(
          params,
          aux,
          x_t,
          step,
          np.array([[[*place, k]] + [[0, 1, -1]] * 7] * 3),
        )[row]
        for k in numbers
      ]
      np.testing.assert_allclose(np.exp(each).sum(), 1, rtol=1e-4)
      total += each[list(numbers).index(LABELS.index(fact.label))]
    np.testing.assert_allclose(found[row], total, rtol=1e-4, atol=1e-5)
  # A row has its own facts, whatever rows are beside it.
  some = guide.of_rows(np.array([2, 0]))
  moved = some(x_t[[2, 0]], step[jnp.array([2, 0])])
  np.testing.assert_allclose(moved, found[[2, 0]], rtol=1e-5)
  # Other facts are arguments of the same program.
  with compilations.heard() as events:
    others = [spans.read('parse: Q[1:3]'), [], []]
    label = spans.numbered(others, LABELS, [4] * 3)
    guide = guides.OfLabels(params, aux, label, log_label)
    other = np.asarray(guide(x_t, step))
    assert other[0] != found[0] and other[1] == other[2] == 0
  assert not events


def test_embeddings_are_those_of_the_generator(made):
  system, _, aux, _ = made
  generator, weights = generator_of()
  taken = system.frozen(generator, weights)
  np.testing.assert_array_equal(taken['embedding'], weights['embedding'])
  with pytest.raises(ValueError, match='schedule must be the same'):
    changes = {'schedule__num_steps': 7, 'sampling__steps': 4}
    system.frozen(*generator_of(**changes))


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'data__label': 'kind'}, "words and phrases, not of data.label='kind'"),
    ({'init_from': ''}, 'span_classifier needs init_from'),
    ({'model__name': 'vector_classifier'}, 'use span_classifier'),
    ({'system__name': 'classifier'}, "not of data.label='@spans'"),
    (
      {
        'system__name': 'sedd',
        'schedule__name': 'log_linear',
        'model__name': 'transformer',
      },
      'sedd is of labels of texts',
    ),
    ({'system__name': 'diffusion_lm'}, 'diffusion_lm is of labels of texts'),
  ],
)
def test_mistakes(changes, told):
  config = config_of()
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  with pytest.raises(ValueError, match=told):
    small.made(config)
