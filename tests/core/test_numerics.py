"""Elementary functions against float64 and arbitrary precision."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from sedd_jax.core import numerics, shapes


def test_log_expm1():
  x = np.concatenate([np.geomspace(1e-4, 90, 200)]).astype(np.float32)
  want = [float(mpmath.log(mpmath.expm1(float(v)))) for v in x]
  np.testing.assert_allclose(numerics.log_expm1(x), want, rtol=5e-7, atol=5e-7)
  assert numerics.log_expm1(0.0) == -np.inf
  assert numerics.log_expm1(np.inf) == np.inf


@pytest.mark.parametrize('enabled, rtol', [(False, 2e-6), (True, 1e-14)])
def test_exp_excess(enabled, rtol):
  with jax.enable_x64(enabled):
    dtype = jnp.float64 if enabled else jnp.float32
    d = np.concatenate(
      [-np.geomspace(0.99, 1e-6, 60), np.geomspace(1e-6, 1e4, 60)]
    ).astype(dtype)
    with mpmath.workdps(40):
      u = [mpmath.log1p(mpmath.mpf(float(v))) for v in d]
      want = [float(mpmath.mpf(float(v)) - w) for v, w in zip(d, u)]
    got = numerics.exp_excess(
      jnp.asarray([float(v) for v in u], dtype), jnp.asarray(d)
    )
    np.testing.assert_allclose(got, want, rtol=rtol)
    assert np.all(got >= 0)


def test_logaddexp_has_a_gradient_at_nothing():
  a = jnp.array([-jnp.inf, -jnp.inf, 0.5, -2.0])
  b = jnp.array([-jnp.inf, 1.0, -jnp.inf, 3.0])
  found, slopes = jax.vmap(jax.value_and_grad(numerics.logaddexp, (0, 1)))(a, b)
  np.testing.assert_allclose(found, np.logaddexp(a, b), rtol=1e-6)
  share = 1 / (1 + np.exp(-5.0))
  np.testing.assert_allclose(slopes[0], [0, 0, 1, 1 - share], rtol=1e-4)
  np.testing.assert_allclose(slopes[1], [0, 1, 0, share], rtol=1e-5)


def test_exp_excess_derivative_is_d():
  u, d = jnp.float32(-7.0), jnp.expm1(jnp.float32(-7.0))
  assert jax.grad(numerics.exp_excess)(u, d) == d


def test_exp_excess_survives_underflow():
  assert numerics.exp_excess(jnp.float32(-500.0), jnp.float32(-1.0)) == 499.0


def test_cramer():
  x = np.concatenate(
    [[-1.0, 0.0], -np.geomspace(0.999, 1e-9, 40), np.geomspace(1e-9, 1e5, 40)]
  ).astype(np.float32)
  with mpmath.workdps(40):
    want = [
      float((1 + v) * mpmath.log1p(v) - v) if v > -1 else 1.0
      for v in (mpmath.mpf(float(w)) for w in x)
    ]
  np.testing.assert_allclose(numerics.cramer(x), want, rtol=3e-6)


def test_compute_dtype():
  assert numerics.compute_dtype() == jnp.float32
  assert numerics.compute_dtype(jnp.bfloat16(1), jnp.int32(1)) == jnp.float32
  with jax.enable_x64(True):
    assert numerics.compute_dtype(jnp.float32(1)) == jnp.float64


def test_safe_normalize():
  rows, totals = numerics.safe_normalize(jnp.array([[1.0, 3.0], [0.0, 0.0]]))
  np.testing.assert_array_equal(rows, [[0.25, 0.75], [0, 0]])
  np.testing.assert_array_equal(totals, [4, 0])


def test_increment():
  x = jnp.zeros((2, 3), jnp.int32)
  assert shapes.increment(np.inf, np.inf, x) == 0
  assert shapes.increment(1.0, np.inf, x) == np.inf
  got = shapes.increment(0.0, jnp.array([[1.0], [np.inf]]), x)
  np.testing.assert_array_equal(got, [[1], [np.inf]])
