"""Tags and phrases of texts, as what is written and as numbers.

A *fact* is a label of some words of a text, the words counted from 0:

- `NNP[0]`: a tag of one word, its part of speech;
- `NP[2:5]`: a phrase of the words 2, 3 and 4, and `[2:5]` that they are none;
- `pos: NNP VBZ * NN`: tags of the first words, `*` for any;
- `parse: NP[0:2] VP[2:5] NP[3:5]`: a whole parse, all phrases of a text that
  ends where the last of them does; any other words are no phrase.

Labels of a classifier of such facts are `pos[NNP]`, `span[NP]`, and `span[]` of
words that are no phrase.  (Controls of arXiv 2205.14217, section 6.)
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sedd_jax.core import names
from sedd_jax.data.labelling import meanings

# Fields of the labels; and what all phrases of a text are called.
POS, SPAN, PARSE = 'pos', 'span', 'parse'
KINDS = (POS, SPAN, PARSE)
# In place of a tag.
ANY = '*'
NO_PHRASE = meanings.label_of(SPAN, '')
# Tokens before the first word: [CLS].
FIRST = 1

_FACT = re.compile(r'([^\[\]\s]*)\[(\d+)(:\d+)?\]')
_LIST = re.compile(rf'({POS}|{PARSE}):(?:\s+(.*))?')
# Numbers of facts in an array, so that others are the same program's.
_LEAST = 8
# Signs that have a meaning in what is written, as the Penn treebank names them.
_SPELLED = {'[': '-LSB-', ']': '-RSB-', ANY: 'SYM'}


class Fact(NamedTuple):
  """A label of the words from `start` to before `end`."""

  start: int
  end: int
  label: str


class Tagged(NamedTuple):
  """What a tagger says of a text.

  Attributes:
    tags: of each word.
    phrases: start, end (exclusive) and name of each phrase; of the same words
      one at most.
  """

  tags: Sequence[str]
  phrases: Sequence[tuple[int, int, str]]


def tag(name: str) -> str:
  """The label of a tag.

  >>> tag('NNP'), tag(']')
  ('pos[NNP]', 'pos[-RSB-]')
  """
  return meanings.label_of(POS, _SPELLED.get(name, name))


def phrase(name: str) -> str:
  """The label of a phrase; of '' that of none."""
  return meanings.label_of(SPAN, _SPELLED.get(name, name))


def read(text: str) -> list[Fact] | None:
  """The facts of a control; None where the text is none of these.

  Raises:
    ValueError: words that are none, or a list that is none.

  >>> read('NP[2:5]'), read('pos: DT *')
  ([Fact(start=2, end=5, label='span[NP]')], [Fact(start=0, end=1, \
label='pos[DT]')])
  >>> [fact.label for fact in read('parse: NP[0:2]')]
  ['span[]', 'span[NP]', 'span[]']
  """
  if found := _LIST.fullmatch(text):
    parts = (found[2] or '').split()
    if not parts:
      raise ValueError(f'control {text!r} has nothing in it')
    if found[1] == POS:
      return [
        Fact(i, i + 1, tag(name)) for i, name in enumerate(parts) if name != ANY
      ]
    return _parse([_fact(part, f'control {text!r}') for part in parts], text)
  if _FACT.fullmatch(text) is None:
    return None
  return [_fact(text, 'control')]


def _fact(text: str, where: str) -> Fact:
  found = _FACT.fullmatch(text)
  if found is None or (not found[1] and not found[3]):
    raise ValueError(
      f'{where}: {text!r} is neither a tag as NNP[0] nor a phrase as NP[2:5]'
    )
  start = int(found[2])
  if not found[3]:
    return Fact(start, start + 1, tag(found[1]))
  end = int(found[3][1:])
  if end <= start:
    raise ValueError(
      f'{where}: {text!r} has no words: the end, {end}, must be above {start}'
    )
  return Fact(start, end, phrase(found[1]))


def _parse(facts: Sequence[Fact], text: str) -> list[Fact]:
  """All words that are or are no phrase, of a text that ends with the last."""
  tags = [fact for fact in facts if meanings.field_of(fact.label) == POS]
  if tags:
    raise ValueError(
      f'control {text!r}: a parse is of phrases, as NP[2:5], and '
      f'{_told(tags[0])} is a tag'
    )
  end = max(fact.end for fact in facts)
  own = {(fact.start, fact.end) for fact in facts}
  others = [
    Fact(i, j, NO_PHRASE)
    for i in range(end)
    for j in range(i + 1, end + 1)
    if (i, j) not in own
  ]
  return sorted([*facts, *others])


def written_tags(tags: Sequence[str]) -> str:
  """Tags as `pos:` lists them.

  >>> written_tags(['DT', '*'])
  'DT SYM'
  """
  return ' '.join(_SPELLED.get(name, name) for name in tags)


def written_phrase(start: int, end: int, name: str) -> str:
  """A phrase as a control has it.

  >>> written_phrase(2, 5, 'NP')
  'NP[2:5]'
  """
  return f'{_SPELLED.get(name, name)}[{start}:{end}]'


def written_parse(found: Tagged) -> str:
  """The phrases of a text as `parse:` lists them; they tell where it ends.

  >>> written_parse(Tagged(('DT', 'NN', '.'), [(0, 2, 'NP')]))
  'NP[0:2] [2:3]'
  """
  end = len(found.tags)
  told = [written_phrase(*each) for each in found.phrases]
  if all(each[1] < end for each in found.phrases):
    told.append(written_phrase(end - 1, end, ''))
  return ' '.join(told)


def numbered(
  wanted: Sequence[Sequence[Fact]],
  labels: Sequence[str],
  words: Sequence[int],
) -> np.ndarray:
  """Facts of some texts as numbers.

  Args:
    wanted: of each text.
    labels: in the order of their numbers.
    words: that each text has at most.

  Returns:
    int32 `[texts, facts, 3]`: the first token, that behind the last one, and
    the label's number, -1 where a text has fewer facts than another.

  Raises:
    ValueError: an unknown label, words that there are not, and two tags of a
      word or two phrases of the same words.
  """
  known = {label: number for number, label in enumerate(labels)}
  rows = [_distinct(facts, known, most) for facts, most in zip(wanted, words)]
  longest = max([_LEAST, *map(len, rows)])
  array = np.zeros((len(rows), 1 << (longest - 1).bit_length(), 3), np.int32)
  array[..., 1], array[..., 2] = 1, -1
  for row, own in zip(array, rows):
    if own:
      row[: len(own)] = own
  return array


def _distinct(
  facts: Sequence[Fact], known: dict[str, int], words: int
) -> list[tuple[int, int, int]]:
  """The facts of a text as numbers, each once."""
  found: dict[tuple[int, int, str], Fact] = {}
  for fact in facts:
    field, name = meanings.field_of(fact.label), fact.label
    if name not in known:
      told = {label for label in known if meanings.field_of(label) == field}
      kind = 'tag' if field == POS else 'phrase'
      raise ValueError(
        f'control {_told(fact)}: unknown {kind}; '
        f'{names.alternatives(_plain(name), map(_plain, told))}'
      )
    if fact.end > words:
      raise ValueError(
        f'control {_told(fact)}: the text has {words} words at most'
      )
    other = found.setdefault((fact.start, fact.end, field), fact)
    if other.label != fact.label:
      raise ValueError(
        f'controls {_told(other)} and {_told(fact)} contradict each other'
      )
  return [
    (fact.start + FIRST, fact.end + FIRST, known[fact.label])
    for fact in found.values()
  ]


def _plain(label: str) -> str:
  """What stands in a label's brackets."""
  return label[label.index('[') + 1 : -1]


def _told(fact: Fact) -> str:
  """A fact as it is written."""
  name = _plain(fact.label)
  if meanings.field_of(fact.label) == POS:
    return f'{name}[{fact.start}]'
  return f'{name}[{fact.start}:{fact.end}]'
