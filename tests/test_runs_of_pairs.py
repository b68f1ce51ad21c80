"""Runs on pairs of texts."""

import json

import jax
import numpy as np
import pytest

from sedd_jax import (
  config_checks,
  default_config,
  evaluating,
  experiments,
  runs,
)


def write_pairs(folder):
  """300 sources of a few words, and the same words turned round."""
  words = ['the', 'cat', 'sat', 'on', 'a', 'mat', 'of', 'rome']
  rng = np.random.default_rng(0)
  lines = []
  for _ in range(300):
    chosen = list(rng.choice(words, rng.integers(1, 7)))
    pair = {'src': ' '.join(chosen), 'trg': ' '.join(chosen[::-1])}
    lines.append(json.dumps(pair) + '\n')
  path = folder / 'turned.jsonl'
  path.write_text(''.join(lines))
  return path


@pytest.fixture
def config(tmp_path):
  config = default_config.get_config()
  fields = {
    'model.hidden_size': 16,
    'model.num_layers': 1,
    'model.num_heads': 2,
    'model.cond_size': 8,
    'data.source': 'seq2seq',
    'data.path': str(write_pairs(tmp_path)),
    'data.tokenizer': 'text8',
    'data.seq_len': 40,
    'data.validation_fraction': 0.2,
    'system.name': 'masked_diffusion',
    'sampling.method': 'first_hitting',
    'eval.points': 1,
  }
  config.update_from_flattened_dict(fields)
  config_checks.validate(config)
  return config


def test_what_a_run_tells_of_pairs(config):
  experiment = experiments.Experiment(config)
  assert experiment.info.vocab_size == experiment.tokenizer.vocab_size == 30
  assert [file['name'] for file in experiment.files] == ['turned.jsonl']
  told = evaluating.circumstances(
    runs.Run(experiment, {}, (), 0), experiment.dataset.info
  )
  assert told['source'] == 'seq2seq'
  assert told['cut'] == experiment.dataset.info.cut
  assert 0 < told['cut']['validation'] < 60
  # Without the text, as for samples, the vocabulary is the same.
  config.data.path = 'gone.jsonl'
  again = experiments.Experiment(config, read=False)
  assert again.info.vocab_size == 30


@pytest.mark.slow
def test_a_source_is_given_to_a_system_and_not_counted(config):
  experiment = experiments.Experiment(config)
  data = experiment.dataset
  params, aux = experiment.system.init(jax.random.key(0))
  key = jax.random.key(1)
  batch = data.eval_batch('validation', np.arange(64), 60)
  bound = experiment.compiled_bound(params, aux, key, batch)
  counted = np.sum(batch['valid'] & ~batch['given'], 1)
  np.testing.assert_array_equal(bound.weight, counted)
  assert counted.sum() == data.info.num_tokens['validation']
  assert not np.asarray(bound.nats)[60:].any()


@pytest.mark.parametrize('name', ['validation_path', 'test_path'])
def test_files_of_splits_are_of_pairs_only(name):
  config = default_config.get_config()
  config.data[name] = 'x.jsonl'
  with pytest.raises(
    config_checks.ConfigError, match=f"data.{name} is of data.source='seq2seq'"
  ):
    config_checks.validate(config)
