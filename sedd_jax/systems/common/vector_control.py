"""Control of vectors by gradients, as a request asks for it.

The guides of a request are told vectors `[n, length, size]` and the step of the
chain `[n]`; what is pinned is where predictions of x_0 are drawn to.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from sedd_jax.samplers import control, gaussian
from sedd_jax.systems import base

# Options of requests with guides to arguments of `control.controlled`.
OPTIONS = {
  'fluency': 'fluency',
  'control_steps': 'steps',
  'control_rate': 'learning_rate',
  'control_reset': 'reset',
  'control_until': 'until',
}


def check(request: base.Request, options: Mapping[str, Any]) -> None:
  """Raises ValueError for options of control without it, or out of range.

  Args:
    request: what is asked for.
    options: its options.
  """
  asked = [name for name in OPTIONS if name in options]
  if asked and not request.guides and request.pinned is None:
    raise ValueError(f'sampling option {asked[0]!r} is for guides')
  control.controlled([], **_arguments(options))
  if not 0 <= request.guidance_scale < float('inf'):
    raise ValueError(
      f'guidance_scale must be at least 0, not {request.guidance_scale}'
    )


def adjust(
  guides: tuple[Callable, ...],
  scale: float,
  options: Mapping[str, Any],
  pinned: Array | None,
  predict_fn: Callable[[Array, Array], Array],
  embedded_fn: Callable[[Array], Array],
) -> gaussian.Adjust | None:
  """Control as the sampler takes it, None without any or of no strength.

  Args:
    guides: of `requests.in_batches`.
    scale: of their log p and of what is pinned; 0: as without.
    options: of the request.
    pinned: `[batch, length]` int, tokens, below 0 where nothing is; or None.
    predict_fn: `(x_t, step) -> x̂_0`, step from 1.
    embedded_fn: tokens to their vectors.

  Returns:
    See `control.controlled`.
  """
  if scale == 0 or not (guides or pinned is not None):
    return None
  controls: list[control.Control] = [
    functools.partial(_nats, guide, scale) for guide in guides
  ]
  if pinned is not None:
    # The clean state is told what the first noisy one is.
    to_pinned = control.pinned(
      lambda x, step: predict_fn(x, jnp.maximum(step, 1)),
      embedded_fn(jnp.maximum(pinned, 0)),
      pinned >= 0,
    )
    controls.append(lambda x, step: scale * to_pinned(x, step))
  return control.controlled(controls, **_arguments(options))


def _nats(guide: Callable, scale: float, x: Array, step: Array) -> Array:
  return -scale * guide(x, step)


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
  return {OPTIONS[n]: options[n] for n in OPTIONS if n in options}
