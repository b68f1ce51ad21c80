"""Samplers: the reverse process, step by step."""

from sedd_jax.samplers import ancestral, euler, time_grids, tweedie
from sedd_jax.samplers.loop import (
  GRIDS,
  METHODS,
  jump_probs,
  reverse_probs,
  sample,
)

# All names of `sampling.method`.
NAMES = (*METHODS, 'ancestral')

__all__ = [
  'GRIDS',
  'METHODS',
  'NAMES',
  'ancestral',
  'euler',
  'jump_probs',
  'reverse_probs',
  'sample',
  'time_grids',
  'tweedie',
]
