"""Guides of a request: through every sampler of masks and scores."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.systems.common import guides
from tests import compilations
from tests.systems import small


def wants_three(x_t, level):
  """A classifier that is surer with every 3, and with less noise."""
  return 9.0 * jnp.sum(x_t == 3, axis=-1) * jnp.exp(-0.01 * level)


def case_of(fields):
  config = small.example_of(fields)
  system = small.made(config)
  tokens = np.zeros((2, small.LENGTH), np.int32)
  given = np.tile(np.arange(small.LENGTH) == 1, (2, 1))
  request = systems.Request(
    length=small.LENGTH,
    seeds=[0, 1],
    tokens=tokens,
    given=given,
    method=config.sampling.method,
    steps=6,
    guides=(wants_three,),
    guidance_scale=2.0,
  )
  return system, request


@pytest.mark.parametrize(
  'fields',
  [
    {'process.name': 'uniform', 'schedule.name': 'geometric'},
    {'sampling.method': 'first_hitting'},
    {'system.name': 'masked_diffusion', 'sampling.method': 'ancestral'},
    {'system.name': 'masked_diffusion', 'sampling.method': 'remasking'},
  ],
  ids=['uniform', 'first_hitting', 'ancestral', 'remasking'],
)
def test_what_is_free_follows_the_guide(fields):
  system, request = case_of(fields)
  params, aux = small.started(system)
  tokens = system.sample(params, aux, request).tokens
  wanted = np.where(request.given, request.tokens, 3)
  np.testing.assert_array_equal(tokens, wanted)


def of_label(params, aux, x_t, level, label, *, states):
  """A classifier that is surer with every token that is the label."""
  del aux
  assert level.shape == label.shape == x_t.shape[:1]
  told = x_t if x_t.ndim == 3 else jax.nn.one_hot(x_t, states)
  own = jax.nn.one_hot(label, states)[:, None]
  return params['weight'] * jnp.sum(told * own, axis=(1, 2))


@pytest.mark.parametrize(
  ('fields', 'way'),
  [
    ({'process.name': 'uniform', 'schedule.name': 'geometric'}, 'first_order'),
    ({'sampling.method': 'first_hitting'}, 'exact'),
    (
      {'system.name': 'masked_diffusion', 'sampling.method': 'ancestral'},
      'first_order',
    ),
  ],
  ids=['uniform', 'first_hitting', 'ancestral'],
)
def test_each_row_has_its_label(fields, way):
  """Another label, and another classifier, need no compilation."""
  system, request = case_of(fields)
  params, aux = small.started(system)
  # The mask is a state too.
  states = small.VOCAB + ('process.name' not in fields)
  log_label = functools.partial(of_label, states=states)
  weights = {'weight': np.float32(9)}

  def drawn(label, scale=2.0):
    label = np.array(label, np.int32)
    guide = guides.OfLabels(weights, {}, label, log_label)
    asked = dataclasses.replace(
      request, guides=(guide,), guidance_scale=scale, options={'guidance': way}
    )
    return system.sample(params, aux, asked).tokens

  plain = system.sample(
    params, aux, dataclasses.replace(request, guides=())
  ).tokens
  np.testing.assert_array_equal(drawn([2, 4], 0.0), plain)
  given = request.given
  found = drawn([2, 4])
  np.testing.assert_array_equal(found, np.where(given, 0, [[2], [4]]))
  with compilations.heard() as events:
    weights['weight'] = np.float32(8)
    found = drawn([-1, 5])
  assert not events
  np.testing.assert_array_equal(found[0], plain[0])
  np.testing.assert_array_equal(found[1], np.where(given[1], 0, 5))


def test_a_way_of_guidance_that_there_is_not():
  system, request = case_of({})
  for scale in (-1.0, float('inf'), float('nan')):
    asked = dataclasses.replace(request, guidance_scale=scale)
    with pytest.raises(ValueError, match='guidance_scale must be finite and'):
      system.check_request(asked)
  asked = dataclasses.replace(request, options={'guidance': 'first'})
  with pytest.raises(ValueError, match="unknown sampling.guidance 'first'"):
    system.check_request(asked)


def test_what_there_is_not():
  system, request = case_of({'system.args.timed': False})
  cached = dataclasses.replace(request, options={'cached': True})
  with pytest.raises(ValueError, match='guides are told the noise'):
    system.check_request(cached)
  system, request = case_of(
    {'system.name': 'autoregressive', 'sampling.method': 'autoregressive'}
  )
  with pytest.raises(ValueError, match='autoregressive takes no guides'):
    system.check_request(request)


@pytest.mark.parametrize(
  'fields',
  [
    {'system.args.timed': False},
    {'system.name': 'masked_diffusion', 'sampling.method': 'remasking'},
  ],
  ids=['sedd', 'remasking'],
)
def test_a_prompt_that_counts_for_nothing(fields):
  """At scale 0 the text is that of no prompt, where nothing is given."""
  system, request = case_of(fields)
  params, aux = small.started(system)
  forgotten, cached = (
    dataclasses.replace(
      request, guides=(), options={'prompt_scale': 0.0, **options}
    )
    for options in ({}, {'cached': True})
  )
  other = dataclasses.replace(forgotten, tokens=request.tokens + 4)
  first, second, third = (
    system.sample(params, aux, r) for r in (forgotten, other, cached)
  )
  free = ~request.given
  np.testing.assert_array_equal(first.tokens[free], second.tokens[free])
  np.testing.assert_array_equal(first.tokens, third.tokens)
  assert np.all(second.tokens[~free] == 4) and third.calls <= first.calls


def test_prompts_that_cannot_be_masked():
  system, request = case_of(
    {'process.name': 'uniform', 'schedule.name': 'geometric'}
  )
  for scale, told in ((2.0, 'needs noise that masks'), (-1.0, 'at least 0')):
    asked = dataclasses.replace(request, options={'prompt_scale': scale})
    with pytest.raises(ValueError, match=f'prompt_scale .*{told}'):
      system.check_request(asked)
