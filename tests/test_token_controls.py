"""Control of tokens by a classifier, from the command line."""

import json

import numpy as np
import pytest

from sedd_jax import runs
from tests import tiny
from tests.test_controls import SHAPE, run_main, sampled

LETTERS = {'first': 'abc', 'last': 'xyz'}
GENERATOR = {
  **SHAPE,
  'data.source': 'text_file',
  'data.layout': 'joint',
  'data.seq_len': 12,
  'sampling.prompt': '',
  'sampling.num_samples': 32,
  'sampling.batch_size': 32,
  'sampling.steps': 12,
}
CLASSIFIER = {
  **GENERATOR,
  'system.name': 'token_classifier',
  'model.name': 'token_classifier',
  'model.args.embedding_size': 8,
  'data.label': 'kind',
}


def write_texts(folder):
  """Texts of either the first or the last letters."""
  rng = np.random.default_rng(0)
  rows = []
  for i in range(400):
    kind = 'first' if i % 2 else 'last'
    text = ''.join(rng.choice(list(LETTERS[kind]), size=40))
    rows.append(json.dumps({'text': text, 'kind': kind}))
  path = folder / 'texts.jsonl'
  path.write_text('\n'.join(rows) + '\n')
  return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A run that knows of no labels, and its classifier, hardly trained."""
  folder = tmp_path_factory.mktemp('tokens')
  path = write_texts(folder)
  run_main(folder / 'run', GENERATOR, data__path=path)
  run_main(
    folder / 'classifier',
    CLASSIFIER,
    data__path=path,
    init_from=folder / 'run',
  )
  return folder


@pytest.mark.slow
def test_a_classifier_of_tokens_is_trained_as_any_run(folder):
  run = runs.load_run(folder / 'classifier')
  assert run.experiment.info.labels == ('first', 'last')
  rows = tiny.rows(folder / 'classifier' / 'metrics.jsonl')
  assert 0.5 < rows[0]['loss'] < 0.9
  assert 0 <= rows[-1]['terms']['wrong'] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
  'changes, told',
  [
    ({'sampling.control': 'firts'}, "unknown control label 'firts'; nearest"),
    ({'sampling.control': '["first", "last"]'}, 'a text has one label'),
    ({'sampling.control_length': 5}, 'for texts that [SEP] ends'),
    ({'sampling.fluency': 0.5}, "unknown sampling option 'fluency'"),
    ({'sampling.guidance': 'frist'}, 'sampling.guidance'),
    ({'sampling.length': 600}, 'sampling.classifier: 600 tokens are more than'),
    ({'sampling.guidance_scale': -1}, 'sampling.guidance_scale'),
    ({'sampling.classifier': 'run'}, 'says nothing of labels'),
  ],
)
def test_controls_that_there_are_not(folder, capsys, changes, told):
  fields = {
    'sampling.control': 'first',
    'sampling.classifier': 'classifier',
    **changes,
  }
  fields['sampling.classifier'] = folder / fields['sampling.classifier']
  with pytest.raises(SystemExit) as error:
    sampled(folder / 'run', **fields)
  assert error.value.code == 2
  assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('system', ['sedd', 'masked_diffusion'])
def test_control_succeeds_after_a_little_training(tmp_path, system):
  """A generator of both kinds of texts, and 150 steps of its classifier."""
  path = write_texts(tmp_path)
  learned = {
    'model.hidden_size': 32,
    'model.scan_layers': False,
    'training.batch_size': 64,
    'training.ema_decay': 0.98,
    'training.log_every': 50,
    'optimizer.learning_rate': 0.005,
    'data.path': path,
  }
  method = 'tweedie' if system == 'sedd' else 'ancestral'
  own = {'system.name': system, 'sampling.method': method}
  own['training.num_steps'] = 300
  run_main(tmp_path / 'run', {**GENERATOR, **learned, **own})
  told = {'training.num_steps': 150}
  run_main(tmp_path / 'classifier', {**CLASSIFIER, **learned, **told})

  def share(kind, **fields):
    sampled(tmp_path / 'run', **fields)
    rows = tiny.rows(tmp_path / 'run' / 'samples.jsonl')
    text = ''.join(row['text'] for row in rows)
    return sum(letter in LETTERS[kind] for letter in text) / len(text)

  assert 0.3 < share('first') < 0.7
  asked = {
    'sampling.control': 'last',
    'sampling.classifier': tmp_path / 'classifier',
  }
  assert share('last', **asked) > 0.8
  asked |= {
    'sampling.guidance': 'first_order',
    # Far from a mask the gradient says too little.
    'sampling.guidance_scale': 4.0,
  }
  assert share('last', **asked) > 0.75
