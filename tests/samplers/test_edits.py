"""Revisions: their law, their beams, and where they rest, by enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.processes import edit_arrays, edits
from sedd_jax.samplers import edits as samplers
from tests import oracles

VOCAB = 2
LAYOUT = edit_arrays.Layout(vocab_size=VOCAB, capacity=2, written=5)
RULES = samplers.Rules(LAYOUT, longest=2, longest_span=1)
# More than there are edits of a state of one token.
WIDE = 160


def tag_fn(arrays, time, rows):
  """A law that any token changes, and the time."""
  del rows
  laws = []
  for state, valid in zip(arrays['state'], arrays['state_valid']):
    seed = [*state[valid].tolist(), int(time)]
    logits = np.random.default_rng(seed).normal(size=(LAYOUT.places, 5))
    logits[:, 0] += 0.5
    laws.append(logits)
  logits = np.array(laws)
  return tuple(
    part - np.log(np.exp(part).sum(-1, keepdims=True))
    for part in (logits[..., :3], logits[..., 3:])
  )


def begun_of(context, time):
  """A number a row, of all that the writer is shown."""
  total = 17 * int(time)
  for weight, name in enumerate(('kept', 'insert_slot', 'replace_slot'), 1):
    x = context[name] * context['kept_valid']
    total = total + x @ (weight * np.array([3, 5, 7]))
  return total.astype(np.int32)


def told(number, symbol, slot, xp=np):
  """The number after one more symbol, and the logits of the next."""
  number = (number * 5 + symbol * 7 + slot * 3 + 1) % 101
  phases = (xp.arange(VOCAB + 1) + 1.0).reshape((1,) * number.ndim + (-1,))
  return number, 2 * xp.sin(number[..., None] * phases + 0.3)


def write_fn(symbol, slot, begun, place):
  del place
  number, logits = told(begun['number'][0], symbol, slot, jnp)
  return logits, {'number': number[None]}


@functools.partial(jax.jit, static_argnames='rules')
def written(number, count, scores, room, keys, rules):
  begun = {'number': number[None]}
  return samplers.write_spans(
    write_fn, begun, count, scores, room, rules=rules, keys=keys
  )


def span_fn(context, count, scores, room, time, rows, seeds, rules=RULES):
  del rows
  keys = None
  if seeds is not None:
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
  number = begun_of(context, time)
  found = written(number, count, scores, room, keys, rules)
  return tuple(np.asarray(x) for x in found[:3])


revise = functools.partial(samplers.revisions, tag_fn, span_fn, rules=RULES)


def revisions(states, time, **options):
  common = {'rows': np.arange(len(states)), 'fixed': [0] * len(states)}
  return revise(states, time, **{**common, **options})


def texts(number, count, room, rules):
  """All texts of so many slots with their log p: the slow path."""
  end, marker = LAYOUT.end, LAYOUT.marker

  def go(number, logits, text, slot, length, room, score):
    if text[-1:] in ((), (end,)):
      if slot == count:
        yield text, score
        return
      number, logits = told(number, marker, slot + 1)
      yield from go(number, logits, (*text, marker), slot + 1, 0, room, score)
      return
    left = rules.layout.written - len(text) - 1 - 2 * (count - slot)
    fits = room > 0 and length < rules.longest_span and left > 0
    symbols = [*range(VOCAB * fits), end]
    norm = np.log(np.exp(logits[symbols]).sum())
    for symbol in symbols:
      gain = logits[symbol] - norm
      after = told(number, symbol, slot)
      yield from go(
        *after,
        (*text, symbol),
        slot,
        length + 1,
        room - (symbol != end),
        score + gain,
      )

  yield from go(np.asarray(number), None, (), 0, 0, room, 0.0)


def tags_score(log_tags, log_flags, tags, flags, fixed):
  """Log p from left to right; what would be a slot too many is not chosen."""
  score = 0.0
  plain = np.zeros(len(tags), np.int8), np.zeros(len(flags), bool)
  for k in range(2 * fixed, 2 * len(tags) + 1):
    place, of_tag = k // 2, k % 2
    row = (log_tags if of_tag else log_flags)[place]
    fits = []
    for choice in range(len(row)):
      so_far = tuple(x.copy() for x in plain)
      so_far[0][:place], so_far[1][: place + of_tag] = (
        tags[:place],
        flags[: place + of_tag],
      )
      so_far[0 if of_tag else 1][place] = choice
      fits.append(edits.slots(*so_far).number <= LAYOUT.most_slots)
    chosen = int((tags if of_tag else flags)[place])
    assert fits[chosen]
    score += row[chosen] - np.log(np.exp(row)[fits].sum())
  return score


def enumerated(x, time, fixed=0, forced=False, rules=RULES):
  """All edits of a state with their log p."""
  arrays = edit_arrays.stacked([LAYOUT.state(x)])
  log_tags, log_flags = (a[0] for a in tag_fn(arrays, time, None))
  free = len(x) - fixed
  for tags in itertools.product(range(3), repeat=free):
    for flags in itertools.product(range(2), repeat=free + 1):
      if forced and not flags[-1]:
        continue
      tags_all = np.array([0] * fixed + list(tags), np.int8)
      flags_all = np.array([0] * fixed + list(flags), bool)
      slots = edits.slots(tags_all, flags_all)
      if slots.number > LAYOUT.most_slots:
        continue
      score = tags_score(
        log_tags[: len(x)], log_flags[: len(x) + 1], tags_all, flags_all, fixed
      )
      if forced:
        score -= log_flags[len(x), 1]
      context = edit_arrays.stacked([LAYOUT.context(x, slots)])
      room = rules.longest - int(np.sum(tags_all == edits.KEEP))
      number = begun_of(context, time)[0]
      for text, gain in texts(number, slots.number, room, rules):
        spans = LAYOUT.spans(np.array(text, int))
        edit = edits.Edit(tags_all, flags_all, spans)
        yield samplers.Revision(x, edit, score + gain)


def law_of(*args, **options):
  """Probabilities of what a revision leads to."""
  law = {}
  for revision in enumerated(*args, **options):
    result = revision.result
    law[result] = law.get(result, 0) + np.exp(revision.log_prob)
  return law


@pytest.mark.parametrize(
  ('x', 'options'),
  [((0,), {}), ((1, 0), {'fixed': 1}), ((), {'forced': True})],
)
def test_the_law_of_one_revision(x, options):
  """Of 1500 draws; tags, flags and spans together."""
  law = law_of(x, 3.0, **options)
  assert sum(law.values()) == pytest.approx(1)
  assert all(len(result) <= RULES.longest for result in law)
  count = 1500
  fixed = [options.get('fixed', 0)] * count
  found = revisions(
    [x] * count,
    3.0,
    fixed=fixed,
    forced=options.get('forced', False),
    seeds=np.arange(count),
  )
  drawn = [result.result for (result,) in found]
  assert set(drawn) <= set(law)
  counts = [drawn.count(result) for result in law]
  probs = list(law.values())
  assert oracles.chi_square_pvalue(counts, probs) > 1e-4
  wrong = [*probs[1:], probs[0]]
  assert oracles.chi_square_pvalue(counts, wrong) < 1e-4
  # What is told of a draw is its probability.
  known = {}
  for r in enumerated(x, 3.0, **options):
    assert key(r) not in known
    known[key(r)] = r.log_prob
  for (revision,) in found[:40]:
    assert revision.log_prob == pytest.approx(known[key(revision)], abs=1e-4)


def key(revision):
  tags, flags, spans = revision.edit
  return tuple(tags.tolist()), tuple(flags.tolist()), spans


@pytest.mark.parametrize('x', [(), (0,), (1,)])
def test_a_beam_as_wide_as_the_space_is_all_of_it_in_order(x):
  found = revisions([x], 2.0, width=WIDE)[0]
  expected = sorted((r.log_prob for r in enumerated(x, 2.0)), reverse=True)
  assert len(expected) < WIDE
  np.testing.assert_allclose([r.log_prob for r in found], expected, atol=1e-4)
  best = max(enumerated(x, 2.0), key=lambda r: r.log_prob)
  assert key(found[0]) == key(best)


@functools.cache
def best_chains(x, times):
  """The highest score of chains from x, by going through all."""
  if not times:
    return 0.0
  options = [
    r.log_prob
    + (0 if edits.is_identity(r.edit) else best_chains(r.result, times[1:]))
    for r in enumerated(x, times[0])
  ]
  return max(options)


@pytest.fixture(scope='module')
def starts():
  return [(), (0,), (1,)]


def best(starts, times, **options):
  return samplers.best(
    revise, starts, times, fixed=[0] * len(starts), forced=False, **options
  )


def test_two_dimensional_beams_as_wide_as_the_space(starts):
  """Are the argmax over all chains of two revisions."""
  found = best(starts, (2.0, 1.0), width=WIDE, branches=16)
  for x, chain in zip(starts, found):
    assert chain.score == pytest.approx(best_chains(x, (2.0, 1.0)), abs=1e-4)


def test_no_beam_scores_below_the_greedy_choice(starts):
  times = (3.0, 2.0, 1.0)
  greedy = best(starts, times)
  better = 0
  for width, branches in ((3, 1), (3, 2)):
    found = best(starts, times, width=width, branches=branches)
    for chain, least in zip(found, greedy):
      assert chain.score >= least.score
      better += chain.score > least.score + 1e-3
      told_of = sum(r.log_prob for r in chain.revisions)
      assert chain.score == pytest.approx(told_of)
  assert better


def scripted(options):
  """Revisions by a table: (state, width) to states with their log p."""

  def revise(states, time, *, width, **_):
    del time
    return [
      [
        samplers.Revision(tuple(x), edits.alignment(x, y), log_prob)
        for y, log_prob in options[''.join(x), width]
      ]
      for x in states
    ]

  def found(branches):
    (chain,) = samplers.best(
      revise, ['s'], (2, 1), fixed=[0], forced=False, width=2, branches=branches
    )
    return ''.join(chain.state), chain.score

  return found


def test_what_beams_lose_the_greedy_choice_keeps():
  """Of a revision, and in the end: beams that search badly, by a table."""
  found = scripted(
    {
      ('s', 1): [('g', -1.0)],
      ('s', 2): [('w', -5.0)],
      ('g', 1): [('k', -3.0)],
      ('g', 2): [('h', -0.125)],
      ('w', 1): [('k', -9.0)],
      ('w', 2): [('k', -8.0)],
    }
  )
  assert found(1) == ('h', -1.125)
  # Ahead after one revision, and behind after two.
  trap = scripted(
    {
      ('s', 1): [('g', -1.0)],
      ('s', 2): [('w', -0.5)],
      ('g', 1): [('k', -0.25)],
      ('g', 2): [('k', -4.0)],
      ('w', 1): [('k', -9.0)],
      ('w', 2): [('h', -8.0)],
    }
  )
  assert trap(1) == ('k', -1.25)


def test_the_greedy_choice_is_greedy(starts):
  for x, (found,) in zip(starts, revisions(starts, 2.0)):
    tags = max(
      samplers.likeliest_tags(
        *(
          a[0, : len(x) + extra]
          for extra, a in enumerate(
            tag_fn(edit_arrays.stacked([LAYOUT.state(x)]), 2.0, None)
          )
        ),
        1,
        LAYOUT.most_slots,
      ),
      key=lambda t: t.log_prob,
    )
    np.testing.assert_array_equal(found.edit.tags, tags.tags)
    np.testing.assert_array_equal(found.edit.inserts, tags.inserts)


def test_a_chain_rests_where_nothing_changes():
  calls = []

  def still(arrays, time, rows):
    calls.append(time)
    tags = np.full((*arrays['state'].shape, 3), -5.0)
    tags[..., 0] = -0.01
    flags = np.full((*arrays['state'].shape, 2), -5.0)
    flags[..., 0] = -0.01
    return tags, flags

  resting = functools.partial(samplers.revisions, still, span_fn, rules=RULES)
  (chain,) = samplers.best(
    resting, [(0, 1)], (3.0, 2.0, 1.0), fixed=[0], forced=False
  )
  assert chain.state == (0, 1) and chain.resting
  assert calls == [3.0] and len(chain.revisions) == 1
  # Draws go on, for the chain's law is of all steps.
  (chain,) = samplers.drawn(
    resting,
    [(0, 1)],
    (3.0, 2.0, 1.0),
    fixed=[0],
    forced=False,
    seeds=np.array([0]),
  )
  assert len(chain.revisions) == 3


def test_the_likeliest_tags_are_those_of_all():
  rng = np.random.default_rng(0)
  tags, flags = rng.normal(size=(3, 3)), rng.normal(size=(4, 2))
  flags[2, 0] = -np.inf
  found = samplers.likeliest_tags(tags, flags, 40)
  everything = sorted(
    (
      sum(tags[range(3), t]) + sum(flags[range(4), f])
      for t in itertools.product(range(3), repeat=3)
      for f in itertools.product(range(2), repeat=4)
    ),
    reverse=True,
  )
  np.testing.assert_allclose([t.log_prob for t in found], everything[:40])
  for one in found:
    assert one.log_prob == pytest.approx(
      tags[range(3), one.tags].sum()
      + flags[range(4), one.inserts.astype(int)].sum()
    )


def test_a_nucleus_keeps_the_likeliest():
  rng = np.random.default_rng(0)
  tags = np.log([[0.5, 0.3, 0.2]])
  flags = np.log([[0.9, 0.1], [0.4, 0.6]])
  for top_p, kept in ((0.45, {0}), (0.7, {0, 1}), (1.0, {0, 1, 2})):
    found = {
      int(samplers.drawn_tags(tags, flags, rng, top_p=top_p).tags[0])
      for _ in range(60)
    }
    assert found == kept
  one = samplers.drawn_tags(tags, flags, rng, top_p=0.45)
  # Under the model's own law, whatever it was drawn by.
  assert one.log_prob == pytest.approx(np.log(0.5 * 0.9 * 0.6))


def test_nothing_compiles_again_for_another_length():
  written.clear_cache()
  for x in ((), (0,), (1, 0)):
    revisions([x], 2.0)
  assert written._cache_size() == 1
