"""The program as a user runs it, on a run that is trained once."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import flags, main, runs

TINY = [
  '--config=quickstart',
  '--config.model.hidden_size=16',
  '--config.model.num_layers=1',
  '--config.model.num_heads=2',
  '--config.model.cond_size=8',
  '--config.data.seq_len=16',
  '--config.data.limit=4000',
  '--config.data.validation_fraction=0.1',
  '--config.training.num_steps=6',
  '--config.training.batch_size=8',
  '--config.training.log_every=2',
  '--config.training.eval_every=4',
  '--config.eval.max_sequences=10',
  '--config.eval.batch_size=4',
  '--config.eval.points=2',
  '--config.sampling.steps=3',
  '--config.sampling.num_samples=2',
  '--config.sampling.prompt=the {blank:4} is',
]
FILES = (
  'config.json',
  'metrics.jsonl',
  'evaluation.json',
  'samples.jsonl',
  'loss.png',
  'denoising.html',
)


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='session')
def workdir(tmp_path_factory):
  """A tiny run, trained, evaluated and sampled by one call."""
  folder = tmp_path_factory.mktemp('runs') / 'tiny'
  main.main([*TINY, f'--workdir={folder}'])
  return folder


@pytest.fixture(scope='session')
def run(workdir):
  return sj.load_run(workdir)


def test_a_run_leaves_its_files(workdir):
  assert all((workdir / name).stat().st_size for name in FILES)
  assert (workdir / 'checkpoints' / '6').is_dir()


def test_metrics(workdir):
  lines = rows(workdir / 'metrics.jsonl')
  assert [line['step'] for line in lines] == [2, 4, 6]
  for line in lines:
    assert line['bpc'] == pytest.approx(line['loss'] / np.log(2))
    assert {'seconds', 'tokens_per_second'} <= set(line['timing'])
  assert lines[1]['validation']['protocol'] == 'bound'


def test_evaluation(workdir, run):
  result = json.loads((workdir / 'evaluation.json').read_text())
  wanted = {
    'nats_per_token',
    'standard_error',
    'bits_per_character',
    'perplexity',
    'terms',
    'protocol',
    'split',
    'num_sequences',
    'step',
    'seed',
    'dtype',
    'commit',
    'files',
  }
  assert wanted <= set(result)
  assert result['num_sequences'] == 10 and result['step'] == 6
  assert sum(result['terms'].values()) == pytest.approx(
    result['nats_per_token'], rel=1e-5
  )
  assert result['files'][0]['name'] == 'pydoc_data.topics'
  assert len(result['files'][0]['sha256']) == 64


def test_samples_keep_the_prompt(workdir):
  samples = rows(workdir / 'samples.jsonl')
  assert [row['seed'] for row in samples] == [0, 1, 0, 1]
  for row in samples[:2]:
    assert row['prompt'] == '' and len(row['text']) == 16
  for row in samples[2:]:
    assert row['text'][:4] == 'the ' and row['text'][8:11] == ' is'


def test_a_finished_run_is_not_trained_again(workdir, capsys):
  before = (workdir / 'metrics.jsonl').read_text()
  samples = (workdir / 'samples.jsonl').read_text()
  main.main([*TINY, f'--workdir={workdir}'])
  said = capsys.readouterr()
  assert 'is trained: 6 steps' in said.out + said.err
  assert (workdir / 'metrics.jsonl').read_text() == before
  assert (workdir / 'samples.jsonl').read_text() == samples


def test_evaluate_takes_the_stored_config(workdir, capsys):
  main.main(
    [
      '--mode=evaluate',
      f'--workdir={workdir}',
      '--config.eval.protocol=sedd',
      '--config.eval.max_sequences=3',
    ]
  )
  result = json.loads((workdir / 'evaluation.json').read_text())
  assert result['protocol'] == 'sedd' and result['num_sequences'] == 3
  assert set(result['terms']) == {'diffusion'}
  assert 'protocol sedd' in capsys.readouterr().out


def test_sample_with_prompt_and_suffix(workdir):
  main.main(
    [
      '--mode=sample',
      f'--workdir={workdir}',
      '--config.sampling.prompt=a {blank:3} b',
      '--config.sampling.suffix=end',
      '--config.sampling.num_samples=3',
    ]
  )
  samples = rows(workdir / 'samples.jsonl')
  assert len(samples) == 3
  for row in samples:
    assert row['text'].startswith('a ') and row['text'].endswith('end')
    assert row['text'][5:7] == ' b' and len(row['text']) == 16


@pytest.mark.parametrize(
  'extra, told',
  [
    (['--config.sampling.prompt=Rome'], "'R'"),
    (['--config.sampling.prompt={blank:40}'], 'take 40 tokens'),
    (['--config.sampling.prompt={blank:x}'], 'is no blank'),
    (['--config.training.batch_size=9'], 'does not divide into 8 parts'),
    (['--config.eval.split=test'], "no split 'test'"),
    (['--config.init_from=nowhere.npz'], 'nowhere.npz'),
  ],
)
def test_mistakes_are_told_before_training(tmp_path, capsys, extra, told):
  with pytest.raises(SystemExit) as exit_:
    main.main([*TINY, f'--workdir={tmp_path / "run"}', *extra])
  assert exit_.value.code == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and told in error, error
  assert not (tmp_path / 'run' / 'metrics.jsonl').exists()


def test_another_model_in_the_same_folder_is_refused(workdir, capsys):
  with pytest.raises(SystemExit):
    main.main([*TINY, f'--workdir={workdir}', '--config.model.hidden_size=32'])
  error = capsys.readouterr().err
  assert 'model.hidden_size (16, now 32)' in error and 'init_from' in error


def test_weights_of_another_run(workdir, tmp_path, run):
  main.main(
    [
      *TINY,
      f'--workdir={tmp_path / "tuned"}',
      f'--config.init_from={workdir}',
      '--config.training.num_steps=0',
    ]
  )
  tuned = sj.load_run(tmp_path / 'tuned')
  jax.tree.map(np.testing.assert_array_equal, tuned.params, run.params)


@pytest.mark.parametrize(
  'arguments, told',
  [
    ([], '--config'),
    (['--config=quickstart', '--config.training.num_steps=1e5'], '100000'),
    (['--config=owt_absorb'], 'sedd_jax.data.prepare openwebtext'),
  ],
)
def test_one_line_and_no_traceback(tmp_path, arguments, told):
  ended = subprocess.run(
    [sys.executable, '-m', 'sedd_jax.main', *arguments],
    cwd=tmp_path,
    env={'PYTHONPATH': str(pathlib.Path(__file__).parents[1])},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 2
  assert told in ended.stderr and ended.stderr.count('\n') == 1, ended.stderr


class TestLoadRun:
  def test_what_it_has(self, run):
    assert run.step == 6 and run.config.data.seq_len == 16
    assert run.tokenizer.vocab_size == 27
    assert run.tokens('validation').ndim == 1

  def test_score_fn_draws_samples(self, run):
    tokens = sj.samplers.sample(
      run.score_fn,
      jax.random.key(0),
      (2, 16),
      process=sj.processes.Absorbing(vocab_size=27),
      schedule=sj.noise_schedules.LogLinear(),
      steps=2,
    )
    assert tokens.shape == (2, 16) and tokens.max() < 27

  def test_a_sample_depends_on_its_seed(self, run):
    together = run.sample(3, steps=2).tokens
    np.testing.assert_array_equal(together, run.sample(3, steps=2).tokens)
    alone = run.sample(seeds=[2], steps=2).tokens
    np.testing.assert_array_equal(together[2], alone[0])

  def test_bound(self, run):
    tokens = np.asarray(run.tokens('validation')[: 16 * 8]).reshape(8, 16)
    bound = run.bound(tokens)
    assert bound.nats.shape == (8,)
    np.testing.assert_array_equal(bound.weight, 16)
    # Hardly trained: near the entropy of 27 symbols, within 20 %.
    per_token = float(bound.nats.sum() / bound.weight.sum())
    assert abs(per_token - np.log(27)) < 0.2 * np.log(27)
    with pytest.raises(ValueError, match='tokens must be'):
      run.bound(jnp.zeros(4))

  def test_no_run(self, tmp_path):
    with pytest.raises(ValueError, match=f'no {flags.CONFIG_FILE}'):
      sj.load_run(tmp_path)

  def test_experiment_needs_no_text_to_sample(self, run):
    experiment = runs.Experiment(run.config, read=False)
    assert experiment.info.num_tokens == {}
    assert 'dataset' not in vars(experiment)
