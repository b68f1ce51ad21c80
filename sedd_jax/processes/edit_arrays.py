"""States and edits as arrays of one shape, for networks.

A state of n tokens has n + 1 places: its tokens and an end, which carries the
last gap's flag.  The writer of spans is shown what is left after deletion, with
the number of the slot before and of the slot at each place (from 1; 0: none).
Its text is, slot by slot, a marker, the tokens of the span and an end.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sedd_jax.processes import edits

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """Sizes of the arrays, and symbols beyond the data's.

  Attributes:
    vocab_size: data symbols.
    capacity: tokens that a state may have.
    written: length of the writer's text; a slot takes two and its tokens.
  """

  vocab_size: int
  capacity: int
  written: int

  def __post_init__(self) -> None:
    if self.capacity < 1 or self.written < 3:
      raise ValueError(
        f'states of at most {self.capacity} tokens and spans of {self.written} '
        'in all: at least 1 and 3 are needed'
      )

  @property
  def end(self) -> int:
    """The symbol at the end of a state, and of a span."""
    return self.vocab_size

  @property
  def marker(self) -> int:
    """The symbol before a span."""
    return self.vocab_size + 1

  @property
  def places(self) -> int:
    """Of a state."""
    return self.capacity + 1

  @property
  def most_slots(self) -> int:
    """Slots that there can be a span for."""
    return self.written // 2

  def state(self, x: Sequence[int]) -> Arrays:
    """A state.

    Args:
      x: at most `capacity` tokens.

    Returns:
      `state [places]` int32, tokens and the end; `state_valid [places]` bool.

    Raises:
      ValueError: for too many tokens.

    >>> Layout(vocab_size=5, capacity=3, written=8).state((1, 2))
    {'state': array([1, 2, 5, 0], dtype=int32), \
'state_valid': array([ True,  True,  True, False])}
    """
    if len(x) > self.capacity:
      raise ValueError(
        f'a state of {len(x)} tokens, more than the capacity of {self.capacity}'
      )
    return {
      'state': _padded((*x, self.end), self.places),
      'state_valid': np.arange(self.places) <= len(x),
    }

  def tags(self, tags: np.ndarray, inserts: np.ndarray) -> Arrays:
    """Tags and flags of an edit: `tags` and `inserts`, `[places]` int32."""
    return {
      'tags': _padded(tags, self.places),
      'inserts': _padded(inserts, self.places),
    }

  def context(self, x: Sequence[int], slots: edits.Slots) -> Arrays:
    """What the writer is shown of a state and its slots.

    Args:
      x: tokens.
      slots: of an edit of x.

    Returns:
      `kept [places]` int32, the tokens not deleted and the end; `kept_valid`
      bool; `insert_slot` and `replace_slot` int32.
    """
    kept = [x[place] for place in slots.kept.tolist()]
    return {
      'kept': _padded((*kept, self.end), self.places),
      'kept_valid': np.arange(self.places) <= len(kept),
      'insert_slot': _padded(slots.insert + 1, self.places),
      'replace_slot': _padded(slots.replace + 1, self.places),
    }

  def text(self, spans: Sequence[Sequence[int]]) -> Arrays:
    """The writer's text; what is beyond `written` is cut off.

    Args:
      spans: tokens of each slot.

    Returns:
      `text [written]` int32; `text_slot` int32, the slot's number; and
      `text_scored` bool, where tokens and ends of spans stand: markers are not
      predicted, for the number of slots is known; and `text_cut`, a bool,
      whether anything was cut off.
    """
    text: list[int] = []
    numbers: list[int] = []
    for number, span in enumerate(spans, 1):
      text += [self.marker, *span, self.end]
      numbers += [number] * (len(span) + 2)
    cut = len(text) > self.written
    text, numbers = text[: self.written], numbers[: self.written]
    found = _padded(text, self.written)
    scored = (found != self.marker) & (np.arange(self.written) < len(text))
    return {
      'text': found,
      'text_slot': _padded(numbers, self.written),
      'text_scored': scored,
      'text_cut': np.bool_(cut),
    }

  def example(self, x: Sequence[int], edit: edits.Edit) -> Arrays:
    """All arrays of a state and the edit that is to be learned."""
    slots = edits.slots(edit.tags, edit.inserts)
    return {
      **self.state(x),
      **self.tags(edit.tags, edit.inserts),
      **self.context(x, slots),
      **self.text(edit.spans),
    }

  def spans(self, text: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The spans of a text: the reverse of `text`.

    Args:
      text: `[n]`, each span closed by its end.
    """
    found: list[tuple[int, ...]] = []
    span: list[int] = []
    open_span = False
    for symbol in text.tolist():
      if symbol == self.marker:
        span, open_span = [], True
      elif symbol == self.end and open_span:
        found.append(tuple(span))
        open_span = False
      elif open_span:
        span.append(symbol)
    return tuple(found)


def stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
  """Rows of arrays as arrays of rows."""
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _padded(values: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
  out = np.zeros(length, np.int32)
  out[: len(values)] = values
  return out
