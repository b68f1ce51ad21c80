"""What samples have to satisfy, as one object.

A condition is a template (tokens that are given, blanks between them) and
clauses, each a deterministic automaton over tokens; two are combined by `&`.
`tables` makes automata of one shape of the conditions of a batch's rows, which
`samplers.constrained` imposes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sedd_jax.core import automata
from sedd_jax.core.automata import Automaton


class Clause(NamedTuple):
  """A set of sequences, and how it is called in messages."""

  name: str
  automaton: Automaton


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
  """What a sequence has to be.

  Attributes:
    vocab_size: data symbols.
    clauses: sets that it lies in, all of them; with `end` they are about what
      stands before the first `end`.
    tokens: `[length]` int32 or None, what is given where `given`.
    given: `[length]` bool or None.
    end: the token that has to end the text, or None where it ends with the
      sequence.  What follows the first one is free, and no part of the text.
  """

  vocab_size: int
  clauses: tuple[Clause, ...] = ()
  tokens: np.ndarray | None = None
  given: np.ndarray | None = None
  end: int | None = None

  def __and__(self, other: 'Condition') -> 'Condition':
    """Both.

    Raises:
      ValueError: two vocabularies, lengths or ends, or a place that is given
        as two tokens.
    """
    if self.vocab_size != other.vocab_size:
      raise ValueError(
        f'conditions on {self.vocab_size} and {other.vocab_size} symbols do '
        'not go together'
      )
    ends = {c.end for c in (self, other) if c.end is not None}
    if len(ends) > 1:
      raise ValueError(f'a text has one end, not tokens {sorted(ends)}')
    tokens, given = _overlaid(self, other)
    return Condition(
      vocab_size=self.vocab_size,
      clauses=self.clauses + other.clauses,
      tokens=tokens,
      given=given,
      end=ends.pop() if ends else None,
    )

  @property
  def binds(self) -> bool:
    """Whether there is more to it than a template."""
    return bool(self.clauses) or self.end is not None

  @functools.cached_property
  def automaton(self) -> Automaton:
    """All clauses and the end in one; the template is apart.

    Raises:
      ValueError: the table would be too large.
    """
    return self._of(self.clauses)

  def _of(self, clauses: Sequence[Clause]) -> Automaton:
    start = automata.anything(self.vocab_size)
    both = functools.reduce(
      automata.intersection, (clause.automaton for clause in clauses), start
    )
    return both if self.end is None else automata.ended(both, self.end)

  def template(self, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and where they are given, `[length]` each.

    Raises:
      ValueError: a template of another length.
    """
    if self.tokens is None or self.given is None:
      return np.zeros(length, np.int32), np.zeros(length, bool)
    if len(self.tokens) != length:
      raise ValueError(
        f'the template has {len(self.tokens)} tokens, but the samples have '
        f'{length}'
      )
    return self.tokens, self.given

  def require_possible(self, length: int) -> None:
    """Raises ValueError, naming what conflicts, if no sequence satisfies it."""
    template = self.template(length)

    def possible(some):
      return automata.fits(self._of(some), *template)

    if automata.fits(self.automaton, *template):
      return
    parts = [f"the end's token {self.end}"] if self.end is not None else []
    parts += ['the given tokens'] if template[1].any() else []
    # Of more than two that conflict, all are named.
    found = self.clauses
    for size in range(min(len(self.clauses), 3)):
      some = itertools.combinations(self.clauses, size)
      if conflict := [each for each in some if not possible(each)]:
        found = conflict[0]
        break
    parts = [clause.name for clause in found] + parts
    raise ValueError(
      f'no sequence of {length} tokens satisfies {" and ".join(parts)}'
    )


def _overlaid(a, b):
  """The template of two conditions."""
  if a.given is None or b.given is None:
    one = b if a.given is None else a
    return one.tokens, one.given
  if len(a.given) != len(b.given):
    raise ValueError(
      f'templates of {len(a.given)} and {len(b.given)} tokens do not go '
      'together'
    )
  if (clash := a.given & b.given & (a.tokens != b.tokens)).any():
    place = int(np.argmax(clash))
    raise ValueError(
      f'place {place} is given as token {a.tokens[place]} and as token '
      f'{b.tokens[place]}'
    )
  return np.where(a.given, a.tokens, b.tokens), a.given | b.given


def free(vocab_size: int) -> Condition:
  """No condition at all."""
  return Condition(vocab_size=vocab_size)


def template(tokens: ArrayLike, given: ArrayLike, vocab_size: int) -> Condition:
  """Tokens that are given: a prefix, a suffix, with blanks anywhere.

  Args:
    tokens: `[length]`, read where `given`.
    given: `[length]`.
    vocab_size: data symbols.

  Raises:
    ValueError: shapes that do not fit, or a token that is no data symbol.
  """
  placed, fixed = np.asarray(tokens, np.int32), np.asarray(given, bool)
  if placed.shape != fixed.shape or placed.ndim != 1:
    raise ValueError(
      f'tokens {placed.shape} and given {fixed.shape} are not [length] both'
    )
  _require_symbols(placed[fixed], vocab_size)
  return Condition(vocab_size=vocab_size, tokens=placed, given=fixed)


def contains(
  sequence: Sequence[int], vocab_size: int, name: str = ''
) -> Condition:
  """The tokens of `sequence` follow one another somewhere.

  Args:
    sequence: at least one token.
    vocab_size: data symbols.
    name: what messages call it.

  Raises:
    ValueError: no token, or one that is no data symbol.
  """
  wanted = _require_symbols(sequence, vocab_size)
  if not len(wanted):
    raise ValueError('a sequence to contain has at least one token')
  found = automata.containing(wanted, vocab_size)
  return matches(found, name or f'contains tokens {wanted.tolist()}')


def avoids(
  sequence: Sequence[int], vocab_size: int, name: str = ''
) -> Condition:
  """The tokens of `sequence` follow one another nowhere; see `contains`."""
  wanted = _require_symbols(sequence, vocab_size)
  if not len(wanted):
    raise ValueError('a sequence to avoid has at least one token')
  found = automata.avoiding(wanted, vocab_size)
  return matches(found, name or f'avoids tokens {wanted.tolist()}')


def matches(automaton: Automaton, name: str) -> Condition:
  """The sequence lies in the set of an automaton over the data symbols."""
  return Condition(
    vocab_size=automaton.num_symbols, clauses=(Clause(name, automaton),)
  )


def ends(token: int, vocab_size: int) -> Condition:
  """The text ends before the sequence does, at the first `token`."""
  _require_symbols([token], vocab_size)
  return Condition(vocab_size=vocab_size, end=int(token))


def _require_symbols(tokens, vocab_size):
  tokens = np.asarray(tokens, np.int64).reshape(-1)
  bad = tokens[(tokens < 0) | (tokens >= vocab_size)]
  if bad.size:
    raise ValueError(f'token {bad[0]} is none of the {vocab_size} data symbols')
  return tokens


class Tables(NamedTuple):
  """Automata of one shape, arrays for a compiled program.

  Attributes:
    symbol_class: `[count, num_symbols]` int32.
    moves: `[count, states, classes]` int32; the last state is not left.
    accepts: `[count, states]` bool.
    which: `[batch]` int32, a row's automaton, or -1 for none.
  """

  symbol_class: Any
  moves: Any
  accepts: Any
  which: Any


def tables(conditions: Sequence[Condition | None]) -> Tables | None:
  """The automata of a batch's rows; None where no row has any.

  Args:
    conditions: one a row; None, or one without clauses and end, for a row that
      its template alone binds.

  Returns:
    Tables whose states and classes are powers of two, so that few shapes are
    compiled.

  Raises:
    ValueError: they would be too large.
  """
  bound = [c for c in conditions if c is not None and c.binds]
  if not bound:
    return None
  distinct = list(dict.fromkeys(id(c) for c in bound))
  by_id = {id(c): c.automaton for c in bound}
  found = [by_id[i] for i in distinct]
  states = _power(max(len(a.moves) for a in found) + 1)
  classes = _power(max(a.moves.shape[1] for a in found))
  automata.require_size(states * len(found), classes, 4 * automata.MAX_ENTRIES)
  moves = np.full((len(found), states, classes), states - 1, np.int32)
  accepts = np.zeros((len(found), states), bool)
  for place, automaton in enumerate(found):
    own, wide = automaton.moves.shape
    ahead = automaton.moves
    moves[place, :own, :wide] = np.where(ahead < 0, states - 1, ahead)
    accepts[place, :own] = automaton.accepts
  which = [distinct.index(id(c)) if id(c) in by_id else -1 for c in conditions]
  return Tables(
    np.stack([a.symbol_class for a in found]),
    moves,
    accepts,
    np.array(which, np.int32),
  )


def _power(size: int) -> int:
  return 1 << (size - 1).bit_length()
