"""The log-linear schedule: the share of noise grows linearly in time."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics
from sedd_jax.noise_schedules import base


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogLinear(base.Continuous):
  """sigma(t) = -log(1 - (1 - eps) t), SEDD's choice for absorbing noise.

  The probability to have moved is (1 - eps) t exactly (arXiv 2310.16834,
  appendix C.1, with the sign of the released code).

  Attributes:
    eps: share of signal left at t = 1, above 0.

  >>> print(f'{LogLinear(eps=1e-3).total(1.0):.4f}')
  6.9078
  """

  eps: float = dataclasses.field(default=1e-3, metadata={'static': True})

  def __post_init__(self):
    if not 0 < self.eps < 1:
      raise ValueError(f'LogLinear: eps must be in (0, 1), not {self.eps}')

  @classmethod
  def examples(cls) -> tuple['LogLinear', ...]:
    """Instances for the contract tests."""
    return cls(), cls(eps=0.1)

  def total(self, t: ArrayLike) -> Array:
    """Total noise at time t, any shape."""
    t = numerics.as_float(t)
    # Each form where it loses no digits.
    late = t > 0.5
    early = -jnp.log1p(-(1 - self.eps) * jnp.where(late, 0, t))
    return jnp.where(late, -jnp.log(self.alpha_bar(t)), early)

  def rate(self, t: ArrayLike) -> Array:
    """d sigma / d t at time t, any shape."""
    return (1 - self.eps) / self.alpha_bar(t)

  def alpha_bar(self, t: ArrayLike) -> Array:
    """Share of signal 1 - (1 - eps) t at time t, any shape."""
    t = numerics.as_float(t)
    return (1 - t) + self.eps * t
