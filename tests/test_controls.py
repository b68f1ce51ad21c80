"""Control from the command line: classifiers, lengths, their evaluation."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from sedd_jax import config_checks, controls, experiments, main, modes, runs
from sedd_jax.data import prepare
from sedd_jax.evaluation import control, judges
from tests import tiny

FOODS, AREAS = ('thai', 'greek'), ('riverside', 'city centre')
SHAPE = {
  'model.hidden_size': 16,
  'model.num_layers': 1,
  'model.num_heads': 2,
  'model.cond_size': 8,
  'model.dtype': 'float32',
  'data.source': 'seq2seq',
  'data.layout': 'target',
  'data.tokenizer': 'text8',
  'data.seq_len': 24,
  'data.validation_fraction': 0.2,
  'training.num_steps': 2,
  'training.batch_size': 8,
  'training.log_every': 1,
  'training.eval_every': 0,
  'training.sample_every': 0,
  'training.checkpoint_every': 0,
  'training.reduction': 'token',
  'optimizer.warmup_steps': 1,
  'eval.points': 1,
  'eval.max_sequences': 4,
  'eval.batch_size': 4,
  'sampling.steps': 2,
  'sampling.num_samples': 2,
  'sampling.batch_size': 4,
}
VECTORS = {
  'schedule.name': 'gaussian',
  'schedule.num_steps': 6,
  'model.args.embedding_size': 4,
  'sampling.method': 'ancestral',
  'sampling.prompt': '',
}
GENERATOR = {
  **SHAPE,
  **VECTORS,
  'system.name': 'diffusion_lm',
  'model.name': 'embedding_bert',
}
CLASSIFIER = {
  **SHAPE,
  **VECTORS,
  'system.name': 'classifier',
  'model.name': 'vector_classifier',
  'data.label': '@meaning',
}
JUDGE = {
  **SHAPE,
  'system.name': 'autoregressive',
  'sampling.method': 'autoregressive',
  'sampling.prompt': '',
}
# They learn texts of a few words.
LEARNED = {
  'model.hidden_size': 32,
  'model.scan_layers': False,
  'model.args.embedding_size': 8,
  'schedule.num_steps': 100,
  'training.batch_size': 32,
  'training.num_steps': 500,
  'training.log_every': 100,
  'training.ema_decay': 0.98,
  'optimizer.learning_rate': 0.005,
  'sampling.steps': 50,
}


def write_meanings(folder):
  """60 texts of a food and an area, or of a food alone."""
  lines = ['mr,ref']
  for i in range(60):
    food, area = FOODS[i % 2], AREAS[i // 2 % 2]
    meaning, text = f'food[{food}]', f'it is {food}'
    if i % 3:
      meaning, text = f'{meaning}, area[{area}]', f'{food} at {area}'
    lines.append(f'"{meaning}","{text}"')
  path = folder / 'meanings.csv'
  path.write_text('\n'.join(lines) + '\n')
  return path


def run_main(workdir, fields, *more, **changes):
  fields = {**fields, **{k.replace('__', '.'): v for k, v in changes.items()}}
  flags = [f'--config.{path}={value}' for path, value in fields.items()]
  main.main(['--config=quickstart', f'--workdir={workdir}', *flags, *more])


def sampled(workdir, mode='sample', **fields):
  flags = [
    f'--config.{path.replace("__", ".")}={value}'
    for path, value in fields.items()
  ]
  main.main([f'--mode={mode}', f'--workdir={workdir}', *flags])


def controlled(folder, fields, classifier_fields, control):
  """control.json of a generator and its classifier, both trained here."""
  generator, classifier = folder / 'generator', folder / 'classifier'
  run_main(generator, fields)
  run_main(classifier, classifier_fields, init_from=generator)
  sampled(
    generator,
    'evaluate',
    eval__control=control,
    eval__targets=8,
    sampling__num_samples=8,
    sampling__batch_size=64,
    sampling__classifier=classifier,
  )
  return json.loads((generator / 'control.json').read_text())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Runs of a generator, its classifier and a judge, hardly trained."""
  folder = tmp_path_factory.mktemp('controlled')
  path = write_meanings(folder)
  run_main(folder / 'generator', GENERATOR, data__path=path)
  run_main(
    folder / 'classifier',
    CLASSIFIER,
    data__path=path,
    init_from=folder / 'generator',
  )
  run_main(folder / 'judge', JUDGE, data__path=path)
  return folder


@pytest.fixture(scope='module')
def generator(folder):
  return runs.load_run(folder / 'generator')


@pytest.mark.slow
def test_bits_per_dimension(folder):
  told = json.loads((folder / 'generator/evaluation.json').read_text())
  per_dimension = told['nats_per_token'] / (4 * np.log(2))
  assert told['bits_per_dimension'] == pytest.approx(per_dimension)


@pytest.mark.slow
def test_a_classifier_is_trained_as_any_run(folder, generator):
  run = runs.load_run(folder / 'classifier')
  table = generator.params['embedding']
  np.testing.assert_array_equal(run.aux['embedding'], table)
  assert run.experiment.info.labels == (
    *('area[]', 'area[city centre]', 'area[riverside]'),
    *('food[greek]', 'food[thai]'),
  )
  rows = tiny.rows(folder / 'classifier' / 'metrics.jsonl')
  assert rows[-1]['step'] == 2
  assert 0 <= rows[-1]['terms']['wrong'] <= 1
  assert 0.3 < rows[0]['loss'] < 1.5
  # It goes on without the generator's folder.
  moved = (folder / 'generator').rename(folder / 'away')
  try:
    run_main(
      folder / 'classifier',
      CLASSIFIER,
      data__path=folder / 'meanings.csv',
      init_from=folder / 'generator',
      training__num_steps=3,
    )
  finally:
    moved.rename(folder / 'generator')
  assert runs.load_run(folder / 'classifier').step == 3


@pytest.mark.slow
def test_samples_with_control(folder):
  sampled(folder / 'generator')
  plain = tiny.rows(folder / 'generator' / 'samples.jsonl')
  asked = {
    'sampling.control': '["food[thai]", "area[city centre]"]',
    'sampling.classifier': folder / 'classifier',
    'sampling.control_length': 9,
    'sampling.control_until': 0,
    'sampling.control_rate': 1.0,
  }
  texts = {}
  for scale in (0.0, 1.0):
    sampled(folder / 'generator', **asked, sampling__guidance_scale=scale)
    rows = tiny.rows(folder / 'generator' / 'samples.jsonl')
    assert rows[0]['control'] == ['food[thai]', 'area[city centre]']
    assert rows[0]['control_length'] == 9
    texts[scale] = [row['text'] for row in rows]
  assert texts[0.0] == [row['text'] for row in plain] != texts[1.0]


@pytest.mark.slow
def test_the_evaluation_of_control(folder):
  sampled(
    folder / 'generator',
    'evaluate',
    eval__control='food, food+area, length',
    eval__targets=3,
    eval__judge=folder / 'judge',
    sampling__classifier=folder / 'classifier',
  )
  result = json.loads((folder / 'generator' / 'control.json').read_text())
  assert [one['kind'] for one in result['controls']] == [
    *('food', 'food+area', 'length')
  ]
  for one in result['controls']:
    assert one['num_targets'] == 3
    for which in ('controlled', 'unguided'):
      found = one[which]
      assert found['num_samples'] == 6
      assert set(found['parts']) == set(one['kind'].split('+'))
      assert 0 <= found['success'] <= min(found['parts'].values())
      perplexity = np.exp(found['nats_per_token'])
      np.testing.assert_allclose(perplexity, found['perplexity'], rtol=1e-6)
  assert result['data']['nats_per_token'] > 0
  assert result['judge'] == 'judge' and result['split'] == 'validation'
  rows = tiny.rows(folder / 'generator' / 'control.jsonl')
  assert len(rows) == 18
  assert set(rows[-1]['target']) == set(rows[-1]['success']) == {'length'}
  table = (folder / 'generator' / 'control.md').read_text()
  assert table.count('\n| ') == 8


@pytest.mark.slow
def test_control_succeeds_after_a_little_training(tmp_path):
  """Whole words; 500 steps of a generator and 400 of its classifier."""
  rng = np.random.default_rng(0)
  lines = ['mr,ref']
  for _ in range(400):
    food = rng.choice(['thai', 'greek', 'french', 'indian'])
    meaning, text = f'food[{food}]', f'it has {food} food'
    if rng.random() < 0.5:
      area = rng.choice(['riverside', 'centre'])
      meaning, text = f'{meaning}, area[{area}]', f'{text} by the {area}'
    lines.append(f'"{meaning}","{text}"')
  path = tmp_path / 'meanings.csv'
  path.write_text('\n'.join(lines) + '\n')
  words = tmp_path / 'words'
  prepare.main(
    [
      *('train-words', '--input', str(path), '--output', str(words)),
      *('--more-than', '0'),
    ]
  )
  data = {'data.path': path, 'data.tokenizer': words, 'data.seq_len': 12}
  result = controlled(
    tmp_path,
    {**GENERATOR, **LEARNED, **data},
    {**CLASSIFIER, **LEARNED, **data, 'training.num_steps': 400},
    'food+area, length',
  )
  # Of 4 foods and 2 areas, the latter there in every other text.
  both, length = result['controls']
  assert both['unguided']['success'] < 0.2
  assert both['controlled']['success'] > both['unguided']['success'] + 0.3
  assert length['controlled']['success'] > length['unguided']['success'] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
  'changes, told',
  [
    (
      {'sampling.control': 'food[thay]'},
      "unknown control label 'food[thay]'",
    ),
    (
      {'sampling.control': '["food[thai]", "food[greek]"]'},
      'a text has one label of a field',
    ),
    ({'sampling.control_length': 23}, 'room for texts of 1 to 22, not 23'),
    ({'sampling.classifier': 'judge'}, 'says nothing of labels'),
    ({'sampling.classifier': 'gone'}, 'no run in'),
    ({'sampling.classifier': 'classifier,classifier'}, 'both know label'),
    ({'eval.control': 'near', 'sampling.control': ''}, "labels of 'near'"),
  ],
)
def test_controls_that_there_are_not(folder, capsys, changes, told):
  fields = {
    'sampling.control': 'food[thai]',
    'sampling.classifier': 'classifier',
    **changes,
  }
  fields['sampling.classifier'] = ','.join(
    str(folder / name) for name in fields['sampling.classifier'].split(',')
  )
  mode = 'evaluate' if 'eval.control' in changes else 'sample'
  with pytest.raises(SystemExit) as error:
    sampled(folder / 'generator', mode, **fields)
  assert error.value.code == 2
  assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_classifier_of_another_generator(folder, generator, tmp_path):
  """Embeddings, noise and width are held to those of the generator."""
  other = runs.dataclasses.replace(
    generator,
    params=jax.tree.map(lambda leaf: leaf + 1, generator.params),
  )
  with pytest.raises(ValueError, match='its embedding is not that of the run'):
    controls.Controls(other, str(folder / 'classifier'))
  changed = generator.config.copy_and_resolve_references()
  changed.schedule.num_steps = 7
  other = runs.dataclasses.replace(
    generator,
    experiment=types.SimpleNamespace(
      config=changed, tokenizer=generator.tokenizer
    ),
  )
  noises = r'of the generator is gaussian \(7 steps\).*classifier .*\(6 steps'
  with pytest.raises(ValueError, match=f'sampling.classifier.*{noises}'):
    controls.Controls(other, str(folder / 'classifier'))
  path = folder / 'meanings.csv'
  for changes, told in (
    ({'schedule__num_steps': 7}, r'gaussian \(6 steps\).*gaussian \(7 steps\)'),
    ({'model__args__embedding_size': 6}, r'\(30, 4\).*classifier \(30, 6\)'),
    ({'data__tokenizer': 'bytes'}, 'data.tokenizer must be the same'),
    ({'init_from': folder / 'judge'}, 'of the generator is log_linear'),
    ({'init_from': folder / 'gone'}, 'no run in'),
  ):
    fields = {'init_from': folder / 'generator', **changes}
    config = config_of(CLASSIFIER, data__path=path, **fields)
    with pytest.raises(ValueError, match=f'init_from.*{told}'):
      runs.initial_aux(experiments.Experiment(config))


def config_of(fields, **changes):
  from sedd_jax import default_config

  config = default_config.get_config()
  fields = {**fields, **{k.replace('__', '.'): v for k, v in changes.items()}}
  for path, value in fields.items():
    known = default_config.FIELDS.get(path)
    as_text = known is not None and isinstance(known.default, str)
    config_checks.assign(config, path, str(value) if as_text else value)
  return config


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'sampling__control': 'food[thai]'}, 'needs sampling.classifier'),
    ({'sampling__fluency': 0.5}, 'sampling.fluency=0.5 is of controls'),
    ({'sampling__classifier': 'x'}, "sampling.classifier='x' is of controls"),
    (
      {'sampling__classifier': 'x', 'sampling__control_length': 5},
      'needs sampling.control, the label',
    ),
    (
      {'eval__control': 'length', 'sampling__control_length': 5},
      'leave sampling.control and',
    ),
    (
      {'eval__control': 'length', 'eval__generation': True},
      'eval.generation and eval.control are two evaluations',
    ),
  ],
)
def test_fields_that_do_not_go_together(changes, told):
  config = config_of(GENERATOR, data__path='x', **changes)
  with pytest.raises(config_checks.ConfigError, match=told):
    config_checks.validate(config)


def test_control_is_for_trained_runs(tmp_path):
  config = config_of(GENERATOR, data__path='x', sampling__control_length=5)
  command = modes.flags.Command(config, tmp_path, 'train', {})
  with pytest.raises(config_checks.ConfigError, match='of a trained run'):
    modes.train(command)


def test_kinds_and_targets(tmp_path):
  known = ['food', 'area']
  assert control.kinds('food,area + length', known) == [
    *(('food',), ('area', 'length'))
  ]
  for text, told in (
    ('foot', "labels of 'foot'; nearest: food"),
    ('food,food', 'there twice'),
    ('food+food', 'has a part twice'),
  ):
    with pytest.raises(ValueError, match=told):
      control.kinds(text, known)
  config = config_of(GENERATOR, data__path=write_meanings(tmp_path))
  data = experiments.Experiment(config).dataset
  found = control.targets(data, 'validation', ('area', 'length'), 3)
  assert len(found) == 3
  for target in found:
    assert target['area'] in AREAS
    assert target['length'] in [
      len(f'{food} at {target["area"]}') for food in FOODS
    ]
  assert control.labels_of(found[0]) == [f'area[{found[0]["area"]}]']
  with pytest.raises(ValueError, match='no text of the train split has near'):
    control.targets(data, 'train', ('near',), 3)


def test_what_counts_as_a_success(tmp_path):
  config = config_of(GENERATOR, data__path=write_meanings(tmp_path))
  tokenizer = experiments.Experiment(config).tokenizer

  def sample_of(text):
    ids = [tokenizer.cls, *tokenizer.encode(text), tokenizer.sep]
    rest = [*tokenizer.encode('greek'), tokenizer.sep, tokenizer.pad]
    return np.array([*ids, *rest], np.int32)

  ids = sample_of('thai by the city centre')
  own = control.text_ids(ids, tokenizer)
  assert tokenizer.decode(own) == 'thai by the city centre'
  target = {'food': 'Thai', 'area': 'city centre', 'length': 25}
  found = control.successes(ids, tokenizer, target)
  assert found == {'food': True, 'area': True, 'length': True}
  for length, near in ((23, True), (20, False), (26, False)):
    found = control.successes(ids, tokenizer, {'length': length})
    assert found == {'length': near}
  # What stands behind the end is no part of the text.
  assert control.successes(ids, tokenizer, {'food': 'greek'}) == {'food': False}
  targets = [{'food': 'thai'}, {'food': 'greek'}]
  rows = [targets[0], targets[0], targets[1], targets[1]]
  texts = ['thai', 'a thai', 'greek', 'thai']
  found = control.figures([sample_of(t) for t in texts], rows, tokenizer, None)
  assert found['success'] == found['parts']['food'] == 0.75
  assert found['standard_error'] == 0.25
  assert found['mean_length'] == np.mean([4, 6, 5, 4])
  assert control.fluency([ids], tokenizer, None) == {}
  # A judge of the same ids: one nat a token, of which [CLS] is none.
  judge = judges.Judge(
    name='judge',
    tokenizer=tokenizer,
    width=64,
    scores_first=True,
    nats_fn=lambda tokens, valid, counted: counted.sum(-1) + 0.0,
  )
  calls = []
  counting = dataclasses.replace(
    judge, nats_fn=lambda *args: calls.append(args) or judge.nats_fn(*args)
  )
  found = control.fluency([ids], tokenizer, counting)
  assert found['nats_per_token'] == 1
  ((tokens, valid, counted),) = calls
  assert tokens[0, 0] == tokenizer.cls and not counted[0, 0]
  assert counted[0].sum() == len(own) + 1 == valid[0].sum() - 1
