"""What a noise schedule is."""

from typing import Protocol

from jax import Array
from jax.typing import ArrayLike


class Continuous(Protocol):
  """Noise in continuous time t in [0, 1]: data at 0, noise at 1."""

  def total(self, t: ArrayLike) -> Array:
    """Total noise sigma(t) = -log alpha_bar(t); t and result of any shape."""

  def rate(self, t: ArrayLike) -> Array:
    """d sigma / d t, the rate at which noise is added at time t."""

  def alpha_bar(self, t: ArrayLike) -> Array:
    """e^-sigma(t), the share of signal left at time t."""
