"""`eval.generation`: samples of a run under a run, as JSON, table and plot."""

import json
import math
import shutil
import sys
import types

import numpy as np
import pytest

from sedd_jax import main, runs
from sedd_jax.data import tokenizers
from sedd_jax.evaluation import generation, judges
from tests import oracles, tiny

TEXT8 = tokenizers.make('text8')
WIDTH = 2


@pytest.fixture(scope='module')
def judge(tmp_path_factory, tiny_text):
  """The folder of a run from left to right over pairs of letters."""
  folder = tmp_path_factory.mktemp('judge') / 'letters'
  fields = {
    'system.name': 'autoregressive',
    'sampling.method': 'autoregressive',
    'sampling.prompt': '',
    'training.num_steps': 10,
    'training.eval_every': 0,
    'training.sample_every': 0,
    'eval.max_sequences': 8,
    'data.seq_len': WIDTH,
  }
  flags = [f'--config.{path}={value}' for path, value in fields.items()]
  main.main([*tiny.arguments(tiny_text), f'--workdir={folder}', *flags])
  return folder


def test_the_perplexity_is_that_of_the_enumerated_law(judge):
  """All pairs, single letters, and a text in pieces that overlap."""
  loaded = runs.judge(str(judge))
  size = loaded.tokenizer.vocab_size
  pairs = oracles.states(size, WIDTH)
  found = judges.judged(loaded, loaded.tokenizer, list(pairs))
  law = np.exp(-found.nats).reshape(size, size)
  assert law.sum() == pytest.approx(1, rel=1e-5)
  assert law.std() > 1e-4
  first = law.sum(axis=1)

  text = TEXT8.encode('cats on')
  letters, whole = judges.judged(
    loaded, loaded.tokenizer, [text[:1], text]
  ).nats
  assert letters == pytest.approx(-math.log(first[text[0]]), rel=1e-5)
  # A letter after the first is told by the one before it.
  steps = law[text[:-1], text[1:]] / first[text[:-1]]
  expected = -math.log(first[text[0]]) - np.log(steps).sum()
  assert whole == pytest.approx(expected, rel=1e-5)
  told = judges.perplexities(judges.judged(loaded, loaded.tokenizer, [text]))
  assert told['perplexity'] == pytest.approx(
    math.exp(expected / len(text)), rel=1e-5
  )


def test_windows_of_a_suite_are_told_what_they_share(judge, tmp_path, capsys):
  """Of pairs a letter apart: each letter given the one before it."""
  (tmp_path / 'text8.test').write_text('cats on')
  folder = shutil.copytree(judge, tmp_path / 'run')
  argv = [f'--workdir={folder}', '--mode=evaluate']
  argv += ['--config.eval.suite=text8', f'--config.eval.suite_path={tmp_path}']
  main.main([*argv, '--config.eval.stride=1'])
  table = capsys.readouterr().out
  told = json.loads((folder / 'text8.json').read_text())
  found = told['sets']['text8']
  assert told['packing'] == 'windows 1 tokens apart, in place of whole'
  assert found['num_sequences'] == 6 and found['num_tokens'] == 7

  loaded = runs.judge(str(judge))
  text = TEXT8.encode('cats on')
  nats = judges.judged(loaded, TEXT8, [text]).nats[0]
  assert found['nats_per_token'] == pytest.approx(nats / 7, rel=1e-5)
  bits = nats / 7 / math.log(2)
  error = found['standard_error'] / math.log(2)
  assert '| bits a character | text8 |' in table
  assert f'| run | {bits:.3f} ± {error:.3f} |' in table
  assert '| MDLM | 1.40 |' in table
  assert 'packing windows 1 tokens apart' in table


def test_a_frontier(copied, judge, capsys):
  """Every figure beside the others, also of the text; never one alone."""
  argv = [f'--workdir={copied}', '--mode=evaluate']
  argv += ['--config.eval.generation=true', '--config.eval.steps=2,4']
  argv += [f'--config.eval.judge={judge}', '--config.sampling.num_samples=3']
  main.main(argv)
  printed = capsys.readouterr().out
  table = (copied / 'generation.md').read_text()
  assert printed.startswith(table)
  told = json.loads((copied / 'generation.json').read_text())
  assert [(p['temperature'], p['steps']) for p in told['points']] == [
    *((1.0, 2), (1.0, 4))
  ]
  assert told['reading'] == 'the same ids' and told['judge'] == 'letters'
  rows = tiny.rows(copied / 'generation.jsonl')
  assert len(rows) == 6
  loaded = runs.judge(str(judge))
  for number, point in enumerate([*told['points'], told['data']]):
    assert point['num_samples'] == 3 and point['tokens_scored'] == 48
    assert point['unigram_entropy'] <= math.log(16)
    assert None not in point.values()
    if number < 2:
      texts = [row['text'] for row in rows[3 * number : 3 * number + 3]]
      expected = generation.figures(
        [TEXT8.encode(text) for text in texts], TEXT8, loaded
      )
      for name, value in expected.items():
        assert point[name] == pytest.approx(value), name
  for heading in ('perplexity', 'entropy', 'distinct-2', 'repetition-4'):
    assert f' {heading} |' in table
  assert 'text of the data' in table and 'MAUVE' not in table
  assert (copied / 'generation.png').stat().st_size > 5000


def test_without_a_judge_and_without_the_text(copied, tmp_path, capsys):
  argv = [f'--workdir={copied}', '--mode=evaluate']
  argv += ['--config.eval.generation=true']
  argv += [f'--config.data.path={tmp_path / "gone.txt"}']
  main.main(argv)
  captured = capsys.readouterr()
  assert 'no figures of the text itself' in captured.err
  table = (copied / 'generation.md').read_text()
  assert 'no judge (eval.judge), so no perplexity' in table
  assert ' entropy |' in table and ' perplexity |' not in table
  told = json.loads((copied / 'generation.json').read_text())
  assert told['data'] is None and told['judge'] is None


@pytest.mark.parametrize(
  ('extra', 'told'),
  [
    (
      {'eval.temperatures': '0.5'},
      "sampling option 'temperature': sampling.method 'tweedie' takes grid",
    ),
    ({'eval.temperatures': '1,x'}, 'numbers above 0 by commas'),
    ({'eval.steps': '4,4'}, "each once, not '4,4'"),
    ({'eval.steps': '0'}, 'eval.steps takes integers above 0'),
    ({'sampling.regex': 'a.*'}, "sampling.regex='a.*' is of --mode=sample"),
    (
      {'eval.generation': 'false', 'eval.judge': 'a'},
      "eval.judge='a' is of samples that are evaluated: it needs eval.gen",
    ),
    ({'eval.suite': 'sedd_zero_shot'}, 'two evaluations: choose one'),
    ({'eval.judge': '{trained}'}, "'sedd' has no exact likelihood"),
  ],
)
def test_mistakes(trained, capsys, extra, told):
  flags = [
    f'--config.{path}={value.format(trained=trained)}'
    for path, value in extra.items()
  ]
  with pytest.raises(SystemExit) as stopped:
    main.main(
      [
        f'--workdir={trained}',
        '--mode=evaluate',
        '--config.eval.generation=true',
        *flags,
      ]
    )
  assert stopped.value.code == 2
  captured = capsys.readouterr()
  assert told in captured.err and captured.err.count('\n') == 1
  assert not (trained / 'generation.json').exists()


def test_a_plot_has_a_line_a_temperature(tmp_path):
  point = {'perplexity': 3.0, 'unigram_entropy': 1.0, 'repetition_4': 0.5}
  points = [
    {'temperature': t, 'steps': s, **point} for t in (0.5, 1.0) for s in (2, 4)
  ]
  for judge in ('letters', None):
    result = {'points': points, 'data': point, 'judge': judge}
    generation.plot(result, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_mauve_of_a_run_and_what_is_left_where_it_fails(
  copied, capsys, monkeypatch
):
  """The samples are written before they are measured."""
  found = [0.5]

  def compute_mauve(*, p_text, q_text, **options):
    assert len(p_text) == len(q_text) == 3
    return types.SimpleNamespace(mauve=found.pop())

  library = types.SimpleNamespace(compute_mauve=compute_mauve)
  monkeypatch.setitem(sys.modules, 'mauve', library)
  argv = [f'--workdir={copied}', '--mode=evaluate', '--config.eval.mauve=gpt']
  argv += ['--config.eval.generation=true', '--config.sampling.num_samples=3']
  main.main([*argv, '--config.eval.steps=2'])
  told = json.loads((copied / 'generation.json').read_text())
  assert [point['mauve'] for point in told['points']] == [0.5]
  with pytest.raises(SystemExit):
    main.main([*argv, '--config.eval.steps=2', '--config.seed=7'])
  told = capsys.readouterr().err
  assert "eval.mauve 'gpt': IndexError" in told
  assert f'the samples are in {copied / "generation.jsonl"}' in told
  seeds = [row['seed'] for row in tiny.rows(copied / 'generation.jsonl')]
  assert seeds == [7, 8, 9]
