"""Embeddings of tokens, of the noise level and of positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.models import layers

MAX_PERIOD = 10_000


def frequencies(count: int) -> np.ndarray:
  """10000^(-i / count) for i = 0 .. count - 1, `[count]` float64."""
  return MAX_PERIOD ** (-np.arange(count) / count)


def sinusoidal(level: Array, size: int) -> Array:
  """[cos(level f), sin(level f)] with f = `frequencies(size / 2)`.

  Source: arXiv 1706.03762, section 3.5, cosines first.

  Args:
    level: `[batch]`, e.g. the total noise as it is.
    size: even, the width of the embedding.

  Returns:
    `[batch, size]` float32.
  """
  f = jnp.asarray(frequencies(size // 2), 'float32')
  angle = level.astype('float32')[:, None] * f[None]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def rotary_tables(length: int, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
  """Cosine and sine of position * 10000^(-2 i / head_dim).

  Args:
    length: positions.
    head_dim: even, width of a head.

  Returns:
    Two arrays `[length, head_dim / 2]`, computed in float64, float32.
  """
  angles = np.outer(np.arange(length), frequencies(head_dim // 2))
  return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotated(
  x: Array, position: Array | None = None, length: int | None = None
) -> Array:
  """Rotary position embedding, half-split ("NeoX") layout.

  Entry i of a head is paired with entry i + head_dim / 2, and the pair turned
  by position * 10000^(-2 i / head_dim).  Source: arXiv 2104.09864, eq. 34.

  Args:
    x: `[batch, length, heads, head_dim]`, queries or keys.
    position: scalar int32, of the first of them; 0 by default.
    length: positions that there are, where `position` is given.

  Returns:
    The same shape and dtype; the rotation is done in float32.
  """
  cos, sin = map(jnp.asarray, rotary_tables(length or x.shape[1], x.shape[3]))
  if position is not None:
    cos, sin = (
      jax.lax.dynamic_slice_in_dim(table, position, x.shape[1])
      for table in (cos, sin)
    )
  cos, sin = (table[None, :, None] for table in (cos, sin))
  a, b = jnp.split(x.astype('float32'), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return turned.astype(x.dtype)


class TokenEmbedding(nn.Module):
  """A row of a table for each token.

  Attributes:
    num_states: rows, the mask's included.
    hidden_size: their width.
    mean: times a row drawn like the others, that is added to all at the start;
      0: none, as in the released code.
  """

  num_states: int
  hidden_size: int
  mean: float = 0.0

  def setup(self):
    self.embedding = self.param(
      'embedding',
      self._drawn,
      (self.num_states, self.hidden_size),
      self.hidden_size,
    )

  def _drawn(self, key: Array, shape: tuple[int, ...], fan_in: int) -> Array:
    rows = layers.fan_in_uniform(key, shape, fan_in)
    if not self.mean:
      return rows
    key = jax.random.fold_in(key, 1)
    return rows + self.mean * layers.fan_in_uniform(
      key, (1, *shape[1:]), fan_in
    )

  def __call__(self, x: Array) -> Array:
    """Maps tokens `[batch, length]` to `[batch, length, hidden_size]`."""
    return jnp.take(self.embedding, x, axis=0)

  def table(self) -> Array:
    """All rows, `[num_states, hidden_size]`, for an output that shares them."""
    return self.embedding


class LabelEmbedding(nn.Module):
  """A row of a table for each label, added to the token's; zero for none.

  All rows start at zero, so a network begins as one without labels, and is one
  where no label is told.

  Attributes:
    num_labels: rows.
    hidden_size: their width.
  """

  num_labels: int
  hidden_size: int

  @nn.compact
  def __call__(self, label: Array) -> Array:
    """Maps labels `[batch, length]` to `[batch, length, hidden_size]`."""
    shape = (self.num_labels, self.hidden_size)
    table = self.param('embedding', nn.initializers.zeros, shape, 'float32')
    rows = jnp.take(table, jnp.maximum(label, 0), axis=0)
    return jnp.where((label >= 0)[..., None], rows, 0)


class SigmaEmbedding(nn.Module):
  """The total noise through 256 sinusoids and a two-layer network.

  All in float32, for the network has to tell 1e-3 from 1e-4.

  Attributes:
    cond_size: width of the result and of the hidden layer.
    num_sinusoids: cosines and sines together.
  """

  cond_size: int
  num_sinusoids: int = 256

  @nn.compact
  def __call__(self, sigma: Array) -> Array:
    """Maps `[batch]` total noise to `[batch, cond_size]` float32."""
    hidden = layers.Linear(self.cond_size, precision='highest', name='inner')(
      sinusoidal(sigma, self.num_sinusoids)
    )
    return layers.Linear(self.cond_size, precision='highest', name='outer')(
      jax.nn.silu(hidden)
    )
