"""The parts that systems are put together from, built from a config.

The last place that takes a config: below `systems/` everything takes plain
arguments.
"""

from typing import Any

from sedd_jax import models, noise_schedules, processes
from sedd_jax.core import names


def make_process(config: Any, vocab_size: int) -> processes.TokenProcess:
  """The noise process of `config.process` on a vocabulary.

  Args:
    config: the whole config.
    vocab_size: data symbols.

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
    {'vocab_size': vocab_size},
  )


def make_schedule(config: Any) -> Any:
  """The noise schedule of `config.schedule`.

  Args:
    config: the whole config.

  Returns:
    The schedule; it gets those of eps, sigma_min and sigma_max that it takes.

  Raises:
    ValueError: an unknown name, or arguments that do not fit.
  """
  return names.build(
    noise_schedules.SCHEDULES,
    config.schedule.name,
    'schedule',
    config.schedule.args,
    _fields(config.schedule),
  )


def make_network(config: Any, num_states: int) -> Any:
  """The network of `config.model`.

  Args:
    config: the whole config.
    num_states: rows of its embedding and its logits.

  Returns:
    A Linen module with `__call__` and `features`, as `DiffusionTransformer`.

  Raises:
    ValueError: an unknown name, or arguments that do not fit.
  """
  return names.build(
    models.MODELS,
    config.model.name,
    'model',
    config.model.args,
    {'num_states': num_states, **_fields(config.model)},
  )


def _fields(group: Any) -> dict[str, Any]:
  return {key: group[key] for key in group if key not in ('name', 'args')}
