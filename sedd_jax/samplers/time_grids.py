"""Grids of times and steps for the reverse process."""

import jax.numpy as jnp
import numpy as np
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


def strided(num_steps: int, steps: int) -> np.ndarray:
  """`steps + 1` step numbers from num_steps down to 0, as even as they can be.

  Args:
    num_steps: of the chain.
    steps: how many of its steps are taken at once in one.

  Returns:
    int `[steps + 1]`, strictly decreasing.

  Raises:
    ValueError: more steps than the chain has, or none.

  >>> strided(10, 4).tolist()
  [10, 8, 5, 2, 0]
  """
  if not 1 <= steps <= num_steps:
    raise ValueError(
      f'steps must be from 1 to the {num_steps} of the chain, not {steps}'
    )
  return np.rint(np.linspace(num_steps, 0, steps + 1)).astype(np.int32)
