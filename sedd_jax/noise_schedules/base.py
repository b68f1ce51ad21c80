"""What a noise schedule is."""

import abc
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics


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


def time_of(schedule: Continuous, sigma: ArrayLike) -> Array:
  """The time t in [0, 1] at which a schedule has a total noise, by bisection.

  Args:
    schedule: total noise in time, increasing.
    sigma: any shape; beyond the schedule's range the nearer end is given.

  Returns:
    The shape of sigma.
  """
  sigma = numerics.as_float(sigma)

  def halved(_, ends):
    low, high = ends
    middle = (low + high) / 2
    above = schedule.total(middle) > sigma
    return jnp.where(above, low, middle), jnp.where(above, middle, high)

  ends = jnp.zeros_like(sigma), jnp.ones_like(sigma)
  low, high = jax.lax.fori_loop(0, 40, halved, ends)
  return (low + high) / 2


@runtime_checkable
class Steps(Protocol):
  """Noise in steps: data at step 0, noise at step num_steps.

  Attributes:
    num_steps: their number.
    needs_tokens: whether levels are those of tokens, which `level` then needs.
  """

  num_steps: int
  needs_tokens: bool = False

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
