"""A classifier of noisy embeddings, that guides their generator.

Source: arXiv 2205.14217, section 5.  It learns log p(label | x_t) at all steps
of the chain of a run of vectors, whose embeddings it takes over as they are:
`init_from` names that run.  Labels `field[value]` share a softmax with those of
their field; others are all one field's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, times
from sedd_jax.data.labelling import meanings
from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian, partial
from sedd_jax.systems import base
from sedd_jax.systems.bounds import embedding_bound
from sedd_jax.systems.common import parts

# Steps are told to the network as 1000 t / T.
TIME_SCALE = 1000.0

# Places of an example's noise, apart from its dropout, which has 1.
_FIRST, _DROPOUT, _NOISE = 0, 1, 2


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  fields = {
    'schedule.name': 'gaussian',
    'schedule.num_steps': 6,
    'model.name': 'vector_classifier',
    'model.args.embedding_size': 4,
    'data.label': 'kind',
    'init_from': 'a run',
  }
  return (fields,)


def make(config: Any, data_info: Any) -> base.System:
  """The system of a config, for data with labels.

  Args:
    config: the whole config.
    data_info: has `vocab_size` and `labels`.

  Returns:
    The system: neither bound nor samples; `frozen` and `log_label`.

  Raises:
    ValueError: names and numbers that do not fit, data without labels, and no
      generator; before compilation.
  """
  labels = labels_of(config, data_info)
  require_generator(config)
  process = Gaussian.of(parts.make_schedule(config, GaussianSteps))
  network = parts.make_network(
    config,
    data_info.vocab_size,
    num_labels=len(labels),
    vectors=True,
    gives_labels='texts',
  )
  shape = (data_info.vocab_size, network.embedding_size)
  groups = fields_of(labels)
  on_noise = noisy(config, process)

  def log_probs(params, x_t, step, valid=None, dropout_keys=None):
    time = TIME_SCALE / process.num_steps * step.astype(jnp.float32)
    logits = network.apply(
      {'params': params}, x_t.astype(jnp.float32), time, valid, dropout_keys
    )
    return within_fields(logits, groups)

  def init(key):
    x_t = jnp.zeros((1, 2, shape[1]))
    params = network.init(key, x_t, jnp.ones(1))['params']
    return params, {'embedding': jnp.zeros(shape, jnp.float32)}

  def loss(params, aux, key, batch):
    found = log_probs(params, *on_noise(aux['embedding'], key, batch))
    counted = parts.counted(*parts.of_batch(batch))
    return label_loss(found, batch['label'], counted, groups)

  def log_label(params, aux, x_t, step, label):
    del aux
    return of_label(log_probs(params, x_t, step), label)

  return base.System(
    init=init,
    loss=loss,
    bits_of=None,
    frozen=taker(config, process, shape),
    log_label=log_label,
  )


def labels_of(config: Any, data_info: Any) -> tuple[str, ...]:
  """The labels of texts that the data has.

  Raises:
    ValueError: it has none, or others.
  """
  labels = tuple(getattr(data_info, 'labels', ()))
  if not labels:
    raise ValueError(
      f'system {config.system.name} learns labels, and the data has none: set '
      'data.label'
    )
  parts.require_labels(config, of_spans=False)
  return labels


def of_label(log_probs: Array, label: Array) -> Array:
  """log p of a label a text, `[batch]`, 0 where it is below 0.

  Args:
    log_probs: `[batch, labels]`.
    label: int `[batch]`.
  """
  own = jnp.take_along_axis(log_probs, jnp.maximum(label, 0)[:, None], axis=1)
  return jnp.where(label >= 0, own[:, 0], 0)


def require_generator(config: Any) -> None:
  """Raises ValueError for a classifier of no run's vectors."""
  if not config.init_from:
    raise ValueError(
      f'system {config.system.name} needs init_from, the folder of the run '
      'that it is to guide'
    )


def taker(
  config: Any, process: Gaussian, shape: tuple[int, int]
) -> Callable[[Any, Any], dict[str, np.ndarray]]:
  """`System.frozen` of a classifier: it takes the generator's embeddings.

  Args:
    config: of the classifier.
    process: its noise.
    shape: of the embeddings.
  """

  def frozen(other, params):
    schedule = _schedule_of(other)
    if schedule is None or Gaussian.of(schedule) != process:
      raise ValueError(
        f'the noise of the generator is {_told(other.schedule)}, and that of '
        f'the classifier {_told(config.schedule)}: schedule must be the same'
      )
    table = params.get('embedding')
    if np.ndim(table) != 2:
      raise ValueError(f'system {other.system.name!r} has no embeddings')
    if np.shape(table) != shape:
      raise ValueError(
        f'the embeddings of the generator are {np.shape(table)} [vocabulary, '
        f'width], and those of the classifier {shape} '
        '(model.args.embedding_size)'
      )
    return {'embedding': np.asarray(table, np.float32)}

  return frozen


class Noisy(NamedTuple):
  """Texts at one step of the noise each, as a classifier takes them.

  Attributes:
    x_t: `[batch, length, size]`; what is given is without the chain's noise.
    step: `[batch]` int32, from 0, where a text has the noise of x_0 alone, to
      T, each as likely.
    valid: `[batch, length]` bool, or None.
    dropout_keys: typed keys `[batch]`, or None without dropout.
  """

  x_t: Array
  step: Array
  valid: Array | None
  dropout_keys: Array | None


def noisy(
  config: Any, process: Gaussian
) -> Callable[[Array, Array, Mapping[str, Any]], Noisy]:
  """What draws the noise of a batch.

  Args:
    config: the whole config.
    process: the noise.

  Returns:
    `(embedding [vocabulary, size], key, batch) -> Noisy`.

  Raises:
    ValueError: for an unknown way to draw times.
  """
  last = process.num_steps
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )

  def drawn(embedding, key, batch):
    tokens, valid, given = parts.of_batch(batch)
    keys = keys_lib.example_keys(key, batch['index'])
    u = draw_times(key, batch['index'], batch['count'])
    step = jnp.minimum(jnp.floor(u * (last + 1)).astype(jnp.int32), last)
    clean = jnp.take(embedding, tokens, axis=0)
    first = embedding_bound.normal(keys, _FIRST, clean)
    x_0 = clean + process.at('std', 1) * first
    noise = embedding_bound.normal(keys, _NOISE, clean)
    x_t = partial.kept(x_0, process.noised(x_0, step, noise), given)
    dropout_keys = None
    if config.model.dropout:
      dropout_keys = keys_lib.folded(keys, _DROPOUT)
    return Noisy(x_t, step, valid, dropout_keys)

  return drawn


def fields_of(labels: Sequence[str]) -> np.ndarray:
  """The number of each label's field, int32 `[labels]`.

  >>> fields_of(['area[riverside]', 'food[Thai]', 'food[Greek]']).tolist()
  [0, 1, 1]
  """
  fields = [meanings.field_of(label) for label in labels]
  known = list(dict.fromkeys(fields))
  return np.array([known.index(field) for field in fields], np.int32)


def within_fields(logits: Array, fields: np.ndarray) -> Array:
  """log p(label | x_t, its field): a softmax for each field.

  Args:
    logits: `[batch, labels]`.
    fields: int `[labels]`, see `fields_of`.

  Returns:
    `[batch, labels]`.

  >>> found = within_fields(jnp.zeros((1, 3)), np.array([0, 1, 1]))
  >>> jnp.exp(found).round(3).tolist()
  [[1.0, 0.5, 0.5]]
  """
  same = fields[:, None] == fields[None, :]
  rivals = jnp.where(same[None], logits[:, None, :], -jnp.inf)
  return logits - jax.nn.logsumexp(rivals, axis=-1)


def label_loss(
  log_probs: Array, label: Array, counted: Array, fields: np.ndarray
) -> base.Loss:
  """-log p of the labels, one a text; a text without any counts nothing.

  Args:
    log_probs: `[batch, labels]`.
    label: int `[batch]`, or `[batch, length]` of each token, whose mean it is
      then; below 0: none.
    counted: `[batch, length]` bool, tokens whose labels count.
    fields: int `[labels]`, see `fields_of`.

  Returns:
    Nats and weight, 1 or 0; its term 'wrong' is the share of labels that
    another one of the field is likelier than.
  """
  if label.ndim == 1:
    label, counted = label[:, None], jnp.ones_like(label[:, None], bool)
  counted = counted & (label >= 0)
  label = jnp.maximum(label, 0)
  same = jnp.asarray(fields[:, None] == fields[None, :])
  best = jnp.max(jnp.where(same[None], log_probs[:, None, :], -jnp.inf), -1)

  def mean(of_labels):
    each = jnp.take_along_axis(of_labels, label, axis=1)
    total = jnp.sum(jnp.where(counted, each, 0), axis=-1)
    return total / jnp.maximum(jnp.sum(counted, axis=-1), 1)

  weight = jnp.any(counted, axis=-1).astype(log_probs.dtype)
  wrong = mean((log_probs < best).astype(log_probs.dtype))
  return base.Loss(mean(-log_probs), weight, {'wrong': (wrong, weight)})


def _schedule_of(config: Any) -> GaussianSteps | None:
  """The schedule of a run of vectors; None of others."""
  try:
    return parts.make_schedule(config, GaussianSteps)
  except ValueError:
    return None


def _told(schedule: Mapping[str, Any]) -> str:
  """A schedule in words."""
  args = [f'{name} {value}' for name, value in dict(schedule['args']).items()]
  told = ', '.join([f'{schedule["num_steps"]} steps', *args])
  return f'{schedule["name"]} ({told})'
