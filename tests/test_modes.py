"""What the modes put together: figures over devices, pages, requests."""

import json

import jax
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import (
  config_checks,
  default_config,
  drawing,
  evaluating,
  experiments,
  flags,
  main,
  modes,
  runs,
)
from sedd_jax.samplers import mbr
from sedd_jax.systems import Samples
from sedd_jax.training import loop, parallel
from tests import tiny


@pytest.fixture(scope='module')
def run(trained):
  return sj.load_run(trained)


@pytest.mark.parametrize('devices', [1, 4])
def test_the_bound_is_that_of_any_devices_and_batch_size(run, trained, devices):
  """The run's own figure is of eight devices and batches of 32."""
  expected = json.loads((trained / 'evaluation.json').read_text())
  config = config_checks.from_json(config_checks.to_json(run.config))
  config.eval.batch_size = 7
  experiment = experiments.Experiment(config)
  layout = parallel.make('pmap', jax.local_devices()[:devices])
  evaluator = evaluating.Evaluator(experiment, layout, experiment.dataset)
  result = evaluator(run.params, run.aux, run.step, split='validation')
  for name in ('nats_per_token', 'standard_error', 'terms'):
    assert result[name] == pytest.approx(expected[name], rel=1e-4), name
  assert result['num_tokens'] == expected['num_tokens']


def test_a_suite_of_published_sets(copied, tmp_path, capsys):
  """Where the run's own text is gone; a table beside the published figures."""
  (tmp_path / 'ptb-test.txt').write_text(' a cat of rome sat \n on mats\n' * 9)
  argv = [f'--workdir={copied}', '--mode=evaluate', '--config.eval.points=2']
  argv += ['--config.eval.suite=sedd_zero_shot']
  with pytest.raises(SystemExit):
    main.main([*argv, f'--config.eval.suite_path={tmp_path / "none"}'])
  assert 'holds no file of suite sedd_zero_shot' in capsys.readouterr().err
  main.main([*argv, f'--config.eval.suite_path={tmp_path}'])
  table = capsys.readouterr().out
  told = json.loads((copied / 'sedd_zero_shot.json').read_text())
  result = told['sets']['ptb']
  # 18 and 8 characters with their ends, nine times, in pieces of 16.
  assert told['packing'] == 'sedd' and result['num_sequences'] == 14
  assert (copied / 'sedd_zero_shot.md').read_text() == table
  assert f'| {result["perplexity"]:.2f} ± ' in table
  assert table.count('not at hand') == 4
  assert '| GPT-2 small | 45.04 | 42.43 | 138.43 | 41.60 | 75.20 |' in table


def described(**changes):
  config = default_config.get_config()
  config.data.source, config.data.tokenizer = 'text8', 'text8'
  config.data.seq_len = 16
  config.model.hidden_size, config.model.num_layers = 16, 1
  config.model.num_heads = 2
  for name, value in changes.items():
    config_checks.assign(config, name.replace('__', '.'), value)
  return experiments.Experiment(config, read=False)


def asked(free, **changes):
  experiment = described(**changes)
  requests = drawing.requests_of(experiment, free=free)
  count = experiment.config.sampling.num_samples
  for one in requests:
    assert (
      len(one.kept) == len(one.request.seeds) == len(set(one.request.seeds))
    )
  return [one.kept[::count] for one in requests]


def test_what_is_sampled(tmp_path):
  texts = {'sampling__prompt': 'a {blank:2}', 'sampling__suffix': 'b'}
  kept = {'prompt': 'a {blank:2}', 'suffix': 'b'}
  assert asked(True, **texts) == [[{}], [kept]]
  assert asked(False, **texts) == [[kept]]
  assert asked(True) == asked(False) == [[{}]]
  suffix = {'sampling__suffix': 'b', 'sampling__contains': 'a'}
  assert asked(True, **suffix) == [[{}], [{'suffix': 'b', 'contains': 'a'}]]
  path = tmp_path / 'prompts.jsonl'
  path.write_text('{"prompt": "b"}\n{"contains": "c"}\n')
  several = {**texts, 'sampling__prompts': str(path)}
  # What a line leaves out is as in the config.
  assert asked(False, **several) == [
    [{**kept, 'prompt': 'b'}, {**kept, 'contains': 'c'}]
  ]


def test_a_request_that_a_system_refuses_is_told_before_it_trains():
  with pytest.raises(ValueError, match='keeps the beginning of a text only'):
    asked(
      True,
      system__name='autoregressive',
      sampling__method='autoregressive',
      sampling__suffix='b',
    )


def test_a_request_follows_the_config():
  experiment = described(
    seed=5,
    sampling__num_samples=3,
    sampling__length=20,
    sampling__method='euler',
    sampling__steps=7,
    sampling__grid='reference',
    sampling__batch_size=2,
  )
  (one,) = drawing.requests_of(experiment, free=True)
  request = one.request
  assert request.length == 20 and request.seeds == (5, 6, 7)
  assert request.method == 'euler' and request.steps == 7
  assert request.batch_size == 2 and request.record_path
  assert request.options == {'grid': 'reference'}


@pytest.mark.parametrize(
  ('noise', 'state', 'mask'), [('absorbing', 27, '27'), ('uniform', 26, 'null')]
)
def test_a_page_has_masks_where_the_noise_has(noise, state, mask):
  experiment = described(process__name=noise)
  path = np.zeros((3, 1, 16), np.int32)
  path[0] = state
  (one,) = drawing.requests_of(experiment, free=True)
  page = drawing.page(
    runs.Run(experiment, (), (), 9),
    one.request,
    Samples(path[-1], np.array([16]), path),
  )
  assert f'mask = {mask},' in page
  assert f'{noise} noise, tweedie, 128 steps, after 9 training steps' in page


def test_flops_count_what_every_token_meets():
  experiment = described()
  params, _ = jax.eval_shape(experiment.system.init, jax.random.key(0))
  size, heads = 16, params['head']['kernel'].shape[1]
  # Of the one block: three and one projections, two products of the MLP with
  # their biases, two norms; of the head: a norm and the map to the states.
  block = 4 * size**2 + 8 * size**2 + 5 * size + 2 * size
  head = size + size * heads + heads
  assert experiment.flops_per_token == 6 * (block + head) + 12 * 16 * 16


def test_a_task_of_a_system(trained, monkeypatch, capsys):
  """It gets the averaged parameters, the open group and the tokenizer."""

  def spell(params, aux, options, tokenizer):
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    ids = tokenizer.encode(options.word).tolist()
    return {'ids': ids, 'size': size, 'aux': sorted(aux._asdict())}

  class Experiment(experiments.Experiment):
    def __init__(self, *args, **options):
      super().__init__(*args, **options)
      object.__setattr__(self.system, 'tasks', {'spell': spell})

  monkeypatch.setattr(experiments, 'Experiment', Experiment)
  config = config_checks.from_json((trained / 'config.json').read_text())
  config.task.word = 'ab'
  modes.task(flags.Command(config, trained, 'spell', {}))
  told = json.loads(capsys.readouterr().out)
  assert told['ids'] == [1, 2] and told['aux'] == ['draws', 'squares']
  assert told['size'] > 1000


@pytest.mark.parametrize(
  ('mode', 'lacking', 'told'),
  [
    (modes.evaluate, 'bound', "'sedd' has no likelihood"),
    (modes.sample, 'sample', "'sedd' draws no samples"),
  ],
)
def test_a_system_that_cannot_is_told(
  trained, monkeypatch, mode, lacking, told
):
  class Experiment(experiments.Experiment):
    def __init__(self, *args, **options):
      super().__init__(*args, **options)
      object.__setattr__(self.system, lacking, None)

  monkeypatch.setattr(experiments, 'Experiment', Experiment)
  config = config_checks.from_json((trained / 'config.json').read_text())
  with pytest.raises(config_checks.ConfigError, match=told):
    mode(flags.Command(config, trained, 'evaluate', {}))


def test_validation_while_training_is_on_the_validation_split(
  copied, monkeypatch
):
  """Whatever split is evaluated in the end: a test split stays unseen."""

  class Reached(Exception):
    pass

  def reached(*args, evaluate_fn, **options):
    run = sj.load_run(copied)
    raise Reached(evaluate_fn(run.params, run.aux, 20))

  monkeypatch.setattr(loop, 'train', reached)
  config = config_checks.from_json((copied / 'config.json').read_text())
  config.eval.split = 'train'
  with pytest.raises(Reached) as error:
    modes.train(flags.Command(config, copied, 'train', {}))
  (validation,) = error.value.args
  assert validation['split'] == 'validation' and validation['step'] == 20
  assert validation['num_sequences'] == tiny.VALIDATION_SEQUENCES


def test_a_mistaken_line_of_prompts_is_told_by_its_number(tmp_path):
  path = tmp_path / 'mine.jsonl'
  lines = [{'prompt': 'a'}, {'contains': 'b'}, {'prompt': 'a' * 17}]
  path.write_text('\n'.join(map(json.dumps, lines)))
  with pytest.raises(ValueError, match='mine.jsonl, prompt 3: .* 17 tokens'):
    asked(False, sampling__prompts=str(path))


def test_of_the_samples_of_each_prompt_one_is_chosen(copied, capsys, tmp_path):
  prompts = tmp_path / 'prompts.jsonl'
  prompts.write_text('{"prompt": "the "}\n{"prompt": "a "}\n')
  argv = [f'--workdir={copied}', '--mode=sample', '--config.sampling.prompt=']
  argv += [f'--config.sampling.prompts={prompts}']
  argv += ['--config.sampling.choice=mbr']
  main.main([*argv, '--config.sampling.num_samples=3'])
  printed = capsys.readouterr().out
  rows = tiny.rows(copied / 'samples.jsonl')
  assert len(rows) == 6
  for first in range(0, 6, 3):
    own = rows[first : first + 3]
    best = mbr.choose([row['text'].split() for row in own])
    assert [row['chosen'] for row in own] == [i == best for i in range(3)]
    assert f'* {own[best]["text"]!r}' in printed
  with pytest.raises(SystemExit):
    main.main([*argv, '--config.sampling.num_samples=1'])
  assert 'num_samples must be at least 2' in capsys.readouterr().err
