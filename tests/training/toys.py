"""A system and a data set that are small enough to check by hand."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.core import keys
from sedd_jax.systems import base

VOCAB = 7
LENGTH = 5
WIDTH = 4


def init(key):
  first, second = jax.random.split(key)
  params = {
    'embed': jax.random.normal(first, (VOCAB, WIDTH)) / 2,
    'head': jax.random.normal(second, (WIDTH, VOCAB)) / 2,
  }
  return params, ()


def loss(params, aux, key, batch):
  """Cross-entropy from noisy embeddings: noise by index, its size shared."""
  del aux
  size = jax.random.uniform(key)
  noise = jax.vmap(lambda k: jax.random.normal(k, (LENGTH, WIDTH)))(
    keys.example_keys(key, batch['index'])
  )
  tokens, valid = batch['tokens'], batch['valid']
  hidden = jnp.tanh(params['embed'][tokens] + size * noise)
  log_probs = jax.nn.log_softmax(hidden @ params['head'])
  nll = -jnp.take_along_axis(log_probs, tokens[..., None], -1)[..., 0]
  nats = jnp.sum(jnp.where(valid, nll, 0), 1)
  weight = jnp.sum(valid, 1)
  first = (jnp.where(valid[:, 0], nll[:, 0], 0), valid[:, 0])
  return base.Loss(nats, weight, {'first': first}, {'nats': nats})


def bound(params, aux, key, batch):
  out = loss(params, aux, key, batch)
  return base.Bound(out.nats, out.weight, {'all': out.nats})


SYSTEM = base.System(init=init, loss=loss, bound=bound)


def remember(aux, stats):
  """Depends on the order of the examples."""
  return 0.5 * aux + stats['nats']


def remembering(batch_size):
  """The system with `aux`, a running mean of each place's nats."""
  return dataclasses.replace(
    SYSTEM,
    init=lambda key: (init(key)[0], jnp.zeros(batch_size)),
    update_aux=remember,
  )


class Dataset:
  """Uneven sequences, each a function of seed, step and index."""

  info = types.SimpleNamespace(
    num_tokens={'train': 1000, 'validation': 100},
    num_characters={'train': 2000, 'validation': 200},
  )

  def train_batch(self, seed, step, indices, count):
    tokens, lengths = [], []
    for index in indices:
      rng = np.random.default_rng([seed, step, int(index)])
      tokens.append(rng.integers(0, VOCAB, LENGTH))
      lengths.append(rng.integers(1, LENGTH + 1))
    valid = np.arange(LENGTH)[None] < np.array(lengths)[:, None]
    return {
      'tokens': np.array(tokens, np.int32),
      'valid': valid,
      'index': np.asarray(indices, np.int32),
      'count': np.int32(count),
    }


def batch(size=8, step=0):
  return Dataset().train_batch(0, step, np.arange(size), size)


def training(**changes):
  """The group `training` of a config."""
  fields = {
    'num_steps': 10,
    'batch_size': 8,
    'accumulation': 1,
    'log_every': 3,
    'checkpoint_every': 0,
    'eval_every': 0,
    'sample_every': 0,
    'reduction': 'token',
    'ema_decay': 0.9,
    'parallelism': 'pmap',
    'keep_checkpoints': 2,
    'keep_best': True,
    'trackers': '',
    'profile': '',
    'peak_flops': 0.0,
    'refresh_every': 0,
  }
  unknown = set(changes) - set(fields)
  assert not unknown, unknown
  return types.SimpleNamespace(**{**fields, **changes})


SGD = {'name': 'sgd', 'learning_rate': 0.5, 'clip_norm': 1.0}
ADAMW = {
  'name': 'adamw',
  'learning_rate': 0.05,
  'warmup_steps': 3,
  'weight_decay': 0.01,
}
