"""What a noise schedule is."""

import abc
from typing import Protocol, runtime_checkable

from jax import Array
from jax.typing import ArrayLike


@runtime_checkable
class Continuous(Protocol):
  """Noise in continuous time t in [0, 1]: data at 0, noise at 1."""

  @abc.abstractmethod
  def total(self, t: ArrayLike) -> Array:
    """Total noise sigma(t) = -log alpha_bar(t); t and result of any shape."""

  @abc.abstractmethod
  def rate(self, t: ArrayLike) -> Array:
    """d sigma / d t, the rate at which noise is added at time t."""

  @abc.abstractmethod
  def alpha_bar(self, t: ArrayLike) -> Array:
    """e^-sigma(t), the share of signal left at time t."""


@runtime_checkable
class Steps(Protocol):
  """Noise in steps: data at step 0, noise at step num_steps.

  Attributes:
    num_steps: their number.
  """

  num_steps: int

  @abc.abstractmethod
  def level(self, step: ArrayLike, tokens: Array | None = None) -> Array:
    """The process's level after so many steps.

    Args:
      step: integers in [0, num_steps], any shape.
      tokens: `[..., length]` int32, clean tokens, for schedules whose level
        depends on them; others ignore them.

    Returns:
      Levels of the steps' shape; `[..., length]` where they depend on
      tokens.
    """
