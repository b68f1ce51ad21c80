"""Layers of the transformer: linear maps, norm, modulation, dropout.

Parameters are float32.  A layer with a `dtype` does its matrix product in it;
everything between the products is float32.
"""

import functools
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, precision: Any = None) -> Array:
  """x @ kernel, whose gradient is faster on CPUs; it has no `jax.jvp`.

  Args:
    x: `[..., inputs]`.
    kernel: `[inputs, features]` of the same type.
    precision: of all products.

  Returns:
    `[..., features]`.
  """
  return jnp.dot(x, kernel, precision=precision)


def _product_forward(x, kernel, precision):
  return product(x, kernel, precision), (x, kernel)


def _product_backward(precision, residuals, g):
  x, kernel = residuals
  rows, g_rows = (y.reshape(-1, y.shape[-1]) for y in (x, g))

  def plain(rows, g_rows):
    return jnp.dot(rows.T, g_rows, precision=precision)

  def turned(rows, g_rows):
    # Both factors along their rows, which a product down the columns of one is
    # slower than; of the two the narrower is turned, in memory.
    held = jax.lax.optimization_barrier
    if rows.shape[-1] <= g_rows.shape[-1]:
      return jnp.dot(held(rows.T), g_rows, precision=precision)
    return held(jnp.dot(held(g_rows.T), rows, precision=precision)).T

  d_kernel = jax.lax.platform_dependent(rows, g_rows, cpu=turned, default=plain)
  return jnp.dot(g, kernel.T, precision=precision), d_kernel


product.defvjp(_product_forward, _product_backward)


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
    y = product(x.astype(self.dtype), kernel.astype(self.dtype), self.precision)
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
