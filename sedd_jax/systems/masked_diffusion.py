"""Masked diffusion (MDLM, arXiv 2406.07524; MD4, arXiv 2406.04329).

Absorbing noise, a network that predicts x_0 at the masks and is never asked
elsewhere (SUBS), and a loss that is a weighted cross entropy, in continuous
time or in T steps.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from sedd_jax import noise_schedules
from sedd_jax.losses import masked
from sedd_jax.models import heads
from sedd_jax.processes import Absorbing
from sedd_jax.samplers import ancestral, loop
from sedd_jax.systems import base
from sedd_jax.systems.bounds import masked_bound, step_bound, time_proposal
from sedd_jax.systems.chains import x0_chain
from sedd_jax.systems.common import (
  blocks,
  guides,
  parts,
  requests,
  unmasked,
  weights,
)
from sedd_jax.systems.common import denoiser as denoiser_lib

METHODS = ('ancestral',)
TASKS = ('export',)


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  continuous = {'sampling.method': 'ancestral'}
  return (
    continuous,
    {**continuous, 'system.args.num_steps': 6},
    {'sampling.method': 'confidence'},
    {'sampling.method': 'remasking'},
  )


def make(
  config: Any,
  data_info: Any,
  *,
  num_steps: int = 0,
  timed: bool = False,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config; reads process, schedule, model, training (t_min,
      time_sampling, loss_chunk), eval and sampling.
    data_info: has `vocab_size`.
    num_steps: T of the objective in steps; 0 for continuous time.
    timed: whether the network is told the time.  The best prediction at a mask
      does not depend on it (arXiv 2406.03736), and MDLM's is not told.

  Returns:
    The system; its params are the network's, its aux the proposal for the times
    of the bound.

  Raises:
    ValueError: another noise than absorbing, or names and numbers that do not
      fit; before compilation.
  """
  process = parts.make_process(config, data_info.vocab_size)
  process = parts.require_process(config, process, Absorbing)
  schedule = parts.make_schedule(config, noise_schedules.Continuous)
  denoiser = denoiser_lib.make(config, process, data_info, timed=timed)
  if num_steps:
    if num_steps < 2:
      raise ValueError(
        f'system.args.num_steps must be 0 or at least 2, not {num_steps}'
      )
    chain = step_bound.Chain(process, _in_steps(schedule, num_steps))
    system = x0_chain.make(config, chain, denoiser)
  else:
    system = _continuous(config, process, schedule, denoiser)
  if timed:
    # The released layouts have no time.
    return system
  export = weights.exporter(config, ('mdlm', 'radd'))
  return dataclasses.replace(system, tasks={'export': export})


def _in_steps(
  schedule: noise_schedules.Continuous, num_steps: int
) -> noise_schedules.StepTable:
  """The levels at t = 0, 1/T, ..., 1.

  Raises:
    ValueError: a schedule whose noise does not start at 0, or does not grow.
  """
  with jax.enable_x64(True):
    t = np.linspace(0, 1, num_steps + 1)
    levels = np.asarray(schedule.total(t), np.float64)
  if levels[0] != 0:
    raise ValueError(
      f'schedule {type(schedule).__name__} has noise {levels[0]:.2g} at t = 0, '
      'where masked diffusion starts from the data: use log_linear, cosine or '
      'polynomial'
    )
  return noise_schedules.StepTable(levels=levels)


def _continuous(
  config: Any,
  process: Absorbing,
  schedule: noise_schedules.Continuous,
  denoiser: denoiser_lib.Denoiser,
) -> base.System:
  """The system in continuous time."""
  parts.require_method(config, (*METHODS, *unmasked.METHODS))
  requests.require_even(config.sampling.grid)
  if config.sampling.method in METHODS:
    _in_steps(schedule, config.sampling.steps)
  parts.require_protocol(config, masked_bound.PROTOCOLS)
  t_min, chunk = config.training.t_min, config.training.loss_chunk

  def init(key):
    return denoiser.init(key), time_proposal.empty()

  def nats_fn_of(params, valid=None, dropout_keys=None, label=None):
    """Cross entropy at the masks, `(x_t, x_0, t) -> [batch, length]`."""

    def nats_fn(x_t, x_0, t):
      if not chunk:
        logits_fn = denoiser.logits_of(params, valid, dropout_keys)
        logits = logits_fn(x_t, t, label)
        return masked.cross_entropy(logits, x_t, x_0, process=process)
      features_fn = denoiser.features_of(params, valid, dropout_keys)
      return masked.cross_entropy_from_features(
        features_fn(x_t, t, label),
        *heads.kernel_and_bias(params),
        x_t,
        x_0,
        process=process,
        chunk=chunk,
      )

    return nats_fn

  loss = parts.continuous_loss(
    config,
    process,
    schedule,
    lambda params, x_t, x_0, t, *rest: nats_fn_of(params, *rest)(x_t, x_0, t),
    functools.partial(masked.weight, schedule),
    denoiser.labels,
  )

  def bound(params, aux, key, batch):
    return masked_bound.bound(
      nats_fn_of(params, batch.get('valid'), label=parts.label_of(batch)),
      key,
      **parts.bound_arguments(config, batch),
      process=process,
      schedule=schedule,
      proposal=aux,
      t_min=t_min,
      protocol=config.eval.protocol,
    )

  def score_fn(params, aux):
    del aux
    logits_fn = denoiser.logits_of(params)

    def log_score_fn(x_t, sigma, label=None):
      t = noise_schedules.time_of(schedule, sigma)
      return masked.log_score(logits_fn(x_t, t, label), x_t, sigma)

    return log_score_fn

  @functools.cache
  def drawer(steps, cached, guided, path):
    """Ancestral sampling in so many steps, compiled once a shape."""
    planned = ancestral.plan(process, _in_steps(schedule, steps))

    @jax.jit
    def draw(params, keys, states):
      logits_fn = guides.applied(
        denoiser.logits_of(params),
        guided,
        states,
        process,
        schedule.total,
      )
      return loop.follow(
        planned,
        lambda x_t, step: logits_fn(x_t, step / steps),
        keys,
        states['tokens'].shape,
        cached=cached,
        process=process,
        return_path=path,
        **requests.of_loop(states),
      )

    return draw

  window = config.data.seq_len
  unmask = unmasked.sampler(
    denoiser.logits_of,
    process,
    schedule,
    t_min,
    window,
    denoiser.features_of if chunk else None,
  )

  def check_request(request):
    name, told = config.system.name, denoiser.told
    if request.method in unmasked.METHODS:
      unmasked.checked(
        request,
        name,
        process,
        window=window,
        told=told,
        labels=denoiser.labels,
      )
      return
    known = ('grid', 'cached', 'block', *guides.OPTIONS)
    options = requests.checked(
      request, METHODS, known, name, ['guides', 'label'], process
    )
    requests.require_even(options.get('grid', 'uniform'))
    requests.require_time_free(request, told)
    guides.checked(request, process, denoiser.labels)
    blocks.block_of(request, window)
    _in_steps(schedule, request.steps)

  def sample(params, aux, request):
    del aux
    check_request(request)
    if request.method in unmasked.METHODS:
      return unmask(params, request)

    cached = request.options.get('cached', False)
    guided = guides.of_request(request)
    draw = drawer(request.steps, cached, guided, request.record_path)
    return blocks.sampled(
      functools.partial(draw, params), request, process=process, window=window
    )

  return base.System(
    init=init,
    loss=loss,
    update_aux=time_proposal.update_aux,
    bound=bound,
    sample=sample,
    check_request=check_request,
    score_fn=score_fn,
    load_pretrained=denoiser.load_pretrained,
  )
