"""What an installation brings along, and what it must not."""

import ast
import configparser
import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

import sedd_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEAVY = ('tensorflow', 'torch', 'transformers', 'flash-attn', 'clu')
LAUNCHERS = ('local.sh', 'gpu_node.sh', 'slurm.sh', 'tpu_pod.sh')


@pytest.fixture(scope='module')
def setup():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return parser


def required(text: str) -> dict[str, str]:
  """Distribution name to the rest of its requirement."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return dict(re.fullmatch(r'([\w-]+)(.*)', line).groups() for line in lines)


def test_run_time_dependencies_are_light_and_bounded(setup):
  wanted = required(setup['options']['install_requires'])
  assert not set(HEAVY) & set(wanted)
  assert all('>=' in rest for rest in wanted.values())
  for name in ('jax', 'flax', 'orbax-checkpoint'):
    assert '<0.13' in wanted[name]
  assert {'matplotlib', 'tqdm', 'tensorflow-datasets'} <= set(wanted)


def test_accelerators_admit_the_jax_that_is_there(setup):
  """A narrower range than that of the plain install would move jaxlib."""
  plain = required(setup['options']['install_requires'])['jax']
  extras = setup['options.extras_require']
  for name in ('cuda12', 'cuda13', 'tpu'):
    assert required(extras[name]) == {'jax': f'[{name}]{plain}'}


def test_tests_need_nothing_heavy(setup):
  wanted = required(setup['options.extras_require']['test'])
  assert not set(HEAVY) & set(wanted)


def imported(folder: str) -> dict[str, str]:
  """Packages that a folder's files import, at the top or late: an example."""
  found = {}
  for path in (ROOT / folder).rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        modules = [node.module]
      else:
        continue
      found |= {module.split('.')[0]: str(path) for module in modules}
  return {k: v for k, v in found.items() if k not in sys.stdlib_module_names}


def declared(*lists: str) -> set[str]:
  """Import names of the distributions in the lists, and our own."""
  names = {name.replace('-', '_') for text in lists for name in required(text)}
  return names | {'absl', 'orbax', 'sedd_jax', 'tests'}


def test_every_import_of_the_package_is_declared(setup):
  extras = setup['options.extras_require'].values()
  known = declared(setup['options']['install_requires'], *extras)
  assert {k: v for k, v in imported('sedd_jax').items() if k not in known} == {}


def test_every_import_of_the_tests_is_declared(setup):
  extras = setup['options.extras_require']
  known = declared(setup['options']['install_requires'], extras['test'])
  assert {k: v for k, v in imported('tests').items() if k not in known} == {}


def test_the_recipes_have_one_source():
  link = ROOT / 'sedd_jax' / 'recipes'
  assert link.is_symlink()
  assert link.resolve() == ROOT / 'configs'


def test_the_package_declares_its_types_and_recipes(setup):
  data = setup['options.package_data']['sedd_jax'].split()
  for pattern in data:
    assert list((ROOT / 'sedd_jax').glob(pattern)), pattern
  assert {'py.typed', 'recipes/*.py'} == set(data)


def test_the_version_is_said_once(setup):
  assert setup['metadata']['version'] == 'attr: sedd_jax.__version__'
  citation = (ROOT / 'CITATION.cff').read_text()
  assert f'version: {sedd_jax.__version__}\n' in citation


def test_every_launcher_is_there():
  found = {path.name for path in (ROOT / 'launch').iterdir()}
  assert found == set(LAUNCHERS)


@pytest.mark.parametrize('name', LAUNCHERS)
def test_a_launcher_is_the_environment_and_the_command(name):
  path = ROOT / 'launch' / name
  assert path.stat().st_mode & stat.S_IXUSR
  text = path.read_text()
  assert 'python -m sedd_jax.main "$@"' in text
  # Hyperparameters belong to configs/; an unknown XLA flag ends the process.
  assert '--config' not in re.sub(r'(?m)^#.*$', '', text)
  assert 'XLA_FLAGS' not in text
  subprocess.run(['bash', '-n', path], check=True)


def test_the_local_launcher_passes_its_arguments_on(tmp_path):
  python = tmp_path / 'python'
  python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
  python.chmod(0o755)
  ended = subprocess.run(
    [ROOT / 'launch' / 'local.sh', '--config=quickstart', '--workdir=a b'],
    env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert ended.stdout.splitlines() == [
    '-m',
    'sedd_jax.main',
    '--config=quickstart',
    '--workdir=a b',
  ]
