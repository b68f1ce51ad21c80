"""A classifier of noisy tokens: BERT's blocks, and their mean."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.models import vector_classifier


class TokenClassifier(vector_classifier.VectorReader, kw_only=True):
  """Logits of labels, of a text of noisy tokens, by the mean of all places.

  Tokens may be told by weights of their states: the gradient in these says, to
  first order, what another token would change.

  Attributes:
    num_states: of a token, the mask's included.
    num_labels: labels, and all else as of `VectorReader`; vectors of
      embedding_size stand for tokens.

  >>> network = TokenClassifier(
  ...   num_labels=2, hidden_size=8, num_layers=1, num_heads=2, num_states=3
  ... )
  >>> x_t, time = jnp.array([[0, 2, 1]]), jnp.ones(1)
  >>> network.init_with_output(jax.random.key(0), x_t, time)[0].shape
  (1, 2)
  """

  num_states: int

  takes_vectors = False
  gives_labels = 'texts'

  @nn.compact
  def __call__(
    self,
    x_t: Array,
    time: Array,
    valid: Array | None = None,
    dropout_keys: Array | None = None,
  ) -> Array:
    """The logits.

    Args:
      x_t: `[batch, length]` integers, or `[batch, length, num_states]` floats,
        weights of the states.
      time: `[batch]`, finite.
      valid: `[batch, length]` bool, False for padding that is not attended;
        None: there is none.
      dropout_keys: typed keys `[batch]`, one an example; None: no dropout.

    Returns:
      `[batch, num_labels]` float32.

    Raises:
      ValueError: for shapes that do not fit; before compilation.
    """
    table = self.param(
      'embedding',
      # Small, so that gradients tell more of another token.
      nn.initializers.normal(0.02),
      (self.num_states, self.embedding_size),
      'float32',
    )
    if jnp.issubdtype(x_t.dtype, jnp.integer):
      vectors = jnp.take(table, x_t, axis=0)
    elif x_t.ndim == 3 and x_t.shape[-1] == self.num_states:
      precision = jax.lax.Precision.HIGHEST
      vectors = jnp.matmul(x_t, table, precision=precision)
    else:
      raise ValueError(
        f'x_t {x_t.dtype} {x_t.shape} must be integers [batch, length] or '
        f'weights [batch, length, {self.num_states}]'
      )
    h = vector_classifier.states(self, vectors, time, valid, dropout_keys)
    return vector_classifier.of_texts(self, h, valid)
