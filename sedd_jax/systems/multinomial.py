"""Multinomial diffusion (arXiv 2102.05379): uniform noise in steps.

The network predicts x_0; a step back is theta_post(x_t, x̂_0).  Further mode:
spellcheck.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from sedd_jax.processes import Uniform
from sedd_jax.systems import base, spelling
from sedd_jax.systems.bounds import step_bound
from sedd_jax.systems.chains import x0_chain
from sedd_jax.systems.common import denoiser as denoiser_lib
from sedd_jax.systems.common import parts

# Further modes of the program.
TASKS = ('spellcheck',)


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  uniform = {'process.name': 'uniform', **step_bound.EXAMPLE}
  direct = {
    'system.args.parametrization': 'direct',
    'system.args.importance': False,
    'sampling.steps': 6,
    'model.name': 'bert',
    'model.args.time': 'layer',
  }
  return uniform, {**uniform, **direct}


def make(
  config: Any,
  data_info: Any,
  *,
  decoder: str = 'posterior',
  parametrization: str = 'x0',
  importance: bool = True,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`.
    decoder: 'posterior', as the released code, or 'x0', as the paper.
    parametrization: 'x0', or 'direct', the network's logits being those of
      x_{t-1} given x_t.
    importance: draw the steps that are trained on by their losses.

  Returns:
    The system.

  Raises:
    ValueError: another noise than uniform, or names and numbers that do not
      fit; before compilation.
  """
  process, schedule = parts.make_chain(config, data_info)
  parts.require_process(config, process, Uniform)
  chain = step_bound.Chain(process, schedule, decoder, parametrization)
  denoiser = denoiser_lib.make(config, process, data_info)
  system = x0_chain.make(config, chain, denoiser, importance=importance)

  # Weighed by theta_post, the best x̂_0 is the law given the other positions.
  blind = decoder == 'posterior' and parametrization == 'x0'

  @jax.jit
  def corrected(params, tokens, error_rate):
    """The likeliest x_0 with the text taken for x_1."""
    first = jnp.full(len(tokens), 1 / schedule.num_steps)
    logits = denoiser.logits_of(params)(tokens, first)
    return spelling.likeliest(logits, tokens, error_rate)

  def spellcheck(params, aux, options, tokenizer):
    del aux
    if denoiser.labels.number and not denoiser.labels.dropout:
      raise base.TaskError(
        'the network was never trained without labels (training.label_dropout '
        'is 0), and spell checking tells it none'
      )
    return spelling.checked(
      functools.partial(corrected, params),
      options,
      tokenizer,
      length=config.data.seq_len,
      blind=blind,
    )

  return dataclasses.replace(system, tasks={'spellcheck': spellcheck})
