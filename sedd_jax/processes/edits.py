"""Edits: tokens of a sequence are kept, replaced, deleted, others inserted.

DiffusER, arXiv 2210.16886, section 2.  An edit of a sequence has a tag for each
token, a flag for each gap between tokens (before the first and after the last
too), and the spans that fill its slots.  What is deleted is dropped first; then
a flagged gap is one slot, and replaced tokens next to each other, without a
flag between them, are one slot together.

Numpy alone: sequences change their length, so they are edited on the host.
Tokens may be anything that compares, such as characters.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Tags of tokens; INSERT is an operation without a token of its own.
KEEP, REPLACE, DELETE, INSERT = range(4)
OPERATIONS = ('keep', 'replace', 'delete', 'insert')

Operation = tuple[int, Sequence[Any]]


class Edit(NamedTuple):
  """An edit of a sequence of n tokens.

  Attributes:
    tags: `[n]` of KEEP, REPLACE, DELETE.
    inserts: `[n + 1]` bool, whether something is put in before the token, or at
      the end.
    spans: tokens of each slot, from left to right; see `slots`.
  """

  tags: np.ndarray
  inserts: np.ndarray
  spans: tuple[tuple[Any, ...], ...]


class Slots(NamedTuple):
  """Where an edit puts its spans, k tokens not being deleted.

  Attributes:
    kept: `[k]`, places of the tokens that are not deleted.
    insert: `[k + 1]`, the slot before each of them and at the end, or -1.
    replace: `[k]`, the slot that each of them makes room for, or -1.
    number: of slots.
  """

  kept: np.ndarray
  insert: np.ndarray
  replace: np.ndarray
  number: int


def slots(tags: np.ndarray, inserts: np.ndarray) -> Slots:
  """The slots of an edit, numbered from left to right.

  Args:
    tags: `[n]`.
    inserts: `[n + 1]` bool.

  Raises:
    ValueError: for other shapes.

  >>> slots(np.array([DELETE, KEEP, REPLACE, REPLACE]), np.eye(5)[2] > 0)
  Slots(kept=array([1, 2, 3]), insert=array([-1,  0, -1, -1]), \
replace=array([-1,  1,  1]), number=2)
  """
  tags, inserts = np.asarray(tags, np.int8), np.asarray(inserts, bool)
  if tags.ndim != 1 or inserts.shape != (len(tags) + 1,):
    raise ValueError(
      f'tags {tags.shape} and inserts {inserts.shape} do not fit: [n] and '
      '[n + 1]'
    )
  kept = np.flatnonzero(tags != DELETE)
  flags = np.zeros(len(kept) + 1, bool)
  flags[np.searchsorted(kept, np.flatnonzero(inserts))] = True
  replaced = tags[kept] == REPLACE
  goes_on = np.append(False, replaced[:-1])[: len(kept)] & ~flags[:-1]
  begins = np.append(replaced & ~goes_on, False)
  numbers = np.cumsum(np.stack([flags, begins], axis=1).ravel()) - 1
  return Slots(
    kept,
    np.where(flags, numbers[::2], -1),
    np.where(replaced, numbers[1:-1:2], -1),
    int(numbers[-1]) + 1,
  )


def applied(x: Sequence[Any], edit: Edit) -> tuple[Any, ...]:
  """The sequence after an edit.

  Args:
    x: n tokens.
    edit: of n tokens.

  Raises:
    ValueError: the edit is of another length, or has not one span a slot.

  >>> edit = Edit([DELETE, KEEP, REPLACE], [0, 0, 0, 1], [['o', 'a'], ['t']])
  >>> ''.join(applied('xcu', edit))
  'coat'
  """
  if len(x) != len(edit.tags):
    raise ValueError(f'an edit of {len(edit.tags)} tokens, not of {len(x)}')
  found = slots(edit.tags, edit.inserts)
  if len(edit.spans) != found.number:
    raise ValueError(f'{len(edit.spans)} spans for {found.number} slots')
  out: list[Any] = []
  before = -1
  columns = (column.tolist() for column in found[:3])
  for place, insert, replace in zip(*columns):
    if insert >= 0:
      out += edit.spans[insert]
    if replace < 0:
      out.append(x[place])
    elif replace != before:
      out += edit.spans[replace]
    before = replace
  if found.insert[-1] >= 0:
    out += edit.spans[found.insert[-1]]
  return tuple(out)


def of_operations(operations: Iterable[Operation]) -> Edit:
  """An edit from operations in order, of one token each but for INSERT.

  Args:
    operations: `(operation, tokens)`: what INSERT puts in, or what comes in
      place of a replaced token, which may be more or less than one; no tokens
      for the others.

  Returns:
    The edit; what several operations put into one slot is joined.
  """
  operations = list(operations)
  tags = np.array([o for o, _ in operations if o != INSERT], np.int8)
  inserts = np.zeros(len(tags) + 1, bool)
  gap = 0
  for operation, tokens in operations:
    inserts[gap] |= operation == INSERT and len(tokens) > 0
    gap += operation != INSERT
  found = slots(tags, inserts)
  # Of each gap and token: how many tokens before it are kept.
  before = [0, *np.cumsum(tags != DELETE).tolist()]
  spans: list[list[Any]] = [[] for _ in range(found.number)]
  gap = 0
  for operation, tokens in operations:
    if operation == INSERT and len(tokens):
      spans[found.insert[before[gap]]] += tokens
    elif operation == REPLACE:
      spans[found.replace[before[gap]]] += tokens
    gap += operation != INSERT
  return Edit(tags, inserts, tuple(map(tuple, spans)))


def carried_out(
  x: Sequence[Any], operations: Iterable[Operation]
) -> tuple[Any, ...]:
  """`applied(x, of_operations(operations))`, without making the edit."""
  out: list[Any] = []
  place = 0
  for operation, tokens in operations:
    if operation == KEEP:
      out.append(x[place])
    elif operation != DELETE:
      out += tokens
    place += operation != INSERT
  return tuple(out)


def inverse(x: Sequence[Any], edit: Edit) -> Edit:
  """The edit that leads from `applied(x, edit)` back to x.

  What was inserted is deleted, what was deleted is inserted, and what was
  replaced is replaced.

  Args:
    x: n tokens.
    edit: of n tokens.

  >>> edit = Edit([DELETE, KEEP], [0, 0, 1], [['t']])
  >>> y = applied('ao', edit)
  >>> ''.join(y), ''.join(applied(y, inverse('ao', edit)))
  ('ot', 'ao')
  """
  found = slots(edit.tags, edit.inserts)
  operations: list[Operation] = []
  done = 0
  for j, place in enumerate(found.kept):
    # What was deleted within a replaced run has come back with it.
    operations += [(INSERT, (token,)) for token in x[done:place]]
    if found.insert[j] >= 0:
      operations += [(DELETE, ())] * len(edit.spans[found.insert[j]])
    number = found.replace[j]
    if number < 0:
      operations.append((KEEP, ()))
    elif not j or found.replace[j - 1] != number:
      last = found.kept[np.flatnonzero(found.replace == number)[-1]]
      operations += _replaced(x[place : last + 1], len(edit.spans[number]))
      place = last
    done = max(done, place + 1)
  operations += [(INSERT, (token,)) for token in x[done:]]
  if found.insert[-1] >= 0:
    operations += [(DELETE, ())] * len(edit.spans[found.insert[-1]])
  return of_operations(operations)


def _replaced(tokens: Sequence[Any], count: int) -> list[Operation]:
  """`tokens` in place of `count` others."""
  if not count:
    return [(INSERT, tokens)]
  return [(REPLACE, tokens), *[(REPLACE, ())] * (count - 1)]


def _suffix_distances(x: Sequence[Any], y: Sequence[Any]) -> np.ndarray:
  """`[len(x) + 1, len(y) + 1]`, the distance of x[i:] and y[j:]."""
  codes = {token: i for i, token in enumerate(dict.fromkeys((*x, *y)))}
  a, b = (np.array([codes[t] for t in s], np.int64) for s in (x, y))
  places = np.arange(len(b) + 1)
  table = np.empty((len(a) + 1, len(b) + 1), np.int64)
  table[-1] = len(b) - places
  for i in reversed(range(len(a))):
    row = table[i + 1] + 1
    row[:-1] = np.minimum(row[:-1], table[i + 1, 1:] + (b != a[i]))
    # Insertions: the least of row[k] + k - j over k >= j.
    table[i] = np.minimum.accumulate((row + places)[::-1])[::-1] - places
  return table


def distance(x: Sequence[Any], y: Sequence[Any]) -> int:
  """Levenshtein's distance: replaced, deleted and inserted tokens, the least.

  >>> distance('kitten', 'sitting')
  3
  """
  return int(_suffix_distances(x, y)[0, 0])


def alignment(x: Sequence[Any], y: Sequence[Any]) -> Edit:
  """An edit from x to y with the fewest tokens changed.

  Of several, the one found from left to right that at each place rather keeps
  than replaces, rather replaces than deletes, rather deletes than inserts.

  Args:
    x: n tokens.
    y: the sequence after the edit.

  >>> alignment('abcd', 'bxd').tags
  array([2, 0, 1, 0], dtype=int8)
  """
  table = _suffix_distances(x, y)
  operations: list[Operation] = []
  i = j = 0
  while i < len(x) or j < len(y):
    both = i < len(x) and j < len(y)
    if both and x[i] == y[j] and table[i, j] == table[i + 1, j + 1]:
      operations.append((KEEP, ()))
      i, j = i + 1, j + 1
    elif both and table[i, j] == table[i + 1, j + 1] + 1:
      operations.append((REPLACE, (y[j],)))
      i, j = i + 1, j + 1
    elif i < len(x) and table[i, j] == table[i + 1, j] + 1:
      operations.append((DELETE, ()))
      i += 1
    else:
      operations.append((INSERT, (y[j],)))
      j += 1
  return of_operations(operations)


def cost(edit: Edit) -> int:
  """Tokens that an edit changes; at least the distance that it covers.

  A deletion and an inserted token count one each; of replaced tokens and those
  in their place the more count.
  """
  found = slots(edit.tags, edit.inserts)
  replaced = found.replace[found.replace >= 0]
  taken = np.bincount(replaced, minlength=found.number)
  put = np.array([len(span) for span in edit.spans], np.int64)
  deleted = int(np.sum(np.asarray(edit.tags) == DELETE))
  return deleted + int(np.sum(np.maximum(put, taken)))


def pieces(
  state: Sequence[Any], edit: Edit
) -> list[tuple[str, tuple[Any, ...]]]:
  """A state and its edit as runs of tokens that are kept, go out or come in.

  Those kept or come in are the next state, those kept or gone out this one.

  Args:
    state: n tokens.
    edit: of n tokens.

  Returns:
    `(kind, tokens)`, kind 'keep', 'out' or 'in', no two neighbours alike.

  >>> edit = Edit([2, 0, 1], [0, 0, 0, 0], [['t']])
  >>> pieces('xab', edit)
  [('out', ('x',)), ('keep', ('a',)), ('out', ('b',)), ('in', ('t',))]
  """
  found = slots(edit.tags, edit.inserts)
  runs: list[tuple[str, tuple[Any, ...]]] = []
  done = 0
  for j, place in enumerate([*found.kept.tolist(), len(state)]):
    runs.append(('out', tuple(state[done:place])))
    if j and found.replace[j - 1] >= 0 and not _goes_on(found, j):
      runs.append(('in', edit.spans[found.replace[j - 1]]))
    if found.insert[j] >= 0:
      runs.append(('in', edit.spans[found.insert[j]]))
    if place < len(state):
      kind = 'keep' if found.replace[j] < 0 else 'out'
      runs.append((kind, (state[place],)))
    done = place + 1
  return _joined(runs)


def _goes_on(found: Slots, j: int) -> bool:
  """Whether the replaced run before the j-th place goes on there."""
  return j < len(found.kept) and found.replace[j] == found.replace[j - 1]


def _joined(
  runs: Iterable[tuple[str, tuple[Any, ...]]],
) -> list[tuple[str, tuple[Any, ...]]]:
  out: list[tuple[str, tuple[Any, ...]]] = []
  for kind, tokens in runs:
    if out and tokens and out[-1][0] == kind:
      out[-1] = kind, (*out[-1][1], *tokens)
    elif tokens:
      out.append((kind, tuple(tokens)))
  return out


def is_identity(edit: Edit) -> bool:
  """Whether all is kept and nothing put in."""
  return not np.any(edit.tags) and not np.any(edit.inserts)
