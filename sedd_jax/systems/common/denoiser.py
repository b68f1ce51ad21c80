"""The network of the systems that predict x_0, told x_t and the time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.processes import TokenProcess
from sedd_jax.processes import base as process_base
from sedd_jax.systems.common import parts, weights

# Time in [0, 1] is told to the network at the scale of a level.
_TIME_SCALE = 1000.0


class Denoiser(NamedTuple):
  """A network as functions.

  Attributes:
    init: `(key) -> params`.
    logits_of: `(params, valid, dropout_keys) -> logits_fn`, the latter `(x_t
      [batch, length], u [batch], label [batch, length]) -> logits [batch,
      length, vocab_size]` at the share u = t / T of the time; the label may be
      left out.
    features_of: the same, but what the head's linear map is applied to.
    load_pretrained: `(path) -> params` reads published weights, or None where
      there are none for the network.
    told: whether the network is told the time.
    labels: what it knows of labels.
  """

  init: Callable[[Array], Any]
  logits_of: Callable[..., Callable[..., Array]]
  features_of: Callable[..., Callable[..., Array]]
  load_pretrained: weights.Loader | None = None
  told: bool = True
  labels: parts.Labels = parts.Labels()


def make(
  config: Any, process: TokenProcess, data_info: Any, *, timed: bool = True
) -> Denoiser:
  """The network of `config.model` for the states of a process.

  Args:
    config: the whole config.
    process: has `num_states` and `vocab_size`.
    data_info: may have `labels`.
    timed: whether the network is told the time; else it is told 0.  A network
      with a field for that is told it where the field says so.

  Returns:
    The denoiser.

  Raises:
    ValueError: for names or numbers that do not fit.
  """
  labels = parts.labels_of(config, data_info)
  network = parts.make_network(
    config, process.num_states, num_labels=labels.number
  )
  told = getattr(network, 'timed', timed)
  if timed and not told:
    raise ValueError(
      f'system {config.system.name} tells the time, and model.name '
      f"{config.model.name!r} has no place for it: use model.args.time='layer' "
      "or 'prefix'"
    )
  scale = _TIME_SCALE if told else 0.0

  def applied(params, valid, dropout_keys, **how):
    def apply(x_t, u, label=None):
      time = scale * u.astype(jnp.float32)
      named = how | parts.told_label(label)
      return network.apply(
        {'params': params}, x_t, time, valid, dropout_keys, **named
      )

    return apply

  def logits_of(params, valid=None, dropout_keys=None):
    apply = applied(params, valid, dropout_keys)
    # Data never holds the mask, and the network is not asked for it.
    size = process.vocab_size
    return lambda x_t, u, label=None: apply(x_t, u, label)[..., :size]

  def features_of(params, valid=None, dropout_keys=None):
    return applied(params, valid, dropout_keys, method='features')

  def init(key):
    x_t, time = jnp.zeros((1, 2), jnp.int32), jnp.ones(1)
    label = parts.told_label(x_t if labels.number else None)
    return network.init(key, x_t, time, **label)['params']

  load_pretrained = weights.bert_loader(
    network,
    lambda: init(jax.random.key(config.seed)),
    masked=process_base.has_mask(process),
  )
  if load_pretrained is None and process_base.has_mask(process) and not told:
    load_pretrained = weights.masked_loader(network)
  return Denoiser(init, logits_of, features_of, load_pretrained, told, labels)
