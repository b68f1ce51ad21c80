"""How much a choice and how much a seed changes what a run learns.

  python benchmarks/seeds.py FOLDER --seeds=0,1,2,3,4 \\
    --vary=training.time_sampling=iid,low_discrepancy \\
    --output=benchmarks/results/seeds.json --config=text8_absorb_small

Trains the config with every value of one field and every seed, each in a folder
of its own under FOLDER; one that was stopped goes on.  Bits a character are
those of the training loss, means over `--window` steps up to each step told.
"""

import argparse
import contextlib
import io
import json
import pathlib
import statistics
from typing import Any

import common

from sedd_jax import main as program


def trained(
  folder: pathlib.Path, fields: dict[str, Any], rest: list[str]
) -> list[dict[str, Any]]:
  """The lines of metrics of a run."""
  changes = [f'--config.{field}={value}' for field, value in fields.items()]
  with contextlib.redirect_stdout(io.StringIO()):
    program.main([f'--workdir={folder}', *rest, *changes])
  text = (folder / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def main() -> None:
  """Trains, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--vary', required=True, help='FIELD=VALUE,VALUE,...')
  parser.add_argument('--seeds', type=common.integers, default=[0, 1, 2])
  parser.add_argument('--window', type=int, default=100)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  own, rest = parser.parse_known_args()
  field, _, values = own.vary.partition('=')
  shared = {
    'training.log_every': own.window,
    'training.eval_every': 0,
    'training.sample_every': 0,
    'eval.max_sequences': 8,
    'eval.points': 1,
    'sampling.num_samples': 1,
    'sampling.prompt': '',
    'sampling.steps': 1,
  }
  rows = []
  for value in values.split(','):
    for seed in own.seeds:
      fields = {**shared, field: value, 'seed': seed}
      lines = trained(own.folder / f'{value}_{seed}', fields, rest)
      bits = {str(line['step']): line['bpc'] for line in lines}
      rows.append({field: value, 'seed': seed, **bits})
      print(rows[-1], flush=True)
  steps = list(rows[0])[2:]
  for value in values.split(','):
    found = [row for row in rows if row[field] == value]
    mean = {step: statistics.mean(row[step] for row in found) for step in steps}
    rows.append({field: value, 'seed': 'mean', **mean})
  print(common.table(list(rows[0]), rows))
  common.write(
    own.output,
    {
      'benchmark': 'seeds',
      **common.machine(),
      'arguments': [pathlib.PurePath(a).name for a in rest],
      'window': own.window,
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
