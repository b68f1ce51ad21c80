"""Grids of times for the reverse process."""

import jax.numpy as jnp
from jax import Array

from sedd_jax.core import numerics


def uniform(steps: int, t_min: float) -> Array:
  """`steps + 1` times from 1 down to t_min, evenly spaced.

  Args:
    steps: number of steps.
    t_min: the last time, where the final denoising starts.

  Returns:
    `[steps + 1]`, decreasing.
  """
  return jnp.linspace(1.0, t_min, steps + 1, dtype=numerics.compute_dtype())
