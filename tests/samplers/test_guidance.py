"""Guidance: the conditional scores, and laws by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.samplers import guidance, unmasking
from tests import enumerated, oracles
from tests.samplers import test_samplers, test_unmasking

SCHEDULE = sj.noise_schedules.LogLinear(eps=0.1)


def condition(space, seed=5):
  """p(c | x_0) of each data sequence."""
  rng = np.random.default_rng(seed)
  return rng.uniform(0.05, 0.95, space.vocab_size**space.length)


def noisy_condition(space, t):
  """log p(c | x_t) by Bayes, `[states]`."""
  joint = (space.data_law * condition(space)) @ space.noising(space.sigma(t))
  with np.errstate(divide='ignore', invalid='ignore'):
    found = np.log(joint) - np.log(
      space.data_law @ space.noising(space.sigma(t))
    )
  return np.where(np.isfinite(found), found, 0)


def lookup(space, table):
  """A function of x_t, of a table over states."""
  powers = space.num_states ** np.arange(space.length)[::-1]
  table = jnp.asarray(table)
  return lambda x_t, level: table[jnp.sum(x_t * powers[None], axis=-1)]


@pytest.mark.parametrize('name', ['absorbing', 'uniform'])
def test_guided_scores_are_the_conditional_ones(name, x64):
  space = enumerated.Space(name, 2, 3, SCHEDULE)
  given_c = enumerated.Space(name, 2, 3, SCHEDULE)
  law = space.data_law * condition(space)
  given_c.__dict__['data_law'] = law / law.sum()
  for t in (0.1, 0.7):
    guided = guidance.guided(
      lookup(space, space.log_score(t)),
      [lookup(space, noisy_condition(space, t))],
    )
    ours = guided(space.states, jnp.ones(len(space.states)))
    wanted = given_c.log_score(t)
    # Visible tokens never change under masks, and their entries are not read.
    read = wanted > -100
    if name == 'absorbing':
      read &= (np.asarray(space.states) == space.process.mask)[..., None]
    assert read.mean() > 0.2
    np.testing.assert_allclose(ours[read], wanted[read], atol=1e-9)
    assert np.abs(space.log_score(t)[read] - wanted[read]).max() > 0.1


def unmasking_case():
  """A space of masks, its true predictions and the guide of any level."""
  space = enumerated.Space('absorbing', 2, 3, SCHEDULE)
  scores = space.log_score(0.5)[..., :2]
  table = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  # Of masked texts the guide does not depend on the level either.
  return space, table, noisy_condition(space, 0.5)


def drawer(space, table, guide, scale):
  @jax.jit
  def draw(keys):
    return unmasking.sample(
      guidance.guided(
        test_unmasking.logits_of(table), [lookup(space, guide)], scale
      ),
      keys,
      (len(keys), 3),
      process=space.process,
      schedule=SCHEDULE,
    )

  return draw


@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_one_by_one_the_law_is_that_given_c(scale):
  """At gamma 1 p(x | c) itself; else the law of all orders of the weighed."""
  space, table, guide = unmasking_case()
  draw = drawer(space, table, guide, scale)
  keys = jax.random.split(jax.random.key(0), 20_000)
  tokens = np.asarray(draw(jax.random.clone(keys)))
  # A row is itself, whatever stands beside it.
  np.testing.assert_array_equal(draw(keys[::-1]), tokens[::-1])
  weighed = table.copy()
  states = np.asarray(space.states)
  for place in range(3):
    for symbol in (0, 1):
      y = states.copy()
      y[:, place] = symbol
      gain = guide[oracles.index_of(y, 3)] - guide
      weighed[:, place, symbol] *= np.exp(scale * gain)
  weighed /= weighed.sum(-1, keepdims=True)
  law = test_unmasking.law_of(weighed, (1, 1, 1))
  tilted = space.data_law * condition(space) ** scale
  tilted /= tilted.sum()
  if scale == 1:
    np.testing.assert_allclose(law, tilted, rtol=1e-6)
  else:
    assert np.abs(law - tilted).max() > 1e-3
  test_unmasking.require_law(tokens, law, space.data_law)


def test_one_token_has_the_tilted_law():
  """p(x) p(c | x)^gamma / Z, by Tweedie steps on guided scores."""
  space, scale, steps = enumerated.Space('absorbing', 4, 1, SCHEDULE), 2.5, 4
  ts = np.asarray(sj.samplers.time_grids.uniform(steps, 0.1))
  with jax.enable_x64(True):
    guide = noisy_condition(space, 0.5)
  score_fn = guidance.guided(
    test_samplers.table_score_fn(space, ts),
    [lookup(space, np.asarray(guide, np.float32))],
    scale,
  )
  tokens = jax.jit(
    lambda key: sj.samplers.sample(
      score_fn,
      key,
      (20_000, 1),
      process=space.process,
      schedule=SCHEDULE,
      steps=steps,
      t_min=0.1,
    )
  )(jax.random.key(0))
  counts = test_samplers.empirical(space, tokens)
  law = space.data_law * condition(space) ** scale
  assert oracles.chi_square_pvalue(counts, law / law.sum()) > 1e-4
  plain = space.data_law * condition(space)
  assert oracles.chi_square_pvalue(counts, plain / plain.sum()) < 1e-4


def test_a_prompt_counts_more():
  """p(x) p(prompt | x)^gamma / Z of one token, the law of its steps of two."""
  space, table, _ = unmasking_case()
  scale, prompt = 2.0, np.array([2, 1, 2])
  states = np.asarray(space.states)
  without = np.where(np.arange(3) == 1, 2, states)
  combined = table**scale * table[oracles.index_of(without, 3)] ** (1 - scale)
  combined /= combined.sum(-1, keepdims=True)
  law = test_unmasking.law_of(combined, (1, 1, 1), prompt)

  @jax.jit
  def draw(keys):
    tokens = jnp.broadcast_to(jnp.asarray(prompt % 2), (len(keys), 3))
    given = jnp.broadcast_to(jnp.asarray(prompt != 2), (len(keys), 3))
    return unmasking.sample(
      guidance.by_prompt(test_unmasking.logits_of(table), given, scale, mask=2),
      keys,
      (len(keys), 3),
      process=space.process,
      schedule=SCHEDULE,
      tokens=tokens,
      given=given,
    )

  tokens = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
  counts = np.bincount(oracles.index_of(tokens, 2), minlength=8)
  plain = test_unmasking.law_of(table, (1, 1, 1), prompt)
  held = law > 0
  assert counts[~held].sum() == 0
  assert oracles.chi_square_pvalue(counts[held], law[held]) > 1e-4
  assert oracles.chi_square_pvalue(counts[held], plain[held]) < 1e-4
  # With one token free: the data's own p(x) and p(prompt | x).
  joint = space.data_law.reshape(2, 2, 2)
  seen = oracles.index_of(np.array([2, 1, 0]), 3)
  free = joint.sum(1)[:, 0]
  tilted = free * (joint[:, 1, 0] / free) ** scale
  np.testing.assert_allclose(
    combined[seen, 0], tilted / tilted.sum(), rtol=1e-6
  )
