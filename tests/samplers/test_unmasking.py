"""Masks revealed one by one: laws by enumeration of all orders."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.samplers import unmasking
from tests import oracles

VOCAB, LENGTH, MASK = 2, 3, 2
PROCESS = sj.processes.Absorbing(vocab_size=VOCAB)
SCHEDULE = sj.noise_schedules.LogLinear()
COUNT = 20_000
DATA = oracles.states(VOCAB, LENGTH)


def x_hat(seed=0, length=LENGTH):
  """p(x_0) at every place of every state, `[3 ** length, length, 2]`."""
  rng = np.random.default_rng(seed)
  return rng.dirichlet(np.ones(VOCAB), size=(3**length, length))


def logits_of(table):
  logs = jnp.log(jnp.asarray(table, jnp.float32))
  weights = 3 ** np.arange(logs.shape[1])[::-1]

  def logits_fn(x_t, t):
    del t
    return logs[jnp.sum(x_t * weights[None], axis=-1)]

  return logits_fn


def drawn(table, count=COUNT, seed=0, **how):
  shape = (count, table.shape[1])

  @jax.jit
  def compiled(key):
    return unmasking.sample(
      logits_of(table), key, shape, process=PROCESS, schedule=SCHEDULE, **how
    )

  return np.asarray(compiled(jax.random.key(seed)))


def law_of(table, sizes, prompt=(MASK,) * LENGTH):
  """Of all orders alike, so many places at once."""
  free = [i for i, symbol in enumerate(prompt) if symbol == MASK]
  orders = list(itertools.permutations(free))
  law = np.zeros(len(DATA))
  for order in orders:
    for index, x_0 in enumerate(DATA):
      if any(x_0[i] != s for i, s in enumerate(prompt) if s != MASK):
        continue
      state, prob, places = np.array(prompt), 1.0, list(order)
      for size in sizes:
        before = table[oracles.index_of(state, 3)]
        for place in places[:size]:
          prob *= before[place, x_0[place]]
          state[place] = x_0[place]
        places = places[size:]
      law[index] += prob / len(orders)
  return law


def require_law(tokens, law, wrong):
  counts = np.bincount(oracles.index_of(tokens, VOCAB), minlength=len(law))
  assert law.sum() == pytest.approx(1)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  # The test would see a law that is a little off.
  assert oracles.chi_square_pvalue(counts, 0.85 * law + 0.15 * wrong) < 1e-4


@pytest.mark.parametrize(
  'steps,sizes', [(None, (1, 1, 1)), (2, (2, 1)), (1, (3,))]
)
def test_first_hitting_is_all_orders_alike(steps, sizes):
  table = x_hat()
  tokens = drawn(table, steps=steps)
  require_law(tokens, law_of(table, sizes), law_of(x_hat(1), sizes))


def test_a_prompt_takes_no_call_of_the_free_ones():
  """Two free places in two steps are revealed one by one."""
  table, prompt = x_hat(), np.array([MASK, 1, MASK])
  given = np.tile(prompt != MASK, (COUNT, 1))
  tokens = drawn(
    table, tokens=jnp.tile(prompt, (COUNT, 1)) % MASK, given=given, steps=2
  )
  wanted = law_of(table, (1, 1), prompt)
  held = wanted > 0
  assert set(oracles.index_of(tokens, VOCAB)) == set(np.flatnonzero(held))
  counts = np.bincount(oracles.index_of(tokens, VOCAB), minlength=8)
  assert oracles.chi_square_pvalue(counts[held], wanted[held]) > 1e-4
  # As a start, that is not clamped, it is the same.
  begun = drawn(table, start=jnp.tile(prompt, (COUNT, 1)), steps=2)
  counts = np.bincount(oracles.index_of(begun, VOCAB), minlength=8)
  assert oracles.chi_square_pvalue(counts[held], wanted[held]) > 1e-4


def test_the_times_are_those_of_the_process():
  """Law of two tokens under a prediction that depends on the time."""
  t_min, count = 0.05, 40_000
  tables = np.stack([x_hat(seed, 2) for seed in (0, 1)])

  def mixed(t):
    return (1 - t) * tables[0] + t * tables[1]

  def logits_fn(x_t, t):
    place = x_t[:, 0] * 3 + x_t[:, 1]
    t = t[:, None, None]
    probs = [jnp.asarray(table, jnp.float32)[place] for table in tables]
    return jnp.log((1 - t) * probs[0] + t * probs[1])

  def time_at(share):
    return np.clip(share / (1 - SCHEDULE.eps), t_min, 1)

  nodes, weights = oracles.gauss_legendre(0, 1, 200)
  law = np.zeros(4)
  states = oracles.states(2, 2)
  for first, second in ((0, 1), (1, 0)):
    for index, x_0 in enumerate(states):
      between = np.array([MASK, MASK])
      between[first] = x_0[first]
      place = oracles.index_of(between, 3)
      for share, weight in zip(nodes, weights):
        # The later of two uniform shares has density 2 share.
        head = mixed(time_at(share))[8, first, x_0[first]]
        tail = np.array(
          [mixed(time_at(share * u))[place, second, x_0[second]] for u in nodes]
        )
        law[index] += 0.5 * weight * 2 * share * head * (weights @ tail)
  assert law.sum() == pytest.approx(1, abs=1e-6)
  law /= law.sum()
  tokens = jax.jit(
    lambda key: unmasking.sample(
      logits_fn,
      key,
      (count, 2),
      process=PROCESS,
      schedule=SCHEDULE,
      t_min=t_min,
    )
  )(jax.random.key(0))
  counts = np.bincount(oracles.index_of(np.asarray(tokens), 2), minlength=4)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  frozen = law_of_two(mixed(0.5))
  assert oracles.chi_square_pvalue(counts, frozen) < 1e-4


def law_of_two(table):
  law = np.zeros(4)
  for first, second in ((0, 1), (1, 0)):
    for index, x_0 in enumerate(oracles.states(2, 2)):
      between = np.array([MASK, MASK])
      between[first] = x_0[first]
      law[index] += (
        0.5
        * table[8, first, x_0[first]]
        * table[oracles.index_of(between, 3), second, x_0[second]]
      )
  return law


def certainty_law(table, order):
  """One place a step, that which the network is surest of."""
  law = np.zeros(len(DATA))

  def go(state, prob):
    free = np.flatnonzero(state == MASK)
    if not len(free):
      law[oracles.index_of(state, VOCAB)] += prob
      return
    probs = table[oracles.index_of(state, 3)]
    for choice in itertools.product(range(VOCAB), repeat=len(free)):
      chance = np.prod([probs[i, v] for i, v in zip(free, choice)])
      sure = {
        'confidence': [probs[i, v] for i, v in zip(free, choice)],
        'margin': [abs(probs[i, 0] - probs[i, 1]) for i in free],
        'entropy': [probs[i] @ np.log(probs[i]) for i in free],
      }[order]
      best = int(np.argmax(sure))
      after = state.copy()
      after[free[best]] = choice[best]
      go(after, prob * chance)

  go(np.full(LENGTH, MASK), 1.0)
  return law


@pytest.mark.parametrize('order', ['confidence', 'margin', 'entropy'])
def test_the_surest_first(order):
  table = x_hat()
  tokens = drawn(table, order=order)
  require_law(
    tokens, certainty_law(table, order), certainty_law(x_hat(1), order)
  )


def test_path_calls_and_rows():
  """A state a step; a row is itself in any batch."""
  path = drawn(x_hat(), count=6, return_path=True)
  assert path.shape == (LENGTH + 1, 6, LENGTH)
  assert np.all(path[0] == MASK)
  np.testing.assert_array_equal(
    (path == MASK).sum(-1), np.arange(LENGTH, -1, -1)[:, None].repeat(6, 1)
  )
  keys = jax.random.split(jax.random.key(0), 3)

  def of(keys):
    return unmasking.sample(
      logits_of(x_hat()),
      keys,
      (len(keys), LENGTH),
      process=PROCESS,
      schedule=SCHEDULE,
    )

  np.testing.assert_array_equal(jax.jit(of)(keys)[2], jax.jit(of)(keys[2:])[0])


def test_sharpened():
  logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
  np.testing.assert_allclose(
    unmasking.sharpened(logits), jnp.exp(logits), rtol=1e-6
  )
  cold = unmasking.sharpened(logits, temperature=0.5)
  squares = np.array([0.25, 0.09, 0.0225, 0.0025])
  np.testing.assert_allclose(cold[0], squares / squares.sum(), rtol=1e-5)
  for top_p, kept in ((0.4, 1), (0.6, 2), (0.9, 3), (0.97, 4)):
    found = np.asarray(unmasking.sharpened(logits, top_p=top_p)[0])
    assert (found > 0).sum() == kept and found.sum() == pytest.approx(1)
  for wrong in ({'temperature': 0.0}, {'top_p': 0.0}, {'top_p': 1.5}):
    with pytest.raises(ValueError, match=next(iter(wrong))):
      unmasking.sharpened(logits, **wrong)


def test_mistakes():
  def ask(process=PROCESS, **how):
    unmasking.sample(
      logits_of(x_hat()),
      jax.random.key(0),
      (2, LENGTH),
      process=process,
      schedule=SCHEDULE,
      **how,
    )

  for how, message in (
    ({'steps': 4}, 'from 1 to the 3 tokens'),
    ({'steps': 0}, 'from 1 to the 3 tokens'),
    ({'order': 'random'}, "unknown order 'random': use first_hitting"),
    ({'t_min': 0.0}, 't_min'),
  ):
    with pytest.raises(ValueError, match=message):
      ask(**how)
  with pytest.raises(TypeError, match='Uniform does not mask'):
    ask(process=sj.processes.Uniform(vocab_size=2))
