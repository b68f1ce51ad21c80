"""The geometric schedule: total noise interpolated in its logarithm."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics
from sedd_jax.noise_schedules import base


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Geometric(base.Continuous):
  """sigma(t) = sigma_min^(1 - t) sigma_max^t, SEDD's choice for uniform noise.

  Source: arXiv 2310.16834, appendix C.1.  sigma(0) is sigma_min, not 0.

  Attributes:
    sigma_min: total noise at t = 0.
    sigma_max: total noise at t = 1.

  >>> print(f'{Geometric().total(1.0):.3f}')
  20.000
  """

  sigma_min: float = dataclasses.field(default=1e-4, metadata={'static': True})
  sigma_max: float = dataclasses.field(default=20.0, metadata={'static': True})

  def __post_init__(self):
    if not 0 < self.sigma_min < self.sigma_max < math.inf:
      raise ValueError(
        'Geometric: sigma_min and sigma_max must satisfy 0 < sigma_min < '
        f'sigma_max, not {self.sigma_min} and {self.sigma_max}'
      )

  @classmethod
  def examples(cls) -> tuple['Geometric', ...]:
    """Instances for the contract tests."""
    return cls(), cls(sigma_min=1e-3, sigma_max=1.0)

  def total(self, t: ArrayLike) -> Array:
    """Total noise at time t, any shape."""
    t = numerics.as_float(t)
    return jnp.exp(
      (1 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max)
    )

  def rate(self, t: ArrayLike) -> Array:
    """d sigma / d t at time t, any shape."""
    return self.total(t) * math.log(self.sigma_max / self.sigma_min)

  def alpha_bar(self, t: ArrayLike) -> Array:
    """Share of signal left at time t, any shape."""
    return jnp.exp(-self.total(t))
