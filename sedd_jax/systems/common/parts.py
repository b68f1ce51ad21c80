"""The parts that systems are put together from, built from a config.

The last place that takes a config: below `systems/` everything takes plain
arguments.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax import losses, models, noise_schedules, processes
from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, shapes, times
from sedd_jax.data.files import labels as data_labels
from sedd_jax.processes import mutual_information
from sedd_jax.systems import base


class Labels(NamedTuple):
  """What a network knows of labels.

  Attributes:
    number: how many there are; 0: none.
    dropout: share of sequences that are trained on without theirs.
  """

  number: int = 0
  dropout: float = 0.0


def labels_of(config: Any, data_info: Any) -> Labels:
  """The labels of a config's data.

  Args:
    config: the whole config; reads training.label_dropout.
    data_info: may have `labels`, their names.

  Raises:
    ValueError: labels of words and phrases, which are none of texts.
  """
  require_labels(config, of_spans=False)
  number = len(getattr(data_info, 'labels', ()))
  return Labels(number, config.training.label_dropout if number else 0.0)


def make_process(
  config: Any, vocab_size: int, **offered: Any
) -> processes.TokenProcess:
  """The noise process of `config.process` on a vocabulary.

  Args:
    config: the whole config.
    vocab_size: data symbols.
    **offered: what a constructor that names it gets besides.

  Returns:
    The process.

  Raises:
    ValueError: an unknown name, or arguments that do not fit.
  """
  return names.build(
    processes.PROCESSES,
    config.process.name,
    'process',
    config.process.args,
    {'vocab_size': vocab_size, **offered},
  )


def make_schedule(config: Any, kind: type, **offered: Any) -> Any:
  """The noise schedule of `config.schedule`.

  Args:
    config: the whole config.
    kind: `noise_schedules.Continuous` or `Steps`, what the system can use.
    **offered: what a constructor that names it gets besides the group's fields.

  Returns:
    The schedule; it gets those fields of the group that it takes.

  Raises:
    ValueError: an unknown name, arguments that do not fit, or a schedule of
      another kind.
  """
  table: Mapping[str, Any] = noise_schedules.SCHEDULES
  schedule = names.build(
    table,
    config.schedule.name,
    'schedule',
    config.schedule.args,
    {**_fields(config.schedule), **offered},
  )
  if not isinstance(schedule, kind):
    known = [
      name
      for name, entry in table.items()
      if isinstance(entry.examples()[0], kind)
    ]
    raise ValueError(
      f'schedule.name {config.schedule.name!r} is not one of those of system '
      f'{config.system.name}: use {", ".join(known)}'
    )
  return schedule


def make_chain(config: Any, data_info: Any) -> tuple[Any, Any]:
  """Process and schedule of a chain in steps, one made to fit the other.

  The betas of the schedule make a tabulated process, whose levels are steps;
  mutual information makes the schedule of a process.  A process that is given
  by its matrices takes the number of steps alone.

  Args:
    config: the whole config.
    data_info: has `vocab_size` and `token_counts`.

  Returns:
    The process and the schedule.

  Raises:
    ValueError: names or arguments that do not fit.
  """
  size = data_info.vocab_size
  kind = names.resolve(
    noise_schedules.SCHEDULES, config.schedule.name, 'schedule'
  )
  noise = names.resolve(processes.PROCESSES, config.process.name, 'process')
  if kind is not noise_schedules.StepBetas and names.accepted(
    noise, {'betas': None}
  ):
    raise ValueError(
      f'process.name {config.process.name!r} is built from betas: use '
      'schedule.name=step_betas'
    )
  if _is_table(noise):
    _require_no_betas(config, kind)
  if kind is noise_schedules.MutualInformation:
    process = make_process(config, size)
    levels = mutual_information.levels(
      process, data_info.token_counts(), config.schedule.num_steps
    )
    return process, make_schedule(config, noise_schedules.Steps, levels=levels)
  counted = {}
  if kind is noise_schedules.Spindle:
    counted['counts'] = data_info.token_counts()
  schedule = make_schedule(config, noise_schedules.Steps, **counted)
  offered = {}
  if isinstance(schedule, noise_schedules.StepBetas):
    offered['betas'] = schedule.betas_table()
  process = make_process(config, size, **offered)
  if isinstance(process, processes.Tabulated):
    if process.num_steps != schedule.num_steps:
      raise ValueError(
        f'process.name {config.process.name!r} has {process.num_steps} steps, '
        f'and the schedule {schedule.num_steps}'
      )
    schedule = noise_schedules.StepTable.counted(process.num_steps)
  return process, schedule


def _is_table(noise: Any) -> bool:
  """Whether a process is a table that is not built from betas."""
  table = isinstance(noise, type) and issubclass(noise, processes.Tabulated)
  return table and not names.accepted(noise, {'betas': None})


def _require_no_betas(config: Any, kind: Any) -> None:
  """Raises ValueError for a schedule that a table would leave unread."""
  told = (
    f'process.name {config.process.name!r} has all its noise in '
    'process.args.matrices: of the schedule it takes num_steps alone'
  )
  if kind is not noise_schedules.StepBetas:
    raise ValueError(
      f'{told}; use schedule.name=step_betas, not {config.schedule.name!r}'
    )
  if config.schedule.betas != noise_schedules.StepBetas.betas or len(
    config.schedule.args
  ):
    raise ValueError(f'{told}; leave schedule.betas and schedule.args as is')


def require_method(config: Any, methods: Iterable[str]) -> None:
  """Raises ValueError for a sampling.method that the system has not."""
  if config.sampling.method not in methods:
    raise ValueError(
      f'sampling.method {config.sampling.method!r} is not one of those of '
      f'system {config.system.name}: use {", ".join(methods)}'
    )


def require_process(config: Any, process: Any, kind: type) -> Any:
  """The process; ValueError for one that is not of the system's one kind."""
  if not isinstance(process, kind):
    table: Mapping[str, Any] = processes.PROCESSES
    (name,) = (name for name, entry in table.items() if entry is kind)
    raise ValueError(
      f'process.name {config.process.name!r} is not one of those of system '
      f'{config.system.name}: use {name}'
    )
  return process


def require_protocol(
  config: Any, protocols: Iterable[str], in_steps: bool = False
) -> None:
  """Raises ValueError for an evaluation that the system has not.

  Args:
    config: the whole config; eval.protocol and eval.chain_steps are read.
    protocols: those of the system.
    in_steps: its bound is that of a chain of tokens in steps.

  Raises:
    ValueError: another protocol, or eval.chain_steps without such a chain.
  """
  if config.eval.chain_steps and not in_steps:
    raise ValueError(
      f'eval.chain_steps={config.eval.chain_steps}: the bound of system '
      f'{config.system.name} has no steps to choose: leave it at 0'
    )
  if config.eval.protocol not in protocols:
    raise ValueError(
      f'eval.protocol {config.eval.protocol!r} is not one of those of system '
      f'{config.system.name}: use {", ".join(protocols)}'
    )


def of_batch(batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
  """Tokens, and where the batch has them `valid` and `given`, else None."""
  return batch['tokens'], batch.get('valid'), batch.get('given')


def require_no_labels(config: Any, data_info: Any) -> None:
  """Raises ValueError where the data of a system without labels has some."""
  if labels_of(config, data_info).number:
    raise ValueError(
      f'system {config.system.name} takes no labels: data.label must be empty, '
      f'not {config.data.label!r}'
    )


def require_labels(config: Any, *, of_spans: bool) -> None:
  """Raises ValueError for labels of another kind than a system's.

  Args:
    config: the whole config; data.label is read.
    of_spans: whether they are those of words and phrases, not of texts.
  """
  if (config.data.label == data_labels.SPANS) != of_spans:
    told = 'words and phrases' if of_spans else 'texts'
    use = (
      f'set it to {data_labels.SPANS!r}' if of_spans else 'use span_classifier'
    )
    raise ValueError(
      f'system {config.system.name} is of labels of {told}, not of '
      f'data.label={config.data.label!r}: {use}'
    )


def label_of(batch: Mapping[str, Any]) -> Array | None:
  """The label of each token, `[batch, length]`; None where there are none."""
  label = batch.get('label')
  if label is None or label.ndim == 2:
    return label
  return jnp.broadcast_to(label[:, None], batch['tokens'].shape)


def trained_label(
  labels: Labels, keys: Array, batch: Mapping[str, Any]
) -> Array | None:
  """The labels that the network is told in training, some sequences' none.

  Args:
    labels: their dropout.
    keys: typed keys `[batch]` of this draw, one an example.
    batch: of the data.

  Returns:
    int32 `[batch, length]`; None where the batch has none.
  """
  label = label_of(batch)
  if label is None or not labels.dropout:
    return label
  dropped = jax.vmap(lambda key: jax.random.bernoulli(key, labels.dropout))(
    keys
  )
  return jnp.where(dropped[:, None], shapes.NO_LABEL, label)


def told_label(label: Array | None) -> dict[str, Array]:
  """A label as a network's argument; networks without labels have none."""
  return {} if label is None else {'label': label}


def counted(x_0: Array, valid: Array | None, given: Array | None) -> Array:
  """Where a loss or a bound counts, bool `[batch, length]`.

  Args:
    x_0: `[batch, length]` tokens.
    valid: `[batch, length]` bool, not padding; None if there is none.
    given: `[batch, length]` bool, kept out of the noise; None if none is.

  Returns:
    valid & ~given.
  """
  valid = jnp.ones(x_0.shape, bool) if valid is None else valid
  return valid if given is None else valid & ~given


def continuous_loss(
  config: Any,
  process: processes.Relaxing,
  schedule: noise_schedules.Continuous,
  nats_fn: Callable[..., Array],
  weight_fn: Callable[[Array], Array],
  labels: Labels,
) -> Callable[..., base.Loss]:
  """The loss of a system in continuous time: one time a sequence.

  Args:
    config: the whole config; reads training (t_min, time_sampling) and
      model.dropout.
    process: the noise process.
    schedule: total noise in time.
    nats_fn: `(params, x_t, x_0, t [batch], valid, dropout_keys, label) ->
      [batch, length]`.
    weight_fn: of t, what the nats are multiplied by.
    labels: what the network knows of them.

  Returns:
    `System.loss`, with stats for `time_proposal.update_aux`.
  """
  t_min = config.training.t_min
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )

  def loss(params, aux, key, batch):
    del aux
    x_0, valid, given = of_batch(batch)
    index = batch['index']
    u = draw_times(key, index, batch['count'])
    t = t_min + (1 - t_min) * u
    keys = keys_lib.example_keys(key, index)
    noise_keys = keys_lib.folded(keys, 0)
    dropout_keys = keys_lib.folded(keys, 1) if config.model.dropout else None
    label = trained_label(labels, keys_lib.folded(keys, 2), batch)
    x_t = losses.sample_noisy(
      noise_keys, x_0, schedule.total(t), process=process
    )
    x_t = x_t if given is None else jnp.where(given, x_0, x_t)
    nats = nats_fn(params, x_t, x_0, t, valid, dropout_keys, label)
    tokens = counted(x_0, valid, given)
    total = weight_fn(t) * jnp.sum(jnp.where(tokens, nats, 0), axis=-1)
    weight = jnp.sum(tokens, axis=-1).astype(total.dtype)
    return base.Loss(total, weight, {}, {'u': u, 'integrand': total})

  return loss


def bound_arguments(config: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
  """What the bounds of all chains take, of `config.eval` and a batch."""
  x_0, valid, given = of_batch(batch)
  return {
    'x_0': x_0,
    'index': batch['index'],
    'counted': valid,
    'kept': given,
    'points': config.eval.points,
    'times_by': config.eval.time_sampling,
    'within': batch.get('within'),
  }


def make_network(
  config: Any,
  num_states: int,
  causal: bool = False,
  num_labels: int = 0,
  vectors: bool = False,
  gives_labels: str = '',
) -> Any:
  """The network of `config.model`.

  Args:
    config: the whole config.
    num_states: rows of its embedding and its logits.
    causal: whether a position sees those before it alone.
    num_labels: labels that a token may have, or that are told.
    vectors: it takes noisy vectors, as `EmbeddingBert`, and not tokens.
    gives_labels: 'texts': it tells their labels, as `VectorClassifier`;
      'spans': those of words and phrases, as `SpanClassifier`; '': of none.

  Returns:
    A Linen module with `__call__` and `features`, as `DiffusionTransformer`, or
    with those of `EmbeddingBert`.

  Raises:
    ValueError: an unknown name, arguments that do not fit, a network of the
      other kind, or one that is too short for data.seq_len or sampling.length,
      or has no place for labels.
  """
  offered = {'num_states': num_states, 'causal': causal}
  if num_labels:
    offered['num_labels'] = num_labels
  kind = names.resolve(models.MODELS, config.model.name, 'model')
  if num_labels and not gives_labels:
    if 'num_labels' not in names.accepted(kind, offered):
      raise ValueError(
        f'model.name {config.model.name!r} has no place for labels '
        '(data.label): it needs a field "num_labels", as DiffusionTransformer'
      )
  wanted = (vectors, gives_labels)
  if _kind_of(kind) != wanted:
    table: Mapping[str, Any] = models.MODELS
    fitting = [name for name in table if _kind_of(table[name]) == wanted]
    raise ValueError(
      f'model.name {config.model.name!r} is not one of those of system '
      f'{config.system.name}: use {", ".join(fitting)}'
    )
  network = names.build(
    models.MODELS,
    config.model.name,
    'model',
    config.model.args,
    {**offered, **_fields(config.model)},
  )
  longest = getattr(network, 'max_length', math.inf)
  # Block by block it sees no more than data.seq_len at once.
  whole = 0 if config.sampling.block else config.sampling.length
  for field, length in (
    ('data.seq_len', config.data.seq_len),
    ('sampling.length', whole),
  ):
    if length > longest:
      raise ValueError(
        f'{field} {length} is more than the {longest} tokens that model '
        f'{config.model.name!r} takes (model.args.max_positions)'
      )
  return network


def _kind_of(network: Any) -> tuple[bool, str]:
  """Whether a network takes vectors, and of what it tells labels."""
  return (
    getattr(network, 'takes_vectors', False),
    getattr(network, 'gives_labels', ''),
  )


def _fields(group: Any) -> dict[str, Any]:
  return {key: group[key] for key in group if key not in ('name', 'args')}
