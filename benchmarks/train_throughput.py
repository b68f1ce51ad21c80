"""Training steps of a config: time, tokens a second, share of the peak.

  python benchmarks/train_throughput.py --config=owt_absorb \\
    --batch-sizes=8,16,32,64 --output=benchmarks/results/train_throughput.json
  python benchmarks/train_throughput.py --config=quickstart --batch-sizes=8,16

Takes any config and `--config.GROUP.FIELD=VALUE` (sizes, `model.dtype`,
`model.attention`, `model.remat`, `model.scan_layers`, `training.parallelism`);
tokens are random, no data is needed.  The step is the trainer's own, on all
devices.  MFU is model FLOPs (`training.metrics.flops_per_token`; nothing that
is computed twice counts twice) over what large products of matrices reach in
the same run.  The compiler's FLOPs stand beside them: they hold what is
computed twice, and of a loop (scanned layers, chunks of the loss) one turn.
"""

import argparse
import functools
import statistics
import time
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.systems.base import System
from sedd_jax.training import metrics, optimizer, parallel, state, step


def measured_peak(dtype: str, size: int, repeats: int = 5) -> float:
  """FLOP/s of one device in a chain of products of square matrices.

  Args:
    dtype: of the factors.
    size: rows and columns.
    repeats: the best of so many counts.
  """
  chain = 10
  keys = jax.random.split(jax.random.key(0))
  shape = (size, size)
  x = jax.random.normal(keys[0], shape).astype(dtype)
  # Entries of a size that keeps the products' as it is.
  y = (jax.random.normal(keys[1], shape) / size**0.5).astype(dtype)

  @jax.jit
  def product(x, y):
    return jax.lax.fori_loop(0, chain, lambda _, z: z @ y, x)

  seconds = []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    product(x, y).block_until_ready()
    seconds.append(time.perf_counter() - begin)
  return 2.0 * chain * size**3 / min(seconds[1:])


def flops_per_token(config: Any, system: System) -> float:
  """Model FLOPs of a training step, a token."""
  params, _ = jax.eval_shape(system.init, jax.random.key(0))
  model, length = config.model, config.data.seq_len
  return metrics.flops_per_token(
    metrics.num_parameters_per_token(params),
    model.num_layers,
    model.hidden_size,
    length,
  )


class Trainer:
  """The trainer's own step of a config, on random tokens.

  Attributes:
    compiled: the step.
    layout: of the step.
  """

  def __init__(self, config: Any, system: System, batch_size: int):
    layout = self.layout = parallel.make(config.training.parallelism)
    parallel.check_batch_size(
      batch_size, parallel.num_devices(layout), config.training.accumulation
    )
    updates = optimizer.make(**config.optimizer)
    create = jax.jit(lambda: state.create(system.init, updates, config.seed))
    self._state = layout.place(create())
    run = layout.compile_step(
      functools.partial(
        step.train_step,
        system=system,
        optimizer=updates,
        reduction=config.training.reduction,
        ema_decay=config.training.ema_decay,
        axis=layout.axis,
        accumulation=config.training.accumulation,
      )
    )
    rng = np.random.default_rng(0)
    shape = (batch_size, config.data.seq_len)
    local = parallel.local_indices(batch_size)
    tokens = rng.integers(common.vocab_size(config), size=shape)[local]
    self._batch = layout.put(
      {
        'tokens': tokens.astype(np.int32),
        'index': local,
        'count': np.int32(batch_size),
      }
    )
    self.compiled = run.lower(self._state, self._batch).compile()

  def seconds(self, number: int) -> np.ndarray:
    """Of each of so many steps; one more is always under way, as in a run.

    Raises:
      FloatingPointError: for a loss or gradient that is not finite.
    """
    times, waiting = [], None
    for _ in range(number + 1):
      self._state, told = self.compiled(self._state, self._batch)
      if waiting is not None:
        jax.block_until_ready(waiting)
        times.append(time.perf_counter())
      waiting = told
    jax.block_until_ready(waiting)
    if not bool(jnp.all(waiting['finite'])):
      raise FloatingPointError('the loss or its gradient is not finite')
    return np.diff([*times, time.perf_counter()])


def measured(
  trainer: Trainer, warmup: int, steps: int, trace: str | None
) -> dict[str, Any]:
  """Times of a training step.

  Args:
    trainer: of a config.
    warmup: steps that are not counted.
    steps: steps that are.
    trace: folder for a profile of three more steps, or None.

  Returns:
    Seconds of a step, and the peak of the device's memory where the device
    tells it.
  """
  trainer.seconds(warmup)
  seconds = trainer.seconds(steps)
  if trace:
    with jax.profiler.trace(trace):
      trainer.seconds(3)
  memory = trainer.layout.devices[0].memory_stats() or {}
  result = {
    'step_seconds': statistics.median(seconds.tolist()),
    'fastest_seconds': float(seconds.min()),
  }
  if 'peak_bytes_in_use' in memory:
    # Since the process began: the largest batch so far.
    result['memory_gb'] = memory['peak_bytes_in_use'] / 1e9
  return result


def told_by_compiler(trainer: Trainer, tokens: int) -> dict[str, float]:
  """What XLA plans for a step; empty where a backend does not tell.

  Args:
    trainer: of a config.
    tokens: of a step, over all devices.

  Returns:
    FLOPs a token, and the memory of a device for arguments and temporaries.
  """
  told = {}
  cost = trainer.compiled.cost_analysis() or {}
  if 'flops' in cost:
    # Of the program of one device.
    flops = cost['flops'] * parallel.num_devices(trainer.layout)
    told['compiler_flops_per_token'] = flops / tokens
  memory = trainer.compiled.memory_analysis()
  if memory is not None:
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    told['planned_gb'] = held / 1e9
  return told


def main() -> None:
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--batch-sizes', type=common.integers, default=None)
  parser.add_argument('--warmup', type=int, default=3)
  parser.add_argument('--steps', type=int, default=20)
  parser.add_argument('--trace', help='folder for a profile of three steps')
  parser.add_argument('--peak-size', type=int, help='size of the matrices')
  own, command = common.parse(parser)
  config = command.config
  system = common.system_of(config)
  where = common.machine()
  size = own.peak_size or (1024 if jax.default_backend() == 'cpu' else 8192)
  peaks = [measured_peak(config.model.dtype, size)]
  sheet = metrics.peak_flops(where['device'])
  flops = flops_per_token(config, system)
  length, dtype = config.data.seq_len, config.model.dtype
  print(
    f'{where["devices"]} x {where["device"]}, {dtype}, length {length}, '
    f'{flops / 1e6:.1f} MFLOP a token'
  )
  columns = ['batch', 'step_seconds', 'tokens_per_second', 'mfu']
  columns += ['compiler_flops_per_token', 'planned_gb', 'memory_gb']
  rows = []
  for batch_size in own.batch_sizes or [config.training.batch_size]:
    row: dict[str, Any] = {'batch': batch_size}
    rows.append(row)
    try:
      begin = time.perf_counter()
      trainer = Trainer(config, system, batch_size)
      row['compile_seconds'] = time.perf_counter() - begin
      row |= told_by_compiler(trainer, batch_size * length)
      row |= measured(trainer, own.warmup, own.steps, own.trace)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      row['step_seconds'] = 'out of memory'
      continue
    row['tokens_per_second'] = batch_size * length / row['step_seconds']
    # Two states at once would not fit where one nearly fills a device.
    del trainer
    peaks.append(measured_peak(config.model.dtype, size))
  # The best before, between and after: neighbours only ever take from it.
  peak = max(peaks)
  for row in rows:
    if 'tokens_per_second' in row:
      used = row['tokens_per_second'] * flops / where['devices']
      row['mfu'] = used / peak
      if sheet:
        row['mfu_of_data_sheet'] = used / sheet
  if any('mfu_of_data_sheet' in row for row in rows):
    columns.append('mfu_of_data_sheet')
  print(
    f'products of {size} x {size} matrices reach {peak / 1e12:.3g} TFLOP/s a '
    'device'
  )
  print(common.table(columns, rows))
  common.write(
    own.output,
    {
      'benchmark': 'train_throughput',
      **where,
      'note': own.note,
      'config': common.told(config),
      'steps': own.steps,
      'flops_per_token': flops,
      'peak_flops': {'measured': peak, 'size': size, 'data_sheet': sheet},
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
