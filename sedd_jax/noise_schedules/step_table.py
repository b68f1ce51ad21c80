"""A schedule in steps by the list of its levels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, trees
from sedd_jax.noise_schedules import base


@trees.register
@dataclasses.dataclass(frozen=True, eq=False)
class StepTable(base.Steps):
  """The level after each step, given.

  Attributes:
    levels: `[num_steps + 1]`, from 0, increasing; the last may be infinite.

  >>> schedule = StepTable(levels=np.array([0.0, 0.5, np.inf]))
  >>> schedule.num_steps, float(schedule.level(1))
  (2, 0.5)
  """

  levels: Any

  def __post_init__(self):
    levels = np.asarray(self.levels, np.float64)
    if levels.ndim != 1 or len(levels) < 2:
      raise ValueError('StepTable: levels must be those of 0, 1, ... steps')
    if levels[0] != 0 or not (np.diff(levels) > 0).all():
      raise ValueError('StepTable: levels must increase from 0')

  @classmethod
  def examples(cls) -> tuple['StepTable', ...]:
    """Instances for the contract tests."""
    return (
      cls(levels=np.append(np.linspace(0, 6, 7), np.inf)),
      cls(levels=np.arange(9.0)),
    )

  @classmethod
  def counted(cls, num_steps: int) -> 'StepTable':
    """The level is the number of the step, as tabulated chains have it."""
    return cls(levels=np.arange(num_steps + 1.0))

  def __eq__(self, other: object) -> bool:
    """Whether the levels are equal."""
    return trees.same(self, other)

  # Compared by value, with an array for a value.
  __hash__ = None  # type: ignore[assignment]

  def with_levels(self, levels: ArrayLike) -> 'StepTable':
    """The same with other levels, also in traced code; unchecked."""
    return jax.tree.unflatten(jax.tree.structure(self), [levels])

  @property
  def num_steps(self) -> int:  # type: ignore[override]
    """T."""
    return np.shape(self.levels)[0] - 1

  def level(self, step: ArrayLike, tokens: Array | None = None) -> Array:
    """The level after so many steps, of the steps' shape; tokens are unused.

    Args:
      step: integers in [0, num_steps], any shape.
      tokens: there so that all schedules are called alike.
    """
    del tokens
    table = jnp.asarray(self.levels, numerics.compute_dtype())
    return table[jnp.asarray(step)]


@trees.register
class MutualInformation(StepTable):
  """Levels that take the same share of the information away at every step.

  A config that names it gets the levels of `processes.mutual_information` for
  its process and the frequencies of tokens (arXiv 2107.03006, A.7).
  """
