"""Noise schedules: how much noise there is at time t."""

from sedd_jax.noise_schedules.base import Continuous
from sedd_jax.noise_schedules.geometric import Geometric
from sedd_jax.noise_schedules.log_linear import LogLinear

SCHEDULES = {'log_linear': LogLinear, 'geometric': Geometric}

__all__ = ['SCHEDULES', 'Continuous', 'Geometric', 'LogLinear']
