"""Losses of a head in chunks: their values, gradients, and what is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.losses import head

STATES, WIDTH = 5, 3


def inputs(counted):
  rng = np.random.default_rng(0)
  shape = np.shape(counted)
  h, kernel, bias = (
    jnp.asarray(rng.normal(size=size), jnp.float32)
    for size in ((*shape, WIDTH), (WIDTH, STATES), (STATES,))
  )
  target = jnp.asarray(rng.integers(STATES, size=shape))
  return h, kernel, bias, target, jnp.asarray(counted)


def value(logits, target, counted):
  own = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
  nats = jax.nn.logsumexp(logits, axis=-1) - own
  return jnp.where(counted, nats, 0)


def slope(logits, target, counted):
  found = jax.nn.softmax(logits) - jax.nn.one_hot(target, STATES)
  return jnp.where(counted[..., None], found, 0)


def plain(h, kernel, bias, target, counted):
  bias = bias.reshape((1,) * (h.ndim - 1) + (STATES,))
  return value(h @ kernel + bias, target, counted)


def chunked(h, kernel, bias, target, counted, chunk=4):
  targets = target, counted
  return head.of_features(
    value, slope, h, kernel, bias, targets, counted=counted, chunk=chunk
  )


def few(*shape):
  return np.random.default_rng(1).random(shape) < 0.3


@pytest.mark.parametrize('chunk', [1, 4, 7, 100])
@pytest.mark.parametrize(
  'counted', [few(3, 7), np.zeros((3, 7), bool), np.ones((3, 7), bool)]
)
def test_values_and_gradients_are_those_of_all_logits(counted, chunk):
  args = inputs(counted)

  def both(fn):
    def total(*args):
      values = fn(*args)
      return jnp.sum(values**2), values

    return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*args)

  (_, values), slopes = both(lambda *args: chunked(*args, chunk=chunk))
  (_, wanted), expected = both(plain)
  np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)
  for ours, theirs in zip(slopes, expected):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_rows_of_a_batch_by_vmap():
  args = inputs(few(4, 9))
  axes = (0, None, None, 0, 0)
  found, wanted = (
    jax.vmap(
      jax.grad(lambda *args, fn=fn: fn(*args).sum(), (0, 1)), in_axes=axes
    )(*args)
    for fn in (chunked, plain)
  )
  for ours, theirs in zip(found, wanted):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('number', 'taken'), [(0, 0), (1, 4), (4, 4), (5, 8), (17, 20), (20, 20)]
)
def test_chunks_without_any_that_counts_are_left_out(number, taken):
  counted = np.random.default_rng(number).permutation(20) < number
  h, kernel, bias, _, counted = inputs(counted)
  found = head.of_features(
    lambda logits: jnp.ones(len(logits)),
    jnp.zeros_like,
    h,
    kernel,
    bias,
    (),
    counted=counted,
    chunk=4,
  )
  assert np.all(np.asarray(found)[np.asarray(counted)] == 1)
  assert found.sum() == taken


def test_no_chunk_is_refused():
  with pytest.raises(ValueError, match='chunk must be at least 1, not 0'):
    chunked(*inputs(few(3)), chunk=0)


def test_what_has_no_slope_is_not_differentiated():
  h, kernel, bias, *targets = inputs(np.ones(5, bool))

  def total(h):
    return jnp.sum(head.of_features(value, None, h, kernel, bias, targets))

  assert np.isfinite(total(h))
  with pytest.raises(TypeError, match='slope_fn is None'):
    jax.grad(total)(h)
