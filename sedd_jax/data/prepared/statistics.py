"""How often each token comes, for noise that depends on it."""

import json
import os
import pathlib

import numpy as np

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import durable
from sedd_jax.data.prepared import shards

# What a run writes beside its config.
FILE = 'statistics.json'

# Tokens that are counted at a time: a mapped file is never whole in memory.
_CHUNK = 1 << 24


def count(tokens: shards.Tokens, vocab_size: int) -> np.ndarray:
  """Occurrences of each token.

  Args:
    tokens: `[num_tokens]` integers below vocab_size, in memory or mapped, of
      one file or several.
    vocab_size: of the data.

  Returns:
    int64 `[vocab_size]`.

  >>> count(np.array([0, 2, 2]), 4).tolist()
  [1, 0, 2, 0]
  """
  total = np.zeros(vocab_size, np.int64)
  for first in range(0, len(tokens), _CHUNK):
    chunk = tokens[first : first + _CHUNK]
    total += np.bincount(chunk, minlength=vocab_size)
  return total


def write(path: str | os.PathLike, counts: np.ndarray) -> None:
  """Writes counts as JSON, whole or not at all."""
  text = json.dumps({'token_counts': counts.tolist()})
  durable.write_text(pathlib.Path(path), f'{text}\n')


def read(path: str | os.PathLike, vocab_size: int) -> np.ndarray:
  """Counts that `write` wrote.

  Args:
    path: of the file.
    vocab_size: of the data.

  Returns:
    int64 `[vocab_size]`.

  Raises:
    DataError: a file that is missing, no such file, or of another vocabulary.
  """
  try:
    counts = json.loads(pathlib.Path(path).read_text())['token_counts']
    counts = np.asarray(counts, np.int64)
  except FileNotFoundError as error:
    raise DataError(
      f'no token counts at {path}: data.statistics names the {FILE} of a run, '
      'or is empty for those of the train split'
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise DataError(f'{path} holds no token counts: {error!r}') from error
  if counts.shape != (vocab_size,) or (counts < 0).any():
    raise DataError(
      f'{path} has counts of shape {counts.shape}, and the vocabulary has '
      f'{vocab_size} tokens'
    )
  return counts
