"""D3PM (arXiv 2107.03006): a network that predicts x_0 in a chain of steps.

p(x_{t-1} | x_t) = theta_post(x_t, x̂_0), eq. 4, for any noise on tokens; the
loss is the variational bound, with a share of cross entropy where asked.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax import noise_schedules
from sedd_jax.processes import (
  Band,
  NearestNeighbor,
  OrdinalGaussian,
  mutual_information,
  nearest_neighbor,
)
from sedd_jax.systems import base
from sedd_jax.systems.bounds import step_bound
from sedd_jax.systems.chains import x0_chain
from sedd_jax.systems.common import denoiser as denoiser_lib
from sedd_jax.systems.common import parts


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  learned = {
    'process.name': 'nearest_neighbor',
    'process.args.k': 2,
    'process.args.finest': 0.01,
    'process.args.furthest': 10.0,
    'schedule.name': 'mutual_information',
    'training.refresh_every': 5,
  }
  # Each step masks a share of any seven symbols, and leaves some signal.
  step = 0.6 * np.eye(8)
  step[:, :7] += 0.1 / 7 * np.append(np.ones(7), 0)[:, None]
  step[:, 7] += np.append(np.full(7, 0.3), 0.4)
  masked = {
    'process.name': 'tabulated',
    'process.args.matrices': [step.tolist()] * 6,
  }
  example = step_bound.EXAMPLE
  return example, {**example, **learned}, {**example, **masked}


def make(
  config: Any,
  data_info: Any,
  *,
  hybrid: float = 0.0,
  decoder: str = 'posterior',
  timed: bool = True,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`, and `token_counts` for mutual information.
    hybrid: lambda of L_lambda (eq. 5), the weight of the cross entropy
      -log x̂_0(x_0) beside the bound's term of each step; the paper's text
      models have 0 and 0.01.
    decoder: 'posterior', as the released code for text, or 'x0', as that for
      images.
    timed: whether the network is told the step.

  Returns:
    The system.

  Raises:
    ValueError: names or numbers that do not fit; before compilation.
  """
  if not 0 <= hybrid < float('inf'):
    raise ValueError(f'system.args.hybrid must be at least 0, not {hybrid}')
  process, schedule = parts.make_chain(config, data_info)
  if isinstance(process, OrdinalGaussian | Band) and not config.data.ordered:
    raise ValueError(
      f'process.name {config.process.name!r} moves between neighbours in the '
      "order of the vocabulary, and this data's symbols have none "
      '(data.ordered is False)'
    )
  chain = step_bound.Chain(process, schedule, decoder)
  denoiser = denoiser_lib.make(config, process, data_info, timed=timed)
  noise = None
  if config.training.refresh_every:
    if not isinstance(process, NearestNeighbor):
      raise ValueError(
        'training.refresh_every: noise that is learned is nearest_neighbor, '
        f'and process.name is {config.process.name!r}'
      )
    # Levels of other schedules may leave new neighbours far from the prior.
    if not isinstance(schedule, noise_schedules.MutualInformation):
      raise ValueError(
        'training.refresh_every: noise that is learned needs '
        'schedule.name=mutual_information, whose levels are made to fit it, '
        f'not {config.schedule.name!r}'
      )
    noise = _learned_neighbors(config, data_info, chain, denoiser)
  return x0_chain.make(config, chain, denoiser, hybrid=hybrid, noise=noise)


def _learned_neighbors(
  config: Any,
  data_info: Any,
  chain: step_bound.Chain,
  denoiser: denoiser_lib.Denoiser,
) -> x0_chain.Noise:
  """Noise between neighbours in the network's own space of embeddings.

  Its tables are made anew at every refresh, from the parameters of that step.
  """
  size = data_info.vocab_size
  params = jax.eval_shape(denoiser.init, jax.random.key(0))
  if params.get('embed', {}).get('embedding') is None:
    raise ValueError(
      f'model.name {config.model.name!r} has no parameters embed.embedding: '
      'neighbours that are learned (training.refresh_every above 0) need them'
    )

  process, schedule = chain.process, chain.schedule
  assert isinstance(process, NearestNeighbor)
  assert isinstance(schedule, noise_schedules.MutualInformation)

  def tables(process, schedule):
    steps = np.arange(schedule.num_steps + 1)
    return {
      'powers': jnp.asarray(process.powers, jnp.float32),
      'levels': jnp.asarray(schedule.level(steps), jnp.float32),
    }

  def chain_of(tables):
    return dataclasses.replace(
      chain,
      process=process.with_powers(tables['powers']),
      schedule=schedule.with_levels(tables['levels']),
    )

  def refreshed(params):
    embeddings = np.asarray(params['embed']['embedding'], np.float64)[:size]
    joined = nearest_neighbor.connected(
      **{**config.process.args, 'vocab_size': size, 'embeddings': embeddings}
    )
    counts, last = data_info.token_counts(), schedule.num_steps
    levels = mutual_information.levels(joined, counts, last)
    return tables(joined, schedule.with_levels(levels))

  return x0_chain.Noise(tables(process, schedule), chain_of, refreshed)
