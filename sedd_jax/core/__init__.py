"""Arithmetic, randomness and shape rules that every other room builds on."""

from sedd_jax.core import categorical, keys, numerics, shapes, times

__all__ = ['categorical', 'keys', 'numerics', 'shapes', 'times']
