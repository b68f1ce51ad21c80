"""Count models of text: what a likelihood bound is to be compared with.

  python benchmarks/ngrams.py --source=text8
  python benchmarks/ngrams.py --source=text_file --path=FILE \
    --test-fraction=0.05

An n-gram model predicts a character from the n - 1 before it, by its counts in
the train split mixed with the shorter model's prediction (Witten-Bell): with N
continuations of a context seen, T kinds of them, the shorter model gets the
share T / (N + T).  Prints bits per character of a split, scored from left to
right; writes JSON.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import common
import numpy as np

from sedd_jax.data import pipeline


def fitted(train: np.ndarray, vocab_size: int, order: int) -> np.ndarray:
  """The count model of a text.

  Args:
    train: `[n]` tokens that are counted.
    vocab_size: symbols.
    order: tokens of a gram, 1 for single ones; `vocab_size ** order` counts
      are held.

  Returns:
    `[vocab_size ** (order - 1), vocab_size]`, the law of a token in each
    context.
  """
  # [contexts, symbols] of each length, from none on.
  probs = np.full((1, vocab_size), 1 / vocab_size)
  for n in range(1, order + 1):
    counts = np.bincount(_grams(train, vocab_size, n), minlength=vocab_size**n)
    counts = counts.reshape(-1, vocab_size).astype(np.float64)
    seen = counts.sum(1, keepdims=True)
    kinds = (counts > 0).sum(1, keepdims=True)
    # A context's own suffix is the shorter model's context.
    shorter = np.tile(probs, (len(counts) // len(probs), 1))
    total = seen + kinds
    mixed = (counts + kinds * shorter) / np.where(total > 0, total, 1)
    probs = np.where(total > 0, mixed, shorter)
  return probs


def bits(probs: np.ndarray, tokens: np.ndarray, order: int) -> float:
  """Bits a token under a count model.

  Args:
    probs: of `fitted`.
    tokens: `[..., length]`, scored are all but the first `order - 1` of each.
    order: as in `fitted`.

  Returns:
    The mean over the scored tokens.
  """
  places = _grams(tokens, probs.shape[1], order)
  return float(-np.mean(np.log2(probs.reshape(-1)[places])))


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
  parser.add_argument('--tokenizer', default='text8', help='or bytes')
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
  rows = [
    {
      'order': order,
      'bits_per_character': bits(
        fitted(data.tokens('train'), data.info.vocab_size, order),
        data.tokens(arguments.split),
        order,
      ),
    }
    for order in map(int, arguments.orders.split(','))
  ]
  result = {
    'split': arguments.split,
    'num_tokens': dict(data.info.num_tokens),
    'files': [dict(file) for file in data.info.files],
    'rows': rows,
  }
  print(common.table(['order', 'bits_per_character'], rows))
  common.write(arguments.output, result)
  return result


if __name__ == '__main__':
  main()
