"""From hidden states to logits, and from logits to log scores."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sedd_jax.core import numerics
from sedd_jax.models import layers


class Head(nn.Module):
  """Norm, modulation and a linear map to the states; starts at zero logits.

  Attributes:
    num_states: outputs.
    hidden_size: inputs.
    dtype: of the factors of the product; the logits are float32.
  """

  num_states: int
  hidden_size: int
  dtype: DTypeLike = 'float32'

  def setup(self):
    self.norm = layers.LayerNorm()
    self.modulation = layers.Modulation(2, self.hidden_size)
    shape = (self.hidden_size, self.num_states)
    self.kernel = self.param('kernel', nn.initializers.zeros, shape, 'float32')
    self.bias = self.param('bias', nn.initializers.zeros, shape[1:], 'float32')

  def features(self, h: Array, cond: Array) -> Array:
    """What the linear map is applied to.

    Args:
      h: `[batch, length, hidden_size]`, the residual stream.
      cond: `[batch, cond_size]`.

    Returns:
      `[batch, length, hidden_size]` of the compute dtype.
    """
    shift, scale = self.modulation(cond)
    return layers.modulated(self.norm(h), shift, scale).astype(self.dtype)

  def __call__(self, h: Array, cond: Array) -> Array:
    """Logits `[batch, length, num_states]` float32 from the residual stream."""
    return logits(self.features(h, cond), self.kernel, self.bias)


def logits(features: Array, kernel: Array, bias: Array) -> Array:
  """features kernel + bias, accumulated and returned in float32.

  The factors have the features' dtype; rounding the sum to bfloat16 would put
  log scores around 11 on a grid of 1/16.

  Args:
    features: `[batch, length, hidden_size]`.
    kernel: `[hidden_size, num_states]`.
    bias: `[num_states]`.

  Returns:
    `[batch, length, num_states]` float32.
  """
  product = jnp.dot(
    features,
    kernel.astype(features.dtype),
    preferred_element_type=jnp.float32,
  )
  return product + bias[None, None]


def logits_at(
  params: Mapping[str, Any], features: Array, places: Array
) -> Array:
  """A network's logits at some places of its sequences.

  Args:
    params: of a network of `MODELS`.
    features: `[batch, length, hidden_size]`, see `Head.features`.
    places: `[batch, n]` int32.

  Returns:
    `[batch, n, num_states]` float32.
  """
  there = jnp.take_along_axis(features, places[..., None], axis=1)
  return logits(there, *kernel_and_bias(params))


def kernel_and_bias(params: Mapping[str, Any]) -> tuple[Array, Array]:
  """The head's linear map, for losses that never hold all the logits.

  Args:
    params: of a network of `MODELS`; where the head has no matrix of its own,
      it is that of the embedding.

  Returns:
    Kernel `[hidden_size, num_states]` and bias `[num_states]`, float32.
  """
  head = params['head']
  kernel = (
    head['kernel'] if 'kernel' in head else params['embed']['embedding'].T
  )
  return kernel, head['bias']


def log_score(
  logits: Array, x_t: Array, sigma: Array, scale_by_sigma: bool
) -> Array:
  """log p_t(y) / p_t(x_t) from a network's logits (arXiv 2310.16834, app. C.1).

  Under absorbing noise the ratios at a masked token are p(x_0 = y) divided by
  e^sigma - 1, so log(e^sigma - 1) + log(num_states - 1) is subtracted and zero
  logits mean equal probabilities for all symbols.

  Args:
    logits: `[batch, length, num_states]`.
    x_t: `[batch, length]` int32, noisy tokens.
    sigma: `[batch]`, total noise, above 0 and finite.
    scale_by_sigma: subtract those two terms; True for absorbing noise.

  Returns:
    `[batch, length, num_states]`, at least float32; the entry of x_t is 0.

  Raises:
    ValueError: for shapes that do not fit.

  >>> import jax.numpy as jnp
  >>> score = jnp.exp(log_score(jnp.zeros((1, 1, 3)), jnp.array([[2]]),
  ...                           jnp.log(jnp.array([2.0])), True))
  >>> print(score.round(3))
  [[[0.5 0.5 1. ]]]
  """
  value = _checked(logits, x_t, sigma)
  num_states = logits.shape[-1]
  if scale_by_sigma:
    value -= (numerics.log_expm1(sigma) + jnp.log(num_states - 1))[
      :, None, None
    ]
  own = jax.nn.one_hot(x_t, num_states, dtype=bool)
  return jnp.where(own, 0, value)


def log_score_of_x0(logits: Array, x_t: Array, sigma: Array) -> Array:
  """log p_t(y) / p_t(x_t) under uniform noise from a prediction of x_0.

  The network says p, what x_0 is at a position by the other ones, and the
  ratios are those of q(x_t | x_0) in its mean, (1 + c p(y)) / (1 + c p(x_t))
  with c = num_states / (e^sigma - 1) (arXiv 2412.10193, the ratios of its
  reverse rates).  Whatever the network says, they are those of some data; at
  the true p they are the true ones.

  Args:
    logits: `[batch, length, num_states]`, of p.
    x_t: `[batch, length]` int32, noisy tokens.
    sigma: `[batch]`, total noise, above 0.

  Returns:
    `[batch, length, num_states]`, at least float32; the entry of x_t is 0.

  Raises:
    ValueError: for shapes that do not fit.

  >>> import jax.numpy as jnp
  >>> logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25]]]))
  >>> sigma = jnp.log(jnp.array([2.0]))
  >>> score = jnp.exp(log_score_of_x0(logits, jnp.array([[2]]), sigma))
  >>> print(score.round(3))
  [[[1.429 1.    1.   ]]]
  """
  value = _checked(logits, x_t, sigma)
  num_states = logits.shape[-1]
  log_c = jnp.log(num_states) - numerics.log_expm1(sigma)
  # log(1 + c p): a logarithm of sums would lose it at large sigma.
  level = jax.nn.softplus(jax.nn.log_softmax(value) + log_c[:, None, None])
  own = jax.nn.one_hot(x_t, num_states, dtype=bool)
  at_own = jnp.sum(jnp.where(own, level, 0), axis=-1, keepdims=True)
  return jnp.where(own, 0, level - at_own)


def _checked(logits: Array, x_t: Array, sigma: Array) -> Array:
  """The logits, at least float32."""
  if logits.shape[:-1] != x_t.shape or sigma.shape != x_t.shape[:1]:
    raise ValueError(
      f'logits {logits.shape}, x_t {x_t.shape} and sigma {sigma.shape} do not '
      'fit: [batch, length, num_states], [batch, length] and [batch]'
    )
  return numerics.as_float(logits)
