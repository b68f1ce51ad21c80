"""A classifier of noisy vectors: BERT's blocks, and their mean.

Source: the released code of arXiv 2205.14217, whose classifiers are BERT on
vectors mapped up, behind an embedding of the time.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sedd_jax.core import keys as keys_lib
from sedd_jax.models import bert, layers
from sedd_jax.models.embedding_bert import (
  Between,
  TimeEmbedding,
  blocks_of,
  require_inputs,
  require_sizes,
)


class VectorReader(nn.Module):
  """What classifiers of noisy vectors have: blocks on a text behind the time.

  The time stands before the text.  The original looks it up in a table of 200
  steps; here it goes through sinusoids, and any chain's steps will do.

  Attributes:
    num_labels: labels.
    hidden_size: width of the residual stream.
    num_layers: blocks.
    num_heads: attention heads; divides hidden_size.
    embedding_size: width of the vectors.
    cond_size: sinusoids of the time.
    max_positions: the longest text.
    mlp_size: width of a block's inner layer; None: 4 hidden_size.
    dropout: rate on input and branches.
    dtype: of the products, 'float32' or 'bfloat16'.
    scan_layers: scan over the blocks, or write them out.
    remat: compute the blocks' insides again in the backward pass.
    attention: 'auto', 'xla' or 'cudnn'.
  """

  num_labels: int
  hidden_size: int
  num_layers: int
  num_heads: int
  embedding_size: int = 16
  cond_size: int = 128
  max_positions: int = 512
  mlp_size: int | None = None
  dropout: float = 0.0
  dtype: DTypeLike = 'float32'
  scan_layers: bool = True
  remat: bool = False
  attention: str = 'auto'

  # `systems` tells by it, and by what they give, whose networks they are.
  takes_vectors = True

  @property
  def max_length(self) -> int:
    """The longest text."""
    return self.max_positions


class VectorClassifier(VectorReader):
  """Logits of labels, of a text as noisy vectors, by the mean of all places.

  Attributes:
    num_labels: labels, and all else as of `VectorReader`.
  """

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
      x_t: `[batch, length, embedding_size]`, noisy vectors.
      time: `[batch]`, finite.
      valid: `[batch, length]` bool, False for padding that is not attended;
        None: there is none.
      dropout_keys: typed keys `[batch]`, one an example; None: no dropout.

    Returns:
      `[batch, num_labels]` float32.

    Raises:
      ValueError: for shapes that do not fit; before compilation.
    """
    h = states(self, x_t, time, valid, dropout_keys)
    return of_texts(self, h, valid)


def of_texts(network: VectorReader, h: Array, valid: Array | None) -> Array:
  """BERT's pooler, and a linear map, of the mean of all places.

  Read at one place alone, it would learn by attention only, and may stand still
  for thousands of steps.

  Args:
    network: a `VectorReader`, inside its own call.
    h: of `states`.
    valid: of that call.

  Returns:
    `[batch, num_labels]` float32.
  """
  head = Between(network.hidden_size, network.num_labels, name='head')
  seen = None
  if valid is not None:
    seen = jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)[..., None]
  return head(jnp.mean(h, axis=1, where=seen)).astype('float32')


def states(
  network: VectorReader,
  x_t: Array,
  time: Array,
  valid: Array | None,
  dropout_keys: Array | None,
) -> Array:
  """What the blocks say, of the time and of each vector behind it.

  Args:
    network: a `VectorReader`, inside its own call.
    x_t, time, valid, dropout_keys: of that call.

  Returns:
    `[batch, 1 + length, hidden_size]` float32.

  Raises:
    ValueError: for shapes that do not fit; before compilation.
  """
  require_sizes(network)
  require_inputs(network, x_t, time, valid)
  batch, length, size = x_t.shape
  positions = network.param(
    'positions',
    nn.initializers.normal(0.02),
    (network.max_positions + 1, network.hidden_size),
    'float32',
  )
  up = Between(4 * size, network.hidden_size, network.dtype, name='up')
  prefix = TimeEmbedding(network.hidden_size, network.cond_size, name='time')
  h = up(x_t).astype('float32')
  h = jnp.concatenate([prefix(time), h], axis=1)
  h = bert.norm('norm')(h + positions[None, : length + 1])
  if valid is not None:
    valid = jnp.concatenate([jnp.ones((batch, 1), bool), valid], axis=1)
  if dropout_keys is not None:
    keys = keys_lib.folded(dropout_keys, 2 * network.num_layers)
    h = layers.dropout(h, keys, network.dropout)
  blocks = blocks_of(network, name='blocks')
  numbers = jnp.arange(network.num_layers, dtype=jnp.int32)
  h, _ = blocks(h, numbers, time, valid, dropout_keys)
  return h
