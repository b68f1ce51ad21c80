"""Evaluation: likelihoods, samples and their quality.  Sees functions."""

from sedd_jax.evaluation import (
  generate,
  generation,
  judges,
  likelihood,
  report,
  text_metrics,
)

__all__ = [
  'generate',
  'generation',
  'judges',
  'likelihood',
  'report',
  'text_metrics',
]
