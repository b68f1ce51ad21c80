"""The classifier of spans: its head written out, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import models
from tests.models.test_embedding_bert import linear
from tests.models.test_vector_classifier import SIZES, states


@pytest.fixture(scope='module')
def network():
  model = models.SpanClassifier(**SIZES)
  x_t = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
  time = np.array([0.0, 350.0], np.float32)
  spans = jnp.array([[[0, 1], [1, 5], [2, 3]], [[0, 5], [4, 5], [1, 3]]])
  params = jax.jit(model.init)(jax.random.key(0), x_t, time, spans)['params']
  return model, params, x_t, time, spans


def test_a_span_is_read_at_its_first_and_its_last_token(network):
  model, params, x_t, time, spans = network
  # The time stands before the tokens.
  tokens = states(params, x_t, time)[:, 1:]
  first = linear(tokens, params['first'])
  last = linear(tokens, params['last'])
  found = model.apply({'params': params}, x_t, time, spans)
  assert found.shape == (2, 3, 3) and found.dtype == 'float32'
  for row in range(2):
    for k, (start, end) in enumerate(np.asarray(spans[row])):
      h = np.tanh(first[row, start] + last[row, end - 1])
      expected = linear(h, params['head'])
      np.testing.assert_allclose(found[row, k], expected, rtol=1e-3, atol=1e-5)


def test_mistakes(network):
  model, params, x_t, time, _ = network
  with pytest.raises(ValueError, match=r'\[batch, n, 2\]'):
    spans = jnp.zeros((2, 3, 3), int)
    model.apply({'params': params}, x_t, time, spans)
