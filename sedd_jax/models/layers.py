"""Layers of the transformer: linear maps, norm, modulation, dropout, attention.

Parameters are float32.  A layer with a `dtype` does its matrix product in it;
everything between the products is float32.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sedd_jax.core import names

ATTENTION = ('auto', 'xla', 'cudnn')

# cuDNN's fused attention: largest head by the compute capability it needs.
_CUDNN_HEAD_DIMS = ((9.0, 256), (0.0, 128))
_CUDNN_DTYPES = ('bfloat16', 'float16')


def fan_in_uniform(
  key: Array, shape: tuple[int, ...], fan_in: int, dtype: DTypeLike = 'float32'
) -> Array:
  """U(-b, b) with b = 1 / sqrt(fan_in), PyTorch's default for linear layers."""
  bound = 1 / math.sqrt(fan_in)
  return jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
  """x W + b, initialised as PyTorch does.

  Weight and bias are drawn from U(-b, b), b = 1 / sqrt(inputs), or are zero.

  Attributes:
    features: outputs.
    use_bias: whether there is a b.
    zero_init: start at W = 0, b = 0.
    dtype: of the product and of the result.
    precision: of the product; None is the backend's default, under which
      float32 products lose digits on GPUs (TF32) and TPUs (bfloat16).
  """

  features: int
  use_bias: bool = True
  zero_init: bool = False
  dtype: DTypeLike = 'float32'
  precision: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps `[..., inputs]` to `[..., features]` of `dtype`."""
    fan_in = x.shape[-1]
    init = nn.initializers.zeros if self.zero_init else fan_in_uniform
    args = ('float32',) if self.zero_init else (fan_in,)
    kernel = self.param('kernel', init, (fan_in, self.features), *args)
    y = jnp.dot(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      precision=self.precision,
    )
    if self.use_bias:
      bias = self.param('bias', init, (self.features,), *args)
      y += bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return y


class LayerNorm(nn.Module):
  """(x - mean) / sqrt(variance + 1e-5) * weight in float32, without a bias."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalises the last axis of `[batch, length, features]`; float32."""
    weight = self.param(
      'weight', nn.initializers.ones, (x.shape[-1],), 'float32'
    )
    x = x.astype('float32')
    x -= jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + 1e-5) * weight[None, None]


class Modulation(nn.Module):
  """adaLN-zero: shifts, scales and gates from the conditioning vector.

  Source: arXiv 2212.09748, section 3.2.  In float32, for it acts on the
  residual stream; zero at the start, so that gated branches start closed.

  Attributes:
    count: vectors returned.
    hidden_size: their width.
  """

  count: int
  hidden_size: int

  @nn.compact
  def __call__(self, cond: Array) -> list[Array]:
    """Maps `[batch, cond_size]` to `count` of `[batch, 1, hidden_size]`."""
    linear = Linear(
      self.count * self.hidden_size,
      zero_init=True,
      precision='highest',
      name='linear',
    )
    return jnp.split(linear(cond)[:, None], self.count, axis=-1)


def modulated(x: Array, shift: Array, scale: Array) -> Array:
  """x (1 + scale) + shift, with shift and scale `[batch, 1, features]`."""
  return x * (1 + scale) + shift


def dropout(x: Array, keys: Array | None, rate: float) -> Array:
  """Zeroes entries with probability `rate` and divides the rest by 1 - rate.

  Each example draws from its own key, so that its noise depends neither on the
  other rows nor on the layout of the batch.

  Args:
    x: `[batch, ...]`.
    keys: typed keys `[batch]`, or None for no dropout.
    rate: probability in [0, 1).

  Returns:
    The same shape and dtype.
  """
  if keys is None or rate == 0:
    return x
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(
    keys
  )
  return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def compute_capability() -> float | None:
  """Of the CUDA GPU that computes by default, e.g. 9.0; None without one."""
  device = jax.config.jax_default_device  # type: ignore[attr-defined]
  if not isinstance(device, jax.Device):
    device = jax.local_devices(backend=device)[0]
  try:
    return float(device.compute_capability)
  # Other platforms have no such attribute, or (ROCm) no number in it.
  except (AttributeError, ValueError):
    return None


def cudnn_obstacle(
  dtype: DTypeLike,
  head_dim: int,
  length: int,
  masked: bool,
  capability: float | None,
) -> str | None:
  """Why cuDNN's fused attention cannot be used, or None where it can.

  The conditions are those of `jax.nn.dot_product_attention`, known before
  anything is compiled.

  Args:
    dtype: of queries, keys and values.
    head_dim: width of a head.
    length: positions a sequence.
    masked: whether some keys may be masked.
    capability: the GPU's compute capability; None for another device.

  Returns:
    One clause for an error's text, or None.

  >>> cudnn_obstacle('bfloat16', 64, 1024, False, 9.0)
  >>> cudnn_obstacle('float32', 64, 1024, False, 9.0)
  'it computes in bfloat16 or float16, not float32'
  """
  if capability is None:
    return 'it needs a CUDA GPU'
  if jnp.dtype(dtype).name not in _CUDNN_DTYPES:
    return (
      f'it computes in {" or ".join(_CUDNN_DTYPES)}, not '
      f'{jnp.dtype(dtype).name}'
    )
  largest = next(dim for least, dim in _CUDNN_HEAD_DIMS if capability >= least)
  if head_dim > largest or head_dim % 8:
    return (
      f'on this GPU a head is a multiple of 8 up to {largest} wide, not '
      f'{head_dim}'
    )
  if masked and length % 2:
    return f'with a mask the length must be even, not {length}'
  return None


def attention_implementation(
  requested: str,
  *,
  dtype: DTypeLike,
  head_dim: int,
  length: int,
  masked: bool,
  capability: float | None,
) -> Literal['xla', 'cudnn']:
  """The kernel that a field's value stands for.

  Args:
    requested: 'auto' (cuDNN where it can be used, else XLA), 'xla' or 'cudnn'.
    dtype: see `cudnn_obstacle`, also for what follows.
    head_dim: width of a head.
    length: positions a sequence.
    masked: whether some keys may be masked.
    capability: the GPU's compute capability; None for another device.

  Returns:
    'xla' or 'cudnn'.

  Raises:
    ValueError: for another name, or for 'cudnn' where it cannot be used.

  >>> attention_implementation('auto', dtype='bfloat16', head_dim=64,
  ...                          length=1024, masked=False, capability=None)
  'xla'
  """
  if requested not in ATTENTION:
    raise ValueError(
      f'unknown attention {requested!r}; '
      f'{names.alternatives(requested, ATTENTION)}'
    )
  if requested == 'xla':
    return 'xla'
  obstacle = cudnn_obstacle(dtype, head_dim, length, masked, capability)
  if requested == 'auto':
    return 'xla' if obstacle else 'cudnn'
  if obstacle:
    raise ValueError(
      f"attention='cudnn' cannot be used: {obstacle}; use 'auto' or 'xla'"
    )
  return 'cudnn'


def attention(
  query: Array,
  key: Array,
  value: Array,
  valid: Array | None = None,
  implementation: str = 'auto',
) -> Array:
  """Full softmax attention, scaled by head_dim^-1/2; the softmax is float32.

  Args:
    query: `[batch, length, heads, head_dim]`.
    key: the same shape.
    value: the same shape.
    valid: `[batch, length]` bool, keys that are attended, or None for all.
      Where a row has none, its result is finite and means nothing.
    implementation: 'auto', 'xla' or 'cudnn'.

  Returns:
    `[batch, length, heads, head_dim]` of the arguments' dtype.

  Raises:
    ValueError: before compilation, see `attention_implementation`.
  """
  batch, length, _, head_dim = query.shape
  kernel = attention_implementation(
    implementation,
    dtype=query.dtype,
    head_dim=head_dim,
    length=length,
    masked=valid is not None,
    capability=compute_capability(),
  )
  mask = None
  if valid is not None:
    mask = valid[:, None, None, :]
    if kernel == 'cudnn':
      # It wants the queries' axis written out.
      mask = jnp.broadcast_to(mask, (batch, 1, length, length))
  return jax.nn.dot_product_attention(
    query, key, value, mask=mask, implementation=kernel
  )
