"""Training from the first step or the last checkpoint to the end.

A run that is stopped, at whatever point, goes on to the same parameters and the
same metrics.jsonl (but for `timing`) as one that is not: batch and noise of a
step depend on seed and step alone, sums of an unfinished window of steps are
stored with the checkpoint, and a checkpoint is saved after the line of its
step.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sedd_jax.core import units
from sedd_jax.systems import base
from sedd_jax.training import checkpoint, parallel, tracing, trackers
from sedd_jax.training import metrics as metrics_lib
from sedd_jax.training import optimizer as optimizer_lib
from sedd_jax.training import state as state_lib
from sedd_jax.training import step as step_lib

PyTree = Any

# Steps handed to the devices before the metrics of the oldest are waited for.
_IN_FLIGHT = 2
# Batches read ahead of the step that needs them.
_READ_AHEAD = 2


class NonFiniteError(ArithmeticError):
  """The loss or its gradient has become NaN or infinite."""


class _Interrupted(BaseException):
  """A signal during evaluation or sampling; no `except Exception` takes it."""


class _Signals:
  """SIGTERM and SIGINT as a wish that the loop grants between steps.

  With `jax.distributed`, SIGTERM is left to it, for all processes must stop at
  the same step.  Outside the main thread, where Python allows no handlers,
  nothing is changed.
  """

  def __init__(self) -> None:
    self.received: int | None = None
    self._may_interrupt = False
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> '_Signals':
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and not jax.distributed.is_initialized():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
    """Ends the program as the signal would have, now that all is saved."""
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    if self.received is None or kind not in (None, _Interrupted):
      return
    if self.received == signal.SIGINT:
      raise KeyboardInterrupt from None
    raise SystemExit(0) from None

  def _handle(self, number: int, frame: Any) -> None:
    del frame
    if self.received == number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = number
    if self._may_interrupt:
      raise _Interrupted

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    """In this block a signal raises `_Interrupted` at once."""
    self._may_interrupt = True
    try:
      if self.received is not None:
        raise _Interrupted
      yield
    finally:
      self._may_interrupt = False


class _Ahead:
  """Batches of the steps of a run, read by a thread ahead of their use."""

  def __init__(self, read: Callable[[int], PyTree], start: int, stop: int):
    self._read = read
    self._steps = iter(range(start, stop))
    self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix='batches')

  def __enter__(self) -> Iterator[PyTree]:
    return self._batches()

  def __exit__(self, *exc_info: Any) -> None:
    self._pool.shutdown(cancel_futures=True)

  def _batches(self) -> Iterator[PyTree]:
    ahead: collections.deque[futures.Future] = collections.deque()
    while True:
      for step in itertools.islice(self._steps, 1 + _READ_AHEAD - len(ahead)):
        ahead.append(self._pool.submit(self._read, step))
      if not ahead:
        return
      yield ahead.popleft().result()


def train(
  system: base.System,
  dataset: Any,
  *,
  workdir: str | os.PathLike,
  seed: int,
  training: Any,
  optimizer: Mapping[str, Any],
  evaluate_fn: Callable[..., Mapping[str, Any]] | None = None,
  sample_fn: Callable[..., None] | None = None,
  initial_params: PyTree | None = None,
  initial_aux: PyTree | None = None,
  record: Mapping[str, Any] | None = None,
  check_record: Callable[[Mapping[str, Any]], None] = lambda record: None,
  flops_per_token: float | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> state_lib.TrainState:
  """Trains to `training.num_steps`; a finished run is returned as it is.

  SIGTERM and Ctrl-C save a checkpoint between two steps and stop; a second
  Ctrl-C stops at once.

  Args:
    system: what is trained.
    dataset: has `info` and `train_batch(seed, step, indices, count)`.
    workdir: gets `checkpoints/`, `best/` (the state with the lowest
      `nats_per_token` that `evaluate_fn` gave) and `metrics.jsonl`.
    seed: of parameters, data order and noise.
    training: the config's group `training`.
    optimizer: the config's group `optimizer`.
    evaluate_fn: `(params, aux, step) ->` a JSON-able dict, called every
      `training.eval_every` steps with the averaged parameters, which are valid
      during the call only; goes into the step's line as `validation`.
    sample_fn: `(params, aux, step)`, likewise every `training.sample_every`.
    initial_params: start from these; unused where there is a checkpoint.
    initial_aux: likewise.
    record: stored as JSON with every checkpoint, such as the config.
    check_record: gets the record of the checkpoint that the run goes on from,
      empty without one, before anything is changed; raises where it must not.
    flops_per_token: of `metrics.flops_per_token`; None: no MFU.
    devices: of this process; all by default.

  Returns:
    The last state, on the devices.

  Raises:
    ValueError: the batch does not divide over devices and micro-batches, or a
      name is unknown; before anything compiles.
    NonFiniteError: naming the step, its loss terms and the last checkpoint.
    checkpoint.CheckpointError: all checkpoints are damaged.
    SystemExit: with code 0, after SIGTERM, the state being saved.
    KeyboardInterrupt: after Ctrl-C, the state being saved.
  """
  layout = parallel.make(training.parallelism, devices)
  num_devices = parallel.num_devices(layout)
  parallel.check_batch_size(
    training.batch_size, num_devices, training.accumulation
  )
  tracked = trackers.named(training.trackers)
  traced = tracing.steps_of(training.profile)
  updates = optimizer_lib.make(**optimizer)
  workdir = pathlib.Path(workdir)
  create = functools.partial(
    state_lib.create,
    system.init,
    updates,
    seed,
    initial_params,
    initial_aux,
  )
  peak = training.peak_flops or metrics_lib.peak_flops(
    layout.devices[0].device_kind
  )
  with contextlib.ExitStack() as stack:
    signals = stack.enter_context(_Signals())
    checkpoints = stack.enter_context(
      checkpoint.Checkpoints(
        workdir / 'checkpoints', keep=training.keep_checkpoints
      )
    )
    restored = checkpoints.restore(layout.template(jax.eval_shape(create)))
    check_record(restored[1] if restored else {})
    state, saved = restored or (create(), {})
    start = int(state.step)
    # A refresh that failed, or that parameters from elsewhere ask for.
    due = saved.get(
      'refresh_due', restored is None and initial_params is not None
    )
    due = due and system.refresh is not None and training.refresh_every > 0
    checkpoints.discard_after(start if restored else -1)
    progress = metrics_lib.Progress(
      start, training.num_steps, quiet=jax.process_index() > 0
    )
    stack.callback(progress.close)
    if start >= training.num_steps:
      progress.message(f'{workdir} is trained: {start} steps')
      state = layout.place(state)
      if restored is None:
        # No steps are asked for: what was started from is the result.
        state = refreshed(system, layout, state) if due else state
        checkpoints.save(start, layout.storable(state), record)
      return state
    if start:
      progress.message(f'{workdir}: going on after step {start}')
    best = None
    if evaluate_fn and training.keep_best:
      best = _Best(
        stack.enter_context(checkpoint.Checkpoints(workdir / 'best', keep=1)),
        anew=restored is None,
      )
    writers: list[Any] = []
    if jax.process_index() == 0:
      writers = [
        metrics_lib.Writer(workdir / 'metrics.jsonl', start),
        *(make(workdir, start, record or {}) for make in tracked),
      ]
    run = _Run(
      system=system,
      dataset=dataset,
      seed=seed,
      training=training,
      layout=layout,
      checkpoints=checkpoints,
      signals=signals,
      progress=progress,
      evaluate_fn=evaluate_fn,
      sample_fn=sample_fn,
      record=dict(record or {}),
      window=metrics_lib.Window(saved.get('window')),
      clock=metrics_lib.Clock(flops_per_token, peak and peak * num_devices),
      writers=[stack.enter_context(writer) for writer in writers],
      best=best,
      refresh_due=due,
      trace=stack.enter_context(tracing.Trace(workdir / 'profile', traced)),
    )
    step = functools.partial(
      step_lib.train_step,
      system=system,
      optimizer=updates,
      reduction=training.reduction,
      ema_decay=training.ema_decay,
      axis=layout.axis,
      accumulation=training.accumulation,
    )
    return run(layout.place(state), start, layout.compile_step(step))


def refreshed(
  system: base.System, layout: parallel.Layout, state: state_lib.TrainState
) -> state_lib.TrainState:
  """The state with `System.refresh` of its aux, the same on all processes."""
  assert system.refresh is not None
  aux = system.refresh(*layout.whole((state.params, state.aux)))
  if jax.process_count() > 1:
    # Each has made it; rounding may differ between computers.
    aux = multihost_utils.broadcast_one_to_all(aux)
  return dataclasses.replace(state, aux=layout.place(aux))


def prepared(
  prepare: Callable[..., Mapping[str, Any]],
  seed: int,
  step: int,
  batch: Mapping[str, Any],
) -> dict[str, Any]:
  """A batch with `System.prepare` applied to each of its examples.

  Args:
    prepare: `(seed, step, index, example) -> example`.
    seed: the run's.
    step: the batch's.
    batch: arrays `[b, ...]`, among them `index`, and scalars.

  Returns:
    The stacked examples, with the batch's scalars.
  """
  scalars = {name: x for name, x in batch.items() if np.ndim(x) == 0}
  arrays = {name: x for name, x in batch.items() if np.ndim(x)}
  examples = [
    prepare(seed, step, int(index), {name: x[i] for name, x in arrays.items()})
    for i, index in enumerate(batch['index'])
  ]
  stacked = jax.tree.map(lambda *rows: np.stack(rows), *examples)
  return {**stacked, **scalars}


class _Run:
  """A running training: what its parts share between steps."""

  def __init__(
    self,
    *,
    system: base.System,
    dataset: Any,
    seed: int,
    training: Any,
    layout: parallel.Layout,
    checkpoints: checkpoint.Checkpoints,
    signals: '_Signals',
    progress: metrics_lib.Progress,
    evaluate_fn: Callable[..., Mapping[str, Any]] | None,
    sample_fn: Callable[..., None] | None,
    record: dict[str, Any],
    window: metrics_lib.Window,
    clock: metrics_lib.Clock,
    writers: Sequence[Any],
    best: '_Best | None',
    refresh_due: bool,
    trace: tracing.Trace,
  ):
    self._system = system
    self._dataset = dataset
    self._seed = seed
    self._training = training
    self._layout = layout
    self._checkpoints = checkpoints
    self._signals = signals
    self._progress = progress
    self._evaluate_fn = evaluate_fn
    self._sample_fn = sample_fn
    self._record = record
    self._window = window
    self._clock = clock
    self._writers = writers
    self._best = best
    self._trace = trace
    self._refresh_due = refresh_due
    self._indices = parallel.local_indices(training.batch_size)
    self._step_tokens = 0
    self._pending: collections.deque[tuple[int, Any]] = collections.deque()

  def __call__(
    self,
    state: state_lib.TrainState,
    start: int,
    step_fn: Callable[..., Any],
  ) -> state_lib.TrainState:
    """Makes the steps after `start`; returns the last state."""
    training = self._training
    if self._window.steps and self._line_due(start):
      self._report(state, start)
    if self._refresh_due:
      state = refreshed(self._system, self._layout, state)
    with _Ahead(self._batch, start, training.num_steps) as batches:
      for number, batch in enumerate(batches, start + 1):
        if self._trace.starts(number):
          self._collect(0)
          self._trace.start()
        state, metrics = step_fn(state, batch)
        self._pending.append((number, metrics))
        self._progress.step()
        self._collect(_IN_FLIGHT)
        if self._trace.ends(number):
          self._collect(0)
          self._trace.stop()
        if self._system.refresh and _due(number, training.refresh_every):
          try:
            state = refreshed(self._system, self._layout, state)
          except BaseException:
            self._save(state, number, refresh_due=True)
            raise
        if self._line_due(number):
          self._report(state, number)
        if self._sample_fn and _due(number, training.sample_every):
          self._guarded(self._sample_fn, state, number)
        stopping = self._stopping(number)
        if (
          stopping
          or _due(number, training.checkpoint_every)
          or number == training.num_steps
        ):
          self._save(state, number)
        if stopping:
          break
    return state

  def _batch(self, step: int) -> PyTree:
    """This process's rows of a step's batch, on the devices."""
    batch = self._dataset.train_batch(
      self._seed, step, self._indices, self._training.batch_size
    )
    if self._system.prepare is not None:
      batch = prepared(self._system.prepare, self._seed, step, batch)
    self._step_tokens = self._training.batch_size * batch['tokens'].shape[-1]
    return self._layout.put(batch)

  def _line_due(self, number: int) -> bool:
    training = self._training
    return (
      _due(number, training.log_every)
      or number == training.num_steps
      or (self._evaluate_fn is not None and _due(number, training.eval_every))
    )

  def _collect(self, in_flight: int) -> None:
    """Takes in the metrics of all steps but the last `in_flight`."""
    while len(self._pending) > in_flight:
      number, metrics = self._pending.popleft()
      metrics = jax.device_get(metrics)
      self._clock.step_ended(self._step_tokens)
      if not metrics['finite']:
        raise NonFiniteError(self._non_finite(number, metrics))
      self._window.add(metrics)

  def _non_finite(self, number: int, metrics: Mapping[str, Any]) -> str:
    self._checkpoints.wait()
    steps = self._checkpoints.steps()
    values = {key: metrics[key] for key in ('loss', 'objective', 'grad_norm')}
    for name, (value, weight) in metrics['terms'].items():
      values[name] = value / weight if weight else float('nan')
    listed = ', '.join(f'{key} {value:.6g}' for key, value in values.items())
    last = (
      f'step {steps[-1]} in {self._checkpoints.folder}' if steps else 'none'
    )
    return (
      f'the loss or its gradient is not finite at step {number}: {listed}; '
      f'last good checkpoint: {last}'
    )

  def _report(self, state: state_lib.TrainState, number: int) -> None:
    """Writes the line of a step, with a validation where one is due."""
    self._collect(0)
    means = self._window.means()
    info = self._dataset.info
    loss = means.pop('loss')
    row = {'step': number, 'loss': loss}
    if self._system.bits_of is not None:
      nats = means.get('terms', {}).get(self._system.bits_of, loss)
      row['bpc'] = units.bits_per_character(
        nats, info.num_tokens['train'], info.num_characters['train']
      )
    row |= means
    if self._evaluate_fn and _due(number, self._training.eval_every):
      row['validation'] = self._guarded(self._evaluate_fn, state, number)
      if self._best is not None:
        self._best.offer(
          number, self._layout.storable(state), row['validation']
        )
    row['timing'] = self._clock.timing()
    for writer in self._writers:
      writer.write(row)
    self._progress.report(row)
    self._window = metrics_lib.Window()

  def _guarded(
    self, fn: Callable[..., Any], state: state_lib.TrainState, number: int
  ) -> Any:
    """Calls evaluation or sampling; should they fail, the state is saved."""
    self._collect(0)
    try:
      with self._clock.paused(), self._signals.interruptible():
        return fn(state.ema, state.aux, number)
    except BaseException:
      self._save(state, number)
      raise

  def _stopping(self, number: int) -> bool:
    if jax.distributed.is_initialized() and self._checkpoints.preempted(number):
      self._signals.received = signal.SIGTERM
    return self._signals.received is not None

  def _save(
    self,
    state: state_lib.TrainState,
    number: int,
    *,
    refresh_due: bool = False,
  ) -> None:
    # Nothing that is not finite is saved.
    self._collect(0)
    record = {**self._record, 'window': self._window.as_dict()}
    record |= {'refresh_due': True} if refresh_due else {}
    self._checkpoints.save(number, self._layout.storable(state), record)


class _Best:
  """The checkpoint with the lowest validation so far.

  Its own record says what it reached, so that it outlives any restart.
  """

  def __init__(self, checkpoints: checkpoint.Checkpoints, *, anew: bool):
    """Takes up what is there.

    Args:
      checkpoints: of a folder of its own.
      anew: the run starts from its first step: what is there is not of it.
    """
    found = None if anew else checkpoints.newest()
    checkpoints.discard_after(found[0] if found else -1)
    self._checkpoints = checkpoints
    self._lowest = found[1]['nats_per_token'] if found else math.inf
    self._measure = _measure(found[1]) if found else {}

  def offer(
    self,
    number: int,
    state: state_lib.TrainState,
    validation: Mapping[str, Any],
  ) -> None:
    """Saves a state if its validation is below all before of its measure."""
    value, measure = float(validation['nats_per_token']), _measure(validation)
    # What is measured may have changed since; old records do not say it.
    other = self._measure and measure != self._measure
    if value < self._lowest or other:
      self._lowest, self._measure = value, measure
      self._checkpoints.save(
        number, state, {'nats_per_token': value, **measure}
      )


def _measure(validation: Mapping[str, Any]) -> dict[str, Any]:
  """What a validation's nats are of; those of another are not compared."""
  told = {name: validation.get(name) for name in ('protocol', 'chain_steps')}
  return {name: value for name, value in told.items() if value}


def _due(number: int, every: int) -> bool:
  return every > 0 and number % every == 0
