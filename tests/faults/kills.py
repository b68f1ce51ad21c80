"""Kills a run again and again, and holds what came of it against one whole run.

  python -m tests.faults.kills --kills=50 --output=tests/faults/kills.json

Both runs are the program itself on a small text.  One is never disturbed.  The
other is ended by SIGKILL at random moments - while it starts, between steps,
while a checkpoint is written, sealed or removed - and started again with the
same command.  In the end all arrays of the state must be the same bits, and
metrics.jsonl the same but for `timing`.  A checkpoint is saved every second
step, so that most kills meet a save.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from sedd_jax import experiments, flags
from sedd_jax.training import checkpoint, optimizer, state
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Shares of the kills: before the first new step, and after it.
_EARLY, _LATE_SECONDS = 0.15, 2.5


def begun(argv: list[str]) -> subprocess.Popen:
  """The program, in a process of its own."""
  return subprocess.Popen(
    [sys.executable, '-m', 'sedd_jax.main', *argv],
    env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(argv: list[str]) -> None:
  """Runs the program to its end.

  Raises:
    RuntimeError: it ended with another code than 0.
  """
  process = begun(argv)
  _, told = process.communicate()
  if process.returncode:
    raise RuntimeError(f'code {process.returncode}: {told}')


def size(path: pathlib.Path) -> int:
  """Bytes of a file, 0 where there is none."""
  with contextlib.suppress(FileNotFoundError):
    return path.stat().st_size
  return 0


def found_in(folder: pathlib.Path) -> str:
  """What a kill interrupted, as the folder of the checkpoints tells."""
  if not folder.exists():
    return 'before any checkpoint'
  names = [path.name for path in folder.iterdir()]
  if any((folder / 'trash').glob('*')):
    return 'a removal'
  if any('tmp' in name for name in names):
    return 'a save'
  steps = [folder / name for name in names if name.isdigit()]
  if any(not (path / checkpoint.MANIFEST).exists() for path in steps):
    return 'the sealing of a save'
  return 'no write'


def rows(workdir: pathlib.Path) -> list[dict]:
  """What was measured, without what the clock has to do with."""
  found = tiny.rows(workdir / 'metrics.jsonl')
  for row in found:
    del row['timing']
  return found


def final_state(
  argv: list[str], workdir: pathlib.Path
) -> tuple[int, dict[str, np.ndarray]]:
  """The step and all arrays of the newest checkpoint, by their places."""
  config = flags.parse(argv).config
  experiment = experiments.Experiment(config, read=False)
  updates = optimizer.make(**config.optimizer)
  create = functools.partial(
    state.create, experiment.system.init, updates, config.seed
  )
  template = jax.eval_shape(create)
  with checkpoint.Checkpoints(
    workdir / 'checkpoints', read_only=True
  ) as checkpoints:
    restored = checkpoints.restore(template)
  assert restored is not None
  leaves, _ = jax.tree_util.tree_flatten_with_path(restored[0])
  arrays = {}
  for path, leaf in leaves:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    arrays[jax.tree_util.keystr(path)] = np.asarray(leaf)
  return int(restored[0].step), arrays


def killed_run(
  argv: list[str], workdir: pathlib.Path, kills: int, chance: random.Random
) -> list[dict]:
  """Runs the program with so many kills, and then to its end.

  Returns:
    Of each kill what it interrupted and the last step that had been reported.

  Raises:
    RuntimeError: the program ended by itself before all kills.
  """
  told = []
  startup = 5.0
  metrics = workdir / 'metrics.jsonl'
  for number in range(kills):
    before = size(metrics)
    start = time.monotonic()
    process = begun(argv)
    if chance.random() < _EARLY:
      time.sleep(chance.uniform(0, startup))
    else:
      # Cut back to the checkpoint at the start, it then grows beyond that.
      least = before
      while process.poll() is None:
        now = size(metrics)
        if now > least:
          break
        least = min(least, now)
        time.sleep(0.002)
      startup = time.monotonic() - start
      time.sleep(chance.uniform(0, _LATE_SECONDS))
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    if process.returncode != -signal.SIGKILL:
      raise RuntimeError(
        f'the run ended by itself with code {process.returncode} before kill '
        f'{number + 1}: {errors}'
      )
    reported = tiny.rows(metrics)[-1]['step'] if size(metrics) else 0
    told.append(
      {'interrupted': found_in(workdir / 'checkpoints'), 'step': reported}
    )
    print(f'kill {number + 1}: {told[-1]}', flush=True)
  finish(argv)
  return told


def main() -> None:
  """Kills, compares, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kills', type=int, default=3)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--steps', type=int, help='default 60 and 20 a kill')
  parser.add_argument('--output', type=pathlib.Path)
  own = parser.parse_args()
  steps = own.steps or 60 + 20 * own.kills
  fields = {
    'num_steps': steps,
    'log_every': 5,
    'checkpoint_every': 2,
    'eval_every': 0,
    'sample_every': 0,
  }
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    argv = [
      *tiny.arguments(tiny.write_text(folder)),
      *(f'--config.training.{k}={v}' for k, v in fields.items()),
      f'--config.training.compilation_cache={folder / "cache"}',
    ]
    whole, killed = folder / 'whole', folder / 'killed'
    finish([*argv, f'--workdir={whole}'])
    told = killed_run(
      [*argv, f'--workdir={killed}'],
      killed,
      own.kills,
      random.Random(own.seed),
    )
    assert rows(killed) == rows(whole), 'metrics.jsonl differs'
    step, arrays = final_state(argv, killed)
    other_step, others = final_state(argv, whole)
  assert step == other_step == steps, (step, other_step)
  assert arrays.keys() == others.keys()
  differ = [
    place
    for place, array in arrays.items()
    if array.tobytes() != others[place].tobytes()
  ]
  assert not differ, f'other bits in {differ}'
  interrupted = collections.Counter(kill['interrupted'] for kill in told)
  result = {
    'kills': own.kills,
    'seed': own.seed,
    'steps': steps,
    'jax': jax.__version__,
    'interrupted': dict(interrupted.most_common()),
    'arrays': len(arrays),
    'lines_of_metrics': steps // fields['log_every'],
    'same': True,
    'each': told,
  }
  print(
    f'{own.kills} kills ({dict(interrupted)}): {len(arrays)} arrays with the '
    'same bits, metrics.jsonl the same but for timing'
  )
  if own.output:
    own.output.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
  main()
