"""What every test runs under: eight CPU devices, strict flags, a warm cache.

- The machine code is not optimised, unless `XLA_FLAGS` says otherwise.
- Compilations persist in `.jax_cache` (or `JAX_COMPILATION_CACHE_DIR`), so the
  second run of the tests is several times faster than the first.
- A key that is used twice is an error (`jax_debug_key_reuse`).  To draw the
  same numbers again on purpose, build the key again or `jax.random.clone` it.
- Broadcasting arrays of different rank is an error: write `x[:, None]`.
- `x64` is a fixture: the test that asks for it computes in float64.
- What `slow.txt` lists (see `slowest.py`) is marked slow.
- `trained` is the folder of a tiny run, trained once for all processes of
  xdist.  Tests leave it as it is; those that change a run use `copied`.
"""

import os
import pathlib
import shutil
import time

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Before jax is imported, and in the environment, so that the processes that
# tests start share the cache.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.jax_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
os.environ.setdefault('MPLBACKEND', 'Agg')
# numpy's threads would fight those of the other processes of xdist.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
# Most of the time goes into compiling what runs for milliseconds.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_debug_key_reuse', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks what takes long without a cache, before marks are selected."""
  from tests import slowest

  listed = set(slowest.LIST.read_text().splitlines())
  for item in items:
    if slowest.name_of(item.nodeid) in listed:
      item.add_marker(pytest.mark.slow)


@pytest.fixture
def x64():
  """Float64 arithmetic for the length of a test."""
  with jax.enable_x64(True):
    yield


def _shared(tmp_path_factory):
  """A folder that all processes of these tests have in common."""
  base = tmp_path_factory.getbasetemp()
  return base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base


@pytest.fixture(scope='session')
def tiny_text(tmp_path_factory):
  """A small file of text."""
  from tests import tiny

  written = tiny.write_text(tmp_path_factory.mktemp('text'))
  return written.replace(_shared(tmp_path_factory) / written.name)


@pytest.fixture(scope='session')
def trained(tmp_path_factory, tiny_text):
  """The folder of a run that `main` has trained, evaluated and sampled."""
  from sedd_jax import main
  from tests import tiny

  workdir = _shared(tmp_path_factory) / 'tiny'
  done = workdir.with_suffix('.done')
  try:
    workdir.with_suffix('.claimed').mkdir()
  except FileExistsError:
    # Another process trains it.
    deadline = time.monotonic() + 300
    while not done.exists() and time.monotonic() < deadline:
      time.sleep(0.1)
    return workdir
  try:
    main.main([*tiny.arguments(tiny_text), f'--workdir={workdir}'])
  finally:
    done.touch()
  return workdir


@pytest.fixture
def copied(trained, tmp_path):
  """A copy of the trained run."""
  return pathlib.Path(shutil.copytree(trained, tmp_path / 'copied'))
