"""Schedules of masked diffusion: the share of masks as a curve in time."""

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics
from sedd_jax.noise_schedules import base


class _Curve(base.Continuous):
  """alpha_bar(t) = 1 - (1 - eps) g(t), g rising from 0 to 1."""

  eps: float

  @abc.abstractmethod
  def _curve(self, t: Array) -> tuple[Array, Array, Array]:
    """g, 1 - g without loss of digits, and the derivative of g."""

  def _require_eps(self) -> None:
    if not 0 < self.eps < 1:
      raise ValueError(
        f'{type(self).__name__}: eps must be in (0, 1), not {self.eps}'
      )

  def total(self, t: ArrayLike) -> Array:
    """Total noise at time t, any shape."""
    g, rest, _ = self._curve(numerics.as_float(t))
    # Each form where it loses no digits.
    late = g > 0.5
    early = -jnp.log1p(-(1 - self.eps) * jnp.where(late, 0, g))
    return jnp.where(late, -jnp.log(rest + self.eps * g), early)

  def rate(self, t: ArrayLike) -> Array:
    """d sigma / d t at time t, any shape."""
    g, rest, slope = self._curve(numerics.as_float(t))
    return (1 - self.eps) * slope / (rest + self.eps * g)

  def alpha_bar(self, t: ArrayLike) -> Array:
    """Share of signal left at time t, any shape."""
    g, rest, _ = self._curve(numerics.as_float(t))
    return rest + self.eps * g


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cosine(_Curve):
  """Masks at a share (1 - eps) sin(pi t / 2) (MD4, arXiv 2406.04329, table 1).

  Attributes:
    eps: share of signal left at t = 1, above 0.

  >>> print(f'{Cosine(eps=1e-3).alpha_bar(1 / 3):.4f}')
  0.5005
  """

  eps: float = dataclasses.field(default=1e-3, metadata={'static': True})

  def __post_init__(self):
    self._require_eps()

  @classmethod
  def examples(cls) -> tuple['Cosine', ...]:
    """Instances for the contract tests."""
    return cls(), cls(eps=0.1)

  def _curve(self, t: Array) -> tuple[Array, Array, Array]:
    # Angles from the nearer end: 1 - sin(x) = 2 sin^2((pi/2 - x) / 2).
    left = math.pi / 2 * (1 - t)
    rest = 2 * jnp.sin(left / 2) ** 2
    return jnp.sin(math.pi / 2 * t), rest, math.pi / 2 * jnp.sin(left)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Polynomial(_Curve):
  """Masks at a share (1 - eps) t^power (MD4, arXiv 2406.04329, table 1).

  Attributes:
    eps: share of signal left at t = 1, above 0.
    power: above 0; 1 is the log-linear schedule.

  >>> print(Polynomial(eps=0.5, power=2.0).alpha_bar(0.5))
  0.875
  """

  eps: float = dataclasses.field(default=1e-3, metadata={'static': True})
  power: float = dataclasses.field(default=2.0, metadata={'static': True})

  def __post_init__(self):
    self._require_eps()
    if not 0 < self.power < math.inf:
      raise ValueError(f'Polynomial: power must be above 0, not {self.power}')

  @classmethod
  def examples(cls) -> tuple['Polynomial', ...]:
    """Instances for the contract tests."""
    return cls(), cls(power=3.0), cls(power=1.0)

  def _curve(self, t: Array) -> tuple[Array, Array, Array]:
    # 1 - t^p from 1 - t, which is exact for t from 1/2 on.
    late = t > 0.5
    inner = -jnp.expm1(self.power * jnp.log1p(-(1 - jnp.where(late, t, 1))))
    rest = jnp.where(late, inner, 1 - t**self.power)
    return t**self.power, rest, self.power * t ** (self.power - 1)
