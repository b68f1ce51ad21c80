"""Unmasking token by token, for the systems whose noise is a mask."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from sedd_jax import noise_schedules, processes
from sedd_jax.samplers import unmasking
from sedd_jax.systems import base, requests

METHODS = unmasking.ORDERS
# What a request may ask for besides; at 1 each is the model's own law.
OPTIONS = ('temperature', 'top_p')


def sampler(
  logits_of: Callable[[Any], Callable],
  process: processes.Absorbing,
  schedule: noise_schedules.Continuous,
  t_min: float,
) -> Callable[[Any, base.Request], base.Samples]:
  """What draws a request by `samplers.unmasking`.

  Args:
    logits_of: `(params) -> logits_fn`, the latter `(x_t [batch, length], t
      [batch]) -> logits` of x_0, read at masks only.
    process: absorbing noise.
    schedule: total noise in time.
    t_min: the earliest time that the network is told.

  Returns:
    `(params, request) -> Samples`; more steps than tokens are as many as there
    are tokens.
  """

  @functools.partial(
    jax.jit, static_argnames=('steps', 'order', 'temperature', 'top_p', 'path')
  )
  def draw(
    params,
    keys,
    tokens,
    given,
    start,
    condition,
    steps,
    order,
    temperature,
    top_p,
    path,
  ):
    return unmasking.sample(
      logits_of(params),
      keys,
      tokens.shape,
      process=process,
      schedule=schedule,
      steps=steps,
      order=order,
      tokens=tokens,
      given=given,
      start=start,
      condition=condition,
      t_min=t_min,
      temperature=temperature,
      top_p=top_p,
      return_path=path,
    )

  def sample(params: Any, request: base.Request) -> base.Samples:
    steps = min(request.steps, request.length)

    def of_batch(*batch):
      return draw(
        params,
        *batch,
        steps=steps,
        order=request.method,
        temperature=request.options.get('temperature', 1.0),
        top_p=request.options.get('top_p', 1.0),
        path=request.record_path,
      )

    return requests.in_batches(of_batch, request, steps)

  return sample


def checked(
  request: base.Request, system: str, process: processes.TokenProcess
) -> None:
  """Raises ValueError for a request that the sampler does not take."""
  known = ('grid', *OPTIONS)
  options = requests.checked(request, METHODS, known, system, process)
  requests.require_even(options.get('grid', 'uniform'))
  unmasking.require_sharpening(
    options.get('temperature', 1.0), options.get('top_p', 1.0)
  )
