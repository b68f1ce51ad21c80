"""A classifier of words and phrases of noisy embeddings.

Source: the controls of arXiv 2205.14217, section 6, by parts of speech, spans
and trees.  As `classifier`, of labels that texts have at some of their words:
`pos[NNP]` of a word, `span[NP]` of a phrase, `span[]` of words that are none;
tags have a softmax of their own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.data.files import labels as data_labels
from sedd_jax.data.labelling import meanings
from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian
from sedd_jax.systems import base, classifier
from sedd_jax.systems.common import parts


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  (fields,) = classifier.examples()
  changes = {
    'model.name': 'span_classifier',
    'data.label': data_labels.SPANS,
  }
  return (fields | changes,)


def make(config: Any, data_info: Any) -> base.System:
  """The system of a config, for data with tags and phrases.

  Args:
    config: the whole config.
    data_info: has `vocab_size` and `labels`.

  Returns:
    The system: neither bound nor samples; `frozen` and `log_label`, whose label
    is `[n, facts, 3]` as `data.labelling.spans.numbered` has them.

  Raises:
    ValueError: names and numbers that do not fit, other labels, and no
      generator; before compilation.
  """
  parts.require_labels(config, of_spans=True)
  classifier.require_generator(config)
  labels = tuple(data_info.labels)
  process = Gaussian.of(parts.make_schedule(config, GaussianSteps))
  network = parts.make_network(
    config,
    data_info.vocab_size,
    num_labels=len(labels),
    vectors=True,
    gives_labels='spans',
  )
  shape = (data_info.vocab_size, network.embedding_size)
  on_noise = classifier.noisy(config, process)

  def logits(params, spans, x_t, step, valid=None, dropout_keys=None):
    time = classifier.TIME_SCALE / process.num_steps * step.astype(jnp.float32)
    return network.apply(
      {'params': params},
      x_t.astype(jnp.float32),
      time,
      spans,
      valid,
      dropout_keys,
    )

  def init(key):
    spans = jnp.array([[[0, 1]]])
    inputs = jnp.zeros((1, 2, shape[1])), jnp.ones(1), spans
    params = network.init(key, *inputs)['params']
    return params, {'embedding': jnp.zeros(shape, jnp.float32)}

  def loss(params, aux, key, batch):
    label = batch['label']
    texts = on_noise(aux['embedding'], key, batch)
    found = logits(params, label[..., :2], *texts)
    return span_loss(found, label[..., 2], labels)

  def log_label(params, aux, x_t, step, label):
    del aux
    found = logits(params, label[..., :2], x_t, step)
    own, _ = log_probs(found, label[..., 2], labels)
    return jnp.sum(own, axis=-1)

  return base.System(
    init=init,
    loss=loss,
    bits_of=None,
    frozen=classifier.taker(config, process, shape),
    log_label=log_label,
  )


def log_probs(
  logits: Array, label: Array, labels: Sequence[str]
) -> tuple[Array, Array]:
  """log p of a label of each span, within the labels of its field.

  Args:
    logits: `[batch, n, labels]`.
    label: int `[batch, n]`, below 0 for none.
    labels: their names, `field[value]`.

  Returns:
    `[batch, n]`, 0 where there is none; and bool, whether another label of the
    field is likelier.

  >>> one = jnp.array([[1]])
  >>> found, _ = log_probs(jnp.zeros((1, 1, 3)), one, ['a[x]', 'b[x]', 'b[y]'])
  >>> float(jnp.exp(found)[0, 0].round(3))
  0.5
  """
  fields = jnp.asarray(classifier.fields_of(labels))
  wanted = jnp.maximum(label, 0)
  same = fields[None, None] == fields[wanted][..., None]
  rivals = jnp.where(same, logits, -jnp.inf)
  own = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
  wrong = (label >= 0) & (own < jnp.max(rivals, axis=-1))
  nats = own - jax.nn.logsumexp(rivals, axis=-1)
  return jnp.where(label >= 0, nats, 0), wrong


def span_loss(logits: Array, label: Array, labels: Sequence[str]) -> base.Loss:
  """The mean -log p of the labels of a text; one without any counts nothing.

  Args:
    logits: `[batch, n, labels]`.
    label: int `[batch, n]`, below 0 for none.
    labels: their names, `field[value]`.

  Returns:
    Nats and weight, 1 or 0; its terms `wrong_FIELD` are the shares of labels
    that another one of the field is likelier than.
  """
  found, wrong = log_probs(logits, label, labels)
  numbers = classifier.fields_of(labels)
  terms = {}
  for number in np.unique(numbers):
    own = (label >= 0) & (jnp.asarray(numbers)[label] == number)
    field = meanings.field_of(labels[int(np.argmax(numbers == number))])
    terms[f'wrong_{field}'] = (
      jnp.sum(wrong & own, axis=-1).astype(logits.dtype),
      jnp.sum(own, axis=-1).astype(logits.dtype),
    )
  count = jnp.sum(label >= 0, axis=-1)
  nats = -jnp.sum(found, axis=-1) / jnp.maximum(count, 1)
  return base.Loss(nats, (count > 0).astype(logits.dtype), terms)
