"""Standard error of a run's likelihood bound, by the way its times are drawn.

  python benchmarks/bound_error.py --mode=evaluate --workdir=runs/RUN \\
    --config.eval.protocol=sedd

Every row has the same number of network calls for the integral over time, the
fit of an importance density counted, and another choice of

- independent: one uniform time a sequence, on `--points` times the sequences;
- stratified: `--points` times a sequence, one in each of equal intervals,
  drawn for each sequence by itself;
- spread: one time a sequence again, but spread evenly over the sequences, as
  the evaluation does, and with
- spread and stratified: `--points` times a sequence besides; so too
- importance: a quarter of the calls fit the density, besides the last steps of
  training, and the rest draw from it;
- trained importance: the density that the last steps of training fitted alone;
- quadrature: the nodes of Gauss-Legendre, whose error is not in the column.

The row `reference` takes more of all.  Times of the bound: arXiv 2310.16834,
equation 26, as `sedd_jax.systems.bounds.score_bound` draws them.
"""

import argparse
from typing import Any

import common
import jax

from sedd_jax import runs
from sedd_jax.evaluation import likelihood


def evaluated(
  command: Any, *, way: str, points: int, sequences: int, fit: int, spread: bool
) -> dict[str, Any]:
  """A row of the table.

  Args:
    command: names the run.
    way: of drawing times, a value of eval.time_sampling.
    points: times a sequence.
    sequences: how many are evaluated, evenly spread over the split.
    fit: how many more fit an importance density.
    spread: times are spread over the sequences too.
  """
  config = command.config.copy_and_resolve_references()
  config.eval.update({'time_sampling': way, 'points': points})
  run = runs.load(config, command.workdir)
  system, split = run.experiment.system, config.eval.split
  here = run.experiment.dataset.num_sequences(split)
  if max(sequences, fit) > here:
    raise SystemExit(
      f'split {split!r} has {here} sequences, not {max(sequences, fit)}; ask '
      'for fewer --calls'
    )
  size = config.eval.batch_size
  if fit:
    # Whole batches of them, no row more.
    size = max(n for n in range(1, min(size, fit) + 1) if fit % n == 0)
  result = likelihood.evaluate(
    jax.jit(system.bound),
    run.params,
    run.aux,
    run.experiment.dataset,
    split=split,
    seed=config.seed,
    batch_size=size,
    max_sequences=sequences,
    fit_batches=fit // size,
    update_aux=system.update_aux,
    spread=spread,
  )
  bits = result['bits_per_character'] / result['nats_per_token']
  return {
    'points': points,
    'sequences': sequences,
    'calls': (sequences + fit) * points,
    'bits_per_character': result['bits_per_character'],
    'standard_error': result['standard_error'] * bits,
    'step': run.step,
  }


def main() -> None:
  """Evaluates, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--calls', type=int, default=512)
  parser.add_argument('--points', type=int, default=4)
  parser.add_argument(
    '--reference', type=int, default=16, help='times as many calls; 0: none'
  )
  own, command = common.parse(parser)
  calls, points = own.calls, own.points
  if calls % (4 * points):
    parser.error(f'--calls={calls} is no multiple of 4 * {points}')
  whole, quarter = calls // points, calls // points // 4
  ways = {
    'independent': ('stratified', 1, calls, 0, False),
    'stratified': ('stratified', points, whole, 0, False),
    'spread': ('stratified', 1, calls, 0, True),
    'spread and stratified': ('stratified', points, whole, 0, True),
    'importance': ('importance', points, whole - quarter, quarter, True),
    'trained importance': ('importance', points, whole, 0, True),
    'quadrature': ('quadrature', points, whole, 0, False),
  }
  if own.reference:
    more = whole * own.reference
    ways['reference'] = ('importance', points, more - quarter, quarter, True)
  rows = []
  for name, (way, number, sequences, fit, spread) in ways.items():
    row = evaluated(
      command,
      way=way,
      points=number,
      sequences=sequences,
      fit=fit,
      spread=spread,
    )
    rows.append({'times': name, **row})
  for row in rows:
    row['error_ratio'] = rows[0]['standard_error'] / row['standard_error']
  columns = [
    *('times', 'points', 'sequences', 'calls', 'bits_per_character'),
    *('standard_error', 'error_ratio'),
  ]
  print(common.table(columns, rows))
  common.write(
    own.output,
    {
      'benchmark': 'bound_error',
      **common.machine(),
      'note': own.note,
      'config': common.told(command.config),
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
