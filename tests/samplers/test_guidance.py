"""Guidance: the conditional scores, and laws by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.core import shapes
from sedd_jax.samplers import ancestral, guidance, loop, unmasking
from tests import enumerated, enumerated_steps, oracles
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


def test_first_order_is_exact_where_log_p_is_linear_in_the_states():
  """And a gradient elsewhere: half of what a square changes by a small step."""
  rng = np.random.default_rng(0)
  x_t = jnp.asarray(rng.integers(4, size=(3, 5)))
  slope = jnp.asarray(rng.normal(size=(1, 5, 4)), jnp.float32)
  level = jnp.array([0.1, 1.0, 3.0])

  def linear(x, level):
    states = x if x.ndim == 3 else jax.nn.one_hot(x, 4)
    return jnp.exp(-level) * jnp.sum(slope * states, axis=(1, 2))

  def squared(x, level):
    return jnp.square(linear(x, level))

  wanted = guidance.log_weights([linear, linear], x_t, level, 3)
  found = guidance.first_order([linear, linear], x_t, level, 3, num_states=4)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
  found = guidance.first_order([squared], x_t, level, 3, num_states=4)
  value = np.asarray(linear(x_t, level))[:, None, None]
  np.testing.assert_allclose(found, value * wanted, rtol=1e-4, atol=1e-6)
  exact = guidance.log_weights([squared], x_t, level, 3)
  gap = np.asarray(exact - found)
  np.testing.assert_allclose(gap, (wanted / 2) ** 2, rtol=1e-3, atol=1e-5)


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


class Labelled(enumerated.Space):
  """The scores of p(x | label) and of the mixture p(x), combined."""

  def of(self, label):
    """The space of a label, or of the mixture, None."""
    found = enumerated.Space(self.name, 2, 2, SCHEDULE)
    rng = np.random.default_rng(7)
    laws = rng.dirichlet(np.full(4, 0.7), size=2)
    law = np.array([0.3, 0.7]) @ laws if label is None else laws[label]
    found.__dict__['data_law'] = law
    return found

  def log_scores(self, ts):
    conditional, free = (self.of(c).log_scores(ts) for c in (self.label, None))
    return self.scale * conditional + (1 - self.scale) * free


def labelled(name, label, scale):
  space = Labelled(name, 2, 2, SCHEDULE)
  space.__dict__.update(label=label, scale=scale)
  return space


@pytest.mark.parametrize(
  'name, scale',
  [
    ('absorbing', 0.0),
    ('absorbing', 1.0),
    ('absorbing', 2.0),
    ('uniform', 2.0),
  ],
)
def test_labels_have_the_law_of_their_steps(name, scale):
  """Rows of both labels, and of none, in one batch, by Tweedie steps."""
  count, steps, t_min = 20_000, 4, 0.1
  ts = np.asarray(sj.samplers.time_grids.uniform(steps, t_min))
  spaces = [labelled(name, label, scale) for label in (0, 1)]
  with jax.enable_x64(True):
    laws = [
      space.sampler_law(steps, 'tweedie', t_min, 1e-3) for space in spaces
    ]
    free = labelled(name, 0, 0.0).sampler_law(steps, 'tweedie', t_min, 1e-3)
  space = spaces[0]
  told = [
    test_samplers.table_score_fn(space.of(label), ts) for label in (0, 1, None)
  ]

  def output_fn(x_t, sigma, label=None):
    if label is None:
      return told[2](x_t, sigma)
    first, second, none = (score_fn(x_t, sigma) for score_fn in told)
    which = label[..., None]
    return jnp.where(which == 0, first, jnp.where(which == 1, second, none))

  label = jnp.repeat(jnp.array([0, 1, shapes.NO_LABEL]), count)
  tokens = jax.jit(
    lambda key: sj.samplers.sample(
      guidance.by_label(output_fn, label, scale),
      key,
      (3 * count, 2),
      process=space.process,
      schedule=SCHEDULE,
      steps=steps,
      t_min=t_min,
      delta=1e-3,
    )
  )(jax.random.key(0))
  laws.append(free)
  for number, rows in enumerate(np.split(np.asarray(tokens), 3)):
    counts = test_samplers.empirical(space, rows)
    assert oracles.chi_square_pvalue(counts, laws[number]) > 1e-4
    if scale:
      other = laws[number - 1]
      assert oracles.chi_square_pvalue(counts, other) < 1e-4


def test_a_label_by_unmasking_tilts_the_law():
  """p(x) p(label | x)^gamma / Z of one token."""
  law, free = np.random.default_rng(3).dirichlet(np.ones(4), size=2)

  def logits_fn(x_t, t, label=None):
    table = jnp.log(jnp.array([free, law]))
    which = jnp.zeros_like(x_t) if label is None else label + 1
    return table[which]

  label = jnp.zeros(20_000, jnp.int32)
  tokens = jax.jit(
    lambda key: unmasking.sample(
      guidance.by_label(logits_fn, label, 2.5),
      key,
      (20_000, 1),
      process=sj.processes.Absorbing(vocab_size=4),
      schedule=SCHEDULE,
    )
  )(jax.random.key(0))
  counts = np.bincount(np.asarray(tokens)[:, 0], minlength=4)
  tilted = free * (law / free) ** 2.5
  assert oracles.chi_square_pvalue(counts, tilted / tilted.sum()) > 1e-4
  assert oracles.chi_square_pvalue(counts, law) < 1e-4


class GuidedChain(enumerated_steps.Chain):
  """Steps of p(x_s | x_t, label)^scale p(x_s | x_t)^(1 - scale) / Z."""

  def token_posterior(self, weights, s, t):
    conditional, free = (
      enumerated_steps.Chain.token_posterior(self, each, s, t)
      for each in weights
    )
    held = (conditional > 0) & (free > 0)
    ratio = np.where(held, conditional, 1) / np.where(held, free, 1)
    weights = free * ratio**self.scale
    return weights / weights.sum(-1, keepdims=True)


def test_a_chain_steps_by_the_guided_law():
  process = sj.processes.Uniform(vocab_size=3)
  schedule = sj.noise_schedules.StepBetas(num_steps=3)
  chains = [
    enumerated_steps.of('uniform', schedule.betas_table(), 3, 2, seed)
    for seed in (0, 1)
  ]
  tables = jnp.asarray(np.log([chain.x_hat for chain in chains]), 'float32')
  label = jnp.zeros(20_000, jnp.int32)

  def output_fn(x_t, step, label):
    which = jnp.where(label[:, 0] == 0, 0, 1)
    return tables[which, step, x_t[:, 0] * 3 + x_t[:, 1]]

  planned = ancestral.plan(process, schedule)
  tokens, _ = jax.jit(
    lambda key: loop.follow(
      guidance.of_steps(planned, 1.8),
      guidance.both(output_fn, label),
      key,
      (20_000, 2),
      process=process,
    )
  )(jax.random.key(0))
  both = np.stack([chain.x_hat for chain in chains], axis=1)
  first = chains[0]
  guided = GuidedChain(first.matrices, first.prior, 3, 2, both)
  guided.__dict__['scale'] = 1.8
  law = guided.law()
  places = oracles.index_of(np.asarray(tokens), 3)
  counts = np.bincount(places, minlength=9)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  assert oracles.chi_square_pvalue(counts, first.law()) < 1e-4
  # At 1 and 0 a step is that of the one network or of the other.
  x = jnp.asarray(oracles.states(3, 2))
  of_step = jax.tree.map(lambda leaf: leaf[1], planned.inputs)
  pair = tuple(table[2] for table in tables)
  for scale, output in zip((1.0, 0.0), pair):
    ours = guidance.of_steps(planned, scale).weights_of(pair, x, of_step)
    theirs = planned.weights_of(output, x, of_step)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_label_and_a_prompt():
  """The product of both powers, by four times the rows."""
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.standard_normal((3, 9, 2, 2)), 'float32')
  rows = []

  def output_fn(x_t, t, label):
    rows.append(len(x_t))
    return table[label[:, 0] + 1, x_t[:, 0] * 3 + x_t[:, 1]]

  x_t, t = jnp.array([[0, 2], [1, 2]]), jnp.ones(2)
  given = x_t != 2
  of_both = guidance.by_label(
    guidance.by_prompt(output_fn, given, 3.0, mask=2), jnp.array([0, 1]), 2.0
  )
  found = of_both(x_t, t)
  assert rows == [8]
  wanted = sum(
    of_label * of_prompt * output_fn(masked, t, jnp.asarray(label)[:, None])
    for of_label, label in ((2, [0, 1]), (-1, [-1, -1]))
    for of_prompt, masked in ((3, x_t), (-2, jnp.full_like(x_t, 2)))
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_no_label_is_no_label():
  def output_fn(x_t, told, label=None):
    return jnp.zeros((*x_t.shape, 1)) + (0 if label is None else 1)

  x_t, told = jnp.zeros((1, 2), jnp.int32), jnp.ones(1)
  label = jnp.array([0])
  assert guidance.by_label(output_fn, None, 2.0)(x_t, told).max() == 0
  assert guidance.by_label(output_fn, label, 0.0)(x_t, told).max() == 0
  assert guidance.by_label(output_fn, label, 1.0)(x_t, told).min() == 1
