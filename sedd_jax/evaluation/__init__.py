"""Evaluation: likelihood bounds, samples as text, pages.  Sees functions."""

from sedd_jax.evaluation import generate, likelihood, report

__all__ = ['generate', 'likelihood', 'report']
