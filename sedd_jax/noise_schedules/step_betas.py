"""Schedules in steps: step t noises a token with probability beta_t."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import names, numerics
from sedd_jax.noise_schedules import base


def _cosine(schedule: 'StepBetas') -> np.ndarray:
  """alpha_bar_t = f(t) / f(0), f(t) = cos(pi/2 (t/T + .008) / 1.008).

  Source: arXiv 2102.05379, section 4 (its step t is the code's t + 1), and
  arXiv 2107.03006, eq. 18, whose printed "+ pi/2" is a product.
  """
  steps = schedule.num_steps
  f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2)
  # At the end f is 0 but for rounding.
  return 1 - np.maximum(f[1:], 0) / f[:-1]


def _linear(schedule: 'StepBetas') -> np.ndarray:
  """beta_t from `first` to `last` in equal steps (arXiv 2006.11239)."""
  return np.linspace(schedule.first, schedule.last, schedule.num_steps)


def _reciprocal(schedule: 'StepBetas') -> np.ndarray:
  """beta_t = 1 / (T - t + 1): alpha_bar_t = 1 - t/T (arXiv 1503.03585)."""
  return 1 / np.arange(schedule.num_steps, 0, -1, dtype=np.float64)


BETAS: dict[str, Callable[['StepBetas'], np.ndarray]] = {
  'cosine': _cosine,
  'linear': _linear,
  'reciprocal': _reciprocal,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepBetas(base.Steps):
  """Step t = 1, ..., T noises a token with probability beta_t.

  alpha_bar_t = prod_{s <= t} (1 - beta_s) is the share of signal left; its
  level, the total noise -log alpha_bar_t, drives uniform and absorbing noise.
  Tables are computed in float64 and rounded once.

  Attributes:
    num_steps: T.
    betas: name of the law, of `BETAS`: 'cosine' (arXiv 2102.05379, 2107.03006),
      'linear' from `first` to `last`, or 'reciprocal', 1 / (T - t + 1).
    first: beta_1 of 'linear'.
    last: beta_T of 'linear'.
    min_alpha: 1 - beta_t is at least this; D3PM's cosine has 0.001, multinomial
      diffusion's sqrt(0.001), and 0 lets the last step take all.

  >>> schedule = StepBetas(num_steps=4, betas='reciprocal', min_alpha=0.0)
  >>> print(jnp.exp(-schedule.level(jnp.arange(5))))
  [1.   0.75 0.5  0.25 0.  ]
  """

  num_steps: int = dataclasses.field(default=1000, metadata={'static': True})
  betas: str = dataclasses.field(default='cosine', metadata={'static': True})
  first: float = dataclasses.field(default=0.02, metadata={'static': True})
  last: float = dataclasses.field(default=1.0, metadata={'static': True})
  min_alpha: float = dataclasses.field(default=0.001, metadata={'static': True})

  def __post_init__(self):
    if self.num_steps < 2:
      raise ValueError(
        f'StepBetas: num_steps must be at least 2, not {self.num_steps}'
      )
    if not 0 <= self.min_alpha < 1:
      raise ValueError(
        f'StepBetas: min_alpha must be in [0, 1), not {self.min_alpha}'
      )
    names.resolve(BETAS, self.betas, 'betas')
    if not 0 < self.first <= self.last <= 1:
      raise ValueError(
        'StepBetas: first and last must satisfy 0 < first <= last <= 1, not '
        f'{self.first} and {self.last}'
      )

  @classmethod
  def examples(cls) -> tuple['StepBetas', ...]:
    """Instances for the contract tests."""
    return (
      cls(num_steps=10),
      cls(num_steps=1000, min_alpha=0.001**0.5),
      cls(num_steps=12, betas='linear'),
      cls(num_steps=7, betas='reciprocal', min_alpha=0.0),
    )

  def betas_table(self) -> np.ndarray:
    """beta_1, ..., beta_T, `[num_steps]` in float64."""
    return _tables(self)[0]

  def level(self, step: ArrayLike, tokens: Array | None = None) -> Array:
    """Total noise after so many steps, of the steps' shape; tokens are unused.

    Args:
      step: integers in [0, num_steps], any shape.
      tokens: there so that all schedules are called alike.

    Returns:
      -log alpha_bar; infinite where nothing is left.
    """
    del tokens
    table = jnp.asarray(_tables(self)[1], numerics.compute_dtype())
    return table[jnp.asarray(step)]


@functools.lru_cache(maxsize=64)
def _tables(schedule: StepBetas) -> tuple[np.ndarray, np.ndarray]:
  """The betas `[num_steps]` and the levels `[num_steps + 1]`, in float64."""
  betas = names.resolve(BETAS, schedule.betas, 'betas')(schedule)
  betas = np.minimum(betas, 1 - schedule.min_alpha)
  with np.errstate(divide='ignore'):
    levels = -np.cumsum(np.log1p(-betas))
  # A 0 without a sign.
  return betas, np.concatenate([[0.0], levels])
