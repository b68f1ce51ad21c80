"""Diffusion-LM (arXiv 2205.14217): Gaussian noise on learned embeddings.

The network predicts the vectors x_0 (or their noise), which a softmax rounds to
tokens.  A prompt, anywhere, is infilling: its embeddings stand at every step.
"""

from typing import Any

from sedd_jax.systems import base
from sedd_jax.systems.chains import embedding_chain
from sedd_jax.systems.common import parts


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  by_noise = {
    'system.args.parametrization': 'eps',
    'system.args.importance': True,
    'sampling.method': 'ddim',
    'eval.protocol': 'diffusion_lm',
    'schedule.args.law': 'cosine',
  }
  return embedding_chain.EXAMPLE, {**embedding_chain.EXAMPLE, **by_noise}


def make(
  config: Any,
  data_info: Any,
  *,
  parametrization: str = 'x0',
  importance: bool = False,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`.
    parametrization: the network predicts 'x0', or the noise, 'eps'.
    importance: draw the steps that are trained on by their losses.

  Returns:
    The system; what is given is not counted in its loss.

  Raises:
    ValueError: names and numbers that do not fit; before compilation.
  """
  parts.require_no_labels(config, data_info)
  return embedding_chain.make(
    config, data_info, parametrization=parametrization, importance=importance
  )
