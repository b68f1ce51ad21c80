"""Noise that edits: spans are kept, replaced, deleted and inserted.

DiffusER, arXiv 2210.16886, section 2.1.  Numpy alone, on the host.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from sedd_jax.processes import edits


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditNoise:
  """One step of noise: spans are kept, replaced, deleted, inserted.

  From left to right an operation is drawn by the rates and a length by a
  Poisson law, 0 counting as 1.  KEEP, REPLACE (by as many random tokens) and
  DELETE take that many of the next tokens, or those that are left; INSERT puts
  as many random tokens in and takes none.  At the end operations are drawn as
  long as they are INSERT.  Random tokens are uniform over the vocabulary, or
  come as often as their weights say.

  Attributes:
    vocab_size: data symbols.
    keep: rate of KEEP, with the others summing to 1.
    replace: rate of REPLACE.
    delete: rate of DELETE.
    insert: rate of INSERT, below 1.
    mean_length: of the Poisson law; the paper's is 3 for translation, 8 for
      summaries.
    excluded: symbols that are no random token, such as marks around a text.
    weights: of each symbol as a random token, such as its count in a corpus;
      of the excluded they are not read.  None: all alike.
  """

  vocab_size: int
  keep: float = 0.6
  replace: float = 0.2
  delete: float = 0.1
  insert: float = 0.1
  mean_length: float = 3.0
  excluded: tuple[int, ...] = ()
  weights: tuple[float, ...] | None = None

  def __post_init__(self) -> None:
    rates = self.rates
    if min(rates) < 0 or abs(sum(rates) - 1) > 1e-6 or self.insert >= 1:
      told = ', '.join(f'{n} {r}' for n, r in zip(edits.OPERATIONS, rates))
      raise ValueError(
        f'rates of edits are not below 0, sum to 1, and insert is below 1, not '
        f'{told}'
      )
    if not 0 <= self.mean_length < 1e6:
      raise ValueError(
        f'mean_length of edits is from 0 to 1e6, not {self.mean_length}'
      )
    if self.weights is None:
      return
    if len(self.weights) != self.vocab_size or min(self.weights) < 0:
      raise ValueError(
        f'weights of random tokens are one a symbol, {self.vocab_size}, and '
        f'not below 0; here are {len(self.weights)}, the least '
        f'{min(self.weights, default=None)}'
      )
    if not self._steps[-1] > 0:
      raise ValueError('weights of random tokens: all are 0')

  @classmethod
  def examples(cls) -> tuple['EditNoise', ...]:
    """Instances for tests."""
    many = cls(
      vocab_size=3,
      keep=0.3,
      replace=0.2,
      delete=0.2,
      insert=0.3,
      mean_length=1.0,
    )
    return cls(vocab_size=5, weights=(1.0, 0.0, 2.0, 0.0, 0.5)), many

  @functools.cached_property
  def _steps(self) -> np.ndarray:
    """`[vocab_size]`, the summed weights up to each symbol."""
    weights = np.array(self.weights, np.float64)
    weights[list(self.excluded)] = 0
    return np.cumsum(weights)

  @property
  def rates(self) -> tuple[float, ...]:
    """Of KEEP, REPLACE, DELETE and INSERT."""
    return self.keep, self.replace, self.delete, self.insert

  def draw(
    self, rng: np.random.Generator, x: Sequence[int], longest: int
  ) -> edits.Edit:
    """An edit of x by one step of noise.

    Args:
      rng: which alone it depends on, besides the other arguments.
      x: tokens.
      longest: tokens that the result may have; insertions are cut to it.

    Returns:
      The edit; its inverse is what a model learns.
    """
    return edits.of_operations(self._drawn(rng, x, longest))

  def _drawn(
    self, rng: np.random.Generator, x: Sequence[int], longest: int
  ) -> list[edits.Operation]:
    """The operations of `draw`."""
    steps = list(itertools.accumulate(self.rates[:-1]))
    operations: list[edits.Operation] = []
    place, room = 0, longest - len(x)
    while True:
      operation = bisect.bisect_right(steps, rng.random())
      length = max(1, int(rng.poisson(self.mean_length)))
      if operation == edits.INSERT:
        count = max(0, min(length, room))
        operations.append((edits.INSERT, self.random_tokens(rng, count)))
        room -= count
        continue
      if place == len(x):
        return operations
      count = min(length, len(x) - place)
      if operation == edits.REPLACE:
        operations += [
          (edits.REPLACE, (token,)) for token in self.random_tokens(rng, count)
        ]
      else:
        operations += [(operation, ())] * count
      place += count
      room += count * (operation == edits.DELETE)

  def random_tokens(
    self, rng: np.random.Generator, count: int
  ) -> tuple[int, ...]:
    """So many tokens by the weights, or uniform, without `excluded`."""
    if self.weights is not None:
      total = self._steps[-1]
      # A product may be rounded up to the total, beyond the last symbol.
      places = np.minimum(rng.random(count) * total, np.nextafter(total, 0))
      return tuple(np.searchsorted(self._steps, places, 'right').tolist())
    drawn = rng.integers(self.vocab_size - len(self.excluded), size=count)
    for symbol in sorted(self.excluded):
      drawn += drawn >= symbol
    return tuple(drawn.tolist())

  def chain(
    self, rng: np.random.Generator, x: Sequence[int], steps: int, longest: int
  ) -> tuple[tuple[int, ...], edits.Edit]:
    """A sequence after some steps of noise, and the edit that undoes the last.

    Args:
      rng: see `draw`.
      x: tokens.
      steps: at least 1.
      longest: tokens that a state may have.

    Returns:
      x_t and the edit to x_{t-1}.

    >>> noise = EditNoise(vocab_size=5)
    >>> x_1, edit = noise.chain(np.random.default_rng(0), (1, 2, 3, 4), 1, 9)
    >>> edits.applied(x_1, edit)
    (1, 2, 3, 4)
    """
    before = tuple(x)
    for _ in range(steps - 1):
      before = edits.carried_out(before, self._drawn(rng, before, longest))
    edit = self.draw(rng, before, longest)
    return edits.applied(before, edit), edits.inverse(before, edit)
