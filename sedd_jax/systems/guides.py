"""What a request asks of guidance, for the systems that take it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from sedd_jax.processes import Relaxing
from sedd_jax.processes import base as process_base
from sedd_jax.samplers import guidance
from sedd_jax.systems import base


class Guides(NamedTuple):
  """Hashable, for `jit`.

  Attributes:
    guides: see `base.Request`.
    scale: their strength.
    prompt_scale: that of what is given, see `guidance.by_prompt`.
  """

  guides: tuple[Callable, ...]
  scale: float
  prompt_scale: float


def of_request(request: base.Request) -> Guides:
  """What a request asks for."""
  return Guides(
    tuple(request.guides),
    float(request.guidance_scale),
    float(request.options.get('prompt_scale', 1.0)),
  )


def checked(request: base.Request, process: Relaxing) -> None:
  """Raises ValueError for guidance that there is not.

  Args:
    request: what is asked for.
    process: the noise.
  """
  scale = of_request(request).prompt_scale
  guidance.require_scale(scale)
  if scale != 1 and not process_base.has_mask(process):
    raise ValueError(
      'sampling.prompt_scale needs noise that masks: it asks what the network '
      'says with the prompt masked'
    )


def applied(
  output_fn: Callable[..., Array],
  guides: Guides,
  given: Array | None,
  process: Any,
  level_of: Callable[[Array], Array] = lambda told: told,
) -> Callable[..., Array]:
  """A network's log scores, or logits of x_0 at masks, as they are asked for.

  Args:
    output_fn: `(x_t [batch, length], told [batch]) -> [batch, length, n]`.
    guides: of the request.
    given: `[batch, length]` bool.
    process: the noise.
    level_of: `(told) -> total noise [batch]`.

  Returns:
    A function like output_fn.
  """
  if process_base.has_mask(process):
    output_fn = guidance.by_prompt(
      output_fn, given, guides.prompt_scale, mask=process.mask
    )
  return guidance.guided(
    output_fn, guides.guides, guides.scale, level_of=level_of
  )
