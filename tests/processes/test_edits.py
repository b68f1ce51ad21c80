"""Edits of sequences, their inverses, and the noise that is made of them."""

import itertools
import json
import pathlib
import types

import numpy as np
import pytest

from sedd_jax.processes import edit_noise, edits
from tests import oracles

GOLDEN = json.loads(
  (pathlib.Path(__file__).parents[1] / 'golden' / 'edits.json').read_text()
)
ALPHABET = 'abc é日🙂\u0301\x00'


def random_text(rng, longest=9):
  return ''.join(rng.choice(list(ALPHABET), rng.integers(longest + 1)))


def random_edit(rng, count):
  """Any edit at all: empty spans and slots that touch included."""
  tags = rng.integers(3, size=count)
  inserts = rng.random(count + 1) < rng.random()
  number = edits.slots(tags, inserts).number
  spans = tuple(tuple(random_text(rng, 3)) for _ in range(number))
  return edits.Edit(tags, inserts, spans)


def test_an_edit_and_its_inverse_are_the_identity():
  rng = np.random.default_rng(0)
  seen = set()
  for _ in range(400):
    x = random_text(rng)
    edit = random_edit(rng, len(x))
    y = edits.applied(x, edit)
    back = edits.inverse(x, edit)
    assert edits.applied(y, back) == tuple(x)
    # The inverse has no empty span, so that its own inverse leads forth.
    assert all(back.spans)
    assert edits.applied(x, edits.inverse(y, back)) == y
    seen.add((len(x) == 0, len(y) == 0))
  assert len(seen) == 4


def test_an_alignment_leads_from_one_to_the_other_at_the_distance():
  rng = np.random.default_rng(1)
  for _ in range(150):
    x, y = random_text(rng), random_text(rng)
    edit = edits.alignment(x, y)
    assert edits.applied(x, edit) == tuple(y)
    assert edits.cost(edit) == edits.distance(x, y) == slow_distance(x, y)
    back = edits.inverse(x, edit)
    assert edits.applied(y, back) == tuple(x)
  assert edits.is_identity(edits.alignment('same', 'same'))


def test_operations_are_carried_out_as_their_edit():
  rng = np.random.default_rng(5)
  for _ in range(150):
    x = random_text(rng)
    operations, left = [], len(x)
    while left or rng.random() < 0.5:
      operation = int(rng.integers(4)) if left else edits.INSERT
      fills = operation in (edits.INSERT, edits.REPLACE)
      operations.append((operation, random_text(rng, 2) if fills else ''))
      left -= operation != edits.INSERT
    edit = edits.of_operations(operations)
    assert edits.carried_out(x, operations) == edits.applied(x, edit)


def slow_distance(x, y):
  """By the recursion as it is written in books."""
  row = list(range(len(y) + 1))
  for i, a in enumerate(x, 1):
    last, row = row, [i]
    for j, b in enumerate(y, 1):
      row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
  return row[-1]


@pytest.mark.parametrize(
  ('x', 'y', 'operations'),
  [
    # Keep before all; replace before delete and insert; delete before insert.
    ('aa', 'a', 'KD'),
    ('ab', 'c', 'RD'),
    ('a', 'aa', 'KI'),
    ('a', 'bc', 'RI'),
    ('ab', 'ba', 'RR'),
    ('abc', 'cab', 'IKKD'),
    ('abb', 'bba', 'RKR'),
    ('', 'ab', 'II'),
    ('ab', '', 'DD'),
  ],
)
def test_the_order_of_ties(x, y, operations):
  edit = edits.alignment(x, y)
  tags = ['KRD'.index(letter) for letter in operations if letter != 'I']
  np.testing.assert_array_equal(edit.tags, tags)
  inserted = sum(map(len, edit.spans)) - operations.count('R')
  assert inserted == operations.count('I')


@pytest.mark.parametrize('case', GOLDEN['levenshtein'])
def test_golden_distances(case):
  assert edits.distance(case['a'], case['b']) == case['distance']
  edit = edits.alignment(case['a'], case['b'])
  assert edits.cost(edit) == case['distance']
  assert edits.applied(case['a'], edit) == tuple(case['b'])


@pytest.mark.parametrize('case', GOLDEN['apply_edits'])
def test_golden_edits(case):
  names = [tag.split(':')[0] for tag in case['tags']]
  operations = [(edits.OPERATIONS.index(name.lower()), ()) for name in names]
  tags = [o for o, _ in operations if o != edits.INSERT]
  inserts = np.zeros(len(tags) + 1, bool)
  gap = 0
  for operation, _ in operations:
    inserts[gap] |= operation == edits.INSERT
    gap += operation != edits.INSERT
  edit = edits.Edit(np.array(tags, int), inserts, case['generated'])
  assert edits.applied(case['x_t'], edit) == tuple(case['x_prev'])


def test_mistakes():
  with pytest.raises(ValueError, match='2 tokens, not of 3'):
    edits.applied('abc', edits.Edit(np.zeros(2), np.zeros(3), ()))
  with pytest.raises(ValueError, match='1 spans for 0 slots'):
    edits.applied('ab', edits.Edit(np.zeros(2), np.zeros(3), (('c',),)))
  with pytest.raises(ValueError, match=r'tags \(2,\) and inserts \(2,\)'):
    edits.slots(np.zeros(2), np.zeros(2))
  with pytest.raises(ValueError, match='sum to 1'):
    edit_noise.EditNoise(vocab_size=3, keep=0.7)
  with pytest.raises(ValueError, match='insert is below 1'):
    edit_noise.EditNoise(vocab_size=3, keep=0, replace=0, delete=0, insert=1)
  with pytest.raises(ValueError, match='mean_length'):
    edit_noise.EditNoise(vocab_size=3, mean_length=-1)
  for weights, told in (
    ((1.0, 2.0), 'one a symbol, 3'),
    ((1.0, -1.0, 1.0), 'the least -1'),
    ((1.0, 0.0, 0.0), 'all are 0'),
  ):
    with pytest.raises(ValueError, match=told):
      edit_noise.EditNoise(vocab_size=3, weights=weights, excluded=(0,))


def at_least_two(mean):
  return 1 - np.exp(-mean) * (1 + mean)


@pytest.mark.parametrize('noise', edit_noise.EditNoise.examples())
def test_the_law_of_tags_and_flags(noise):
  """Of two tokens: all 72 outcomes, from the rates."""
  taken = np.array(noise.rates[:3]) / (1 - noise.insert)
  goes_on = at_least_two(noise.mean_length)
  flag = np.array([1 - noise.insert, noise.insert])
  law = np.zeros((2, 3, 2, 3, 2))
  for i, a, j, b, k in itertools.product(*map(range, law.shape)):
    second = goes_on * (a == b) * (j == 0) + (1 - goes_on) * flag[j] * taken[b]
    law[i, a, j, b, k] = flag[i] * taken[a] * second * flag[k]
  counts = np.zeros(law.shape)
  rng = np.random.default_rng(3)
  for _ in range(4000):
    tags, inserts, _ = noise.draw(rng, (0, 1), 1000)
    counts[tuple(np.ravel([inserts[:2], tags], order='F'))][
      int(inserts[2])
    ] += 1
  assert law.sum() == pytest.approx(1)
  assert oracles.chi_square_pvalue(counts.ravel(), law.ravel()) > 1e-4
  wrong = law[:, ::-1].ravel()
  assert oracles.chi_square_pvalue(counts.ravel(), wrong) < 1e-4


@pytest.mark.parametrize('mean', [3, 8])
def test_the_law_of_lengths(mean):
  """Of what is put into an empty text, and which tokens they are."""
  poisson = np.array(GOLDEN['poisson'][str(mean)])
  rate = 0.25
  noise = edit_noise.EditNoise(
    vocab_size=3, keep=0.75, replace=0, delete=0, insert=rate, mean_length=mean
  )
  # A length of 0 counts as 1; spans that touch are one.
  step = poisson.copy()
  step[:2] = 0, poisson[:2].sum()
  law, part = np.zeros(len(step)), np.eye(len(step))[0]
  for _ in range(len(step)):
    law += (1 - rate) * part
    part = rate * np.convolve(part, step)[: len(step)]
  draws = [
    noise.draw(np.random.default_rng([mean, i]), (), 1000).spans
    for i in range(2000)
  ]
  tokens = [spans[0] if spans else () for spans in draws]
  lengths = np.bincount([len(t) for t in tokens], minlength=len(law) + 1)
  counts = np.append(lengths[: len(law)], lengths[len(law) :].sum())
  law = np.append(law, 1 - law.sum())
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  assert oracles.chi_square_pvalue(counts, np.roll(law, 1)) < 1e-4
  drawn = np.bincount(np.concatenate([t for t in tokens if t]))
  assert oracles.chi_square_pvalue(drawn, np.ones(3)) > 1e-4


@pytest.mark.parametrize('noise', edit_noise.EditNoise.examples())
def test_a_chain_is_undone_step_by_step_and_keeps_its_cap(noise):
  for seed in range(40):
    x = tuple(np.random.default_rng(seed).integers(3, size=seed % 9).tolist())
    last = x
    for steps in range(1, 5):
      # The same draws, one step longer.
      x_t, edit = noise.chain(np.random.default_rng(seed), x, steps, 10)
      assert edits.applied(x_t, edit) == last
      assert len(x_t) <= 10
      last = x_t


def test_random_tokens_are_none_of_the_excluded():
  noise = edit_noise.EditNoise(vocab_size=7, excluded=(6, 0, 3))
  drawn = noise.random_tokens(np.random.default_rng(0), 2000)
  counts = np.bincount(drawn, minlength=7)
  assert not counts[[0, 3, 6]].any()
  assert oracles.chi_square_pvalue(counts[[1, 2, 4, 5]], np.ones(4)) > 1e-4


def test_random_tokens_come_by_their_weights():
  weights = (3.0, 1.0, 9.0, 0.0, 2.0)
  noise = edit_noise.EditNoise(vocab_size=5, weights=weights, excluded=(2,))
  drawn = noise.random_tokens(np.random.default_rng(0), 2000)
  counts = np.bincount(drawn, minlength=5)
  assert not counts[[2, 3]].any()
  wanted = np.array([3, 1, 2])
  assert oracles.chi_square_pvalue(counts[[0, 1, 4]], wanted) > 1e-4
  assert oracles.chi_square_pvalue(counts[[0, 1, 4]], np.ones(3)) < 1e-4


def test_the_last_symbol_is_drawn_where_a_product_is_rounded_up():
  noise = edit_noise.EditNoise(vocab_size=3, weights=(0.1, 0.7, 0.0))
  almost = types.SimpleNamespace(random=lambda n: np.full(n, 1 - 2**-53))
  assert noise.random_tokens(almost, 2) == (1, 1)


def test_a_replaced_span_has_its_length():
  noise = edit_noise.EditNoise(
    vocab_size=9, keep=0, replace=1, delete=0, insert=0, mean_length=2
  )
  edit = noise.draw(np.random.default_rng(0), (0,) * 30, 30)
  assert np.all(edit.tags == edits.REPLACE)
  assert list(map(len, edit.spans)) == [30]
