"""Runs that answer pairs: every system by the same command."""

import json

import jax
import numpy as np
import optax
import pytest

from sedd_jax import (
  answering,
  config_checks,
  default_config,
  drawing,
  experiments,
  main,
  runs,
)
from sedd_jax.evaluation import scoring
from tests import tiny
from tests.test_runs_of_pairs import write_pairs

VECTORS = {
  'schedule.name': 'gaussian',
  'schedule.num_steps': 4,
  'model.name': 'embedding_bert',
  'model.args.embedding_size': 4,
}
SYSTEMS = {
  'autoregressive': {'sampling.method': 'autoregressive'},
  'diffuseq': {**VECTORS, 'sampling.method': 'ddim'},
  'diffuser': {
    'system.args.source_length': 40,
    'system.args.num_steps': 2,
    'sampling.method': 'nucleus',
    'sampling.start': 'source',
    'data.layout': 'split',
  },
  'masked_diffusion': {'sampling.method': 'first_hitting'},
}


def fields_of(path, name):
  return {
    'model.hidden_size': 16,
    'model.num_layers': 1,
    'model.num_heads': 2,
    'model.cond_size': 8,
    'model.dtype': 'float32',
    'data.source': 'seq2seq',
    'data.path': str(path),
    'data.layout': 'joint',
    'data.tokenizer': 'text8',
    'data.seq_len': 40,
    'data.validation_fraction': 0.2,
    'system.name': name,
    'sampling.pairs': 'validation',
    'sampling.num_pairs': 5,
    'sampling.num_samples': 2,
    'sampling.batch_size': 4,
    'sampling.steps': 2,
    **SYSTEMS[name],
  }


def config_of(path, name, **changes):
  config = default_config.get_config()
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  for field, value in {**fields_of(path, name), **changes}.items():
    config_checks.assign(config, field, value)
  config_checks.validate(config)
  return config


def run_of(config):
  experiment = experiments.Experiment(config)
  params, aux = jax.jit(experiment.system.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: p + 0.2 * rng.standard_normal(p.shape).astype(np.float32), params
  )
  return runs.Run(experiment, params, aux, 7)


def test_a_source_that_is_begun_with_and_does_not_fit_is_counted(tmp_path):
  path = write_pairs(tmp_path)
  for length, counted in ((0, False), (4, True)):
    config = config_of(path, 'diffuser', sampling__length=length)
    asked = answering.asked(experiments.Experiment(config))
    assert (asked.questions.cut == counted).all()


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_system_answers_the_same_pairs(name, tmp_path, capsys):
  path = write_pairs(tmp_path)
  config = config_of(path, name)
  run = run_of(config)
  wanted = answering.asked(run.experiment)
  answering.answer(run, tmp_path, wanted, scored=True, told={'version': 'x'})
  rows = tiny.rows(tmp_path / 'answers.jsonl')
  # 300 pairs, the last fifth of which is the split.
  assert [row['id'] for row in rows] == [
    f'turned.jsonl:{line}' for line in range(241, 246)
  ]
  for row in rows:
    assert row['refs'] == [' '.join(row['src'].split()[::-1])]
    assert len(row['hyps']) == 2 and row['text'] in row['hyps']
    assert not any('[' in text for text in row['hyps'])
  result = json.loads((tmp_path / 'answers.json').read_text())
  assert result['num_pairs'] == 5 and result['candidates'] == 2
  assert result['num_cut'] == sum(row['cut'] for row in rows)
  assert (result['num_cut'] > 0) == (config.data.layout == 'joint')
  assert (result['system'], result['step']) == (name, 7)
  assert result['scores'] == scoring.table(
    scoring.read([tmp_path / 'answers.jsonl'])
  )
  told = capsys.readouterr().out
  assert f'{result["num_cut"]} pairs did not fit and were cut' in told
  assert f'bleu {result["scores"]["bleu"]:.4f}' in told

  # One pair alone, by its file, is answered as among the others.
  lines = path.read_text().splitlines(keepends=True)
  (tmp_path / 'own.jsonl').write_text(''.join(lines[240:242]))
  alone = config_of(path, name, sampling__pairs=str(tmp_path / 'own.jsonl'))
  again = runs.Run(
    experiments.Experiment(alone, read=False), run.params, run.aux, 7
  )
  # What is compiled already.
  again.experiment.system = run.experiment.system
  wanted = answering.asked(again.experiment)
  answering.answer(again, tmp_path, wanted, scored=False, told={})
  found = tiny.rows(tmp_path / 'answers.jsonl')
  assert [row['hyps'] for row in found] == [row['hyps'] for row in rows[:2]]
  assert [row['id'] for row in found] == ['own.jsonl:1', 'own.jsonl:2']
  assert 'scores' not in json.loads((tmp_path / 'answers.json').read_text())


def test_a_training_shows_answers_to_the_first(tmp_path):
  config = config_of(write_pairs(tmp_path), 'diffuseq')
  experiment = experiments.Experiment(config)
  (asked,) = drawing.requests_of(experiment, free=True)
  assert len(asked.request.seeds) == 4 and asked.request.record_path
  assert asked.request.given.any(1).all()
  assert drawing.in_words(asked.kept) == "samples, pairs 'validation':"


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'data__source': 'text_file'}, "needs data.source='seq2seq'"),
    ({'data__layout': 'target'}, 'with a source in data.layout (joint, split)'),
    ({'sampling__prompt': 'a'}, 'and sampling.prompt do not go together'),
    ({'sampling__contains': 'a'}, 'and sampling.contains do not go together'),
    (
      {'eval__judge': 'a', 'eval__generation': True},
      'and eval.judge do not go together',
    ),
    (
      {'sampling__control': 'a', 'sampling__classifier': 'b'},
      'and sampling.control do not go together',
    ),
    ({'sampling__length': 30}, 'leave sampling.length at 0'),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(config_checks.ConfigError) as error:
    config_of('x.jsonl', 'masked_diffusion', **changes)
  assert told in str(error.value)


def test_a_system_without_a_place_for_a_source_says_so(tmp_path):
  config = config_of(
    write_pairs(tmp_path), 'autoregressive', data__layout='split'
  )
  with pytest.raises(ValueError, match='takes no source in a request'):
    answering.asked(experiments.Experiment(config))


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys):
  path = write_pairs(tmp_path)
  fields = fields_of(path, 'diffuseq') | {
    'training.num_steps': 2,
    'training.batch_size': 8,
    'training.log_every': 1,
    'training.eval_every': 0,
    'training.sample_every': 0,
    'eval.max_sequences': 8,
    'eval.points': 1,
    'data.validation_path': '',
    'data.test_path': '',
  }
  workdir = tmp_path / 'run'
  shared = [f'--workdir={workdir}']
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  main.main(['--config=qqp_diffuseq_small', *shared, *flags])
  assert len(tiny.rows(workdir / 'samples.jsonl')) == 4
  assert not (workdir / 'answers.jsonl').exists()
  told = json.loads((workdir / 'evaluation.json').read_text())
  assert told['nats_per_token'] > 0
  asked = ['--config.sampling.num_pairs=3', '--config.seed=5']
  main.main([*shared, '--mode=sample', *asked])
  rows = tiny.rows(workdir / 'answers.jsonl')
  assert len(rows) == 3
  more = ['--config.eval.generation=true', *asked]
  main.main([*shared, '--mode=evaluate', *more])
  assert tiny.rows(workdir / 'answers.jsonl') == rows
  scores = json.loads((workdir / 'answers.json').read_text())['scores']
  assert scores['num_rows'] == 3
  capsys.readouterr()
  assert scoring.main([str(workdir / 'answers.jsonl')]) == 0
  assert json.loads(capsys.readouterr().out) == scores


@pytest.mark.slow
def test_diffuseq_learns_to_answer(tmp_path):
  """Two letters the other way round, of four: by heart from their source."""
  letters = [a + b for a in 'abcd' for b in 'abcd']
  path = tmp_path / 'turned.jsonl'
  path.write_text(
    ''.join(json.dumps({'src': x, 'trg': x[::-1]}) + '\n' for x in letters)
  )
  fields = {
    'data__validation_path': str(path),
    'data__seq_len': 9,
    'model__hidden_size': 32,
    'model__dropout': 0.0,
    'schedule__num_steps': 20,
    'system__args__loss_on': 'target',
    'sampling__steps': 10,
    'sampling__num_pairs': 0,
    'sampling__num_samples': 3,
    'sampling__batch_size': 48,
    'sampling__clamp': 20,
  }
  experiment = experiments.Experiment(config_of(path, 'diffuseq', **fields))
  system, data = experiment.system, experiment.dataset
  updates = optax.adam(5e-3)
  params, aux = jax.jit(system.init)(jax.random.key(0))

  @jax.jit
  def step(params, aux, state, key, batch):
    def mean(params):
      loss = system.loss(params, aux, key, batch)
      return loss.nats.sum() / loss.weight.sum(), loss.stats

    (_, stats), grads = jax.value_and_grad(mean, has_aux=True)(params)
    change, state = updates.update(grads, state)
    params = optax.apply_updates(params, change)
    return params, system.update_aux(aux, stats), state

  state = updates.init(params)
  for number in range(400):
    batch = data.train_batch(0, number, np.arange(64), 64)
    key = jax.random.fold_in(jax.random.key(1), number)
    params, aux, state = step(params, aux, state, key, batch)
  # Steps are drawn by their losses by now.
  assert np.all(np.asarray(aux['history'].counts) == 10)
  run = runs.Run(experiment, params, aux, 400)
  wanted = answering.asked(experiment)
  answering.answer(run, tmp_path, wanted, scored=True, told={})
  result = json.loads((tmp_path / 'answers.json').read_text())
  assert result['num_pairs'] == 16 and result['num_cut'] == 0
  assert result['scores']['exact_match'] > 0.8
