"""The diffusion transformer of SEDD (arXiv 2310.16834, appendix C.2).

A transformer with rotary positions, bidirectional or causal, whose blocks are
modulated by the noise level (adaLN-zero, arXiv 2212.09748).  It maps tokens to
logits and knows nothing of processes; `heads.log_score` makes log scores of
them.

Precision: parameters, embeddings, conditioning, norms, modulation and residual
stream are float32; the products of the blocks have factors of `dtype`.  Unlike
the original, whose log scores come out in bfloat16 on a GPU, logits are
accumulated and returned in float32.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import shapes
from sedd_jax.models import attention as attention_lib
from sedd_jax.models import embeddings, heads, layers

# Keys and values of positions, by layer where there are several.
Cache = tuple[Array, Array]


class Block(nn.Module):
  """Attention and a two-layer network, each modulated and gated.

  Attributes:
    hidden_size: width of the residual stream.
    num_heads: attention heads.
    dropout: rate on the output of either branch, before its gate.
    dtype: of the products.
    attention: see `attention.attention`, also for what follows.
    causal: attend to no later position.
    prefix: first positions that all attend to, whatever `causal` says.
  """

  hidden_size: int
  num_heads: int
  dropout: float = 0.0
  dtype: DTypeLike = 'float32'
  attention: str = 'auto'
  causal: bool = False
  prefix: int = 0

  @nn.compact
  def __call__(
    self,
    h: Array,
    layer: Array,
    cond: Array,
    valid: Array | None = None,
    dropout_keys: Array | None = None,
    cache: Cache | None = None,
    position: Array | None = None,
  ) -> tuple[Array, Cache | None]:
    """One block, in the form that a scan over layers calls.

    Args:
      h: `[batch, length, hidden_size]` float32, the residual stream.
      layer: scalar int32, the block's number; folded into the dropout keys.
      cond: `[batch, cond_size]` float32.
      valid: `[batch, length]` bool, positions that are attended, or None; with
        a cache, of all its positions.
      dropout_keys: typed keys `[batch]`, or None for no dropout.
      cache: keys and values of the positions before, where h is of one
        position or of some that follow each other.
      position: scalar int32, the first of them.

    Returns:
      The residual stream after the block, and the cache with these positions.
    """

    def linear(
      features: int, name: str, use_bias: bool = True
    ) -> layers.Linear:
      return layers.Linear(
        features, use_bias=use_bias, dtype=self.dtype, name=name
      )

    def branch_keys(branch: int) -> Array | None:
      if dropout_keys is None:
        return None
      return keys_lib.folded(dropout_keys, 2 * layer + branch)

    batch, length, _ = h.shape
    heads_shape = (
      batch,
      length,
      3,
      self.num_heads,
      self.hidden_size // self.num_heads,
    )
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = layers.Modulation(
      6, self.hidden_size, name='modulation'
    )(cond)

    u = layers.modulated(layers.LayerNorm(name='norm_1')(h), shift_1, scale_1)
    qkv = linear(3 * self.hidden_size, 'qkv', use_bias=False)(u)
    q, k, v = jnp.unstack(qkv.reshape(heads_shape), axis=2)
    if cache is None or position is None:
      u = attention_lib.attention(
        embeddings.rotated(q),
        embeddings.rotated(k),
        v,
        valid,
        self.attention,
        self.causal,
        self.prefix,
      )
    else:
      size = cache[0].shape[1]
      q, k = (embeddings.rotated(x, position, size) for x in (q, k))
      keys = jax.lax.dynamic_update_slice_in_dim(cache[0], k, position, 1)
      values = jax.lax.dynamic_update_slice_in_dim(cache[1], v, position, 1)
      u = attention_lib.cached_attention(
        q, keys, values, position, valid, self.prefix
      )
      cache = keys, values
    u = u.reshape(h.shape)
    u = linear(self.hidden_size, 'attention_out', use_bias=False)(u)
    h += gate_1 * layers.dropout(u, branch_keys(0), self.dropout)

    u = layers.modulated(layers.LayerNorm(name='norm_2')(h), shift_2, scale_2)
    u = linear(4 * self.hidden_size, 'mlp_in')(u)
    u = linear(self.hidden_size, 'mlp_out')(jax.nn.gelu(u, approximate=True))
    h += gate_2 * layers.dropout(u, branch_keys(1), self.dropout)
    return h, cache


def stacked(
  num_layers: int, *, scan_layers: bool, remat: bool, **fields: Any
) -> nn.Module:
  """Blocks one after the other; under each parameter's first axis a layer.

  Args:
    num_layers: blocks.
    scan_layers: see `DiffusionTransformer`.
    remat: see `DiffusionTransformer`.
    **fields: of `Block`.

  Returns:
    A module with the arguments of `Block`, `layer` being `[num_layers]` and the
    caches having a first axis of layers.
  """
  block = Block
  if remat:
    # Within a loop nothing can be merged with the forward pass anyway.
    block = nn.remat(block, prevent_cse=not scan_layers)
  return nn.scan(
    block,
    variable_axes={'params': 0, 'intermediates': 0},
    split_rngs={'params': True},
    in_axes=(0, *3 * (nn.broadcast,), 0, nn.broadcast),
    length=num_layers,
    # All layers in one trip: XLA then sees no loop.
    unroll=1 if scan_layers else num_layers,
  )(**fields)


class DiffusionTransformer(nn.Module):
  """Tokens and total noise to logits over the states.

  SEDD-small is 768 / 12 / 12 / 128 (169,627,218 parameters with 50,258
  states), medium 1024 / 24 / 16 / 128 (424,477,010).

  Parameters are one tree whatever the fields below say: under `blocks` each
  array has a leading axis of layers.  `init` them with any tokens and levels.

  Attributes:
    num_states: rows of the embedding and logits, the mask's included.
    hidden_size: width of the residual stream.
    num_layers: blocks.
    num_heads: attention heads; divides hidden_size into even parts.
    cond_size: width of the embedding of the noise level.
    dropout: rate on the two branches of a block; none elsewhere.
    dtype: of the blocks' and the head's products, 'float32' or 'bfloat16'.
    scan_layers: scan over the blocks, or write them out, which compiles more
      slowly and runs faster.
    remat: compute the blocks' insides again in the backward pass.
    attention: 'auto', 'xla' or 'cudnn'; see
      `attention.attention_implementation`.
    causal: attend to no later position; for `decode`.
    num_labels: labels that a token may have; with any, `init` with a label.
    embedding_mean: what all tokens' embeddings have in common at the start, see
      `embeddings.TokenEmbedding`.  Queries and keys have no bias: with it their
      product depends on the distance of two tokens, whatever these are, from
      the first step on.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> model = DiffusionTransformer(num_states=28, hidden_size=16,
  ...                              num_layers=2, num_heads=2, cond_size=8)
  >>> x_t, sigma = jnp.zeros((3, 5), jnp.int32), jnp.ones(3)
  >>> params = jax.jit(model.init)(jax.random.key(0), x_t, sigma)['params']
  >>> jax.jit(model.apply)({'params': params}, x_t, sigma).shape
  (3, 5, 28)
  """

  num_states: int
  hidden_size: int
  num_layers: int
  num_heads: int
  cond_size: int
  dropout: float = 0.0
  dtype: DTypeLike = 'float32'
  scan_layers: bool = True
  remat: bool = False
  attention: str = 'auto'
  causal: bool = False
  num_labels: int = 0
  embedding_mean: float = 0.0

  def setup(self):
    if self.hidden_size % (2 * self.num_heads):
      raise ValueError(
        f'hidden_size must be a multiple of 2 * num_heads (rotary embeddings '
        f'turn pairs), not {self.hidden_size} with {self.num_heads} heads'
      )
    self.embed = embeddings.TokenEmbedding(
      self.num_states, self.hidden_size, self.embedding_mean
    )
    if self.num_labels:
      self.label_embed = embeddings.LabelEmbedding(
        self.num_labels, self.hidden_size
      )
    self.sigma_embed = embeddings.SigmaEmbedding(self.cond_size)
    self.blocks = stacked(
      self.num_layers,
      scan_layers=self.scan_layers,
      remat=self.remat,
      hidden_size=self.hidden_size,
      num_heads=self.num_heads,
      dropout=self.dropout,
      dtype=self.dtype,
      attention=self.attention,
      causal=self.causal,
    )
    self.head = heads.Head(self.num_states, self.hidden_size, self.dtype)

  def _trunk(
    self,
    x_t: Array,
    sigma: Array,
    valid: Array | None,
    dropout_keys: Array | None,
    label: Array | None,
  ) -> tuple[Array, Array]:
    """Residual stream after the last block, and the conditioning vector."""
    shapes.require_network_input(x_t, sigma, valid, dropout_keys)
    shapes.require_label(x_t, label, self.num_labels)
    cond = jax.nn.silu(self.sigma_embed(sigma))
    layer_numbers = jnp.arange(self.num_layers, dtype=jnp.int32)
    h = self.embed(x_t)
    if label is not None:
      h += self.label_embed(label)
    h, _ = self.blocks(h, layer_numbers, cond, valid, dropout_keys, None, None)
    return h, cond

  def empty_cache(self, batch: int, length: int) -> Cache:
    """Keys and values of no position yet.

    Args:
      batch: rows.
      length: positions that there will be.

    Returns:
      Two arrays `[num_layers, batch, length, num_heads, head_dim]` of `dtype`.
    """
    head_dim = self.hidden_size // self.num_heads
    shape = (self.num_layers, batch, length, self.num_heads, head_dim)
    return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

  def decode(
    self, x: Array, sigma: Array, cache: Cache, position: Array
  ) -> tuple[Array, Cache]:
    """The causal network at one position, those before being in the cache.

    Args:
      x: `[batch]` int32, the tokens at `position`.
      sigma: `[batch]`, as in `__call__`.
      cache: of `empty_cache`, and what earlier calls returned.
      position: scalar int32, from 0 on.

    Returns:
      Logits `[batch, num_states]` float32, and the cache.
    """
    cond = jax.nn.silu(self.sigma_embed(sigma))
    layer_numbers = jnp.arange(self.num_layers, dtype=jnp.int32)
    h, filled = self.blocks(
      self.embed(x[:, None]), layer_numbers, cond, None, None, cache, position
    )
    assert filled is not None
    return self.head(h, cond)[:, 0], filled

  def features(
    self,
    x_t: Array,
    sigma: Array,
    valid: Array | None = None,
    dropout_keys: Array | None = None,
    label: Array | None = None,
  ) -> Array:
    """What the head's linear map is applied to; see `heads.kernel_and_bias`.

    Args:
      x_t: as in `__call__`, like the rest.
      sigma: `[batch]`.
      valid: `[batch, length]` or None.
      dropout_keys: `[batch]` or None.
      label: `[batch, length]` or None.

    Returns:
      `[batch, length, hidden_size]` of `dtype`.
    """
    trunk = self._trunk(x_t, sigma, valid, dropout_keys, label)
    return self.head.features(*trunk)

  def __call__(
    self,
    x_t: Array,
    sigma: Array,
    valid: Array | None = None,
    dropout_keys: Array | None = None,
    label: Array | None = None,
  ) -> Array:
    """Logits before any scaling by the noise level.

    Args:
      x_t: `[batch, length]` int32, noisy tokens.
      sigma: `[batch]`, total noise, finite.
      valid: `[batch, length]` bool, False where a position is not attended;
        None: all are.  Logits at such positions mean nothing but are finite.
      dropout_keys: typed keys `[batch]`, one an example; None: no dropout.
      label: `[batch, length]` int32, below num_labels, -1 for none; None: none
        anywhere.

    Returns:
      `[batch, length, num_states]` float32.

    Raises:
      ValueError: for shapes or sizes that do not fit, or an attention kernel
        that cannot be used; before compilation.
    """
    return self.head(*self._trunk(x_t, sigma, valid, dropout_keys, label))
