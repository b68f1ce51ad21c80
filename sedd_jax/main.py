"""`python -m sedd_jax.main --config=configs/quickstart.py`, see --help."""

import os
from collections.abc import Sequence

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

  from sedd_jax import modes
  from sedd_jax.data import errors
  from sedd_jax.training import checkpoint, loop

  if os.environ.get('SEDD_JAX_DISTRIBUTED'):
    jax.distributed.initialize()
  cache = command.config.training.compilation_cache
  if cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  try:
    modes.MODES.get(command.mode, modes.task)(command)
  except (
    ValueError,
    errors.DataError,
    checkpoint.CheckpointError,
    loop.NonFiniteError,
  ) as error:
    flags.exit_with(error)


if __name__ == '__main__':
  main()
