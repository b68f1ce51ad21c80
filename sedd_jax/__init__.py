"""Discrete text diffusion in JAX.

The pure layers import jax and numpy only; `load_run`, which needs the networks,
is imported when first used.
"""

from typing import TYPE_CHECKING, Any

from sedd_jax import core, losses, noise_schedules, processes, samplers
from sedd_jax.processes import log_posterior, posterior

if TYPE_CHECKING:
  from sedd_jax.runs import load_run

__version__ = '0.1.0'

__all__ = [
  'core',
  'load_run',
  'log_posterior',
  'losses',
  'noise_schedules',
  'posterior',
  'processes',
  'samplers',
]


def __getattr__(name: str) -> Any:
  if name == 'load_run':
    from sedd_jax import runs

    return runs.load_run
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
