"""Losses of a linear head that never hold all its logits.

Tokens go through the head in chunks, which the backward pass computes again.
Those whose loss is 0 whatever the logits, as clean ones under noise that masks,
are put last, and chunks of them alone are left out: of times drawn evenly that
is half of the head.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import numerics


def of_features(
  value_fn: Callable[..., Array],
  slope_fn: Callable[..., Array] | None,
  h: Array,
  kernel: Array,
  bias: Array,
  targets: Sequence[Array],
  *,
  counted: Array | None = None,
  chunk: int = 1024,
) -> Array:
  """A loss of h kernel + bias, a chunk of tokens at a time.

  Reverse-mode derivatives with respect to h, kernel and bias; what else there
  is is not differentiated.

  Args:
    value_fn: `(logits [n, states], *targets [n]) -> [n]`.
    slope_fn: its gradient with respect to the logits, `[n, states]`; None where
      nothing is differentiated.
    h: `[..., features]`, the factor of the product, whose dtype that has;
      accumulated and continued in float32.
    kernel: `[features, states]`.
    bias: `[states]`.
    targets: each `[...]`.
    counted: `[...]` bool; the others have loss and slope 0.  None: all.
    chunk: tokens at a time, of one device.

  Returns:
    `[...]`.

  Raises:
    ValueError: for no chunk.
    TypeError: differentiated without `slope_fn`.
  """
  if chunk < 1:
    raise ValueError(f'chunk must be at least 1, not {chunk}')
  shape, count = h.shape[:-1], math.prod(h.shape[:-1])
  dtype = numerics.compute_dtype(h)
  if not count:
    return jnp.zeros(shape, dtype)
  size = min(chunk, count)
  chunks = -(-count // size)
  order, needed = jnp.arange(count), jnp.int32(chunks)
  if counted is not None:
    counted = counted.reshape(count)
    order = jnp.argsort(~counted, stable=True)
    needed = -(-jnp.sum(counted, dtype=jnp.int32) // size)

  # Beyond the last token stand places that are read as it and never written.
  order = jnp.pad(order, (0, chunks * size - count), constant_values=count)

  def places_of(i, order):
    return jax.lax.dynamic_slice_in_dim(order, i * size, size)

  def at(places, x):
    return jnp.take(x, places, axis=0, mode='clip')

  def logits_of(h, kernel, bias):
    product = jnp.dot(h, kernel.astype(h.dtype), preferred_element_type=dtype)
    return product + bias[None]

  # By hand, for autodiff keeps several arrays of a chunk's logits where the
  # closed-form slope needs one, and takes no loop whose end is computed.
  # Everything is an argument: what it closed over would outlive the trace of a
  # caller's jit, vmap or scan.
  @jax.custom_vjp
  def loss(h, kernel, bias, order, needed, *targets):
    def of_chunk(i, values):
      places = places_of(i, order)
      own, *told = (at(places, x) for x in (h, *targets))
      found = value_fn(logits_of(own, kernel, bias), *told).astype(dtype)
      return values.at[places].set(found, mode='drop')

    return jax.lax.fori_loop(0, needed, of_chunk, jnp.zeros(count, dtype))

  def forward(*args):
    return loss(*args), args

  def backward(residuals, cotangent):
    if slope_fn is None:
      raise TypeError('slope_fn is None: this is not to be differentiated')
    h, kernel, bias, order, needed, *targets = residuals

    def of_chunk(i, sums):
      by_h, by_kernel, by_bias = sums
      places = places_of(i, order)
      own, by_value, *told = (at(places, x) for x in (h, cotangent, *targets))
      by_value = jnp.where(places < count, by_value, 0)
      slope = slope_fn(logits_of(own, kernel, bias), *told) * by_value[:, None]
      narrow = slope.astype(h.dtype)
      by_rows = jnp.dot(
        narrow, kernel.astype(h.dtype).T, preferred_element_type=dtype
      )
      by_h = by_h.at[places].set(by_rows.astype(h.dtype), mode='drop')
      by_kernel += jnp.dot(own.T, narrow, preferred_element_type=dtype)
      return by_h, by_kernel, by_bias + jnp.sum(slope, axis=0)

    sums = (
      jnp.zeros_like(h),
      jnp.zeros(kernel.shape, dtype),
      jnp.zeros(bias.shape, dtype),
    )
    by_h, by_kernel, by_bias = jax.lax.fori_loop(0, needed, of_chunk, sums)
    return (
      by_h,
      by_kernel.astype(kernel.dtype),
      by_bias.astype(bias.dtype),
      *[None] * (2 + len(targets)),
    )

  loss.defvjp(forward, backward)
  flat = [x.reshape(count) for x in targets]
  values = loss(
    h.reshape(count, h.shape[-1]), kernel, bias, order, needed, *flat
  )
  return values.reshape(shape)
