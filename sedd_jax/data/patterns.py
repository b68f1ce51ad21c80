"""Texts, regular expressions and JSON schemas as automata over bytes.

Expressions are parsed by interegular and schemas turned into expressions by
outlines-core (extra `constraints`); what is done here is from characters to
UTF-8.  `core.automata.lifted` goes on from bytes to tokens.
"""

import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from sedd_jax.core import automata
from sedd_jax.core.automata import NOWHERE, Automaton
from sedd_jax.data.errors import DataError
from sedd_jax.data.tokenizers import Tokenizer

# In no UTF-8: what stands for a token that is no text.
NO_TEXT = b'\xff'
# Characters that an expression may write, repetitions counted: beyond, the
# library and the smallest automaton take minutes.
MAX_PLACES = 4096
_NEEDS_EXTRA = "pip install 'sedd_jax[constraints]'"
# First bytes of UTF-8 to the bytes that may follow them, where not 80 to bf.
_SECOND = {
  0xE0: range(0xA0, 0xC0),
  0xED: range(0x80, 0xA0),
  0xF0: range(0x90, 0xC0),
  0xF4: range(0x80, 0x90),
}
_FURTHER = range(0x80, 0xC0)


def over_tokens(
  automaton: Automaton, tokenizer: Tokenizer, *, written: bool = False
) -> Automaton:
  """The sequences of tokens whose text is in a set of byte strings.

  Args:
    automaton: over bytes.
    tokenizer: has `pieces`.
    written: a token that is no text, as an end of text, counts as what `decode`
      writes for it, and not as what no text has in it.

  Raises:
    DataError: a tokenizer whose tokens spell no bytes of their own.
    ValueError: the automaton would be too large.
  """
  if tokenizer.pieces is None:
    raise DataError(
      f'the text of a token of tokenizer {tokenizer.name!r} depends on its '
      'neighbours: expressions are for text8, bytes and byte-level BPE (gpt2, '
      'train-tokenizer)'
    )
  pieces = [
    piece or (tokenizer.decode([i]).encode() if written else b'') or NO_TEXT
    for i, piece in enumerate(tokenizer.pieces)
  ]
  return automata.lifted(automaton, pieces)


def containing(text: str) -> Automaton:
  """The byte strings that contain a text."""
  return automata.containing(text.encode(), 256)


def avoiding(text: str) -> Automaton:
  """The byte strings that do not contain a text."""
  return automata.avoiding(text.encode(), 256)


def regex(pattern: str) -> Automaton:
  """The byte strings that a regular expression matches as a whole.

  Python's syntax without anchors, word boundaries and references to groups; of
  `\\w`, `\\d`, `\\s` the characters of ASCII.

  Args:
    pattern: the expression.

  Raises:
    DataError: without interegular, for an expression that it cannot take, or
      one of more than `MAX_PLACES` characters with its repetitions.
  """
  try:
    import interegular
  except ModuleNotFoundError as error:
    raise DataError(
      f'a regular expression needs interegular: {_NEEDS_EXTRA}'
    ) from error
  try:
    parsed = interegular.parse_pattern(pattern)
    places = _places(parsed)
    machine = parsed.to_fsm() if places <= MAX_PLACES else None
  # The library has errors of several kinds, without a common parent.
  except Exception as error:
    told = ' '.join(f'{error}'.split()) or type(error).__name__
    raise DataError(
      f'regular expression {pattern!r}: {type(error).__name__}: {told} '
      '(anchors, word boundaries and references to groups are not for automata)'
    ) from error
  if machine is None:
    raise DataError(
      f'regular expression {pattern[:60]!r}: {places:,} characters with its '
      f'repetitions, above {MAX_PLACES:,}: repeat fewer times, or without end'
    )
  named = {
    symbol: key
    for symbol, key in machine.alphabet.items()
    if isinstance(symbol, str)
  }
  # Without a key of their own where an expression takes none of them.
  rest = (k for symbol, k in machine.alphabet.items() if symbol not in named)
  other = next(rest, None)
  moves = {
    state: {key: end for key, end in row.items() if machine.islive(end)}
    for state, row in machine.map.items()
  }
  return of_characters(moves, machine.initial, machine.finals, named, other)


def _places(part: Any) -> int:
  """Characters of a parsed expression, those repeated so many times."""
  inner = [
    each
    for field in dataclasses.fields(part)
    for value in [getattr(part, field.name)]
    for each in (value if isinstance(value, tuple) else [value])
    if dataclasses.is_dataclass(each)
  ]
  # Repeated without end, it takes as many as it must.
  times = max(getattr(part, 'max', None) or 1, getattr(part, 'min', 1))
  return times * sum(map(_places, inner)) if inner else 1


def json_schema(schema: str) -> str:
  """The regular expression of the JSON texts that satisfy a schema.

  Args:
    schema: JSON text.  What of the language is supported is as outlines-core
      says; it writes objects in the order of `properties`.

  Raises:
    DataError: without outlines-core, or for a schema that it cannot take.
  """
  try:
    from outlines_core import json_schema as library
  except ModuleNotFoundError as error:
    raise DataError(
      f'a JSON schema needs outlines-core: {_NEEDS_EXTRA}'
    ) from error
  try:
    json.loads(schema)
    return library.build_regex_from_schema(schema)
  # The library's errors have no common parent below Exception.
  except Exception as error:
    raise DataError(f'JSON schema: {" ".join(str(error).split())}') from error


def of_characters(
  moves: Mapping[Any, Mapping[Any, Any]],
  initial: Any,
  finals: Any,
  named: Mapping[str, Any],
  other: Any,
) -> Automaton:
  """An automaton over characters as one over the bytes of UTF-8.

  Args:
    moves: state to symbol's key to state; what is missing leads nowhere.
    initial: the start.
    finals: states where a text may end.
    named: the characters that have keys of their own.
    other: the key of all others.

  >>> moves = {0: {'e': 1, '*': 0}, 1: {}}
  >>> found = of_characters(moves, 0, {1}, {'\\xe9': 'e'}, '*')
  >>> [found.accepted(t.encode()) for t in ('\\xe9', 'ab\\xe9', '\\xe8')]
  [True, True, False]
  """
  multibyte = [symbol for symbol in named if ord(symbol) > 127]
  prefixes = {
    symbol.encode()[:size] for symbol in multibyte for size in range(1, 4)
  }

  def ahead(state: Any, key: Any) -> Hashable | None:
    end = moves.get(state, {}).get(key)
    return None if end is None else ('at', end)

  def after_byte(place: Any, byte: int) -> Hashable | None:
    """Where a byte leads: at a state, inside a character, or any one's end."""
    kind, state, *rest = place
    if kind == 'at' and byte < 0x80:
      return ahead(state, named.get(chr(byte), other))
    if kind == 'rest':
      left = rest[0]
      if byte not in _FURTHER:
        return None
      return ('at', state) if left == 1 else ('rest', state, left - 1)
    read = bytes([byte]) if kind == 'at' else rest[0] + bytes([byte])
    size = _size(read[0])
    if not size or (len(read) > 1 and not _continues(read)):
      return None
    if len(read) == size:
      return ahead(state, named.get(read.decode(), other))
    if read in prefixes or (len(read) == 1 and byte in _SECOND):
      return ('in', state, read)
    end = ahead(state, other)
    return (
      None if end is None else ('rest', moves[state][other], size - len(read))
    )

  # One byte of those that are told apart nowhere above.
  apart = {byte for prefix in prefixes for byte in prefix} | {*_SECOND}
  apart |= {byte for symbol in multibyte for byte in symbol.encode()}
  kinds = [
    byte
    if byte in apart
    else ('ascii', named.get(chr(byte), other))
    if byte < 0x80
    else ('size', _size(byte), *(byte in known for known in _SECOND.values()))
    for byte in range(256)
  ]
  return _explored(
    ('at', initial),
    after_byte,
    lambda p: p[0] == 'at' and p[1] in finals,
    kinds,
  )


def _size(first: int) -> int:
  """Bytes of a character by its first one, 0 where none begins so."""
  for size, begins in ((2, range(0xC2, 0xE0)), (3, range(0xE0, 0xF0))):
    if first in begins:
      return size
  return 4 if 0xF0 <= first < 0xF5 else 0


def _continues(read: bytes) -> bool:
  allowed = _SECOND.get(read[0], _FURTHER) if len(read) == 2 else _FURTHER
  return read[-1] in allowed


def _explored(
  start: Hashable,
  after_byte: Callable[[Any, int], Hashable | None],
  is_final: Callable[[Any], bool],
  kinds: Sequence[Hashable],
) -> Automaton:
  """The automaton over bytes of a function from place to place.

  Bytes of one kind (`[256]`) lead from each place to the same.
  """
  of_kind = {kind: byte for byte, kind in enumerate(kinds)}
  number = {kind: k for k, kind in enumerate(of_kind)}
  places = {start: 0}
  rows = []
  queue = [start]
  for place in queue:
    row = np.full(len(of_kind), NOWHERE, np.int32)
    for column, byte in enumerate(of_kind.values()):
      end = after_byte(place, byte)
      if end is None:
        continue
      if end not in places:
        places[end] = len(places)
        queue.append(end)
      row[column] = places[end]
    rows.append(row)
  return automata.minimal(
    Automaton(
      np.array([number[kind] for kind in kinds], np.int32),
      np.stack(rows),
      np.array([is_final(place) for place in queue]),
    )
  )
