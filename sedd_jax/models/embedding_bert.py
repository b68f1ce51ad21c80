"""Diffusion-LM's network: BERT's blocks on vectors, and embeddings of tokens.

Source: the released code of arXiv 2205.14217 (TransformerNetModel2), which that
of DiffuSeq (arXiv 2210.08933) has too.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sedd_jax.core import keys as keys_lib
from sedd_jax.models import bert, embeddings, heads, layers


class Between(nn.Module):
  """Linear, tanh, linear: from one width to another.

  Attributes:
    inner: width of the first map.
    features: width of the result.
    dtype: of the products.
  """

  inner: int
  features: int
  dtype: DTypeLike = 'float32'

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps `[..., n]` to `[..., features]` of `dtype`."""
    inner = layers.Linear(self.inner, dtype=self.dtype, name='inner')
    outer = layers.Linear(self.features, dtype=self.dtype, name='outer')
    return outer(jnp.tanh(inner(x)))


class TimeEmbedding(nn.Module):
  """The time through sinusoids, a linear map, silu and another one.

  Attributes:
    hidden_size: width of the result.
    num_sinusoids: cosines and sines together; the inner width is 4 of it.
  """

  hidden_size: int
  num_sinusoids: int

  @nn.compact
  def __call__(self, time: Array) -> Array:
    """Maps `[batch]` to `[batch, 1, hidden_size]` float32."""
    u = embeddings.sinusoidal(time, self.num_sinusoids)
    inner = layers.Linear(
      4 * self.num_sinusoids, precision='highest', name='inner'
    )
    outer = layers.Linear(self.hidden_size, precision='highest', name='outer')
    return outer(jax.nn.silu(inner(u)))[:, None]


def require_sizes(network: nn.Module) -> None:
  """Refuses a network of vectors whose fields do not divide.

  Raises:
    ValueError: heads that do not divide hidden_size; an odd cond_size.
  """
  if network.hidden_size % network.num_heads or network.cond_size % 2:
    raise ValueError(
      'hidden_size must be a multiple of num_heads and cond_size even, not '
      f'{network.hidden_size} with {network.num_heads} heads and '
      f'{network.cond_size}'
    )


def require_inputs(
  network: nn.Module, x_t: Array, time: Array, valid: Array | None
) -> None:
  """Refuses what a network of vectors cannot be given.

  Args:
    network: with embedding_size and max_positions.
    x_t: `[batch, length, embedding_size]`.
    time: `[batch]`.
    valid: `[batch, length]` or None.

  Raises:
    ValueError: shapes that do not fit; a text longer than max_positions.
  """
  batch, length, size = x_t.shape
  if size != network.embedding_size or time.shape != (batch,):
    raise ValueError(
      f'x_t {x_t.shape} and time {time.shape} do not fit: [batch, length, '
      f'{network.embedding_size}] and [batch]'
    )
  if valid is not None and valid.shape != (batch, length):
    raise ValueError(f'valid {valid.shape} does not fit x_t {x_t.shape}')
  if length > network.max_positions:
    raise ValueError(
      f'{length} tokens are more than the {network.max_positions} that the '
      'network has positions for (max_positions)'
    )


def blocks_of(network: nn.Module, name: str | None = None) -> nn.Module:
  """BERT's blocks by the fields of a network of vectors."""
  return bert.stack(
    network.num_layers,
    scan_layers=network.scan_layers,
    remat=network.remat,
    hidden_size=network.hidden_size,
    num_heads=network.num_heads,
    mlp_size=network.mlp_size or 4 * network.hidden_size,
    dropout=network.dropout,
    dtype=network.dtype,
    attention=network.attention,
    name=name,
  )


class EmbeddingBert(nn.Module):
  """A prediction of vectors from noisy ones, and the tokens' own vectors.

  The embedding is learned, drawn from N(0, 1) and shared with the rounding,
  softmax(x E^T + b).  Dropout is on the input and on the blocks' branches; the
  original's encoder also drops attention weights.

  Attributes:
    num_states: tokens.
    hidden_size: width of the residual stream.
    num_layers: blocks.
    num_heads: attention heads; divides hidden_size.
    embedding_size: width of the vectors.
    cond_size: sinusoids of the time.
    max_positions: the longest input.
    mlp_size: width of a block's inner layer; None: 4 hidden_size.
    dropout: rate on input and branches.
    dtype: of the products, 'float32' or 'bfloat16'.
    scan_layers: scan over the blocks, or write them out.
    remat: compute the blocks' insides again in the backward pass.
    attention: 'auto', 'xla' or 'cudnn'.

  >>> model = EmbeddingBert(
  ...   num_states=9, hidden_size=16, num_layers=1, num_heads=2,
  ...   embedding_size=4, cond_size=8,
  ... )
  >>> x_t, time = jnp.zeros((3, 5, 4)), jnp.zeros(3)
  >>> made = jax.eval_shape(
  ...   model.init_with_output, jax.random.key(0), x_t, time
  ... )
  >>> made[0].shape
  (3, 5, 4)
  """

  num_states: int
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

  # No network of tokens: `systems.common.parts` tells them apart.
  takes_vectors = True

  @property
  def max_length(self) -> int:
    """The longest text."""
    return self.max_positions

  def setup(self):
    require_sizes(self)
    self.embedding = self.param(
      'embedding',
      nn.initializers.normal(1.0),
      (self.num_states, self.embedding_size),
      'float32',
    )
    self.rounding_bias = self.param(
      'rounding_bias',
      layers.fan_in_uniform,
      (self.num_states,),
      self.embedding_size,
    )
    self.positions = self.param(
      'positions',
      nn.initializers.normal(1.0),
      (self.max_positions, self.hidden_size),
      'float32',
    )
    self.up = Between(self.hidden_size, self.hidden_size, self.dtype)
    self.down = Between(self.hidden_size, self.embedding_size, self.dtype)
    self.time = TimeEmbedding(self.hidden_size, self.cond_size)
    self.norm = bert.norm()
    self.blocks = blocks_of(self)

  def __call__(
    self,
    x_t: Array,
    time: Array,
    valid: Array | None = None,
    dropout_keys: Array | None = None,
  ) -> Array:
    """The prediction, of x_0 or of the noise.

    Args:
      x_t: `[batch, length, embedding_size]`, noisy vectors.
      time: `[batch]`, finite.
      valid: `[batch, length]` bool, False for padding that is not attended;
        None: there is none.
      dropout_keys: typed keys `[batch]`, one an example; None: no dropout.

    Returns:
      `[batch, length, embedding_size]` float32.

    Raises:
      ValueError: for shapes that do not fit; before compilation.
    """
    require_inputs(self, x_t, time, valid)
    h = self.up(x_t).astype('float32')
    h = self.norm(h + self.positions[None, : x_t.shape[1]] + self.time(time))
    if dropout_keys is not None:
      keys = keys_lib.folded(dropout_keys, 2 * self.num_layers)
      h = layers.dropout(h, keys, self.dropout)
    numbers = jnp.arange(self.num_layers, dtype=jnp.int32)
    h, _ = self.blocks(h, numbers, time, valid, dropout_keys)
    return self.down(h).astype('float32')

  def embedded(self, tokens: Array) -> Array:
    """Maps tokens `[..., length]` to their vectors, with one axis more."""
    return jnp.take(self.embedding, tokens, axis=0)

  def rounding(self, x: Array) -> Array:
    """Logits of the tokens of vectors `[..., size]`: `[..., num_states]`."""
    return heads.logits(x, self.embedding.T, self.rounding_bias)

  def table(self) -> Array:
    """All vectors, `[num_states, embedding_size]`."""
    return self.embedding
