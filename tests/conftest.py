"""What every test runs under: eight CPU devices, strict flags, a warm cache.

- Compilations persist in `.jax_cache` (or `JAX_COMPILATION_CACHE_DIR`), so the
  second run of the tests is several times faster than the first.
- A key that is used twice is an error (`jax_debug_key_reuse`).  To draw the
  same numbers again on purpose, build the key again or `jax.random.clone` it.
- Broadcasting arrays of different rank is an error: write `x[:, None]`.
- `x64` is a fixture: the test that asks for it computes in float64.
"""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Before jax is imported, and in the environment, so that the processes that
# tests start share the cache.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.jax_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_debug_key_reuse', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture
def x64():
  """Float64 arithmetic for the length of a test."""
  with jax.enable_x64(True):
    yield
