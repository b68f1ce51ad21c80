"""Unmasking token by token, for the systems whose noise is a mask."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from sedd_jax import noise_schedules, processes
from sedd_jax.models import heads
from sedd_jax.samplers import guidance, loop, remasking, unmasking
from sedd_jax.systems import base
from sedd_jax.systems.common import blocks, guides, parts, requests

METHODS = (*unmasking.ORDERS, 'remasking')
# What a request may ask for besides; at 1 each is the model's own law.
SHARPENING = ('temperature', 'top_p')
OPTIONS = (*SHARPENING, *guides.OPTIONS)
# What it may ask of remasking.
REMASKING = ('remasking', 'remask_strength', 'cached')


def sampler(
  logits_of: Callable[[Any], Callable],
  process: processes.Absorbing,
  schedule: noise_schedules.Continuous,
  t_min: float,
  window: int,
  features_of: Callable[[Any], Callable] | None = None,
) -> Callable[[Any, base.Request], base.Samples]:
  """What draws a request by `samplers.unmasking` or `samplers.remasking`.

  Args:
    logits_of: `(params) -> logits_fn`, the latter `(x_t [batch, length], t
      [batch], label [batch, length]) -> logits` of x_0, read at masks only; the
      label may be left out.
    process: absorbing noise.
    schedule: total noise in time.
    t_min: the earliest time that the network is told.
    window: tokens that the network sees at once, where blocks are asked for.
    features_of: as logits_of, what the head is applied to; None where the
      network does not tell it.

  Returns:
    `(params, request) -> Samples`; more steps of unmasking than tokens are as
    many as there are tokens.
  """

  def logits_under(params, guided, states):
    return guides.applied(
      logits_of(params), guided, states, process, schedule.total
    )

  def logits_at_of(params, guided, states):
    """The head at some places alone, where nothing else is asked for."""
    if features_of is None or guides.asked_for(guided, states):
      return None
    features_fn = guidance.by_label(
      features_of(params), states.get('label'), guided.label_scale
    )

    def logits_at(x_t, t, places):
      return heads.logits_at(params, features_fn(x_t, t), places)

    return logits_at

  @functools.partial(
    jax.jit, static_argnames=('steps', 'order', 'sharpening', 'guided', 'path')
  )
  def unmask(params, keys, states, *, steps, order, sharpening, guided, path):
    drawn = unmasking.sample(
      logits_under(params, guided, states),
      keys,
      states['tokens'].shape,
      process=process,
      schedule=schedule,
      steps=steps,
      order=order,
      t_min=t_min,
      return_path=path,
      logits_at=logits_at_of(params, guided, states),
      **requests.of_loop(states),
      **dict(sharpening),
    )
    return drawn, steps

  @functools.partial(
    jax.jit,
    static_argnames=(
      *('steps', 'strategy', 'strength', 'sharpening', 'guided', 'cached'),
      'path',
    ),
  )
  def remask(
    params,
    keys,
    states,
    *,
    steps,
    strategy,
    strength,
    sharpening,
    guided,
    cached,
    path,
  ):
    planned = remasking.plan(
      process,
      schedule,
      steps=steps,
      strategy=strategy,
      strength=strength,
      t_min=t_min,
      **dict(sharpening),
    )
    return loop.follow(
      planned,
      logits_under(params, guided, states),
      keys,
      states['tokens'].shape,
      cached=cached,
      process=process,
      return_path=path,
      **requests.of_loop(states),
    )

  def sample(params: Any, request: base.Request) -> base.Samples:
    options = request.options
    common = {
      'sharpening': tuple((k, options[k]) for k in SHARPENING if k in options),
      'guided': guides.of_request(request),
      'path': request.record_path,
    }
    if request.method == 'remasking':
      of_batch = functools.partial(
        remask,
        params,
        steps=request.steps,
        strategy=options.get('remasking', remasking.STRATEGIES[0]),
        strength=options.get('remask_strength', remasking.STRENGTH),
        cached=options.get('cached', False),
        **common,
      )
    else:
      of_batch = functools.partial(
        unmask,
        params,
        steps=min(request.steps, blocks.size_of(request, window)),
        order=request.method,
        **common,
      )
    return blocks.sampled(of_batch, request, process=process, window=window)

  return sample


def checked(
  request: base.Request,
  system: str,
  process: processes.Relaxing,
  *,
  window: int,
  told: bool,
  labels: parts.Labels,
) -> None:
  """Raises ValueError for a request that the sampler does not take.

  Args:
    request: what is asked for.
    system: its name, for the errors' text.
    process: absorbing noise.
    window: as in `sampler`.
    told: whether the network is told the time.
    labels: what it knows of labels.
  """
  known = ['grid', 'block', *OPTIONS]
  if request.method == 'remasking':
    known += REMASKING
  options = requests.checked(
    request, METHODS, known, system, ['guides', 'label'], process
  )
  requests.require_even(options.get('grid', 'uniform'))
  requests.require_time_free(request, told)
  blocks.block_of(request, window)
  guides.checked(request, process, labels)
  unmasking.require_sharpening(
    options.get('temperature', 1.0), options.get('top_p', 1.0)
  )
  remasking.require(
    options.get('remasking', remasking.STRATEGIES[0]),
    options.get('remask_strength', remasking.STRENGTH),
  )
