"""Requests with controls: strength, rows, places, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.systems.chains import embedding_chain
from sedd_jax.systems.common import guides
from tests import compilations
from tests.systems import small

CONFIG = small.example_of(
  {'system.name': 'diffusion_lm', **embedding_chain.EXAMPLE}
)


@pytest.fixture(scope='module')
def made():
  """The system, with embeddings far apart."""
  system = small.made(CONFIG)
  rng = np.random.default_rng(0)
  params, aux = jax.tree.map(
    lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype),
    jax.eval_shape(system.init, jax.random.key(0)),
  )
  table = rng.normal(0, 1, (small.VOCAB, 4)).astype(np.float32)
  params['embedding'] = 3 * table / np.linalg.norm(table, axis=1)[:, None]
  params['rounding_bias'] *= 0
  return system, params, aux


def request_of(**changes):
  fields = {
    'length': small.LENGTH,
    'seeds': [3, 4, 5],
    'method': 'ancestral',
    'steps': 4,
    'batch_size': 2,
  }
  return systems.Request(**{**fields, **changes})


def near(params, aux, x_t, step, label):
  """A classifier's log p: all of a text is to be one token, its label."""
  del aux
  assert step.shape == label.shape == x_t.shape[:1]
  gap = x_t - params['embedding'][jnp.maximum(label, 0)][:, None]
  wanted = -jnp.sum(jnp.square(gap), axis=(1, 2))
  return jnp.where(label >= 0, wanted, 0)


STRONG = {'control_steps': 60, 'control_rate': 0.2, 'control_until': 0}


def guided(params, label, **changes):
  guide = guides.OfLabels(params, {}, np.array(label, np.int32), near)
  fields = {'guides': (guide,), 'guidance_scale': 10.0, 'options': STRONG}
  return request_of(**{**fields, **changes})


def test_each_row_has_its_label_and_no_strength_leaves_all(made):
  system, params, aux = made
  plain = system.sample(params, aux, request_of()).tokens
  asked = guided(params, [2, 6, 4])
  found = system.sample(params, aux, asked).tokens
  assert found.tolist() == [[t] * small.LENGTH for t in (2, 6, 4)]
  # Other labels are arguments of the same program.
  with compilations.heard() as events:
    other = system.sample(params, aux, guided(params, [0, 1, 5])).tokens
    assert other.tolist() == [[t] * small.LENGTH for t in (0, 1, 5)]
  assert not events
  none = dataclasses.replace(asked, guidance_scale=0.0)
  np.testing.assert_array_equal(system.sample(params, aux, none).tokens, plain)
  # A row without a label, and without a weight of the mean, is as it was.
  options = {**STRONG, 'fluency': 0.0}
  mixed = guided(params, [-1, 2, -1], options=options)
  found = system.sample(params, aux, mixed).tokens
  np.testing.assert_array_equal(found[[0, 2]], plain[[0, 2]])
  assert np.all(found[1] == 2)


def test_predictions_are_drawn_to_what_is_pinned(made):
  system, params, aux = made
  free = np.full((3, small.LENGTH), -1, np.int32)
  pinned = free.copy()
  pinned[[0, 1, 2], [1, 3, 5]] = 2
  options = {**STRONG, 'fluency': 0.0}
  asked = request_of(pinned=pinned, options=options)
  plain = request_of(pinned=free, options=options)

  def distance(request):
    """Of the prediction of the words that come out, there."""
    tokens = system.sample(params, aux, request).tokens
    return np.mean(tokens[pinned >= 0] == 2)

  assert distance(plain) < 1 and distance(asked) > distance(plain)
  none = dataclasses.replace(asked, guidance_scale=0.0)
  free, off, without = (
    system.sample(params, aux, r).tokens for r in (plain, none, request_of())
  )
  np.testing.assert_array_equal(free, without)
  np.testing.assert_array_equal(off, without)


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'guidance_scale': -1.0}, 'guidance_scale must be at least 0'),
    ({'options': {'control_rate': -1.0}}, 'learning_rate above 0'),
  ],
)
def test_mistakes(made, changes, told):
  system, params, _ = made
  with pytest.raises(ValueError, match=told):
    system.check_request(guided(params, [0, 0, 0], **changes))


def test_systems_of_tokens_take_nothing_pinned():
  config = small.config_of()
  system = small.made(config)
  request = request_of(
    method='tweedie', pinned=np.zeros((3, small.LENGTH), np.int32)
  )
  with pytest.raises(ValueError, match='system sedd takes no pinned'):
    system.check_request(request)
