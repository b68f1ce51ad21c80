"""The classifier of noisy vectors: its pass written out, padding, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import models
from sedd_jax.models import bert
from tests.models.test_embedding_bert import between, linear

SIZES = {
  'num_labels': 3,
  'hidden_size': 16,
  'num_layers': 2,
  'num_heads': 2,
  'embedding_size': 4,
  'cond_size': 8,
  'max_positions': 12,
}


@pytest.fixture(scope='module')
def network():
  model = models.VectorClassifier(**SIZES)
  x_t = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
  time = np.array([0.0, 350.0], np.float32)
  params = jax.jit(model.init)(jax.random.key(0), x_t, time)['params']
  return model, params, x_t, time


def states(params, x_t, time):
  """What the blocks say of the time and of each vector."""
  angle = time[:, None] * 10_000 ** (-np.arange(4) / 4)
  u = np.concatenate([np.cos(angle), np.sin(angle)], -1)
  u = linear(u, params['time']['inner'])
  u = linear(u / (1 + np.exp(-u)), params['time']['outer'])
  h = np.concatenate([u[:, None], between(x_t, params['up'])], 1)
  h = h + np.asarray(params['positions'])[:6]
  h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True))
  h = h.astype(np.float32)
  # The blocks are held to BERT's own in test_bert.
  block = bert.BertBlock(hidden_size=16, num_heads=2, mlp_size=64)
  for layer in range(2):
    weights = jax.tree.map(lambda w, n=layer: w[n], params['blocks'])
    h, _ = block.apply({'params': weights}, h, jnp.int32(layer), time)
  return np.asarray(h)


def test_the_time_stands_before_and_the_mean_says_the_labels(network):
  model, params, x_t, time = network
  found = model.apply({'params': params}, x_t, time)
  assert found.shape == (2, 3) and found.dtype == 'float32'
  h = states(params, x_t, time)
  expected = between(h.mean(1), params['head'])
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(network):
  model, params, x_t, time = network
  valid = np.arange(5)[None] < np.array([[3], [5]])
  filled = np.where(valid[..., None], x_t, 7.0)
  a, b, whole = (
    model.apply({'params': params}, x, time, mask)
    for x, mask in ((x_t, valid), (filled, valid), (filled, None))
  )
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert np.abs(np.asarray(whole - b))[0].max() > 1e-3


@pytest.mark.parametrize(
  'shape, time, told',
  [
    ((2, 5, 3), (2,), r'\[batch, length, 4\]'),
    ((2, 5, 4), (1,), r'\[batch, length, 4\]'),
    ((2, 13, 4), (2,), '13 tokens are more than the 12'),
  ],
)
def test_mistakes(network, shape, time, told):
  model, params, _, _ = network
  with pytest.raises(ValueError, match=told):
    model.apply({'params': params}, jnp.zeros(shape), jnp.zeros(time))
