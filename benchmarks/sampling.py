"""Seconds and network calls of drawing samples.

  python benchmarks/sampling.py --config=owt_absorb --batches=1,16 \\
    --steps=16,64,256 --output=benchmarks/results/sampling.json
  python benchmarks/sampling.py --config=quickstart

Takes any config and `--config.GROUP.FIELD=VALUE`.  Parameters are those of the
initialisation: a sample costs the same whatever they are.
"""

import argparse
import statistics
import time

import common
import jax

from sedd_jax import samplers, systems


def draws(system, params, aux, request, repeats: int) -> tuple[list, int]:
  """Seconds of each draw after a first that compiles, and network calls."""
  seconds = []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    samples = system.sample(params, aux, request)
    seconds.append(time.perf_counter() - begin)
  return seconds[1:], samples.calls


def main() -> None:
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--batches', type=common.integers, default=[1, 16])
  parser.add_argument('--steps', type=common.integers, default=[16, 64])
  parser.add_argument(
    '--methods', type=lambda s: s.split(','), default=list(samplers.METHODS)
  )
  parser.add_argument('--repeats', type=int, default=5)
  own, command = common.parse(parser)
  config = command.config
  system = common.system_of(config)
  where = common.machine()
  params, aux = jax.jit(system.init)(jax.random.key(config.seed))
  length = config.sampling.length or config.data.seq_len
  print(f'{where["device"]}, {config.model.dtype}, length {length}')
  rows = []
  for batch in own.batches:
    for method in own.methods:
      for steps in own.steps:
        request = systems.Request(
          length=length,
          seeds=range(batch),
          method=method,
          steps=steps,
          batch_size=batch,
          options={'grid': config.sampling.grid},
        )
        seconds, calls = draws(system, params, aux, request, own.repeats)
        middle = statistics.median(seconds)
        rows.append(
          {
            'batch': batch,
            'method': method,
            'steps': steps,
            'calls': calls,
            'seconds': middle,
            'fastest_seconds': min(seconds),
            'ms_per_call': 1e3 * middle / calls,
            'tokens_per_second': batch * length / middle,
          }
        )
  columns = [
    *('batch', 'method', 'steps', 'calls', 'seconds', 'ms_per_call'),
    'tokens_per_second',
  ]
  print(common.table(columns, rows))
  common.write(
    own.output,
    {
      'benchmark': 'sampling',
      **where,
      'note': own.note,
      'config': common.told(config),
      'repeats': own.repeats,
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
