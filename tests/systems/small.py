"""The smallest systems: their config, their data, their parameters."""

import types

import jax
import numpy as np

from sedd_jax import config_checks, default_config, systems
from sedd_jax.data.files import labels

VOCAB = 7
LENGTH = 6
INFO = types.SimpleNamespace(
  vocab_size=VOCAB, token_counts=lambda: np.arange(1, VOCAB + 1)
)
SPAN_LABELS = ('pos[A]', 'pos[B]', 'span[]', 'span[P]', 'span[Q]')
LABELS = ('kind[a]', 'kind[b]', 'size[c]', 'size[d]', 'size[e]')


def config_of(**changes):
  """The defaults with a small network; changes as group__field=value."""
  config = default_config.get_config()
  config.data.seq_len = LENGTH
  config.model.update({'hidden_size': 16, 'num_layers': 1, 'num_heads': 2})
  config.model.update({'cond_size': 8, 'dropout': 0.0, 'dtype': 'float32'})
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  return config


def example_of(fields):
  """The config of one of a system's examples, a dict of dotted fields."""
  fields = {'sampling.steps': 4, 'eval.points': 2, **fields}
  return config_of(**{k.replace('.', '__'): v for k, v in fields.items()})


def in_steps(name, num_steps, **changes):
  """The config of a system whose chain has so many steps."""
  fields = {
    'system__name': name,
    'schedule__name': 'step_betas',
    'schedule__num_steps': num_steps,
    'sampling__method': 'ancestral',
    'sampling__steps': num_steps,
    'eval__points': 2,
  }
  return config_of(**{**fields, **changes})


def made(config):
  """The system of a config; of data with labels where it says so."""
  info = INFO
  if config.data.label:
    of_spans = config.data.label == labels.SPANS
    named = SPAN_LABELS if of_spans else LABELS
    info = types.SimpleNamespace(**vars(INFO), labels=named)
  return systems.make(config, info)


def batch_of(rows, seed=0, **changes):
  """Tokens without any order."""
  tokens = np.random.default_rng(seed).integers(VOCAB, size=(rows, LENGTH))
  batch = {
    'tokens': tokens.astype(np.int32),
    'valid': np.ones((rows, LENGTH), bool),
    'index': np.arange(rows, dtype=np.int32),
    'count': np.int32(rows),
  }
  return {**batch, **changes}


def label_of(config, rows):
  """Labels of texts, or of words and phrases of their first four tokens."""
  if config.data.label != labels.SPANS:
    return np.arange(rows, dtype=np.int32) % len(LABELS)
  facts = np.array([[0, 1, 0], [2, 4, 3], [1, 4, 2], [0, 1, -1]], np.int32)
  return np.stack([np.roll(facts, i, axis=0)[:3] for i in range(rows)])


def started(system):
  """Parameters that are all random (at init the output is flat), and aux."""
  params, aux = jax.jit(system.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: p + 0.2 * rng.standard_normal(p.shape).astype(np.float32), params
  )
  return params, aux
