"""Targets of words and phrases, and how much of them a text has.

As arXiv 2205.14217 evaluates them (section 6.1): parts of speech by the words
that have theirs, a span by whether it is a phrase of that name, trees by F1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from sedd_jax.data.labelling import spans, taggers


class Words:
  """A tagger of tokens that are words, which remembers what it has said."""

  def __init__(self, tagger: taggers.Tagger, tokenizer: Any):
    """With a tokenizer of words.

    Raises:
      DataError: tokens that are no words.
    """
    taggers.require_words(tokenizer)
    self._tagger, self._tokenizer = tagger, tokenizer
    self._known: dict[tuple[int, ...], spans.Tagged] = {}

  def __call__(self, ids: np.ndarray, place: str = 'a sample') -> spans.Tagged:
    """What it says of ids `[words]` without marks.

    Raises:
      DataError: see `taggers.tagged`; names the place.
    """
    key = tuple(np.asarray(ids).tolist())
    if key not in self._known:
      words = taggers.words_of(self._tokenizer, ids)
      (self._known[key],) = taggers.tagged(self._tagger, [words], [place])
    return self._known[key]


def _span(said: spans.Tagged, row: int) -> str:
  """One of the phrases of a text, of several words if there is any."""
  longer = [each for each in said.phrases if each[1] - each[0] > 1]
  among = longer or list(said.phrases)
  return spans.written_phrase(*among[row % len(among)])


WRITTEN: dict[str, Callable[[spans.Tagged, int], str]] = {
  spans.POS: lambda said, row: spans.written_tags(said.tags),
  spans.SPAN: _span,
  spans.PARSE: lambda said, row: spans.written_parse(said),
}


def tag_accuracy(said: spans.Tagged, wanted: str) -> float:
  """The share of wanted tags that the words at their places have.

  >>> tag_accuracy(spans.Tagged(('DT', 'NN'), ()), 'DT JJ NN')
  0.3333333333333333
  """
  tags = wanted.split()
  own = spans.written_tags(said.tags).split()
  return sum(a == b for a, b in zip(own, tags)) / len(tags)


def has_phrase(said: spans.Tagged, wanted: str) -> bool:
  """Whether a phrase is among those of a text."""
  return wanted in _phrases(said)


def phrase_f1(said: spans.Tagged, wanted: str) -> float:
  """F1 of the phrases of a text against those of a parse.

  >>> said = spans.Tagged(('DT', 'NN', 'VBZ'), [(0, 2, 'NP'), (2, 3, 'VP')])
  >>> round(phrase_f1(said, 'NP[0:2] VP[2:4] [4:5]'), 3)
  0.5
  """
  own = _phrases(said)
  parse = {each for each in wanted.split() if not each.startswith('[')}
  return 2 * len(own & parse) / (len(own) + len(parse))


def _phrases(said: spans.Tagged) -> set[str]:
  return {spans.written_phrase(*each) for each in said.phrases}


MEASURED: dict[str, Callable[[spans.Tagged, str], float]] = {
  spans.POS: tag_accuracy,
  spans.SPAN: has_phrase,
  spans.PARSE: phrase_f1,
}
