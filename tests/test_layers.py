"""The direction of the imports, and what importing the package costs."""

import ast
import pathlib
import statistics
import subprocess
import sys

import pytest

import sedd_jax

PACKAGE = pathlib.Path(sedd_jax.__file__).parent
FILES = sorted(
  path for path in PACKAGE.rglob('*.py') if 'recipes' not in path.parts
)

PURE = ('core', 'noise_schedules', 'processes', 'losses', 'samplers')
# What each room may import of the package, itself aside.
MAY_SEE = {
  'core': (),
  'noise_schedules': ('core',),
  'processes': ('core', 'noise_schedules'),
  'losses': ('core', 'noise_schedules', 'processes'),
  'samplers': ('core', 'noise_schedules', 'processes'),
  'models': ('core',),
  'data': ('core',),
  'systems': (*PURE, 'models', 'data'),
  'evaluation': (*PURE, 'models', 'data', 'systems'),
  'training': (*PURE, 'models', 'data', 'systems', 'evaluation'),
}
PURE_MODULES = {'jax', 'numpy', 'sedd_jax'}


def room(path):
  parts = path.relative_to(PACKAGE).parts
  return parts[0] if len(parts) > 1 else parts[0].removesuffix('.py')


def imports(path):
  """Dotted names that a file imports, wherever in it."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def rooms_seen(path):
  """Rooms of the package that a file imports from."""
  own = {name for name in imports(path) if name.startswith('sedd_jax.')}
  return {name.split('.')[1] for name in own}


def test_every_room_is_listed():
  folders = {room(p) for p in FILES if p.parent != PACKAGE}
  assert folders == set(MAY_SEE)


@pytest.mark.parametrize(
  'path', [p for p in FILES if room(p) in MAY_SEE], ids=lambda p: str(p.stem)
)
def test_arrows_point_one_way(path):
  seen = rooms_seen(path) - {room(path)}
  assert seen <= set(MAY_SEE[room(path)]), path


# The rooms of the data, each of which may see those before it.
DATA = (
  *('files', 'tokenizers', 'prepared', 'sources', 'paired', 'labelling'),
  'sets',
)


@pytest.mark.parametrize('name', DATA)
def test_arrows_between_the_rooms_of_the_data(name):
  own = {n for p in PACKAGE.glob(f'data/{name}/*.py') for n in imports(p)}
  seen = {n.split('.')[2] for n in own if n.startswith('sedd_jax.data.')}
  assert seen and not seen & set(DATA[DATA.index(name) + 1 :])


# The files beside the rooms, each of which may see those before it.
PROGRAM = (
  *('default_config', 'config_checks', 'flags', 'run_folders'),
  *(
    'experiments',
    'runs',
    'answering',
    'controls',
    'drawing',
    'evaluating',
    'revisions',
  ),
  *('corrupting', 'modes', 'main'),
)


@pytest.mark.parametrize('name', PROGRAM)
def test_program_comes_after_the_rooms(name):
  seen = rooms_seen(PACKAGE / f'{name}.py')
  assert not seen & set(PROGRAM[PROGRAM.index(name) :])
  if name in ('default_config', 'config_checks', 'flags'):
    # What tells a mistake on the command line loads no network.
    assert seen & set(MAY_SEE) <= {'core'}


def test_every_file_beside_the_rooms_is_listed():
  beside = {path.stem for path in FILES if path.parent == PACKAGE}
  assert beside == {'__init__', *PROGRAM}


@pytest.mark.parametrize(
  'path', [p for p in FILES if room(p) in PURE], ids=lambda p: str(p.stem)
)
def test_pure_rooms_import_jax_and_numpy_only(path):
  outside = {name.split('.')[0] for name in imports(path)}
  assert outside - set(sys.stdlib_module_names) <= PURE_MODULES, path


def test_no_config_below_systems():
  for path in FILES:
    if room(path) in (*PURE, 'models', 'data'):
      assert not any('ml_collections' in name for name in imports(path)), path


def test_pmap_is_said_in_one_file():
  users = []
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and node.attr == 'pmap':
        users.append(str(path.relative_to(PACKAGE)))
  assert set(users) == {'training/parallel.py'}


def test_import_brings_no_network_library():
  code = 'import sys, sedd_jax; print(*sorted(sys.modules))'
  loaded = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  ).stdout.split()
  heavy = {
    'flax',
    'optax',
    'orbax',
    'absl',
    'ml_collections',
    'tensorflow_datasets',
    'tensorflow',
    'chex',
    'jaxtyping',
    'matplotlib',
    'tqdm',
  }
  assert not heavy & {name.split('.')[0] for name in loaded}


def test_import_costs_little_more_than_jax():
  # Processor seconds in one process, which neighbours on the machine move less
  # than the difference of two runs' times.
  code = (
    'import time, jax\nstart = time.process_time()\nimport sedd_jax\n'
    'print(time.process_time() - start)'
  )
  costs = [
    float(
      subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
      ).stdout
    )
    for _ in range(5)
  ]
  assert statistics.median(costs) < 0.2, costs
