"""`python -m sedd_jax.main --config=configs/quickstart.py`, see --help."""

import ctypes
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from sedd_jax import flags


def main(argv: Sequence[str] | None = None) -> None:
  """Runs a mode of a config; a mistake ends with one line and code 2.

  Args:
    argv: the arguments without the program's name; those of the process by
      default.
  """
  command = flags.parse_or_exit(argv)
  # Late: a mistake on the command line is told without loading networks.
  import jax
  from absl import logging

  from sedd_jax import modes, systems
  from sedd_jax.config_checks import ConfigError
  from sedd_jax.data import DataError
  from sedd_jax.evaluation.likelihood import BoundError
  from sedd_jax.training import checkpoint, loop, metrics

  # A terminal that cannot show a character shows its code.
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')
  # Orbax tells of every file that it writes.
  logging.set_verbosity(logging.WARNING)
  if os.environ.get('SEDD_JAX_DISTRIBUTED'):
    jax.distributed.initialize(**_place_among_processes())
  cache = command.config.training.compilation_cache
  if cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  told = (
    ConfigError,
    DataError,
    BoundError,
    checkpoint.CheckpointError,
    loop.NonFiniteError,
    metrics.MetricsError,
    systems.TaskError,
  )
  try:
    modes.MODES.get(command.mode, modes.task)(command)
  except told as error:
    flags.exit_with(error)
  except KeyboardInterrupt:
    # A training has saved its state by now.
    print('\nstopped; a training goes on from here', file=sys.stderr)
    sys.exit(130)


def keep_freed_memory() -> bool:
  """Has the C library keep what is freed, for the next call to take.

  On CPU, XLA asks for its temporaries anew at each call.  Blocks of that size
  glibc takes from the kernel and gives back, so that every step touches its
  pages for the first time, which took a fifth of a step's time or more.  Now
  all threads share one heap that never shrinks.  For programs, not for
  libraries: it holds for the whole process, which keeps its largest need.

  Returns:
    Whether it was done; False without glibc.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  mmap_max, trim_threshold, arena_max = -4, -1, -8  # malloc.h
  settings = {mmap_max: 0, trim_threshold: 2**31 - 1, arena_max: 1}
  return all([mallopt(name, value) for name, value in settings.items()])


def _place_among_processes() -> dict[str, Any]:
  """What `jax.distributed` is told: on one machine, what launch/local.sh says.

  Slurm and TPU slices say it to jax themselves.
  """
  if 'SEDD_JAX_COORDINATOR' not in os.environ:
    return {}
  return {
    'coordinator_address': os.environ['SEDD_JAX_COORDINATOR'],
    'num_processes': int(os.environ['SEDD_JAX_PROCESSES']),
    'process_id': int(os.environ['SEDD_JAX_RANK']),
  }


if __name__ == '__main__':
  keep_freed_memory()
  main()
