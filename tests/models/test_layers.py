"""The transformer's layers against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.models import embeddings, heads, layers
from tests import oracles


@pytest.mark.parametrize('spread', [2, 3e-3])
def test_layer_norm(spread):
  """At the small spread the constant under the root decides."""
  x = np.random.default_rng(0).normal(0, spread, (2, 3, 8)) + spread
  weight = np.linspace(-1, 2, 8)
  mean = x.mean(-1, keepdims=True)
  variance = ((x - mean) ** 2).mean(-1, keepdims=True)
  expected = (x - mean) / np.sqrt(variance + 1e-5) * weight
  out = layers.LayerNorm().apply(
    {'params': {'weight': jnp.asarray(weight, 'float32')}},
    jnp.asarray(x, 'bfloat16'),
  )
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, expected, atol=0.1)
  exact = layers.LayerNorm().apply(
    {'params': {'weight': jnp.asarray(weight, 'float32')}},
    jnp.asarray(x, 'float32'),
  )
  np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('shape', [(4,), (3, 4), (2, 3, 4)])
def test_product_has_the_gradient_of_a_product(shape):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=shape), 'float32')
  kernel = jnp.asarray(rng.normal(size=(4, 5)), 'float32')
  g = jnp.asarray(rng.normal(size=(*shape[:-1], 5)), 'float32')
  out, backward = jax.vjp(layers.product, x, kernel)
  expected, plain = jax.vjp(jnp.dot, x, kernel)
  np.testing.assert_allclose(out, expected, rtol=1e-6)
  for found, theirs in zip(backward(g), plain(g)):
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-6)


def test_linear_and_its_dtype():
  x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
  layer = layers.Linear(5, dtype='bfloat16')
  params = layer.init(jax.random.key(0), x)
  out = layer.apply(params, x)
  assert out.dtype == jnp.bfloat16
  assert params['params']['kernel'].dtype == jnp.float32
  kernel, bias = (np.asarray(params['params'][k]) for k in ('kernel', 'bias'))
  expected = x @ kernel + bias
  np.testing.assert_allclose(out.astype('float32'), expected, atol=0.03)


def test_dropout_keeps_the_mean_and_the_stated_share():
  x = jnp.full((4, 100, 100), 3.0)
  keys = jax.random.split(jax.random.key(0), 4)
  out = np.asarray(jax.jit(layers.dropout, static_argnums=2)(x, keys, 0.1))
  np.testing.assert_allclose(np.unique(out), [0, 3 / 0.9], rtol=1e-6)
  # 40,000 draws: one standard deviation is 0.0015.
  assert np.mean(out == 0) == pytest.approx(0.1, abs=0.006)
  assert not np.array_equal(out[0], out[1])


def test_rotary_turns_pairs_and_sees_distances_only():
  rng = np.random.default_rng(3)
  head_dim = 8
  x = rng.normal(size=(1, 6, 1, head_dim)).astype(np.float32)
  out = np.asarray(embeddings.rotated(jnp.asarray(x)))
  for position in range(6):
    for i in range(4):
      angle = position * 10000.0 ** (-2 * i / head_dim)
      pair = x[0, position, 0, i] + 1j * x[0, position, 0, i + 4]
      turned = pair * np.exp(1j * angle)
      np.testing.assert_allclose(
        out[0, position, 0, [i, i + 4]],
        [turned.real, turned.imag],
        rtol=1e-4,
        atol=1e-5,
      )
  same = np.broadcast_to(x[:, :1], x.shape)
  out = np.asarray(embeddings.rotated(jnp.asarray(same)))[0, :, 0]
  products = out @ out.T
  for distance in range(6):
    diagonal = np.diagonal(products, distance)
    np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)


def test_rotation_of_long_sequences_is_exact():
  cos, sin = embeddings.rotary_tables(4096, 64)
  angle = 4095 * np.float64(10000.0) ** (-2 * 1 / 64)
  np.testing.assert_allclose(cos[4095, 1], np.cos(angle), rtol=1e-6)
  np.testing.assert_allclose(sin[4095, 1], np.sin(angle), rtol=1e-6)


def test_log_score_at_high_and_low_noise():
  logits = jnp.zeros((2, 1, 5))
  x_t = jnp.array([[4], [1]])
  sigma = jnp.array([1e-4, 20.0])
  out = np.asarray(heads.log_score(logits, x_t, sigma, True))
  expected = -np.log(np.expm1([1e-4, 20.0])) - np.log(4)
  np.testing.assert_allclose(out[:, 0, 0], expected, rtol=1e-5)
  assert out[0, 0, 4] == out[1, 0, 1] == 0
  plain = heads.log_score(logits + 2, x_t, sigma, False)
  np.testing.assert_array_equal(plain[0, 0], [2, 2, 2, 2, 0])


def test_log_score_of_bfloat16_logits_is_float32():
  logits = jnp.zeros((1, 1, 5), 'bfloat16')
  out = heads.log_score(logits, jnp.array([[4]]), jnp.array([1e-4]), True)
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(
    out[0, 0, 0], -np.log(np.expm1(1e-4)) - np.log(4), rtol=1e-6
  )


def test_log_score_refuses_what_does_not_fit():
  with pytest.raises(ValueError, match='do not fit'):
    heads.log_score(
      jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int), jnp.ones((2, 1)), True
    )


@pytest.mark.parametrize('sigma', [1e-3, 0.5, 4.0])
def test_scores_of_x0_are_those_of_the_exact_law(sigma, x64):
  """Of a correlated law on [3]^2: p is x_0's law by the other position."""
  data = np.random.default_rng(0).dirichlet(np.ones(9)).reshape(3, 3)
  kernel = oracles.kernel('uniform', 3, sigma)
  law = kernel.T @ data @ kernel
  x_t = oracles.states(3, 2)
  # Position 1 is noisy as it was, x_0 at position 0 is not known, and back.
  first = (data @ kernel)[:, x_t[:, 1]].T
  second = (kernel.T @ data)[x_t[:, 0]]
  log_p = np.log(np.stack([first, second], axis=1))
  got = heads.log_score_of_x0(log_p + 3, x_t, np.full(9, sigma))
  want = oracles.true_log_score(law.reshape(-1), 3, 2)
  np.testing.assert_allclose(got, want, atol=1e-9)


def test_scores_of_x0_in_float32():
  """At noise so low that p decides, and so high that it does not count."""
  logits = jnp.array([[[0.0, 1.0, -30.0]]])
  x_t, p = jnp.array([[0]]), np.exp([0.0, 1.0, -30.0], dtype=np.float64)
  p /= p.sum()
  for sigma in (1e-4, 1.0, 20.0):
    c = 3 / np.expm1(sigma)
    want = np.log1p(c * p) - np.log1p(c * p[0])
    got = heads.log_score_of_x0(logits, x_t, jnp.array([sigma]))[0, 0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-14)
  with pytest.raises(ValueError, match='do not fit'):
    heads.log_score_of_x0(logits, x_t, jnp.ones((1, 1)))
