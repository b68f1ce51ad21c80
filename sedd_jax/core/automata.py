"""Deterministic automata over tokens, in numpy.

Tokens that move every state alike are one class, so that a table has states
times classes and not states times vocabulary.  The first state is the start; a
move that leads nowhere is -1.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NOWHERE = -1
# Of a table: 16 MiB of moves.
MAX_ENTRIES = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class Automaton:
  """A set of sequences.

  Attributes:
    symbol_class: `[num_symbols]` int32, the class of each symbol.
    moves: `[states, classes]` int32, the next state, or -1.
    accepts: `[states]` bool, whether a sequence may end there.
  """

  symbol_class: np.ndarray
  moves: np.ndarray
  accepts: np.ndarray

  @property
  def num_symbols(self) -> int:
    """Symbols that sequences are of."""
    return len(self.symbol_class)

  def state_after(self, sequence: Sequence[int]) -> int:
    """The state that a sequence leads to, or -1."""
    state = 0
    for symbol in sequence:
      if state == NOWHERE:
        break
      state = int(self.moves[state, self.symbol_class[symbol]])
    return state

  def accepted(self, sequence: Sequence[int]) -> bool:
    """Whether a sequence is in the set."""
    state = self.state_after(sequence)
    return state != NOWHERE and bool(self.accepts[state])


def anything(num_symbols: int) -> Automaton:
  """All sequences."""
  return Automaton(
    np.zeros(num_symbols, np.int32),
    np.zeros((1, 1), np.int32),
    np.ones(1, bool),
  )


def containing(sequence: Sequence[int], num_symbols: int) -> Automaton:
  """The sequences that contain another one, of any length (Knuth-Morris-Pratt).

  Args:
    sequence: symbols that follow one another.
    num_symbols: symbols in all.

  >>> automaton = containing([1, 1, 0], 3)
  >>> automaton.accepted([1, 1, 1, 0, 2]), automaton.accepted([1, 0, 1])
  (True, False)
  """
  wanted = [int(symbol) for symbol in sequence]
  distinct = sorted(set(wanted))
  symbol_class = np.full(num_symbols, len(distinct), np.int32)
  symbol_class[distinct] = np.arange(len(distinct))
  moves = np.zeros((len(wanted) + 1, len(distinct) + 1), np.int32)
  back = 0
  for state, symbol in enumerate(wanted):
    moves[state] = moves[back]
    matched = symbol_class[symbol]
    moves[state, matched] = state + 1
    # Where one goes from the longest end of what is read that is a beginning.
    back = int(moves[back, matched]) if state else 0
  moves[-1] = len(wanted)
  accepts = np.arange(len(wanted) + 1) == len(wanted)
  return Automaton(symbol_class, moves, accepts)


def avoiding(sequence: Sequence[int], num_symbols: int) -> Automaton:
  """The sequences that do not contain another one.

  >>> avoiding([0, 0], 2).accepted([0, 1, 0])
  True
  """
  found = containing(sequence, num_symbols)
  last = len(found.moves) - 1
  moves = np.where(found.moves == last, NOWHERE, found.moves)
  return minimal(Automaton(found.symbol_class, moves, ~found.accepts))


def ended(automaton: Automaton, end: int) -> Automaton:
  """A set's sequences without `end`, then `end`, then anything.

  Args:
    automaton: the set.
    end: the symbol that ends a sequence.

  >>> stops = ended(containing([1], 3), 2)
  >>> [stops.accepted(s) for s in ([0, 1, 2, 0], [0, 1], [0, 2, 1])]
  [True, False, False]
  """
  states, classes = automaton.moves.shape
  symbol_class = automaton.symbol_class.copy()
  symbol_class[end] = classes
  moves = np.full((states + 1, classes + 1), states, np.int32)
  moves[:states, :classes] = automaton.moves
  moves[:states, classes] = np.where(automaton.accepts, states, NOWHERE)
  return minimal(
    Automaton(symbol_class, moves, np.arange(states + 1) == states)
  )


def only_last(symbol: int, num_symbols: int) -> Automaton:
  """The sequences that have a symbol nowhere but at their end, or not at all.

  >>> last = only_last(2, 3)
  >>> [last.accepted(s) for s in ([0, 1], [0, 2], [2, 0])]
  [True, True, False]
  """
  return Automaton(
    (np.arange(num_symbols) == symbol).astype(np.int32),
    np.array([[0, 1], [NOWHERE, NOWHERE]], np.int32),
    np.ones(2, bool),
  )


def between(automaton: Automaton, begin: int, end: int) -> Automaton:
  """A set's sequences, behind `begin` or not, and to their end or to `end`.

  What follows `end` is free.

  Args:
    automaton: the set.
    begin: a symbol that may stand first.
    end: another one, that may stand behind a sequence of the set.

  >>> marked = between(containing([1], 4), 2, 3)
  >>> [marked.accepted(s) for s in ([1], [2, 1, 0], [2, 1, 3, 2], [1, 2], [3])]
  [True, True, True, False, False]
  """
  states, classes = automaton.moves.shape
  first, free = states, states + 1
  symbol_class = automaton.symbol_class.copy()
  symbol_class[begin], symbol_class[end] = classes, classes + 1
  accepts = np.append(automaton.accepts, [automaton.accepts[0], True])
  moves = np.full((states + 2, classes + 2), NOWHERE, np.int32)
  moves[:states, :classes] = automaton.moves
  moves[first, :classes] = automaton.moves[0]
  moves[first, classes] = 0
  moves[:free, classes + 1] = np.where(accepts[:free], free, NOWHERE)
  moves[free] = free
  # A run starts at state 0.
  order = np.roll(np.arange(states + 2), -first)
  place = np.append(np.argsort(order), NOWHERE)
  return minimal(
    Automaton(
      symbol_class, place[moves[order]].astype(np.int32), accepts[order]
    )
  )


def intersection(
  a: Automaton, b: Automaton, max_entries: int = MAX_ENTRIES
) -> Automaton:
  """The sequences in both sets.

  Raises:
    ValueError: the table would have more than `max_entries` entries.
  """
  if a.num_symbols != b.num_symbols:
    raise ValueError(
      f'automata over {a.num_symbols} and {b.num_symbols} symbols do not meet'
    )
  pairs, symbol_class = np.unique(
    np.stack([a.symbol_class, b.symbol_class]), axis=1, return_inverse=True
  )
  width = len(b.moves)
  places, rows = {0: 0}, []
  fresh = np.zeros(1, np.int64)
  while len(fresh):
    to_a = a.moves[fresh // width][:, pairs[0]].astype(np.int64)
    to_b = b.moves[fresh % width][:, pairs[1]]
    joint = np.where((to_a < 0) | (to_b < 0), NOWHERE, to_a * width + to_b)
    rows.append(joint)
    found = [int(s) for s in np.unique(joint) if s >= 0 and s not in places]
    places.update((s, len(places) + k) for k, s in enumerate(found))
    require_size(len(places), pairs.shape[1], max_entries)
    fresh = np.array(found, np.int64)
  states = np.fromiter(places, np.int64, len(places))
  joint = np.concatenate(rows)
  order = np.argsort(states)
  at = np.searchsorted(states[order], np.maximum(joint, 0))
  moves = np.where(joint < 0, NOWHERE, order[np.minimum(at, len(order) - 1)])
  accepts = a.accepts[states // width] & b.accepts[states % width]
  return minimal(
    Automaton(
      symbol_class.reshape(-1).astype(np.int32), moves.astype(np.int32), accepts
    )
  )


def require_size(
  states: int, classes: int, max_entries: int = MAX_ENTRIES
) -> None:
  """Raises ValueError for a table that is too large."""
  if states * classes > max_entries:
    raise ValueError(
      f'the condition takes {states:,} states or more by {classes:,} classes '
      f'of tokens, above {max_entries:,} entries: ask for less at once'
    )


def lifted(
  automaton: Automaton,
  pieces: Sequence[bytes],
  max_entries: int = MAX_ENTRIES,
) -> Automaton:
  """The sequences of tokens that spell a sequence of bytes in the set.

  Args:
    automaton: over the 256 bytes.
    pieces: the bytes of each token; not empty.
    max_entries: of the table, see `intersection`.

  Raises:
    ValueError: the table would have more than `max_entries` entries, or a piece
      has no bytes.

  >>> text = lifted(containing(b'ab', 256), [b'a', b'b', b'ca', b'bc'])
  >>> text.accepted([2, 3]), text.accepted([2, 0])
  (True, False)
  """
  lengths = np.array([len(piece) for piece in pieces])
  if not lengths.all():
    raise ValueError(f'token {int(np.argmin(lengths))} spells nothing')
  longest = int(lengths.max())
  spelled = np.full((len(pieces), longest), NOWHERE, np.int32)
  for place, piece in enumerate(pieces):
    own = np.frombuffer(piece, np.uint8)
    spelled[place, : len(piece)] = automaton.symbol_class[own]
  # Tokens of the same classes lead to the same: far fewer than tokens.
  classes, of_token = _distinct(spelled)
  lengths = np.sum(classes >= 0, axis=1)
  # What does not move ends at one more state, which stands for -1.
  states = len(automaton.moves)
  # Columns that are found to be the same later are not many times fewer.
  require_size(states, len(classes), 64 * max_entries)
  padded = np.where(automaton.moves < 0, states, automaton.moves)
  padded = np.concatenate([padded, np.full_like(padded[:1], states)])
  rows = []
  for start in range(states):
    at = np.full(len(classes), start)
    going = np.arange(len(classes))
    for place in range(longest):
      going = going[lengths[going] > place]
      at[going] = padded[at[going], classes[going, place]]
      going = going[at[going] != states]
    rows.append(np.where(at == states, NOWHERE, at).astype(np.int32))
  columns, of_class = _distinct(np.stack(rows, axis=1))
  require_size(states, len(columns), max_entries)
  return minimal(
    Automaton(
      of_class[of_token], np.ascontiguousarray(columns.T), automaton.accepts
    )
  )


def minimal(automaton: Automaton) -> Automaton:
  """The smallest automaton of the same set.

  Args:
    automaton: any; of no sequence at all, one state without moves is left.
  """
  used, symbol_class = np.unique(automaton.symbol_class, return_inverse=True)
  columns, classes = _distinct(automaton.moves[:, used].T)
  automaton = Automaton(classes[symbol_class], columns.T, automaton.accepts)
  alive, moves = _alive(automaton), automaton.moves
  moves = np.where((moves >= 0) & alive[moves], moves, NOWHERE)
  # Moore: split states by where they lead until nothing splits.
  label = automaton.accepts.astype(np.int64)
  count = 0
  while True:
    signs = np.where(moves < 0, NOWHERE, label[moves])
    _, label = _distinct(np.concatenate([label[:, None], signs], axis=1))
    if label.max() + 1 == count:
      break
    count = int(label.max()) + 1
  kept = _reached(moves)
  # The start stands first, for it is the first that is reached.
  ordered, first = np.unique(label[kept], return_index=True)
  order = ordered[np.argsort(first)]
  of_label = np.full(count + 1, NOWHERE, np.int32)
  of_label[order] = np.arange(len(order))
  chosen = kept[np.sort(first)]
  merged = np.where(moves[chosen] < 0, NOWHERE, of_label[label[moves[chosen]]])
  columns, classes = _distinct(np.ascontiguousarray(merged.T))
  return Automaton(
    classes[automaton.symbol_class].astype(np.int32),
    np.ascontiguousarray(columns.T).astype(np.int32),
    automaton.accepts[chosen],
  )


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The distinct rows, and for each row the place of its own."""
  rows = np.ascontiguousarray(rows)
  # As bytes: numpy sorts rows of integers far more slowly.
  whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
  _, first, inverse = np.unique(
    whole.reshape(-1), return_index=True, return_inverse=True
  )
  return rows[first], inverse.reshape(-1).astype(np.int32)


def _reached(moves: np.ndarray) -> np.ndarray:
  """States that the start leads to, the start first."""
  found, fresh = [0], [0]
  seen = np.zeros(len(moves), bool)
  seen[0] = True
  while fresh:
    ahead = np.unique(moves[fresh])
    fresh = [int(s) for s in ahead if s >= 0 and not seen[s]]
    seen[fresh] = True
    found += fresh
  return np.array(found)


def _alive(automaton: Automaton) -> np.ndarray:
  """Whether an end can be reached, `[states]`."""
  alive = automaton.accepts.copy()
  while True:
    leads = (automaton.moves >= 0) & alive[automaton.moves]
    more = alive | leads.any(axis=1)
    if np.array_equal(more, alive):
      return alive
    alive = more


def fits(automaton: Automaton, tokens: np.ndarray, given: np.ndarray) -> bool:
  """Whether a sequence of the set has given symbols at given places.

  Args:
    automaton: the set.
    tokens: `[length]`.
    given: `[length]` bool; elsewhere any symbol may stand.
  """
  now = np.zeros(len(automaton.moves), bool)
  now[0] = True
  used = np.unique(automaton.symbol_class)
  for token, fixed in zip(tokens, given):
    chosen = automaton.symbol_class[token] if fixed else used
    ahead = automaton.moves[now][:, chosen]
    now = np.zeros_like(now)
    now[ahead[ahead >= 0]] = True
  return bool(np.any(now & automaton.accepts))
