"""Control by parts of speech, spans and parses, from the command line."""

import json

import numpy as np
import pytest

from sedd_jax import config_checks, controls, runs
from sedd_jax.data import tokenizers
from sedd_jax.evaluation import control, tagged_words
from tests import tiny, toy_tagger
from tests.test_controls import (
  CLASSIFIER,
  GENERATOR,
  config_of,
  run_main,
  sampled,
)

NOUNS = ('cat', 'dog', 'bird', 'fish')
SPANS = {
  **CLASSIFIER,
  'system.name': 'span_classifier',
  'model.name': 'span_classifier',
  'data.label': '@spans',
  'data.tagger': 'tests.toy_tagger:tagger',
}


def write_texts(folder, count=60):
  """Texts of 3 to 6 words, with a food as their meaning; and their words."""
  rng = np.random.default_rng(0)

  def noun():
    article = rng.choice(['', 'the ', 'a '])
    return article + rng.choice(NOUNS)

  lines = ['mr,ref']
  for _ in range(count):
    text = f'{noun()} {rng.choice(["is", "sees"])} {noun()}'
    end = ' .' if rng.random() < 0.5 else ''
    lines.append(f'"food[{text.split()[-1]}]","{text}{end}"')
  path = folder / 'texts.csv'
  path.write_text('\n'.join(lines) + '\n')
  counts = tokenizers.word_counts([*lines, 'sees is the a .'])
  wanted = {w: n for w, n in counts.items() if w in (*NOUNS, *toy_tagger.TAGS)}
  (folder / 'words.txt').write_text(tokenizers.words_file(wanted, 0))
  return {'data.path': path, 'data.tokenizer': folder, 'data.seq_len': 10}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Runs of a generator and both kinds of classifiers, hardly trained."""
  folder = tmp_path_factory.mktemp('controlled')
  fields = write_texts(folder)
  run_main(folder / 'generator', {**GENERATOR, **fields})
  told = {**fields, 'init_from': folder / 'generator'}
  run_main(folder / 'spans', {**SPANS, **told})
  run_main(folder / 'foods', {**CLASSIFIER, **told})
  return folder


@pytest.mark.slow
def test_a_classifier_of_words_is_trained_as_any_run(folder):
  run = runs.load_run(folder / 'spans')
  assert run.experiment.info.labels == (
    *('pos[.]', 'pos[DT]', 'pos[NN]', 'pos[VBZ]'),
    *('span[NP]', 'span[VP]', 'span[]'),
  )
  rows = tiny.rows(folder / 'spans' / 'metrics.jsonl')
  assert 0.5 < rows[0]['loss'] < 3
  assert set(rows[-1]['terms']) == {'wrong_pos', 'wrong_span'}


@pytest.mark.slow
def test_samples_with_controls_of_words_and_of_texts(folder):
  asked = {
    'sampling.control': '["food[cat]", "pos: DT * VBZ", "NP[3:5]"]',
    'sampling.classifier': f'{folder / "spans"},{folder / "foods"}',
    'sampling.control_length': 6,
    'sampling.control_until': 0,
    'sampling.control_rate': 1.0,
  }
  texts = {}
  for scale in (0.0, 1.0):
    sampled(folder / 'generator', **asked, sampling__guidance_scale=scale)
    rows = tiny.rows(folder / 'generator' / 'samples.jsonl')
    assert rows[0]['control'] == ['food[cat]', 'pos: DT * VBZ', 'NP[3:5]']
    texts[scale] = [row['text'] for row in rows]
  sampled(folder / 'generator')
  plain = tiny.rows(folder / 'generator' / 'samples.jsonl')
  assert texts[0.0] == [row['text'] for row in plain] != texts[1.0]
  # Each row has its own facts, those of one classifier in one guide.
  run = runs.load_run(folder / 'generator')
  built = controls.Controls(run, asked['sampling.classifier'])
  assert built.fields == ['pos', 'span', 'food', 'parse']
  request = built.applied(
    run.experiment.request(2), [['DT[0]', 'food[cat]'], ['parse: NP[0:2]']]
  )
  of_texts, of_spans = request.guides
  assert of_texts.label.tolist() == [0, -1]
  assert of_spans.label.shape == (2, 8, 3)
  assert (of_spans.label[..., 2] >= 0).sum(1).tolist() == [1, 3]
  assert of_spans.label[0, 0].tolist() == [1, 2, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
  'changes, told',
  [
    ({'control': 'NNP[0]'}, 'control NNP[0]: unknown tag; '),
    ({'control': 'NN[8]'}, 'the text has 8 words at most'),
    ({'control': 'NN[3]', 'control_length': 3}, 'has 3 words at most'),
    ({'control': '["NN[0]", "pos: DT"]'}, 'contradict each other'),
    ({'control': 'pos[NN]'}, 'says nothing of where: write NNP[0]'),
    ({'control': 'colour[red]'}, "unknown control label 'colour[red]'"),
    ({'classifier': 'foods'}, "unknown control label 'NN[0]'"),
    ({'classifier': 'spans,spans'}, "both know label 'pos[.]'"),
  ],
)
def test_controls_that_there_are_not(folder, capsys, changes, told):
  fields = {'control': 'NN[0]', 'classifier': 'spans,foods', **changes}
  fields['classifier'] = ','.join(
    str(folder / name) for name in fields['classifier'].split(',')
  )
  with pytest.raises(SystemExit) as error:
    asked = {f'sampling.{name}': value for name, value in fields.items()}
    sampled(folder / 'generator', **asked)
  assert error.value.code == 2
  assert told in capsys.readouterr().err


def test_a_tagger_is_of_tagged_texts():
  config = config_of(GENERATOR, data__path='x', data__tagger='spacy')
  with pytest.raises(config_checks.ConfigError, match="of data.label='@spans'"):
    config_checks.validate(config)
  config = config_of(SPANS, data__path='x', init_from='y')
  config_checks.validate(config)


def test_targets_of_words(tmp_path):
  config = config_of(GENERATOR, **write_texts(tmp_path))
  experiment = runs.Experiment(config)
  said = tagged_words.Words(toy_tagger.tagger, experiment.tokenizer)
  kind = ('pos', 'span', 'parse', 'food', 'length')
  found = control.targets(experiment.dataset, 'validation', kind, 12, said)
  assert len(found) == 12
  for row, target in enumerate(found):
    batch = experiment.dataset.eval_batch('validation', [row], 1)
    (tokens,) = batch['tokens']
    # A text has what was found in it, all of it.
    each = control.successes(tokens, experiment.tokenizer, target, said)
    assert each == dict.fromkeys(kind, 1)
    assert len(target['pos'].split()) == target['length']
  assert len({target['span'] for target in found}) > 2
  labels = control.labels_of(found[0])
  assert labels[0] == f'food[{found[0]["food"]}]'
  assert f'pos: {found[0]["pos"]}' in labels and found[0]['span'] in labels
  # Without phrases there is nothing to ask for.
  none = tagged_words.Words(toy_tagger.nothing, experiment.tokenizer)
  with pytest.raises(ValueError, match='validation split.* has phrases'):
    control.targets(experiment.dataset, 'validation', ('span',), 3, none)


def test_how_much_of_a_target_a_text_has(tmp_path):
  config = config_of(GENERATOR, **write_texts(tmp_path))
  tokenizer = runs.Experiment(config).tokenizer
  asked = []

  def tagger(texts):
    asked.extend(texts)
    return toy_tagger.tagger(texts)

  said = tagged_words.Words(tagger, tokenizer)
  target = {
    'pos': 'DT NN VBZ NN .',
    'span': 'NP[3:4]',
    'parse': 'NP[0:2] VP[2:3] NP[3:4] [4:5]',
  }
  samples = [
    np.array([tokenizer.cls, *tokenizer.encode(text), tokenizer.sep])
    for text in ('a cat is fish .', 'the dog sees a dog', '')
  ]
  rows = [target] * 3
  found = control.figures(samples, rows, tokenizer, None, said)
  # DT NN VBZ DT NN: 3 of 5; NP[0:2], VP[2:3], NP[3:5]: 2 of 3 and of 3.
  parts = {'pos': (1 + 3 / 5) / 3, 'span': 1 / 3, 'parse': (1 + 2 / 3) / 3}
  assert found['parts'] == pytest.approx(parts)
  assert found['success'] == pytest.approx(1 / 3)
  # Nothing is tagged twice, and a text without words not at all.
  control.figures(samples, rows, tokenizer, None, said)
  assert len(asked) == 2


@pytest.mark.slow
def test_control_succeeds_after_a_little_training(tmp_path):
  """500 steps of a generator and 500 of its classifier of words."""
  fields = {
    **write_texts(tmp_path, 400),
    'model.hidden_size': 32,
    'model.scan_layers': False,
    'model.args.embedding_size': 8,
    'schedule.num_steps': 100,
    'training.batch_size': 32,
    'training.log_every': 100,
    'training.ema_decay': 0.98,
    'optimizer.learning_rate': 0.005,
    'sampling.steps': 50,
  }
  generator, classifier = tmp_path / 'generator', tmp_path / 'classifier'
  run_main(generator, {**GENERATOR, **fields, 'training.num_steps': 500})
  told = {'init_from': generator, 'training.num_steps': 500}
  run_main(classifier, {**SPANS, **fields, **told})
  sampled(
    generator,
    'evaluate',
    eval__control='pos, span, parse, span+length',
    eval__targets=8,
    sampling__num_samples=8,
    sampling__batch_size=64,
    sampling__classifier=classifier,
  )
  result = json.loads((generator / 'control.json').read_text())
  for one in result['controls']:
    gain = one['controlled']['success'] - one['unguided']['success']
    assert gain > 0.1, one
  rows = tiny.rows(generator / 'control.jsonl')
  assert set(rows[0]['success']) == {'pos'}
  assert 0 <= rows[0]['success']['pos'] <= 1
