"""Where training crops begin: a pure function of seed, step and index.

A counter-based generator needs no state: the place of a crop follows from the
place of its sequence in the global batch alone, whichever process asks for it
and whatever else it asks for.  Philox4x32-10: Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011.
"""

import numpy as np
from numpy.typing import ArrayLike

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_KEY_STEPS = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
_ROUNDS = 10
_WORD = 2**32
_LOW = np.uint64(_WORD - 1)
_HALF = np.uint64(32)


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
  """Philox4x32-10, for many counters at once.

  Args:
    counters: `[4, n]` uint64, each below 2**32.
    key: two integers below 2**32.

  Returns:
    `[4, n]` uint64, each below 2**32: independent uniform words.

  >>> zeros = np.zeros((4, 1), np.uint64)
  >>> [hex(int(word)) for word in philox(zeros, (0, 0))[:, 0]]
  ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
  """
  even, odd = counters[::2], counters[1::2]
  round_key = np.array(key, np.uint64)[:, None]
  for _ in range(_ROUNDS):
    products = even * _MULTIPLIERS
    even = (products >> _HALF)[::-1] ^ odd ^ round_key
    odd = (products & _LOW)[::-1]
    round_key = (round_key + _KEY_STEPS) & _LOW
  return np.stack([even[0], odd[0], even[1], odd[1]])


def starts(
  seed: int,
  step: int,
  indices: ArrayLike,
  num_starts: int,
  *,
  stream: ArrayLike = 0,
) -> np.ndarray:
  """First tokens of the crops of one step.

  Args:
    seed: of the run, from 0 to 2**64 - 1.
    step: of training, from 0 to 2**64 - 1.
    indices: `[n]` places in the global batch, from 0 to 2**32 - 1.
    num_starts: places that a crop can begin at.
    stream: below 2**32, one or `[n]`; others draw of the same index something
      else.

  Returns:
    `[n]` int64, uniform on 0 to num_starts - 1 (to one part in
    2**64 / num_starts).

  Raises:
    ValueError: for a number out of its range.

  >>> both = starts(0, 7, [3, 5], 1000)
  >>> bool(both[1] == starts(0, 7, [5], 1000)[0])
  True
  """
  index = np.asarray(indices)
  if index.ndim != 1:
    raise ValueError(f'indices has shape {index.shape}, not [n]')
  if index.size and not 0 <= index.min() <= index.max() < _WORD:
    raise ValueError('an index is below 0 or not below 2**32')
  for name, value in (('seed', seed), ('step', step)):
    if not 0 <= value < _WORD**2:
      raise ValueError(f'{name} is {value}, not from 0 to 2**64 - 1')
  step_high, step_low = divmod(int(step), _WORD)
  seed_high, seed_low = divmod(int(seed), _WORD)
  counters = np.zeros((4, index.size), np.uint64)
  counters[0] = index
  counters[1] = step_low
  counters[2] = step_high
  counters[3] = stream
  words = philox(counters, (seed_low, seed_high))
  wide = (words[0] << _HALF) | words[1]
  return (wide % np.uint64(num_starts)).astype(np.int64)
