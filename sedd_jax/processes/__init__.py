"""Noise processes: what noise does to a token."""

from sedd_jax.processes import rates
from sedd_jax.processes.absorbing import Absorbing
from sedd_jax.processes.base import (
  Relaxing,
  TokenProcess,
  log_posterior,
  posterior,
)
from sedd_jax.processes.uniform import Uniform

PROCESSES = {'uniform': Uniform, 'absorbing': Absorbing}

__all__ = [
  'PROCESSES',
  'Absorbing',
  'Relaxing',
  'TokenProcess',
  'Uniform',
  'log_posterior',
  'posterior',
  'rates',
]
