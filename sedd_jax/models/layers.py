"""Layers of the transformer: linear maps, norm, modulation, dropout.

Parameters are float32.  A layer with a `dtype` does its matrix product in it;
everything between the products is float32.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


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
  """(x - mean) / sqrt(variance + eps) * weight (+ bias) in float32.

  Attributes:
    eps: added to the variance.
    use_bias: whether there is a bias.
  """

  eps: float = 1e-5
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalises the last axis of `[batch, length, features]`; float32."""
    size = (x.shape[-1],)
    weight = self.param('weight', nn.initializers.ones, size, 'float32')
    x = x.astype('float32')
    x -= jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    y = x * jax.lax.rsqrt(variance + self.eps) * weight[None, None]
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, size, 'float32')
      y += bias[None, None]
    return y


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
