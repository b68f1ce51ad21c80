"""Control by parts of speech, spans and parses, from the command line."""

import types

import numpy as np
import pytest

from sedd_jax import config_checks, controls, experiments, runs, systems
from sedd_jax.data import tokenizers
from sedd_jax.data.paired import marked
from sedd_jax.evaluation import control, tagged_words
from tests import tiny, toy_tagger
from tests.test_controls import (
  CLASSIFIER,
  GENERATOR,
  LEARNED,
  config_of,
  controlled,
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
  assert run.experiment.info.labels == SPAN_LABELS
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


SPAN_LABELS = (
  *('pos[.]', 'pos[DT]', 'pos[NN]', 'pos[VBZ]'),
  *('span[NP]', 'span[VP]', 'span[]'),
)
FOOD_LABELS = ('food[]', 'food[cat]', 'food[dog]')


def built_of(monkeypatch, folders='spans,foods'):
  """Controls of runs that were never trained, and a request for two samples."""
  made = {
    'spans': (SPANS, SPAN_LABELS),
    'foods': (CLASSIFIER, FOOD_LABELS),
  }

  def stand_in(folder, run):
    fields, labels = made[folder]
    system = types.SimpleNamespace(log_label=print)
    info = types.SimpleNamespace(labels=labels)
    return types.SimpleNamespace(
      config=config_of(fields),
      experiment=types.SimpleNamespace(info=info, system=system),
      params={},
      aux={},
    )

  monkeypatch.setattr(controls, '_read', stand_in)
  system = types.SimpleNamespace(check_request=None)
  run = types.SimpleNamespace(
    config=config_of(GENERATOR),
    experiment=types.SimpleNamespace(system=system),
    tokenizer=marked.Marked(tokenizers.make('text8')),
  )
  request = systems.Request(length=10, seeds=[0, 1])
  return controls.Controls(run, folders), request


def test_rows_have_their_own_facts_and_labels(monkeypatch):
  built, request = built_of(monkeypatch)
  assert built.fields == ['pos', 'span', 'food', 'parse']
  assert built.tagger() is toy_tagger.tagger
  wanted = [['DT[0]', 'food[cat]'], ['parse: NP[0:2]', '[2:4]']]
  of_texts, of_spans = built.applied(request, wanted).guides
  assert of_texts.label.tolist() == [1, -1]
  assert of_spans.label.shape == (2, 8, 3)
  facts = [[x for x in row if x[2] >= 0] for row in of_spans.label.tolist()]
  # Behind [CLS]; a parse says of all its places what they are.
  none, phrase = (SPAN_LABELS.index(x) for x in ('span[]', 'span[NP]'))
  assert facts[0] == [[1, 2, SPAN_LABELS.index('pos[DT]')]]
  assert sorted(facts[1]) == [
    *([1, 2, none], [1, 3, phrase], [2, 3, none], [3, 5, none])
  ]
  # What none asks for is no guide.
  assert len(built.applied(request, [['NN[1]'], []]).guides) == 1
  assert not built.applied(request, [[], []]).guides


@pytest.mark.parametrize(
  'asked, told',
  [
    ('NNP[0]', r'control NNP\[0\]: unknown tag; '),
    ('NN[8]', 'the text has 8 words at most'),
    ('NN[0], pos: DT', 'contradict each other'),
    ('pos[NN]', 'says nothing of where: write NNP'),
    ('colour[red]', r"unknown control label 'colour\[red\]'; known: food"),
    ('food[cat], food[dog]', 'a text has one label of a field'),
  ],
)
def test_controls_that_there_are_not(monkeypatch, asked, told):
  built, request = built_of(monkeypatch)
  with pytest.raises(ValueError, match=told):
    built.applied(request, [[], asked.split(', ')])


def test_words_behind_the_length_and_classifiers_that_do_not_fit(monkeypatch):
  built, request = built_of(monkeypatch)
  with pytest.raises(ValueError, match='has 3 words at most'):
    built.applied(request, [['NN[3]'], []], [3, 5])
  assert built.applied(request, [[], ['NN[3]']], [3, 5]).guides
  built, _ = built_of(monkeypatch, 'foods')
  with pytest.raises(ValueError, match=r"unknown control label 'NN\[0\]'"):
    built.applied(request, [['NN[0]'], []])
  with pytest.raises(ValueError, match=r"both know label 'pos\[.\]'"):
    built_of(monkeypatch, 'spans,spans')


def test_a_tagger_is_of_tagged_texts():
  config = config_of(GENERATOR, data__path='x', data__tagger='spacy')
  with pytest.raises(config_checks.ConfigError, match="of data.label='@spans'"):
    config_checks.validate(config)
  config = config_of(SPANS, data__path='x', init_from='y')
  config_checks.validate(config)


def test_targets_of_words(tmp_path):
  config = config_of(GENERATOR, **write_texts(tmp_path))
  experiment = experiments.Experiment(config)
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
  tokenizer = experiments.Experiment(config).tokenizer
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
  fields = {**LEARNED, **write_texts(tmp_path, 400)}
  result = controlled(
    tmp_path,
    {**GENERATOR, **fields},
    {**SPANS, **fields},
    'pos, span, parse, span+length',
  )
  for one in result['controls']:
    gain = one['controlled']['success'] - one['unguided']['success']
    assert gain > 0.1, one
  rows = tiny.rows(tmp_path / 'generator' / 'control.jsonl')
  assert set(rows[0]['success']) == {'pos'}
  assert 0 <= rows[0]['success']['pos'] <= 1
