"""Automata against brute force over short sequences."""

import itertools
import tracemalloc

import numpy as np
import pytest

from sedd_jax.core import automata
from sedd_jax.core.automata import Automaton

SYMBOLS = 3
SEQUENCES = [
  sequence
  for length in range(5)
  for sequence in itertools.product(range(SYMBOLS), repeat=length)
]


def random_automaton(rng, states=5, classes=3):
  return Automaton(
    rng.integers(classes, size=SYMBOLS).astype(np.int32),
    rng.integers(-1, states, size=(states, classes)).astype(np.int32),
    rng.random(states) < 0.4,
  )


def language(automaton):
  return [automaton.accepted(sequence) for sequence in SEQUENCES]


def found_in(part, sequence):
  ends = range(len(sequence) - len(part) + 1)
  return any(sequence[k : k + len(part)] == part for k in ends)


@pytest.mark.parametrize('seed', range(20))
def test_operations_are_those_on_sets(seed):
  rng = np.random.default_rng(seed)
  for _ in range(5):
    a, b = random_automaton(rng), random_automaton(rng, 4, 2)
    in_a, in_b = np.array(language(a)), np.array(language(b))
    both = automata.intersection(a, b)
    np.testing.assert_array_equal(language(both), in_a & in_b)
    assert len(automata.minimal(a).moves) <= len(a.moves)
    np.testing.assert_array_equal(language(automata.minimal(a)), in_a)
    stopped = [2 in w and bool(a.accepted(w[: w.index(2)])) for w in SEQUENCES]
    assert language(automata.ended(a, 2)) == stopped


def test_parts_are_found_wherever_they_stand():
  for length in (1, 2, 3, 4):
    for part in itertools.product(range(SYMBOLS), repeat=length):
      holds = [found_in(part, sequence) for sequence in SEQUENCES]
      assert language(automata.containing(part, SYMBOLS)) == holds
      avoiding = automata.avoiding(part, SYMBOLS)
      assert language(avoiding) == [not held for held in holds]


@pytest.mark.parametrize('seed', range(10))
def test_a_set_meets_a_template(seed):
  rng = np.random.default_rng(seed)
  for length in (0, 2, 4):
    automaton = random_automaton(rng)
    tokens = rng.integers(SYMBOLS, size=length)
    given = rng.random(length) < 0.4
    possible = any(
      automaton.accepted(w)
      for w in itertools.product(range(SYMBOLS), repeat=length)
      if all(w[i] == tokens[i] for i in np.flatnonzero(given))
    )
    assert automata.fits(automaton, tokens, given) == possible


def test_minimal_is_minimal():
  """Five states that do what two do, and one that is not reached."""
  twins = Automaton(
    np.array([0, 0, 1], np.int32),
    np.array([[1, 2], [3, 4], [3, 4], [1, 2], [2, 1], [0, 0]], np.int32),
    np.array([False, True, True, False, False, True]),
  )
  least = automata.minimal(twins)
  assert language(least) == language(twins)
  assert least.moves.shape == (2, 1) and least.moves.dtype == np.int32
  nothing = Automaton(
    np.zeros(SYMBOLS, np.int32), np.ones((2, 1), np.int32), np.zeros(2, bool)
  )
  assert automata.minimal(nothing).moves.tolist() == [[-1]]
  assert not any(language(automata.minimal(nothing)))


def test_tokens_spell_bytes():
  pieces = [b'a', b'b', b'ab', b'ba', b'\xc3', b'\xa9']
  wanted = 'bab\xe9'.encode()
  lifted = automata.lifted(automata.containing(wanted, 256), pieces)
  spelled = itertools.product(range(len(pieces)), repeat=4)
  for tokens in spelled:
    text = b''.join(pieces[i] for i in tokens)
    assert lifted.accepted(tokens) == (wanted in text)
  with pytest.raises(ValueError, match='token 1 spells nothing'):
    automata.lifted(automata.anything(256), [b'a', b''])


def test_lifting_takes_memory_by_classes_of_tokens():
  """Tokens that no byte tells apart are one: 401 states by 20,000 tokens."""
  rng = np.random.default_rng(0)
  pieces = [
    rng.integers(97, 123, n).astype(np.uint8).tobytes()
    for n in rng.integers(1, 5, 20_000)
  ]
  tracemalloc.start()
  lifted = automata.lifted(automata.containing(b'a' * 400, 256), pieces)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 12e6 < 4 * 401 * 20_000
  whole = [pieces.index(b'aa')] * 200
  assert lifted.accepted(whole) and not lifted.accepted(whole[1:])
  with pytest.raises(ValueError, match='above 640 entries'):
    automata.lifted(automata.containing(b'a' * 700, 256), [b'a', b'b'], 10)


def test_large_tables_are_refused_with_their_size():
  one, other = (automata.containing([n] * 40, SYMBOLS) for n in (1, 2))
  both = automata.intersection(one, other)
  # Of two runs one is empty, or one is there already.
  assert len(both.moves) == 160
  told = 'takes 1[0-9] states or more by 3 classes of tokens, above 30 entries'
  with pytest.raises(ValueError, match=told):
    automata.intersection(one, other, max_entries=30)
  with pytest.raises(ValueError, match='above 50 entries'):
    automata.lifted(automata.containing(b'a' * 100, 256), [b'a', b'b'], 50)
  with pytest.raises(ValueError, match='3 and 4 symbols'):
    automata.intersection(automata.anything(3), automata.anything(4))
