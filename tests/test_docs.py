"""The pages say what the code does."""

import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import sedd_jax as sj
from sedd_jax import (
  config_checks,
  default_config,
  experiments,
  flags,
  main,
  noise_schedules,
)
from sedd_jax.systems.common import parts

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  ROOT / 'README.md',
  ROOT / 'CHANGELOG.md',
  *(ROOT / 'docs').glob('*.md'),
]
TINY = [
  '--config=quickstart',
  '--config.model.hidden_size=8',
  '--config.model.num_layers=1',
  '--config.data.seq_len=16',
  '--config.data.limit=4000',
  '--config.data.validation_fraction=0.1',
  '--config.training.num_steps=30',
  '--config.training.batch_size=8',
  '--config.training.log_every=10',
  '--config.training.eval_every=0',
  '--config.training.checkpoint_every=0',
  '--config.training.ema_decay=0.5',
  '--config.optimizer.learning_rate=0.1',
  '--config.optimizer.warmup_steps=0',
  '--config.eval.max_sequences=16',
  '--config.eval.points=1',
  '--config.sampling.num_samples=2',
  '--config.sampling.prompt=a {blank:4} b',
  '--config.sampling.steps=2',
]


def blocks(page):
  return re.findall(r'^```python\n(.*?)^```', page.read_text(), re.M | re.S)


@pytest.fixture
def my_modules(tmp_path, monkeypatch):
  """The examples of docs/extending.md as files on the Python path."""
  names = []
  for block in blocks(ROOT / 'docs' / 'extending.md'):
    (name,) = re.findall(r'\A# (\w+)\.py\n', block)
    (tmp_path / f'{name}.py').write_text(block)
    names.append(name)
  monkeypatch.syspath_prepend(tmp_path)
  importlib.invalidate_caches()
  yield
  for name in names:
    sys.modules.pop(name, None)


def test_config_page_is_that_of_the_fields():
  page = (ROOT / 'docs' / 'config.md').read_text()
  assert page.endswith(default_config.describe())


def test_readme_snippet_runs():
  (snippet,) = blocks(ROOT / 'README.md')
  names = {}
  exec(snippet, names)
  assert names['loss'].shape == (4,)
  assert names['post'].shape == (4, 32, 28)
  assert names['text'].shape == (4, 32)
  assert np.all(np.asarray(names['text']) < 27)


def test_schedule_outside_the_package(my_modules):
  command = flags.parse(
    [
      '--config=quickstart',
      '--config.schedule.name=my_schedule:Linear',
      '--config.schedule.args.slope=6.0',
    ]
  )
  schedule = parts.make_schedule(command.config, noise_schedules.Continuous)
  assert float(schedule.total(0.5)) == 3.0
  slope = jax.grad(schedule.total)(0.25)
  np.testing.assert_allclose(slope, schedule.rate(0.25))


def test_process_outside_the_package(my_modules):
  command = flags.parse(
    ['--config=quickstart', '--config.process.name=my_process:Ring']
  )
  ring = parts.make_process(command.config, 5)
  x_0, x_t = jnp.arange(5)[None], jnp.array([[1, 1, 4, 0, 2]])
  step = np.roll(np.eye(5), 1, axis=0)
  kernels = [
    scipy.linalg.expm(level * ((step + step.T) / 2 - np.eye(5)))
    for level in (0.5, 1.5)
  ]
  np.testing.assert_allclose(
    ring.forward(x_0, 0.0, 1.5)[0], kernels[1], atol=1e-6
  )
  np.testing.assert_allclose(ring.forward(x_0, 0.0, jnp.inf), 0.2, rtol=1e-5)
  # From level 0.5 to 2 the chain runs for another 1.5.
  bayes = kernels[0][x_0[0]] * kernels[1][:, x_t[0]].T
  bayes /= bayes.sum(-1, keepdims=True)
  rows = sj.posterior(ring, x_t, x_0, 0.5, 2.0)
  np.testing.assert_allclose(rows[0], bayes, atol=1e-5)
  assert ring.sample(jax.random.key(0), x_0, 0.0, 1.0).shape == x_0.shape
  assert float(ring.prior_kl(x_0, 20.0).max()) < 1e-5

  with pytest.raises(ValueError, match='has no scores'):
    experiments.Experiment(command.config, read=False)


@pytest.mark.slow
def test_network_outside_the_package(my_modules, tmp_path, capsys):
  main.main(
    [
      *TINY,
      f'--workdir={tmp_path / "run"}',
      '--config.model.name=my_network:Convolutions',
      '--config.model.args.kernel_size=3',
      '--config.training.loss_chunk=0',
    ]
  )
  run = sj.load_run(tmp_path / 'run')
  kernels = [p.shape for p in jax.tree.leaves(run.params) if p.ndim == 3]
  assert kernels == [(3, 8, 8)]


def test_system_outside_the_package(my_modules, tmp_path, capsys):
  main.main(
    [
      *TINY,
      f'--workdir={tmp_path / "run"}',
      '--config.system.name=my_system:make',
      '--config.system.args.scale=2.0',
    ]
  )
  run = sj.load_run(tmp_path / 'run')
  tokens = run.tokens('validation')[:160].reshape(10, 16)
  # Better than guessing: the letters of English are not alike.
  assert float(run.bound(tokens).nats.sum()) / tokens.size < 3.1 < np.log(27)
  text = run.tokenizer.decode(run.sample(prompt='a {blank:4} b').tokens[0])
  assert text[:2] == 'a ' and text[6:8] == ' b'
  with pytest.raises(config_checks.ConfigError, match="'scales'.*scale"):
    flags.parse(
      [
        *TINY,
        '--config.system.name=my_system:make',
        '--config.system.args.scales=2.0',
      ]
    )


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)#:]+)\)', page.read_text()):
    assert (page.parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
  named = re.findall(
    r'`((?:tests|benchmarks|configs|sedd_jax|docs|colab|launch)/[\w/]+\.\w+)`',
    page.read_text(),
  )
  for name in named:
    assert (ROOT / name).exists(), name


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_functions_that_are_named_exist(page):
  rooms = '|'.join(
    path.name for path in (ROOT / 'sedd_jax').iterdir() if path.is_dir()
  )
  named = re.findall(
    rf'`((?:sedd_jax\.)?(?:{rooms})\.[\w.]+)[`(]', page.read_text()
  )
  fields = tuple(default_config.FIELDS) + tuple(default_config.OPEN_GROUPS)
  files = ('.json', '.jsonl', '.py')
  for name in named:
    if name.startswith(fields) or name.endswith(files):
      continue
    found = sj
    for part in name.removeprefix('sedd_jax.').split('.'):
      if not hasattr(found, part):
        importlib.import_module(f'{found.__name__}.{part}')
      found = getattr(found, part)
