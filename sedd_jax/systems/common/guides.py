"""What a request asks of guidance, for the systems that take it."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from sedd_jax.core import names
from sedd_jax.processes import TokenProcess
from sedd_jax.processes import base as process_base
from sedd_jax.samplers import guidance
from sedd_jax.systems import base
from sedd_jax.systems.common import parts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OfLabels:
  """A classifier as a guide: log p of a label of each sequence.

  Attributes:
    params: its parameters.
    aux: what it carries besides.
    label: `[n, ...]` int32, one a sequence, as `log_label` takes it.
    log_label: see `base.System`.
  """

  params: Any
  aux: Any
  label: Any
  log_label: Callable = dataclasses.field(metadata={'static': True})

  def __call__(self, x_t: Array, step: Array) -> Array:
    """log p(label | x_t) `[n]`, of x_t and the step, or of tokens the noise."""
    return self.log_label(self.params, self.aux, x_t, step, self.label)

  def of_rows(self, rows: Any) -> 'OfLabels':
    """The guide of some of the sequences."""
    return dataclasses.replace(self, label=np.asarray(self.label)[rows])


# How a classifier's factors are found: `guidance.log_weights`, `first_order`.
GUIDANCE = ('exact', 'first_order')
# What a request may ask of them.
OPTIONS = ('prompt_scale', 'label_scale', 'guidance')


class Guides(NamedTuple):
  """Hashable, for `jit`.

  Attributes:
    scale: strength of the request's guides.
    guidance: of `GUIDANCE`.
    prompt_scale: that of what is given, see `guidance.by_prompt`.
    label_scale: that of the label, see `guidance.by_label`.
  """

  scale: float
  guidance: str
  prompt_scale: float
  label_scale: float


def of_request(request: base.Request) -> Guides:
  """What a request asks for."""
  return Guides(
    float(request.guidance_scale),
    str(request.options.get('guidance', GUIDANCE[0])),
    float(request.options.get('prompt_scale', 1.0)),
    float(request.options.get('label_scale', 1.0)),
  )


def checked(
  request: base.Request, process: TokenProcess, labels: parts.Labels
) -> None:
  """Raises ValueError for guidance that there is not.

  Args:
    request: what is asked for.
    process: the noise.
    labels: what the network knows of labels.
  """
  asked = of_request(request)
  if not 0 <= asked.scale < math.inf:
    raise ValueError(
      f'guidance_scale must be finite and at least 0, not {asked.scale}'
    )
  if asked.guidance not in GUIDANCE:
    raise ValueError(
      f'unknown sampling.guidance {asked.guidance!r}; '
      f'{names.alternatives(asked.guidance, GUIDANCE)}'
    )
  guidance.require_scale(asked.prompt_scale, 'prompt_scale')
  guidance.require_scale(asked.label_scale, 'label_scale')
  if asked.prompt_scale != 1 and not process_base.has_mask(process):
    raise ValueError(
      'sampling.prompt_scale needs noise that masks: it asks what the network '
      'says with the prompt masked'
    )
  if asked.label_scale != 1 and labels.number and not labels.dropout:
    raise ValueError(
      f'sampling.label_scale {asked.label_scale}: the network was never '
      'trained without labels (training.label_dropout is 0), so the scale is 1'
    )
  if request.label is not None:
    _check_label(request, labels.number)


def _check_label(request: base.Request, count: int) -> None:
  if not count:
    raise ValueError(
      'a label is asked for, and the run was trained without (data.label)'
    )
  label = np.asarray(request.label)
  if label.shape != (len(request.seeds),) or label.dtype.kind not in 'iu':
    raise ValueError(
      f'label must be {len(request.seeds)} integers, one a sequence, not '
      f'{label.dtype} {label.shape}'
    )
  if label.min() < -1 or label.max() >= count:
    raise ValueError(
      f'labels are from 0 to {count - 1}, or -1 for none, not from '
      f'{label.min()} to {label.max()}'
    )


def asked_for(guides: Guides, states: Mapping[str, Any]) -> bool:
  """Whether `applied` gives anything but what the network says once."""
  labelled = states.get('label') is not None
  return (
    bool(states.get('guides'))
    or guides.prompt_scale != 1
    or (labelled and guides.label_scale not in (0, 1))
  )


def applied(
  output_fn: Callable[..., Array],
  guides: Guides,
  states: Mapping[str, Any],
  process: Any,
  level_of: Callable[[Array], Array] = lambda told: told,
) -> Callable[[Array, Array], Array]:
  """A network's log scores, or logits of x_0 at masks, as they are asked for.

  Args:
    output_fn: `(x_t [batch, length], told [batch], label [batch, length]) ->
      [batch, length, n]`; the label may be left out.
    guides: of the request.
    states: of `requests.in_batches`: what is given, the label, the guides.
    process: the noise.
    level_of: `(told) -> total noise [batch]`.

  Returns:
    A function of x_t and told.
  """
  if process_base.has_mask(process):
    output_fn = guidance.by_prompt(
      output_fn, states['given'], guides.prompt_scale, mask=process.mask
    )
  label = states.get('label')
  output_fn = guidance.by_label(output_fn, label, guides.label_scale)
  weights_fn: Callable[..., Array] = guidance.log_weights
  if guides.guidance == 'first_order':
    weights_fn = functools.partial(
      guidance.first_order, num_states=process.num_states
    )
  return guidance.guided(
    output_fn,
    states.get('guides', ()),
    guides.scale,
    level_of=level_of,
    weights_fn=weights_fn,
  )
