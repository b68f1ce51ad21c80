"""The program as a user runs it."""

import json
import math
import pathlib
import platform
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from sedd_jax import config_checks, main
from sedd_jax.evaluation import likelihood
from sedd_jax.training import loop
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]


def refused(capsys, *argv, begun='nothing'):
  """The one line on standard error of a command that cannot be run.

  A run that has begun may have said so on the line before.
  """
  with pytest.raises(SystemExit) as ended:
    main.main([str(arg) for arg in argv])
  assert ended.value.code == 2
  told = capsys.readouterr().err
  *before, told = told.splitlines(keepends=True)
  assert told.startswith('error: ') and told.endswith('\n')
  assert all(begun in line for line in before), before
  return told


def started(folder, *argv):
  """A command in a process of its own."""
  return subprocess.run(
    [sys.executable, '-m', 'sedd_jax.main', *argv],
    cwd=folder,
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.mark.parametrize(
  ('argv', 'told'),
  [
    (['--mode=sample'], '--mode=sample needs --config or --workdir of a run'),
    (
      ['--config=quickstart', '--config.training.num_step=3'],
      "unknown field 'training.num_step'; nearest: training.num_steps",
    ),
    (
      ['--config=quickstart', '--config.training.num_steps=1e5'],
      "training.num_steps takes an integer, not '1e5': write 100000",
    ),
    (
      ['--config=quickstart', '--config.sampling.method=tweedy'],
      "unknown sampling.method 'tweedy'; nearest: tweedie",
    ),
  ],
)
def test_mistakes_of_the_command_line(
  capsys, tmp_path, monkeypatch, argv, told
):
  monkeypatch.chdir(tmp_path)
  assert told in refused(capsys, *argv)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('mode', ['train', 'evaluate', 'sample'])
def test_a_folder_that_cannot_be_written(
  trained, tiny_text, tmp_path, capsys, mode
):
  """A file stands in its place."""
  workdir = tmp_path / 'file'
  workdir.write_text('')
  argv = [*tiny.arguments(tiny_text), f'--workdir={workdir}']
  if mode != 'train':
    argv += [f'--mode={mode}', f'--config.init_from={trained}']
  told = refused(capsys, *argv)
  assert told.startswith(f'error: --workdir={workdir} cannot be written')


def test_another_text_is_refused(copied, tiny_text, tmp_path, capsys):
  """The same text from another place is not."""
  moved = tmp_path / 'moved.txt'
  shutil.copy(tiny_text, moved)
  argv = [*tiny.arguments(moved), f'--workdir={copied}']
  main.main(argv)
  other = tmp_path / 'other.txt'
  other.write_text(moved.read_text()[::-1])
  argv = [*tiny.arguments(other), f'--workdir={copied}']
  capsys.readouterr()
  before = (copied / 'config.json').read_text()
  told = refused(capsys, *argv, '--config.training.num_steps=40')
  assert (copied / 'config.json').read_text() == before
  assert 'the run was trained on moved.txt' in told or (
    f'the run was trained on {tiny_text.name}' in told
  )
  assert 'other.txt' in told and 'init_from' in told


def test_fewer_steps_than_made_are_refused(copied, tiny_text, capsys):
  before = (copied / 'config.json').read_text()
  argv = [*tiny.arguments(tiny_text), f'--workdir={copied}']
  told = refused(capsys, *argv, '--config.training.num_steps=2')
  assert 'steps already, and training.num_steps is 2' in told
  assert (copied / 'config.json').read_text() == before


def test_lost_manifests_lose_no_run(copied, tiny_text, capsys):
  """As after a copy that left them out: nothing is removed."""
  argv = [*tiny.arguments(tiny_text), f'--workdir={copied}']
  steps = sorted((copied / 'checkpoints').iterdir())
  assert len(steps) > 1
  for step in steps:
    (step / 'manifest.json').unlink()
  told = refused(capsys, *argv)
  assert 'every checkpoint is damaged' in told and 'manifest.json' in told
  assert sorted((copied / 'checkpoints').iterdir()) == steps


def test_a_damaged_line_of_metrics_is_told(copied, tiny_text, capsys):
  lines = (copied / 'metrics.jsonl').read_text().splitlines()
  (copied / 'metrics.jsonl').write_text('\n'.join(['{"step"', *lines]) + '\n')
  argv = [*tiny.arguments(tiny_text), f'--workdir={copied}']
  more = '--config.training.num_steps=40'
  told = refused(capsys, *argv, more, begun='going on after step 30')
  assert 'metrics.jsonl, line 1, is damaged' in told


def test_a_mistake_in_a_process_is_one_line(tmp_path):
  ended = started(tmp_path)
  assert ended.returncode == 2
  assert ended.stderr.startswith('error: --mode=train needs --config; recipes:')
  assert ended.stderr.count('\n') == 1 and not ended.stdout


def test_missing_data_in_a_process_is_one_message(tmp_path):
  """What is missing, what prepares it, and what runs at once."""
  ended = started(tmp_path, '--config=owt_absorb')
  assert ended.returncode == 2
  assert 'Traceback' not in ended.stderr
  assert ended.stderr.count('\n') == 1 and not ended.stdout
  for part in (
    'openwebtext',
    'python -m sedd_jax.data.prepare openwebtext',
    'quickstart',
  ):
    assert part in ended.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('extra', 'told'),
  [
    (['--config.sampling.prompt=the {blank:4} of Rome'], "character 'R' at"),
    (
      ['--config.sampling.prompt=abc{blank:14}'],
      'take 17 tokens, but the samples',
    ),
    (['--config.sampling.suffix={blank}'], 'in the suffix is no blank'),
    (['--config.training.batch_size=9'], 'does not divide into 8 parts'),
    (['--config.eval.split=test'], "no split 'test'"),
    (['--config.data.path=nowhere.txt'], 'nowhere.txt'),
    (['--config.data.seq_len=5000'], 'fewer than one sequence'),
    (['--config.init_from=nowhere.npz'], 'init_from: '),
    (['--config.init_from=nowhere.npz'], 'nowhere.npz'),
    (
      ['--config.sampling.prompt={blank:99999999999999999999}'],
      'is longer than the samples',
    ),
    (
      ['--config.optimizer.name=sgd', '--config.optimizer.weight_decay=0.1'],
      "'sgd' has no weight decay",
    ),
    (['--config.training.trackers=wandbs'], "unknown tracker 'wandbs'"),
    (['--config.training.profile=9'], "as '10-20'"),
    (
      ['--config.eval.checkpoint=best', '--config.training.eval_every=99'],
      'needs training.eval_every from 1 to training.num_steps (30), not 99',
    ),
    (
      ['--config.eval.checkpoint=best', '--config.training.keep_best=False'],
      'needs training.keep_best',
    ),
  ],
)
def test_mistakes_are_told_before_the_training(
  tiny_text, tmp_path, capsys, extra, told
):
  argv = [*tiny.arguments(tiny_text), f'--workdir={tmp_path / "run"}', *extra]
  assert told in refused(capsys, *argv)
  assert not (tmp_path / 'run').exists()


def test_a_run_leaves_its_files(trained):
  assert {path.name for path in trained.iterdir()} == {
    *('config.json', 'metrics.jsonl', 'evaluation.json', 'samples.jsonl'),
    *('loss.png', 'denoising.html', 'checkpoints', 'best'),
  }
  assert all(path.stat().st_size for path in trained.iterdir())
  steps = {path.name for path in (trained / 'checkpoints').iterdir()}
  assert {'20', '30'} <= steps
  config = config_checks.from_json((trained / 'config.json').read_text())
  assert config.training.num_steps == tiny.NUM_STEPS


def test_metrics(trained):
  lines = tiny.rows(trained / 'metrics.jsonl')
  assert [line['step'] for line in lines] == [10, 20, 30]
  for line in lines:
    assert line['bpc'] == pytest.approx(line['loss'] / math.log(2))
    assert 'seconds' in line['timing']
  validation = [line.get('validation') for line in lines]
  assert validation[0] is None and validation[2] is None
  assert validation[1]['split'] == 'validation'
  assert validation[1]['nats_per_token'] > 0


def test_evaluation(trained):
  result = json.loads((trained / 'evaluation.json').read_text())
  assert {
    *('nats_per_token', 'standard_error', 'bits_per_character', 'perplexity'),
    *('terms', 'protocol', 'split', 'num_sequences', 'step', 'seed', 'dtype'),
    *('commit', 'files'),
  } <= set(result)
  nats = result['nats_per_token']
  # Better than a guess among 27, and no better than the words allow.
  assert 0.5 < nats < math.log(27)
  assert 0 < result['standard_error'] < 0.5
  assert result['bits_per_character'] == pytest.approx(nats / math.log(2))
  assert result['perplexity'] == pytest.approx(math.exp(nats))
  assert set(result['terms']) == {'diffusion', 'prior', 'reconstruction'}
  assert sum(result['terms'].values()) == pytest.approx(nats, rel=1e-5)
  assert result['protocol'] == 'bound' and result['split'] == 'validation'
  assert result['num_sequences'] == tiny.VALIDATION_SEQUENCES
  assert result['step'] == tiny.NUM_STEPS and result['seed'] == 0
  assert result['dtype'] == 'float32'
  (file,) = result['files']
  assert file['name'] == 'tiny.txt' and len(file['sha256']) == 64


@pytest.mark.slow
@pytest.mark.parametrize('times', ['importance', 'quadrature'])
def test_other_times_of_the_bound_agree(copied, trained, times):
  """Within the spread of both, and with nothing but the noise's left."""
  argv = [f'--workdir={copied}', '--mode=evaluate', '--config.eval.points=6']
  main.main([*argv, f'--config.eval.time_sampling={times}'])
  result = json.loads((copied / 'evaluation.json').read_text())
  before = json.loads((trained / 'evaluation.json').read_text())
  assert result['time_sampling'] == times
  assert result['standard_error'] < before['standard_error']
  apart = abs(result['nats_per_token'] - before['nats_per_token'])
  assert apart < 3 * math.hypot(
    result['standard_error'], before['standard_error']
  )


def test_samples(trained):
  """Free ones, then those that keep the prompt."""
  samples = tiny.rows(trained / 'samples.jsonl')
  assert [row['seed'] for row in samples] == [0, 1, 0, 1]
  assert [row['prompt'] for row in samples] == [
    '',
    '',
    *['the {blank:4} of'] * 2,
  ]
  for row in samples:
    assert len(row['text']) == tiny.SEQ_LEN
    assert row['method'] == 'tweedie' and row['steps'] == 4
    assert row['step'] == tiny.NUM_STEPS
  for row in samples[2:]:
    assert row['text'].startswith('the ') and row['text'][8:11] == ' of'


def test_pictures(trained):
  assert (trained / 'loss.png').read_bytes()[:4] == b'\x89PNG'
  page = (trained / 'denoising.html').read_text()
  text = tiny.rows(trained / 'samples.jsonl')[0]['text']
  assert f'<p id="text">{text}</p>' in page
  assert 'absorbing noise, tweedie, 4 steps, after 30 training steps' in page


def test_a_finished_run_is_told_and_evaluated_and_sampled_again(
  copied, tiny_text, capsys
):
  before = {
    name: (copied / name).read_text()
    for name in ('metrics.jsonl', 'evaluation.json', 'samples.jsonl')
  }
  for name in ('evaluation.json', 'samples.jsonl', 'loss.png'):
    (copied / name).unlink()
  main.main([*tiny.arguments(tiny_text), f'--workdir={copied}'])
  said = capsys.readouterr()
  assert f'{copied} is trained: 30 steps' in said.err
  assert 'bound on validation, 60 sequences' in said.out
  assert "samples that keep 'the {blank:4} of':" in said.out
  assert (copied / 'metrics.jsonl').read_text() == before['metrics.jsonl']
  assert (copied / 'samples.jsonl').read_text() == before['samples.jsonl']
  assert (copied / 'loss.png').exists()
  # The checkout may have changed meanwhile.
  old, new = (
    json.loads(text)
    for text in (
      before['evaluation.json'],
      (copied / 'evaluation.json').read_text(),
    )
  )
  assert old | {'commit': None} == new | {'commit': None}


@pytest.mark.slow
def test_a_run_goes_on_with_more_steps_and_other_reports(
  copied, tiny_text, capsys
):
  main.main(
    [
      *tiny.arguments(tiny_text),
      f'--workdir={copied}',
      '--config.training.num_steps=40',
      '--config.training.eval_every=0',
      '--config.sampling.prompt=',
    ]
  )
  said = capsys.readouterr()
  assert f'{copied}: going on after step 30' in said.err
  steps = [row['step'] for row in tiny.rows(copied / 'metrics.jsonl')]
  assert steps == [10, 20, 30, 40]
  assert json.loads((copied / 'evaluation.json').read_text())['step'] == 40
  assert len(tiny.rows(copied / 'samples.jsonl')) == 2


def test_evaluate_takes_the_stored_config(copied, capsys):
  main.main(
    [
      '--mode=evaluate',
      f'--workdir={copied}',
      '--config.eval.protocol=sedd',
      '--config.eval.split=train',
      '--config.eval.max_sequences=3',
      '--config.seed=4',
    ]
  )
  result = json.loads((copied / 'evaluation.json').read_text())
  assert result['protocol'] == 'sedd' and result['split'] == 'train'
  assert result['num_sequences'] == 3 and result['seed'] == 4
  assert set(result['terms']) == {'diffusion'}
  assert 'sedd on train, 3 of 240 sequences: ' in capsys.readouterr().out
  # What the run is does not change.
  stored = config_checks.from_json((copied / 'config.json').read_text())
  assert stored.eval.protocol == 'bound' and stored.seed == 0


def test_sample_takes_the_stored_config_prompt_and_suffix(copied, capsys):
  main.main(
    [
      '--mode=sample',
      f'--workdir={copied}',
      '--config.sampling.prompt=a {blank:3} b',
      '--config.sampling.suffix=end',
      '--config.sampling.num_samples=5',
      '--config.sampling.length=20',
      '--config.sampling.method=euler',
    ]
  )
  samples = tiny.rows(copied / 'samples.jsonl')
  assert len(samples) == 5
  for row in samples:
    assert len(row['text']) == 20 and row['method'] == 'euler'
    assert row['text'].startswith('a ') and row['text'].endswith('end')
    assert row['text'][5:7] == ' b'
  told = capsys.readouterr().out
  assert "that keep 'a {blank:3} b' and 'end':" in told
  # The entropy of letters within a sample, by hand.
  entropies = [
    -sum(n / 20 * math.log(n / 20) for n in Counter(row['text']).values())
    for row in samples
  ]
  assert '\n100 tokens in ' in told
  assert f'unigram entropy {np.mean(entropies):.2f} nats\n' in told
  page = (copied / 'denoising.html').read_text()
  assert 'given = [1,1,0,0,0,1,1' in page


def test_sampling_needs_no_text(copied, tmp_path):
  """Where the run was copied to, its text need not be."""
  stored = config_checks.from_json((copied / 'config.json').read_text())
  stored.data.path = str(tmp_path / 'gone.txt')
  (copied / 'config.json').write_text(config_checks.to_json(stored))
  main.main(['--mode=sample', f'--workdir={copied}'])
  assert len(tiny.rows(copied / 'samples.jsonl')) == 2


@pytest.mark.parametrize(
  ('extra', 'told'),
  [
    (['--mode=sample', '--config.sampling.prompt=Rome'], "character 'R' at"),
    (['--mode=sample', '--config.seed=5000000000'], 'not 5000000000'),
    (['--mode=evaluate', '--config.eval.split=test'], "no split 'test'"),
    (['--mode=evaluate', '--config.data.path=gone.txt'], 'gone.txt'),
    (['--mode=evaluate', '--config.model.num_layers=2'], 'cannot be 2'),
  ],
)
def test_mistakes_on_a_stored_run(trained, capsys, extra, told):
  assert told in refused(capsys, f'--workdir={trained}', *extra)


def test_another_model_in_the_same_folder_is_refused(
  trained, tiny_text, capsys
):
  told = refused(
    capsys,
    *tiny.arguments(tiny_text),
    f'--workdir={trained}',
    '--config.model.hidden_size=32',
    '--config.optimizer.learning_rate=0.5',
  )
  assert 'model.hidden_size (16, now 32)' in told
  assert 'optimizer.learning_rate (0.01, now 0.5)' in told
  assert f'--config.init_from={trained}' in told


def test_a_folder_without_a_checkpoint_starts_anew(
  tiny_text, tmp_path, trained
):
  """Settings under which nothing was reached bind nobody."""
  config = config_checks.from_json((trained / 'config.json').read_text())
  config.model.hidden_size = 32
  (tmp_path / 'config.json').write_text(config_checks.to_json(config))
  main.main(
    [
      *tiny.arguments(tiny_text),
      f'--workdir={tmp_path}',
      '--config.training.num_steps=0',
    ]
  )
  stored = config_checks.from_json((tmp_path / 'config.json').read_text())
  assert stored.model.hidden_size == 16
  assert json.loads((tmp_path / 'evaluation.json').read_text())['step'] == 0


def test_a_run_starts_from_the_weights_of_another(trained, tiny_text, tmp_path):
  """Without a step of its own, it is worth as much."""
  main.main(
    [
      *tiny.arguments(tiny_text),
      f'--workdir={tmp_path}',
      f'--config.init_from={trained}',
      '--config.training.num_steps=0',
    ]
  )
  old, new = (
    json.loads((folder / 'evaluation.json').read_text())
    for folder in (trained, tmp_path)
  )
  assert new['step'] == 0
  assert new['nats_per_token'] == pytest.approx(old['nats_per_token'])


def test_evaluate_and_sample_other_weights_without_a_training(
  trained, tiny_text, tmp_path
):
  argv = [
    *tiny.arguments(tiny_text),
    f'--workdir={tmp_path}',
    f'--config.init_from={trained}',
  ]
  main.main([*argv, '--mode=evaluate'])
  main.main([*argv, '--mode=sample'])
  old, new = (
    json.loads((folder / 'evaluation.json').read_text())
    for folder in (trained, tmp_path)
  )
  assert new['nats_per_token'] == pytest.approx(old['nats_per_token'])
  kept = tiny.rows(trained / 'samples.jsonl')[2:]
  drawn = tiny.rows(tmp_path / 'samples.jsonl')
  assert [row['text'] for row in drawn] == [row['text'] for row in kept]


def test_weights_of_another_model_do_not_fit(
  trained, tiny_text, tmp_path, capsys
):
  told = refused(
    capsys,
    *tiny.arguments(tiny_text),
    f'--workdir={tmp_path / "run"}',
    f'--config.init_from={trained}',
    '--config.model.num_layers=2',
  )
  assert str(trained) in told and 'init_from' in told
  assert not (tmp_path / 'run').exists()


def test_damaged_checkpoints_are_told(copied, capsys):
  for path in (copied / 'checkpoints').rglob('*'):
    if path.is_file() and path.name != 'manifest.json':
      path.write_bytes(b'')
  told = refused(capsys, '--mode=sample', f'--workdir={copied}')
  assert 'every checkpoint is damaged' in told


@pytest.mark.parametrize(
  ('module', 'error', 'code', 'told'),
  [
    ('loop', loop.NonFiniteError('not finite at step 3'), 2, 'at step 3'),
    ('loop', KeyboardInterrupt(), 130, 'stopped; a training goes on'),
    ('likelihood', likelihood.BoundError('it is nan'), 2, 'it is nan'),
  ],
)
def test_ends_that_are_told(
  trained, tiny_text, tmp_path, monkeypatch, capsys, module, error, code, told
):
  def ending(*args, **kwargs):
    raise error

  monkeypatch.setattr(loop, 'train', ending)
  monkeypatch.setattr(likelihood, 'evaluate', ending)
  argv = [f'--workdir={trained}', '--mode=evaluate']
  if module == 'loop':
    argv = [f'--workdir={tmp_path}', *tiny.arguments(tiny_text)]
  with pytest.raises(SystemExit) as ended:
    main.main(argv)
  assert ended.value.code == code
  assert told in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback(
  tiny_text, tmp_path, monkeypatch
):
  def broken(*args, **kwargs):
    raise ValueError('shapes do not match')

  monkeypatch.setattr(loop, 'train', broken)
  with pytest.raises(ValueError, match='shapes do not match'):
    main.main([*tiny.arguments(tiny_text), f'--workdir={tmp_path}'])


def test_the_program_is_short():
  path = pathlib.Path(main.__file__)
  assert len(path.read_text().splitlines()) < 100


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='the C library is another'
)
@pytest.mark.parametrize('keeps', [True, False])
def test_freed_memory_is_kept(tmp_path, keeps):
  """Of 256 MB, asked for a second time, no page is new to the process."""
  script = f"""
import resource
import numpy as np
from sedd_jax import main

def new_pages():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(2**25)
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert not {keeps} or main.keep_freed_memory()
new_pages()
print(new_pages())
"""
  done = subprocess.run(
    [sys.executable, '-c', script],
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=True,
  )
  assert (int(done.stdout) < 64) == keeps
