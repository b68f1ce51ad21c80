"""Count models of text: what a likelihood bound is to be compared with.

  python benchmarks/ngrams.py --source=text8
  python benchmarks/ngrams.py --source=text_file --path=FILE \
    --test-fraction=0.05

An n-gram model predicts a character from the n - 1 before it, by its counts in
the train split mixed with the shorter model's prediction (Witten-Bell): with N
continuations of a context seen, T kinds of them, the shorter model gets the
share T / (N + T).  Prints bits per character and nats per token of a split,
scored from left to right; writes JSON.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import common
import numpy as np

from sedd_jax.data import pipeline


@dataclasses.dataclass(frozen=True)
class Counts:
  """What is counted of the grams of one length.

  Attributes:
    grams: `[k]` their numbers, rising.
    times: `[k]` how often each is there.
    contexts: `[c]` the numbers of what stands before their last token, rising.
    seen: `[c]` how many tokens follow each.
    kinds: `[c]` of how many kinds these are.
  """

  grams: np.ndarray
  times: np.ndarray
  contexts: np.ndarray
  seen: np.ndarray
  kinds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Model:
  """A count model: of each length of a gram, from one token on, its counts."""

  vocab_size: int
  counts: tuple[Counts, ...]


def fitted(train: np.ndarray, vocab_size: int, order: int) -> Model:
  """The count model of a text.

  Args:
    train: `[n]` tokens that are counted.
    vocab_size: symbols; `vocab_size ** order` must be below 2 ** 63.
    order: tokens of the longest gram, 1 for single ones.

  Raises:
    ValueError: for grams that have no number.
  """
  if vocab_size**order >= 2**63:
    raise ValueError(f'grams of {order} of {vocab_size} tokens are too many')
  counts = []
  for n in range(1, order + 1):
    grams, times = np.unique(_grams(train, vocab_size, n), return_counts=True)
    contexts, first = np.unique(grams // vocab_size, return_index=True)
    kinds = np.diff(first, append=len(grams))
    seen = np.add.reduceat(times, first)
    counts.append(Counts(grams, times, contexts, seen, kinds))
  return Model(vocab_size, tuple(counts))


def bits(model: Model, tokens: np.ndarray) -> float:
  """Bits a token under a count model.

  Args:
    model: of `fitted`.
    tokens: `[..., length]`, scored are all but the first `order - 1` of each.

  Returns:
    The mean over the scored tokens.
  """
  size, order = model.vocab_size, len(model.counts)
  probs: Any = 1 / size
  for n, counts in enumerate(model.counts, start=1):
    # Those that end where the longest end.
    grams = _grams(tokens[..., order - n :], size, n)
    times = _found(counts.grams, counts.times, grams)
    seen, kinds = (
      _found(counts.contexts, values, grams // size)
      for values in (counts.seen, counts.kinds)
    )
    total = seen + kinds
    mixed = (times + kinds * probs) / np.where(total > 0, total, 1)
    probs = np.where(total > 0, mixed, probs)
  return float(-np.mean(np.log2(probs)))


def _found(
  keys: np.ndarray, values: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
  """The value of each wanted key, 0 where it is none of the rising keys."""
  places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  return np.where(keys[places] == wanted, values[places], 0)


def _grams(tokens: np.ndarray, vocab_size: int, order: int) -> np.ndarray:
  """Numbers of the grams along the last axis."""
  count = tokens.shape[-1] - order + 1
  return sum(
    tokens[..., place : count + place].astype(np.int64)
    * vocab_size ** (order - 1 - place)
    for place in range(order)
  )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
  """Fits, prints a table and returns what it says."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--source', default='text8')
  parser.add_argument('--path', default='')
  parser.add_argument('--tokenizer', default='text8', help='or any other')
  parser.add_argument('--limit', type=int, default=0)
  parser.add_argument('--validation-fraction', type=float, default=0.05)
  parser.add_argument('--test-fraction', type=float, default=0.0)
  parser.add_argument('--split', default='validation')
  parser.add_argument('--orders', default='1,2,3,4')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  arguments = parser.parse_args(argv)
  data = pipeline.load(
    source=arguments.source,
    path=arguments.path,
    tokenizer=arguments.tokenizer,
    seq_len=1,
    limit=arguments.limit,
    validation_fraction=arguments.validation_fraction,
    test_fraction=arguments.test_fraction,
  )
  info, tokens = data.info, data.tokens(arguments.split)
  share = (
    info.num_tokens[arguments.split] / info.num_characters[arguments.split]
  )
  rows = []
  for order in map(int, arguments.orders.split(',')):
    model = fitted(data.tokens('train'), info.vocab_size, order)
    found = bits(model, tokens)
    rows.append(
      {
        'order': order,
        'bits_per_character': found * share,
        'nats_per_token': found * float(np.log(2)),
      }
    )
  result = {
    'split': arguments.split,
    'num_tokens': dict(data.info.num_tokens),
    'files': [dict(file) for file in data.info.files],
    'rows': rows,
  }
  print(common.table(['order', 'bits_per_character', 'nats_per_token'], rows))
  common.write(arguments.output, result)
  return result


if __name__ == '__main__':
  main()
