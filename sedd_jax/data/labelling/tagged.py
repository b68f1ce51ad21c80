"""Pairs whose targets are tagged: facts on words as labels.

A batch has besides what `seq2seq.PairDataset` gives `label [b, n, 3]` int32,
facts of each text as `spans.numbered` has them: all its tags, all its phrases,
and as many places, drawn evenly from all of the text, which are phrases or not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from sedd_jax.data import crops
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import labels
from sedd_jax.data.labelling import labelled, spans, taggers
from sedd_jax.data.labelling.spans import FIRST, Tagged
from sedd_jax.data.paired import seq2seq

# The first of the draws of a row's places, apart from that of the row.
_STREAM = 1


class _Facts(NamedTuple):
  """Facts of the rows of a split, words counted from 0.

  Attributes:
    words: int64 `[rows]`.
    tags: int16 `[rows, words]`, `labels.NONE` behind the last one.
    phrases: int16 `[rows, phrases, 3]`, start, end and number, `labels.NONE`
      behind the last one.
  """

  words: np.ndarray
  tags: np.ndarray
  phrases: np.ndarray


class TaggedPairs(labelled.Labelled):
  """Pairs with the tags and phrases of their targets.

  What is drawn depends on seed, step and index alone, in evaluation on the row.
  All else is as of `seq2seq.PairDataset`.

  Attributes:
    info: that of the pairs, with the labels, see `spans`.
  """

  def __init__(
    self,
    pairs: seq2seq.PairDataset,
    tagger: taggers.Tagger,
    known: Sequence[str] | None = None,
  ):
    """Tags all targets, as far as they are in the batches.

    Args:
      pairs: as they were read.
      tagger: of words.
      known: the labels of a run in the order of their numbers; None: those of
        all splits, by the alphabet.

    Raises:
      DataError: tokens that are no words, another layout than the target
        alone, a label that is not known, and what `taggers.tagged` refuses.
    """
    tokenizer = pairs.info.tokenizer
    taggers.require_words(tokenizer)
    if pairs.layout != 'target':
      raise DataError(
        f'data.label={labels.SPANS!r} is of the words of targets: '
        f"data.layout='target', not {pairs.layout!r}"
      )
    found: dict[str, list[Tagged]] = {}
    for split in pairs.info.num_tokens:
      texts = [
        taggers.words_of(tokenizer, ids) for ids in pairs.target_ids(split)
      ]
      read = pairs.pairs(split)
      places = [read[i].id for i in pairs.places(split)[:, 0]]
      logging.info('tagging %s texts, %s', f'{len(texts):,}', split)
      found[split] = taggers.tagged(tagger, texts, places)
    everything = [one for own in found.values() for one in own]
    own = {
      spans.NO_PHRASE,
      *(spans.tag(name) for one in everything for name in one.tags),
      *(spans.phrase(each[2]) for one in everything for each in one.phrases),
    }
    numbers = labels.numbered(own, known)
    self._none = numbers[spans.NO_PHRASE]
    # One width for all splits: a batch has one shape.
    size = (
      max(len(one.tags) for one in everything),
      max(1, *(len(one.phrases) for one in everything)),
    )
    self._facts = {
      split: _table(rows, size, numbers) for split, rows in found.items()
    }
    super().__init__(pairs, tuple(numbers))

  def train_labels(
    self, seed: int, step: int, indices: np.ndarray
  ) -> np.ndarray:
    """`[b, n, 3]`."""
    facts = self._facts['train']
    rows = crops.starts(seed, step, indices, len(facts.words))
    return self._label(facts, rows, seed, step, indices)

  def eval_labels(self, split: str, indices: np.ndarray) -> np.ndarray:
    """`[b, n, 3]`."""
    facts = self._facts[split]
    rows = np.minimum(indices, len(facts.words) - 1)
    label = self._label(facts, rows, 0, 0, indices)
    label[indices >= len(facts.words), :, 2] = labels.NONE
    return label

  def _label(
    self,
    facts: _Facts,
    rows: np.ndarray,
    seed: int,
    step: int,
    indices: np.ndarray,
  ) -> np.ndarray:
    """Tags, phrases and drawn places of rows, `[b, n, 3]` int32."""
    tags, phrases = facts.tags[rows], facts.phrases[rows]
    starts = np.broadcast_to(np.arange(tags.shape[1]), tags.shape)
    drawn = _drawn(facts, rows, seed, step, indices, self._none)
    found = np.concatenate(
      [np.stack([starts, starts + 1, tags], -1), phrases, drawn], axis=1
    ).astype(np.int32)
    found[..., :2] += FIRST
    return found


def _drawn(
  facts: _Facts,
  rows: np.ndarray,
  seed: int,
  step: int,
  indices: np.ndarray,
  none: int,
) -> np.ndarray:
  """Places of texts, `[b, phrases, 3]`, as many as phrases, one at least."""
  phrases = facts.phrases[rows]
  batch, most, _ = phrases.shape
  words = facts.words[rows][:, None]
  # Of n words there are n (n + 1) / 2, numbered by their ends.
  wide = crops.starts(
    seed,
    step,
    np.repeat(indices, most),
    2**32,
    stream=_STREAM + np.tile(np.arange(most), batch),
  ).reshape(batch, most)
  place = (wide * (words * (words + 1) // 2)) >> 32
  last = ((np.sqrt(8 * place + 1) - 1) / 2).astype(np.int64)
  start, end = place - last * (last + 1) // 2, last + 1
  own = (phrases[:, None, :, 2] >= 0) & np.all(
    phrases[:, None, :, :2] == np.stack([start, end], -1)[:, :, None], axis=-1
  )
  which = np.argmax(own, axis=-1)
  number = np.take_along_axis(phrases[..., 2], which, axis=1)
  label = np.where(own.any(-1), number, none)
  count = np.maximum(np.sum(phrases[..., 2] >= 0, axis=1), 1)
  kept = (np.arange(most) < count[:, None]) & (words > 0)
  return np.stack([start, end, np.where(kept, label, labels.NONE)], -1)


def _table(
  found: Sequence[Tagged], size: tuple[int, int], numbers: dict[str, int]
) -> _Facts:
  words, phrases = size
  table = _Facts(
    np.array([len(one.tags) for one in found], np.int64),
    np.full((len(found), words), labels.NONE, np.int16),
    np.full((len(found), phrases, 3), labels.NONE, np.int16),
  )
  table.phrases[..., :2] = 0, 1
  for i, one in enumerate(found):
    table.tags[i, : len(one.tags)] = [
      numbers[spans.tag(name)] for name in one.tags
    ]
    for k, (start, end, name) in enumerate(one.phrases):
      table.phrases[i, k] = start, end, numbers[spans.phrase(name)]
  return table
