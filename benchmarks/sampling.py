"""Seconds, network calls and quality of drawing samples.

  python benchmarks/sampling.py --config=owt_absorb --batches=1,16 \\
    --steps=16,64,256 --output=benchmarks/results/sampling.json
  python benchmarks/sampling.py --config=quickstart
  python benchmarks/sampling.py --mode=sample --workdir=runs/text8 \\
    --methods=tweedie,first_hitting,tweedie:cached=true:steps=1024 \\
    --steps=64,256 --quality=64 --judge=5 --plot=docs/sampling.png

Takes any config and `--config.GROUP.FIELD=VALUE`; parameters are those of the
initialisation, for a sample costs the same whatever they are.  With a --workdir
they are those of a stored run.  A method may carry options of the sampler, as
`tweedie:cached=true:corrector_steps=1`, and steps of its own in place of
--steps, as unmasking takes at most as many as there are tokens.

With --quality=N, N samples of each row are judged, drawn in the largest batch
(a sample depends on its own seed, not on its batch); there each draw but the
first, which compiles, is timed too:

- bits: a token's under --judge, the count model of so many characters fitted to
  the run's train split (benchmarks/ngrams.py), or an autoregressive run's
  folder.  Fewer than the held-out text's are no merit: they are bought with
  entropy;
- entropy: nats of the tokens within a sample;
- distance: total variation between the pairs of neighbouring tokens in the
  samples and in the held-out text.

The row `data` is as many sequences of held-out text: what no sampler can be
told from.  A row is on the front where none of its batch is faster and nearer.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import common
import jax
import ngrams
import numpy as np

import sedd_jax
from sedd_jax import config_checks, run_folders, runs, samplers, systems
from sedd_jax.evaluation import generate

# What is told of samples.
QUALITY = ('bits', 'entropy', 'distance')


def draws(
  sample: Callable, requests: Sequence[systems.Request]
) -> tuple[list[float], list[systems.Samples]]:
  """Seconds of each draw but the first, which compiles, and all samples."""
  seconds, found = [], []
  for request in requests:
    begin = time.perf_counter()
    found.append(sample(request))
    seconds.append(time.perf_counter() - begin)
  return seconds[1:], found


def method_of(text: str) -> tuple[str, dict[str, Any]]:
  """`tweedie:cached=true` as a name and options.

  Raises:
    SystemExit: an unknown name, or no `name=value`.
  """
  name, *rest = text.split(':')
  if name not in samplers.NAMES:
    raise SystemExit(f'unknown method {name!r}: {", ".join(samplers.NAMES)}')
  pairs = [part.partition('=') for part in rest]
  if bad := [part for part, equals, _ in pairs if not equals]:
    raise SystemExit(f'{bad[0]!r} in --methods is no NAME=VALUE')
  return name, {
    key: config_checks.parse(f'sampling.{key}', value)
    for key, _, value in pairs
  }


def judge_of(run: Any, judge: str) -> Callable[[np.ndarray], float]:
  """Bits a token of sequences `[n, length]`.

  Raises:
    SystemExit: a judge with another vocabulary, or none.
  """
  size = run.experiment.info.vocab_size
  if judge.isdigit():
    order = int(judge)
    model = ngrams.fitted(run.tokens('train'), size, order)
    return lambda tokens: ngrams.bits(model, tokens)
  try:
    other = sedd_jax.load_run(judge)
  except ValueError as error:
    raise SystemExit(f'--judge: {error}') from error
  for what in ('data.tokenizer', 'system.name'):
    wanted = config_checks.lookup(run.config, what)
    wanted = 'autoregressive' if what == 'system.name' else wanted
    if config_checks.lookup(other.config, what) != wanted:
      raise SystemExit(f'--judge: {judge} has not {what}={wanted}')

  def bits(tokens: np.ndarray) -> float:
    parts = [other.bound(part).nats for part in np.array_split(tokens, 8)]
    return float(np.concatenate(parts).sum() / tokens.size / np.log(2))

  return bits


def pairs_of(tokens: np.ndarray, vocab_size: int) -> dict[int, float]:
  """Shares of neighbouring pairs in sequences `[n, length]`."""
  places = tokens[:, :-1].astype(np.int64) * vocab_size + tokens[:, 1:]
  values, counts = np.unique(places, return_counts=True)
  return dict(zip(values.tolist(), (counts / counts.sum()).tolist()))


def total_variation(p: Mapping[int, float], q: Mapping[int, float]) -> float:
  """Half the sum of differences of two laws."""
  return 0.5 * sum(abs(p.get(k, 0) - q.get(k, 0)) for k in p.keys() | q.keys())


def quality_of(run: Any, judge: str, count: int, length: int) -> Callable:
  """What is told of sequences `[count, length]`, and that of held-out text.

  Raises:
    SystemExit: too little held-out text.
  """
  held_out = run.tokens('validation')
  rows = len(held_out) // length
  if rows < 2 * count:
    raise SystemExit(
      f'--quality={count} of {length} tokens needs twice that of held-out '
      f'text, which has {len(held_out)}'
    )
  texts = np.asarray(held_out[: rows * length]).reshape(rows, length)
  size, bits = run.experiment.info.vocab_size, judge_of(run, judge)
  # From all over the text, and the law of pairs from the rest.
  chosen = np.linspace(0, rows - 1, count).astype(int)
  law = pairs_of(np.delete(texts, chosen, axis=0), size)

  def told(tokens: np.ndarray | None = None) -> dict[str, float]:
    tokens = texts[chosen] if tokens is None else tokens
    lengths = np.full(len(tokens), length)
    return {
      'bits': bits(tokens),
      'entropy': generate.unigram_entropy(systems.Samples(tokens, lengths)),
      'distance': total_variation(pairs_of(tokens, size), law),
    }

  return told


def mark_front(rows: Sequence[dict[str, Any]]) -> None:
  """Sets `front` where no row of the batch is as fast and nearer, or faster."""
  for row in rows:
    row['front'] = not any(
      other['batch'] == row['batch']
      and other['seconds'] <= row['seconds']
      and other['distance'] <= row['distance']
      and (other['seconds'], other['distance'])
      != (row['seconds'], row['distance'])
      for other in rows
    )


def plot(
  rows: Sequence[Mapping[str, Any]], data: Mapping[str, float], path: Any
) -> None:
  """Distance against seconds and calls, a row of panels for each batch."""
  from matplotlib import figure, ticker
  from matplotlib.backends import backend_agg

  batches = sorted({row['batch'] for row in rows})
  canvas = figure.Figure(figsize=(9, 3.2 * len(batches)), layout='constrained')
  backend_agg.FigureCanvasAgg(canvas)
  panels = canvas.subplots(len(batches), 2, squeeze=False, sharey=True)
  methods = list(dict.fromkeys(row['method'] for row in rows))
  for line, batch in zip(panels, batches):
    for axes, across in zip(line, ('seconds', 'calls')):
      for method in methods:
        mine = [r for r in rows if (r['batch'], r['method']) == (batch, method)]
        mine.sort(key=lambda row: row[across])
        axes.plot(
          [row[across] for row in mine],
          [row['distance'] for row in mine],
          marker='o',
          label=method,
        )
      axes.axhline(data['distance'], color='0.6', linestyle=':', label='data')
      axes.set(xscale='log', yscale='log', xlabel=f'{across}, batch {batch}')
      for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter('{x:g}')
        axis.set_minor_formatter(ticker.NullFormatter())
    line[0].set_ylabel('distance of pairs')
  panels[0, 0].legend(fontsize='small')
  path.parent.mkdir(parents=True, exist_ok=True)
  canvas.savefig(path, dpi=120)


def measured(
  sample: Callable, method: str, told: Callable | None, **how: Any
) -> dict[str, Any]:
  """A row: times of a batch, and the quality of all that was drawn."""
  name, options = method_of(method)
  batch, steps = how['batch'], options.pop('steps', how['steps'])
  first = systems.Request(
    length=how['length'],
    seeds=range(batch),
    method=name,
    steps=steps,
    batch_size=batch,
    options={'grid': how['grid'], **options},
  )
  count = how['repeats'] + 1
  if told is not None:
    count = max(count, -(-how['quality'] // batch))
  seconds, samples = draws(
    sample,
    [
      dataclasses.replace(first, seeds=range(batch * i, batch * (i + 1)))
      for i in range(count)
    ],
  )
  middle = statistics.median(seconds)
  calls = statistics.mean(each.calls for each in samples)
  row = {
    'batch': batch,
    'method': method,
    'steps': steps,
    'calls': calls,
    'seconds': middle,
    'fastest_seconds': min(seconds),
    'ms_per_call': 1e3 * middle / calls,
    'tokens_per_second': batch * how['length'] / middle,
  }
  if told is not None:
    drawn = np.concatenate([each.tokens for each in samples])
    row |= told(drawn[: how['quality']])
  return row


def steps_of(method: str, steps: Sequence[int]) -> list[int]:
  """Those that a method is measured at: its own, or all."""
  own = method_of(method)[1].get('steps')
  return list(steps) if own is None else [own]


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
  parser.add_argument('--quality', type=int, default=0, help='samples judged')
  parser.add_argument('--judge', default='4', help='order, or folder of a run')
  parser.add_argument('--plot', type=pathlib.Path, help='PNG to write')
  own, command = common.parse(parser)
  config = command.config
  stored = (
    run_folders.has_checkpoint(command.workdir) and command.mode == 'sample'
  )
  if own.quality and not stored:
    raise SystemExit(
      '--quality is of a trained run: give --mode=sample --workdir=FOLDER'
    )
  if own.plot and not own.quality:
    raise SystemExit('--plot shows the quality: give --quality')
  if stored:
    run = runs.load(config, command.workdir, read=bool(own.quality))
    sample = run.draw
  else:
    system = common.system_of(config)
    params, aux = jax.jit(system.init)(jax.random.key(config.seed))

    def sample(request):
      return system.sample(params, aux, request)

  for method in own.methods:
    method_of(method)
  where = common.machine()
  length = config.sampling.length or config.data.seq_len
  told = None
  if own.quality:
    told = quality_of(run, own.judge, own.quality, length)
  print(f'{where["device"]}, {config.model.dtype}, length {length}')
  rows = []
  wanted = [(m, n) for m in own.methods for n in steps_of(m, own.steps)]
  for method, steps in wanted:
    judged: dict[str, Any] = {}
    for batch in sorted(own.batches, reverse=True):
      row = measured(
        sample,
        method,
        None if judged else told,
        batch=batch,
        steps=steps,
        length=length,
        repeats=own.repeats,
        quality=own.quality,
        grid=config.sampling.grid,
      )
      judged = {name: row.get(name, judged.get(name)) for name in QUALITY}
      # As it comes: the whole may take hours.
      print(json.dumps(row), flush=True)
      rows.append(row | (judged if told else {}))
  rows.sort(key=lambda row: row['batch'])
  columns = [
    *('batch', 'method', 'steps', 'calls', 'seconds', 'ms_per_call'),
    'tokens_per_second',
  ]
  result = {
    'benchmark': 'sampling',
    **where,
    'note': own.note,
    'config': common.told(config),
    'repeats': own.repeats,
    'rows': rows,
  }
  if told is not None:
    mark_front(rows)
    columns += [*QUALITY, 'front']
    result |= {'quality': own.quality, 'data': told()}
    result['judge'] = pathlib.PurePath(own.judge).name
    print(f'held-out text: {json.dumps(result["data"])}')
  print(common.table(columns, rows))
  common.write(own.output, result)
  if own.plot:
    plot(rows, result['data'], own.plot)


if __name__ == '__main__':
  main()
