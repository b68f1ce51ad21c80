"""A classifier of words and phrases of noisy vectors."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from sedd_jax.models import layers
from sedd_jax.models.vector_classifier import VectorReader, states


class SpanClassifier(VectorReader):
  """Logits of labels of spans, of a text as noisy vectors.

  A span is read at its first and its last token: a linear map of each, the tanh
  of their sum, and a linear map.

  Attributes:
    num_labels: labels, and all else as of `VectorReader`.

  >>> model = SpanClassifier(
  ...   num_labels=3, hidden_size=16, num_layers=1, num_heads=2,
  ...   embedding_size=4, cond_size=8,
  ... )
  >>> import jax
  >>> x_t, time, spans = jnp.zeros((2, 5, 4)), jnp.zeros(2), [[[0, 1]]] * 2
  >>> made = jax.eval_shape(
  ...   model.init_with_output, jax.random.key(0), x_t, time, jnp.array(spans)
  ... )
  >>> made[0].shape
  (2, 1, 3)
  """

  gives_labels = 'spans'

  @nn.compact
  def __call__(
    self,
    x_t: Array,
    time: Array,
    spans: Array,
    valid: Array | None = None,
    dropout_keys: Array | None = None,
  ) -> Array:
    """The logits.

    Args:
      x_t: `[batch, length, embedding_size]`, noisy vectors.
      time: `[batch]`, finite.
      spans: int `[batch, n, 2]`, each the first token and that behind the last
        one, from 0 to length.
      valid: `[batch, length]` bool, False for padding that is not attended;
        None: there is none.
      dropout_keys: typed keys `[batch]`, one an example; None: no dropout.

    Returns:
      `[batch, n, num_labels]` float32.

    Raises:
      ValueError: for shapes that do not fit; before compilation.
    """
    if spans.shape != (x_t.shape[0], spans.shape[1], 2):
      raise ValueError(
        f'spans {spans.shape} do not fit x_t {x_t.shape}: [batch, n, 2]'
      )
    # The time is before the first token, so that last ones stand at ends.
    h = states(self, x_t, time, valid, dropout_keys)
    ends = [
      jnp.take_along_axis(
        layers.Linear(self.hidden_size, dtype=self.dtype, name=name)(h),
        place[..., None],
        axis=1,
      )
      for name, place in (('first', spans[..., 0] + 1), ('last', spans[..., 1]))
    ]
    head = layers.Linear(self.num_labels, name='head')
    return head(jnp.tanh(ends[0] + ends[1])).astype('float32')
