"""The classifier of noisy tokens: its table, weights of states, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import models
from tests.models.test_vector_classifier import SIZES


@pytest.fixture(scope='module')
def network():
  model = models.TokenClassifier(**SIZES, num_states=6)
  x_t = np.random.default_rng(0).integers(6, size=(2, 5)).astype(np.int32)
  time = np.array([0.0, 350.0], np.float32)
  params = jax.jit(model.init)(jax.random.key(0), x_t, time)['params']
  return model, params, x_t, time


def test_it_is_the_classifier_of_vectors_behind_a_table(network):
  model, params, x_t, time = network
  rest = dict(params)
  table = rest.pop('embedding')
  assert table.shape == (6, 4)
  of_vectors = models.VectorClassifier(**SIZES)
  expected = of_vectors.apply({'params': rest}, table[x_t], time)
  found = model.apply({'params': params}, x_t, time)
  np.testing.assert_array_equal(found, expected)


def test_weights_of_states_are_mixed_vectors(network):
  model, params, x_t, time = network
  states = jax.nn.one_hot(x_t, 6)
  told = model.apply({'params': params}, x_t, time)
  found = model.apply({'params': params}, states, time)
  np.testing.assert_allclose(found, told, rtol=1e-5)
  rest = dict(params)
  table = rest.pop('embedding')
  of_vectors = models.VectorClassifier(**SIZES)
  half = (states + states[:, ::-1]) / 2
  vectors = (table[x_t] + table[x_t[:, ::-1]]) / 2
  np.testing.assert_allclose(
    model.apply({'params': params}, half, time),
    of_vectors.apply({'params': rest}, vectors, time),
    rtol=1e-5,
  )


def test_padding_changes_nothing(network):
  model, params, x_t, time = network
  valid = np.arange(5)[None] < np.array([[3], [5]])
  padded = np.where(valid, x_t, 5)
  found = model.apply({'params': params}, padded, time, valid)
  other = model.apply({'params': params}, np.where(valid, x_t, 1), time, valid)
  np.testing.assert_array_equal(found, other)
  alone = model.apply({'params': params}, x_t[:1, :3], time[:1])
  np.testing.assert_allclose(found[:1], alone, rtol=1e-5)


@pytest.mark.parametrize('shape', [(2, 5), (2, 5, 4)])
def test_what_is_no_text(network, shape):
  model, params, _, time = network
  with pytest.raises(ValueError, match=r'must be integers .batch, length. or'):
    model.apply({'params': params}, jnp.zeros(shape), time)
