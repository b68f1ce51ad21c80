"""What a noise schedule is."""

import abc
from typing import Protocol

from jax import Array
from jax.typing import ArrayLike


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
