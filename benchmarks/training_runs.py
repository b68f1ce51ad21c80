"""What finished runs reached: a table, and JSON with their curves and samples.

  python benchmarks/training_runs.py runs/A runs/B --output=FILE

Reads the folders that `python -m sedd_jax.main` has written.  Characters are
those trained on, repetitions counted; hours are those of the whole training,
seconds a step those of its fastest stretch between two lines of metrics, which
leave out compilation and evaluation.  With --unfinished runs may have been
stopped: what training evaluated last stands for the rest.  With --sample one
sequence is drawn besides, as the run's config says, compiled before: seconds a
sample.  With --add the runs that FILE has stay in it, but for those of the
folders given.
"""

import argparse
import json
import pathlib
import time
from typing import Any

import common

import sedd_jax
from sedd_jax import config_checks, flags


def lines_of(path: pathlib.Path) -> list[dict[str, Any]]:
  """The objects of a file with one a line."""
  return [json.loads(line) for line in path.read_text().splitlines()]


def told(folder: pathlib.Path, unfinished: bool) -> dict[str, Any]:
  """All that is kept of a run.

  Raises:
    SystemExit: a folder without a run that was trained and evaluated.
  """
  try:
    config = config_checks.read(folder / flags.CONFIG_FILE)
    lines = lines_of(folder / 'metrics.jsonl')
    if unfinished:
      evaluation = [x['validation'] for x in lines if 'validation' in x][-1]
      samples = []
    else:
      evaluation = json.loads((folder / 'evaluation.json').read_text())
      samples = lines_of(folder / 'samples.jsonl')
  except FileNotFoundError as error:
    missing = pathlib.Path(error.filename).name
    raise SystemExit(
      f'{folder} is no finished run: it has no {missing}'
    ) from error
  except IndexError as error:
    raise SystemExit(f'{folder} was not evaluated in training') from error
  per_step = config.training.batch_size * config.data.seq_len
  curve = [
    {
      'step': line['step'],
      'tokens': line['step'] * per_step,
      **in_bits(line['validation']),
    }
    for line in lines
    if 'validation' in line
  ]
  rates = [
    line['timing']['tokens_per_second']
    for line in lines
    if 'tokens_per_second' in line['timing']
  ]
  seconds = sum(line['timing'].get('seconds', 0) for line in lines)
  return {
    'run': folder.name,
    'config': common.told(config),
    'step': evaluation['step'],
    'tokens': evaluation['step'] * per_step,
    'hours': seconds / 3600,
    'seconds_per_step': per_step / max(rates) if rates else None,
    'curve': curve,
    'evaluation': evaluation,
    'samples': [sample['text'] for sample in samples[:4]],
  }


def seconds_to_sample(folder: pathlib.Path) -> float:
  """Of one sequence; the shortest of three draws after a first."""
  run = sedd_jax.load_run(folder)
  seconds = []
  for seed in range(4):
    begin = time.perf_counter()
    run.sample(1, seeds=[seed], batch_size=1)
    seconds.append(time.perf_counter() - begin)
  return min(seconds[1:])


def in_bits(result: dict[str, Any]) -> dict[str, Any]:
  """Bits a character of an evaluation, and their standard error."""
  bits, error = result['bits_per_character'], result['standard_error']
  per_nat = bits / result['nats_per_token']
  return {'bits': bits, 'error': None if error is None else error * per_nat}


def row_of(run: dict[str, Any]) -> dict[str, Any]:
  """A row of the table."""
  result = run['evaluation']
  return {
    'run': run['run'],
    'system': run['config']['system']['name'],
    'noise': run['config']['process']['name'],
    'seed': run['config']['seed'],
    'steps': run['step'],
    'M tokens': run['tokens'] / 1e6,
    'hours': run['hours'],
    's a step': run['seconds_per_step'],
    **(
      {'s a sample': run['seconds_to_sample']}
      if 'seconds_to_sample' in run
      else {}
    ),
    'protocol': result['protocol'],
    'split': result['split'],
    'sequences': result['num_sequences'],
    **in_bits(result),
  }


def main() -> None:
  """Collects, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('runs', nargs='+', type=pathlib.Path)
  parser.add_argument('--sample', action='store_true', help='time a sample')
  parser.add_argument(
    '--unfinished', action='store_true', help='of runs that were stopped'
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  parser.add_argument(
    '--add', action='store_true', help="keep the output's other runs"
  )
  own = parser.parse_args()
  runs = [told(folder, own.unfinished) for folder in own.runs]
  if own.sample:
    for run, folder in zip(runs, own.runs):
      run['seconds_to_sample'] = seconds_to_sample(folder)
  if own.add:
    if not (own.output and own.output.is_file()):
      parser.error(f'--add: no file {own.output or "in --output"} to add to')
    given = {run['run'] for run in runs}
    others = json.loads(own.output.read_text())['runs']
    runs = [run for run in others if run['run'] not in given] + runs
  rows = [row_of(run) for run in runs]
  print(common.table(list(rows[0]), rows))
  common.write(
    own.output, {'benchmark': 'training_runs', 'rows': rows, 'runs': runs}
  )


if __name__ == '__main__':
  main()
