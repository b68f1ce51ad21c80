"""The benchmarks run, made small, and write what their tables say."""

import importlib
import json
import math
import pathlib
import runpy
import shutil
import sys

import pytest

from sedd_jax import default_config, experiments, flags
from tests import tiny

FOLDER = pathlib.Path(__file__).parents[1] / 'benchmarks'
TINY = [
  '--config=quickstart',
  '--config.model.hidden_size=8',
  '--config.model.num_layers=1',
  '--config.model.num_heads=2',
  '--config.data.seq_len=16',
]


@pytest.fixture
def result_of(monkeypatch, tmp_path):
  def run(name, *arguments, common=TINY):
    output = tmp_path / 'new' / f'{name}.json'
    script = FOLDER / f'{name}.py'
    argv = [str(script), *common, f'--output={output}', *arguments]
    monkeypatch.setattr(sys, 'argv', argv)
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(script), run_name='__main__')
    return json.loads(output.read_text())

  yield run
  for name in ('common', 'ngrams', 'against_pytorch', 'torch_sedd'):
    sys.modules.pop(name, None)


@pytest.mark.slow
def test_train_throughput(result_of, capsys):
  sizes = '--batch-sizes=16'
  result = result_of('train_throughput', sizes, '--steps=2', '--peak-size=64')
  rows = result['rows']
  assert [row['batch'] for row in rows] == [16]
  for row in rows:
    rate = row['batch'] * 16 / row['step_seconds']
    assert row['tokens_per_second'] == pytest.approx(rate)
    peak = result['peak_flops']['measured'] * result['devices']
    mfu = rate * result['flops_per_token'] / peak
    assert row['mfu'] == pytest.approx(mfu)
    # Also what the formula leaves out (norms, noise), of a tiny network much.
    assert row['compiler_flops_per_token'] > result['flops_per_token']
    assert row['planned_gb'] > 0
  assert '| 16 |' in capsys.readouterr().out


@pytest.mark.slow
def test_sampling(result_of, capsys):
  result = result_of(
    'sampling', '--batches=2', '--steps=3', '--repeats=1', '--note=small'
  )
  assert [(r['method'], r['calls']) for r in result['rows']] == [
    ('tweedie', 4),
    ('euler', 4),
  ]
  assert result['note'] == 'small' and result['device'] == 'cpu'
  assert '| 2 | euler |' in capsys.readouterr().out


@pytest.mark.slow
def test_sampling_of_a_run(result_of, trained, tmp_path, capsys):
  """Quality by the definitions, and the front among the rows."""
  picture = tmp_path / 'plots' / 'sampling.png'
  result = result_of(
    'sampling',
    *('--mode=sample', f'--workdir={trained}', '--batches=1,2', '--steps=4,40'),
    '--methods=tweedie,remasking:remasking=rescale:remask_strength=.5:steps=40',
    *('--repeats=1', '--quality=8', '--judge=2', f'--plot={picture}'),
    common=[],
  )
  rows = result['rows']
  assert [row['calls'] for row in rows] == [5, 41, 40] * 2
  assert [row['batch'] for row in rows] == [1, 1, 1, 2, 2, 2]
  assert picture.stat().st_size > 1000
  for row in [*rows, result['data']]:
    assert 0 < row['distance'] < 1 and 0 < row['entropy'] < math.log(16)
    assert row['bits'] > 0
  # Held-out text is better foretold, and nearer, than a small model's samples.
  assert result['data']['bits'] < min(row['bits'] for row in rows)
  assert result['data']['distance'] < min(row['distance'] for row in rows)
  fastest = min(rows, key=lambda row: row['seconds'])
  nearest = min(rows, key=lambda row: row['distance'])
  assert fastest['front'] and nearest['front']
  assert '| front |' in capsys.readouterr().out


@pytest.mark.parametrize(
  'how, told',
  [
    (['--quality=2'], 'is of a trained run'),
    (['--plot=a.png'], 'give --quality'),
    (['--methods=dance'], "unknown method 'dance'"),
    (['--methods=tweedie:cached'], 'no NAME=VALUE'),
  ],
)
def test_sampling_mistakes(result_of, how, told):
  with pytest.raises(SystemExit, match=told):
    result_of('sampling', '--repeats=1', *how)


def test_against_pytorch(result_of, capsys):
  """The two networks give the same logits, or the script says so and ends."""
  pytest.importorskip('torch')
  result = result_of(
    'against_pytorch',
    '--config.training.batch_size=8',
    *('--rounds=1', '--steps=1', '--sampling-steps=2', '--batches=2'),
  )
  assert result['logit_error'] < 1e-5
  names = [row['workload'] for row in result['rows']]
  assert names == [
    'training step, batch 8',
    '2 Tweedie steps and denoise, batch 2',
  ]
  for row in result['rows']:
    assert row['ratio'] == row['seconds'] / row['pytorch_seconds'] > 0
  assert '| ratio |' in capsys.readouterr().out


def test_learning(result_of, tiny_text, trained):
  """On the draws of a run PyTorch learns what the run has learned."""
  pytest.importorskip('torch')
  own = '--config.sampling.'
  rest = [a for a in tiny.arguments(tiny_text) if not a.startswith(own)]
  how = ['--steps=30', '--window=10', '--draws=ours']
  (row,) = result_of('learning', *how, common=rest)['rows']
  lines = tiny.rows(trained / 'metrics.jsonl')
  ours = {str(line['step']): line['bpc'] for line in lines}
  for end in ('10', '20', '30'):
    assert row[end] == pytest.approx(ours[end], rel=2e-3)
  how = ['--steps=20', '--window=10', '--begin=pytorch', '--seeds=0,1']
  first, second = result_of('learning', *how, common=rest)['rows']
  assert first['20'] != second['20'] and first['20'] < first['10']


@pytest.mark.slow
def test_checkpoint_bridge(result_of):
  result = result_of(
    'checkpoint_bridge',
    *('--size=tiny', '--seq-len=16', '--commands=export,sample'),
    '--tokenizer=bytes',
    common=(),
  )
  assert result['exported_bit_by_bit'] is True
  assert [row['command'] for row in result['rows']] == ['export', 'sample']
  assert all(row['GiB'] > 0.1 for row in result['rows'])


def test_another_noise_is_not_compared(result_of):
  with pytest.raises(ValueError, match='process.name'):
    result_of('against_pytorch', '--config.process.name=uniform')


def test_a_mistake_is_told_in_one_line(result_of, capsys):
  with pytest.raises(SystemExit):
    result_of('sampling', '--config.model.hiden_size=8')
  assert 'hidden_size' in capsys.readouterr().err


@pytest.mark.slow
def test_bound_error(result_of, trained, capsys):
  arguments = ['--mode=evaluate', f'--workdir={trained}', '--calls=32']
  result = result_of(
    'bound_error', *arguments, '--points=2', '--reference=2', common=[]
  )
  rows = {row['times']: row for row in result['rows']}
  names = ['independent', 'stratified', 'spread', 'spread and stratified']
  names += ['importance', 'trained importance', 'quadrature']
  assert list(rows) == [*names, 'reference']
  # Of importance 12 sequences are evaluated and 4 fit, at 2 times each.
  assert [rows[name]['calls'] for name in names] == [32] * 7
  assert rows['importance']['sequences'] == 12
  assert rows['reference']['calls'] == 64
  for row in rows.values():
    assert row['standard_error'] > 0
  far = abs(
    rows['stratified']['bits_per_character']
    - rows['reference']['bits_per_character']
  )
  assert far < 5 * rows['stratified']['standard_error']
  assert result['config']['data']['path'] == 'tiny.txt'
  assert '| independent | 1 | 32 |' in capsys.readouterr().out


def test_more_calls_than_sequences(result_of, trained):
  arguments = ['--mode=evaluate', f'--workdir={trained}', '--calls=64']
  with pytest.raises(SystemExit, match='60 sequences, not 64'):
    result_of('bound_error', *arguments, common=[])


def test_training_runs(result_of, trained, capsys):
  result = result_of('training_runs', str(trained), common=[])
  (row,), (run,) = result['rows'], result['runs']
  evaluation = json.loads((trained / 'evaluation.json').read_text())
  assert row['bits'] == evaluation['bits_per_character']
  assert row['M tokens'] == 30 * 8 * 16 / 1e6
  assert [point['step'] for point in run['curve']] == [20]
  assert run['hours'] > 0 and len(run['samples']) == 4
  assert run['config']['data']['path'] == 'tiny.txt'
  assert '| tiny | sedd | absorbing |' in capsys.readouterr().out


def test_no_folder_of_a_machine_is_told(monkeypatch):
  monkeypatch.syspath_prepend(FOLDER)
  common = importlib.import_module('common')
  config = default_config.get_config()
  config.data.path = 'here/a.txt,/there/b.txt'
  config.data.tokenizer, config.eval.judge = '/home/me/gpt2', '../runs/judge'
  config.sampling.prompt = 'either/or, neither'
  found = common.told(config)
  assert found['data']['path'] == 'a.txt,b.txt'
  assert found['data']['tokenizer'] == 'gpt2'
  assert found['eval']['judge'] == 'judge'
  assert found['sampling']['prompt'] == 'either/or, neither'


def test_runs_that_were_stopped(result_of, trained, tmp_path):
  stopped = tmp_path / 'stopped'
  stopped.mkdir()
  for name in ('config.json', 'metrics.jsonl'):
    shutil.copy(trained / name, stopped)
  with pytest.raises(SystemExit, match=r'it has no evaluation\.json'):
    result_of('training_runs', str(stopped), common=[])
  asked = [str(stopped), '--unfinished']
  result = result_of('training_runs', *asked, common=[])
  (row,), (run,) = result['rows'], result['runs']
  assert row['steps'] == 20 and row['bits'] == run['curve'][0]['bits']
  assert row['sequences'] > 0 and not run['samples']


def test_runs_are_added_to_those_of_before(result_of, trained, tmp_path):
  def names(*arguments):
    result = result_of('training_runs', *map(str, arguments), common=[])
    assert [row['run'] for row in result['rows']] == [
      run['run'] for run in result['runs']
    ]
    return [row['run'] for row in result['rows']]

  other = tmp_path / 'other'
  other.symlink_to(trained)
  with pytest.raises(SystemExit):
    names(trained, '--add')
  assert names(trained) == ['tiny']
  assert names(other, '--add') == ['tiny', 'other']
  assert names(trained, '--add') == ['other', 'tiny']


@pytest.mark.slow
def test_family(monkeypatch, tmp_path, tiny_text, result_of):
  """Every system is built; one is trained, evaluated and told."""
  monkeypatch.syspath_prepend(FOLDER)
  family = importlib.import_module('family')
  rest = [*tiny.arguments(tiny_text), '--config.model.num_heads=2']
  own = '--config=', '--workdir=', '--config.sampling.'
  rest = [argument for argument in rest if not argument.startswith(own)]
  for name in family.SYSTEMS:
    given = family.arguments(tmp_path, name, 'train', rest)
    experiments.Experiment(flags.parse(given).config)
  name = 'autoregressive'
  argv = ['family.py', str(tmp_path), f'--only={name}', *rest]
  argv += ['--config.training.num_steps=20', '--config.eval.max_sequences=8']
  argv += ['--config.sampling.num_samples=1']
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.setitem(family.WHOLE, 'eval.batch_size', 16)
  family.main()
  stored = tmp_path / name / 'evaluation.json'
  evaluated = stored.stat().st_mtime_ns
  monkeypatch.setattr(sys, 'argv', argv)
  family.main()
  assert stored.stat().st_mtime_ns == evaluated
  result = result_of(
    'training_runs', str(tmp_path / name), '--sample', common=[]
  )
  (row,) = result['rows']
  assert row['system'] == 'autoregressive'
  assert row['sequences'] == tiny.VALIDATION_SEQUENCES
  assert row['s a step'] > 0 and row['s a sample'] > 0


@pytest.mark.slow
def test_seeds(result_of, tiny_text, tmp_path):
  rest = tiny.arguments(tiny_text)
  rest = [a for a in rest if not a.startswith('--config.sampling.')]
  result = result_of(
    'seeds',
    str(tmp_path / 'runs'),
    '--vary=training.time_sampling=iid',
    *('--seeds=0,1', '--window=10'),
    common=rest,
  )
  rows = result['rows']
  assert [row['training.time_sampling'] for row in rows] == ['iid'] * 3
  assert [row['seed'] for row in rows] == [0, 1, 'mean']
  first, second, mean = (row['30'] for row in rows)
  assert first != second and mean == pytest.approx((first + second) / 2)


def test_a_folder_without_a_run(result_of, tmp_path):
  with pytest.raises(
    SystemExit, match='no finished run: it has no config.json'
  ):
    result_of('training_runs', str(tmp_path), common=[])


@pytest.mark.parametrize(
  'path', sorted((FOLDER / 'results').glob('*.json')), ids=lambda p: p.stem
)
def test_results_come_from_a_script(path):
  assert (FOLDER / f'{path.stem.partition("-")[0]}.py').exists()
  assert json.loads(path.read_text())['rows']


def test_ngrams(monkeypatch, tmp_path, capsys):
  """By hand: 'a' then 'b' for ever, and one other pair."""
  text = tmp_path / 'ab.txt'
  text.write_text('ab' * 50)
  output = tmp_path / 'ngrams.json'
  arguments = [f'--path={text}', '--source=text_file', f'--output={output}']
  script = str(FOLDER / 'ngrams.py')
  monkeypatch.setattr(
    sys,
    'argv',
    [script, *arguments, '--validation-fraction=0.1', '--orders=1,2'],
  )
  monkeypatch.syspath_prepend(FOLDER)
  runpy.run_path(script, run_name='__main__')
  rows = json.loads(output.read_text())['rows']
  # 90 letters of two kinds: (45 + 2 / 27) / 92 for each.
  one = (45 + 2 / 27) / 92
  assert rows[0]['bits_per_character'] == pytest.approx(-math.log2(one))
  # a b: 45 of 45, of one kind; b a: 44 of 44.
  after_a, after_b = (45 + one) / 46, (44 + one) / 45
  # Of the ten letters held out, nine have one before them, five an a.
  bits = -(5 * math.log2(after_a) + 4 * math.log2(after_b)) / 9
  assert rows[1]['bits_per_character'] == pytest.approx(bits)
  assert '| 2 |' in capsys.readouterr().out


def test_prepare(result_of, tmp_path, capsys):
  text = tmp_path / 'in.txt'
  text.write_text('some words\n<|endoftext|>\n' * 200)
  result = result_of(
    'prepare',
    f'--input={text}',
    '--tokenizers=text8,bytes',
    '--megabytes=0.002',
    '--repeats=1',
    common=[],
  )
  assert 2000 <= result['bytes'] < 2050
  assert [row['tokenizer'] for row in result['rows']] == ['text8', 'bytes']
  for row in result['rows']:
    rate = result['bytes'] / row['seconds'] / 1e6
    assert row['megabytes_per_second'] == pytest.approx(rate)
    assert row['megabytes_per_second_and_core'] == pytest.approx(rate)
  assert '| bytes | 1 |' in capsys.readouterr().out
