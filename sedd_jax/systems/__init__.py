"""Systems: process, schedule, network, loss and sampler put together."""

from typing import Any

from sedd_jax.core import names
from sedd_jax.systems import (
  autoregressive,
  classifier,
  d3pm,
  diffuseq,
  diffuser,
  diffusion_bert,
  diffusion_lm,
  masked_diffusion,
  multinomial,
  sedd,
  span_classifier,
  token_classifier,
)
from sedd_jax.systems.base import (
  Bound,
  Loss,
  Request,
  Samples,
  System,
  TaskError,
)
from sedd_jax.systems.editing.revising import Revised

SYSTEMS = {
  'sedd': sedd.make,
  'multinomial': multinomial.make,
  'd3pm': d3pm.make,
  'diffusion_bert': diffusion_bert.make,
  'masked_diffusion': masked_diffusion.make,
  'diffuser': diffuser.make,
  'autoregressive': autoregressive.make,
  'diffusion_lm': diffusion_lm.make,
  'diffuseq': diffuseq.make,
  'classifier': classifier.make,
  'span_classifier': span_classifier.make,
  'token_classifier': token_classifier.make,
}

__all__ = [
  'SYSTEMS',
  'Bound',
  'Loss',
  'Request',
  'Revised',
  'Samples',
  'System',
  'TaskError',
  'make',
]


def make(config: Any, data_info: Any) -> System:
  """The system that `config.system` names.

  Args:
    config: the whole config.
    data_info: what is known of the data, among it `vocab_size`.

  Returns:
    The system.

  Raises:
    ValueError: an unknown name, or arguments that do not fit; before anything
      is compiled.
  """
  return names.build(
    SYSTEMS,
    config.system.name,
    'system',
    config.system.args,
    {'config': config, 'data_info': data_info},
  )
