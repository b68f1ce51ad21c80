"""A classifier of noisy tokens, that guides their generator.

Source: the classifier-based guidance of arXiv 2412.10193.  It learns
log p(label | x_t) at all levels of noise of SEDD's or masked diffusion's chain.
Labels are those of `classifier`: `field[value]` share a softmax with those of
their field, others are all one field's.
"""

from typing import Any

import jax.numpy as jnp

from sedd_jax import losses, noise_schedules
from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, times
from sedd_jax.processes import Absorbing, Uniform
from sedd_jax.systems import base, classifier
from sedd_jax.systems.common import parts

# What the network is told of the noise: TIME_SCALE (1 - e^-sigma).
TIME_SCALE = 1000.0
# The systems whose samplers take guides on tokens.
GUIDED = ('sedd', 'masked_diffusion')


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  fields = {
    'model.name': 'token_classifier',
    'model.args.embedding_size': 4,
    'data.label': 'kind',
  }
  uniform = {'process.name': 'uniform', 'schedule.name': 'geometric'}
  return fields, fields | uniform


def make(config: Any, data_info: Any) -> base.System:
  """The system of a config, for data with labels.

  Args:
    config: the whole config.
    data_info: has `vocab_size` and `labels`.

  Returns:
    The system: neither bound nor samples; `frozen`, which takes nothing over
    and refuses a run of other noise, and `log_label`, told the total noise, of
    tokens or weights of their states.

  Raises:
    ValueError: names and numbers that do not fit, and data without labels;
      before compilation.
  """
  labels = classifier.labels_of(config, data_info)
  process, schedule = _noise(config, data_info.vocab_size)
  network = parts.make_network(
    config, process.num_states, num_labels=len(labels), gives_labels='texts'
  )
  groups = classifier.fields_of(labels)
  t_min = config.training.t_min
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )

  def log_probs(params, x_t, level, valid=None, dropout_keys=None):
    time = -TIME_SCALE * jnp.expm1(-level)
    logits = network.apply({'params': params}, x_t, time, valid, dropout_keys)
    return classifier.within_fields(logits, groups)

  def init(key):
    x_t = jnp.zeros((1, 2), jnp.int32)
    return network.init(key, x_t, jnp.ones(1))['params'], {}

  def loss(params, aux, key, batch):
    del aux
    x_0, valid, given = parts.of_batch(batch)
    u = draw_times(key, batch['index'], batch['count'])
    level = schedule.total(t_min + (1 - t_min) * u)
    keys = keys_lib.example_keys(key, batch['index'])
    noise_keys = keys_lib.folded(keys, 0)
    dropout_keys = keys_lib.folded(keys, 1) if config.model.dropout else None
    x_t = losses.sample_noisy(noise_keys, x_0, level, process=process)
    x_t = x_t if given is None else jnp.where(given, x_0, x_t)
    found = log_probs(params, x_t, level, valid, dropout_keys)
    counted = parts.counted(x_0, valid, given)
    return classifier.label_loss(found, batch['label'], counted, groups)

  def frozen(other, params):
    del params
    name = other.system.name
    if name not in GUIDED and ':' not in name:
      raise ValueError(
        f'system {name!r} takes no classifier of tokens: a run of '
        f'{" or ".join(GUIDED)} does'
      )
    own, _ = _noise(other, data_info.vocab_size)
    if own != process:
      raise ValueError(
        'the noise of the run that it guides is process.name '
        f'{other.process.name!r}, and that of the classifier '
        f'{config.process.name!r}: process must be the same'
      )
    return {}

  def log_label(params, aux, x_t, level, label):
    del aux
    return classifier.of_label(log_probs(params, x_t, level), label)

  return base.System(
    init=init,
    loss=loss,
    bits_of=None,
    frozen=frozen,
    log_label=log_label,
  )


def _noise(
  config: Any, vocab_size: int
) -> tuple[Uniform | Absorbing, noise_schedules.Continuous]:
  """The noise of a config.

  Raises:
    ValueError: it is not on tokens in continuous time.
  """
  schedule = parts.make_schedule(config, noise_schedules.Continuous)
  process = parts.make_process(config, vocab_size)
  if not isinstance(process, Uniform | Absorbing):
    raise ValueError(
      f'process.name {config.process.name!r}: classifiers of tokens take '
      'uniform or absorbing'
    )
  return process, schedule
