"""D3PM (arXiv 2107.03006): a network that predicts x_0 in a chain of steps.

p(x_{t-1} | x_t) = theta_post(x_t, x̂_0), eq. 4, for any noise on tokens; the
loss is the variational bound, with a share of cross entropy where asked.
"""

from typing import Any

from sedd_jax import noise_schedules
from sedd_jax.systems import base, parts, step_bound, x0_chain


def make(
  config: Any,
  data_info: Any,
  *,
  hybrid: float = 0.0,
  decoder: str = 'posterior',
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`.
    hybrid: lambda of L_lambda (eq. 5), the weight of the cross entropy
      -log x̂_0(x_0) beside the bound's term of each step; the paper's text
      models have 0 and 0.01.
    decoder: 'posterior', as the released code for text, or 'x0', as that for
      images.

  Returns:
    The system.

  Raises:
    ValueError: names or numbers that do not fit; before compilation.
  """
  if not 0 <= hybrid < float('inf'):
    raise ValueError(f'system.args.hybrid must be at least 0, not {hybrid}')
  process = parts.make_process(config, data_info.vocab_size)
  schedule = parts.make_schedule(config, noise_schedules.Steps)
  chain = step_bound.Chain(process, schedule, decoder)
  denoiser = x0_chain.make_denoiser(config, chain)
  return x0_chain.make(config, chain, denoiser, hybrid=hybrid)
