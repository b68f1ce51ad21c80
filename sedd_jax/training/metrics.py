"""What a run reports: metrics.jsonl, a progress line, a loss curve, the MFU.

metrics.jsonl has one JSON object a line, in order of `step`, each with `loss`
(nats per token), `bpc` (of the loss, or of the term `System.bits_of`, if any),
`objective`, `grad_norm`, `learning_rate`, where due `validation`, and last
`timing`, which alone depends on the clock.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import jax

from sedd_jax.core import atomic

# Dense bfloat16 FLOP/s of a device as JAX counts devices, from the makers' data
# sheets; the longest name contained in `device_kind` counts.
PEAK_FLOPS = {
  'T4': 65e12,  # in float16, as V100: they have no bfloat16
  'V100': 125e12,
  'L4': 121e12,
  'L40S': 362e12,
  'A100': 312e12,
  'H100 PCIe': 756e12,
  'H100 NVL': 835e12,
  'H100': 989e12,
  'GH200': 989e12,
  'H200 NVL': 835e12,
  'H200': 989e12,
  'B200': 2250e12,
  'TPU v2': 22.5e12,  # a core, as v3; from v4 on a device is a chip
  'TPU v3': 61.5e12,
  'TPU v4': 275e12,
  'TPU v4 lite': 138e12,
  'TPU v5 lite': 197e12,
  'TPU v5e': 197e12,
  'TPU v5': 459e12,
  'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
  'TPU v6e': 918e12,
}


class MetricsError(ValueError):
  """A metrics.jsonl is damaged."""


def peak_flops(device_kind: str) -> float | None:
  """Dense bfloat16 FLOP/s of a kind of device, None where it is not known.

  Args:
    device_kind: `jax.Device.device_kind`.

  >>> peak_flops('NVIDIA H200')
  989000000000000.0
  >>> peak_flops('cpu') is None
  True
  """

  def words(name: str) -> str:
    # Whole words: an L40 is no L4.
    return f' {name.lower().replace("-", " ")} '

  def contained(name: str) -> bool:
    return words(name) in words(device_kind)

  found = [name for name in PEAK_FLOPS if contained(name)]
  return PEAK_FLOPS[max(found, key=len)] if found else None


# Parameters by the name of their part that do not meet every token: a lookup,
# and what a sequence's noise level goes through once.
_NOT_PER_TOKEN = (
  *('embed', 'label_embed', 'sigma_embed', 'modulation'),
  *('frame', 'positions', 'time', 'time_token'),
)


def num_parameters_per_token(params: Any) -> int:
  """Parameters that are multiplied with every token.

  Args:
    params: a tree of arrays or of their shapes, its parts named as those of
      `models.DiffusionTransformer` and `Bert`: embeddings of tokens, labels,
      places and noise, and modulations are left out.  A head without a kernel
      of its own multiplies by the embedding of the tokens.

  Returns:
    Their number.

  >>> import numpy as np
  >>> num_parameters_per_token({
  ...   'embed': np.zeros((5, 2)), 'head': {'kernel': np.zeros((2, 3))}
  ... })
  6
  """
  count = sum(
    leaf.size
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if not any(getattr(key, 'key', None) in _NOT_PER_TOKEN for key in path)
  )
  if 'head' in params and 'kernel' not in params['head']:
    count += sum(leaf.size for leaf in jax.tree.leaves(params.get('embed')))
  return count


def flops_per_token(
  num_parameters: int, num_layers: int, hidden_size: int, length: int
) -> float:
  """FLOPs of forward and backward pass of a transformer, a token.

    6 N + 12 L D T        (PaLM, arXiv 2204.02311, appendix B)

  N parameters take part in one multiply and one add forward and twice that
  backward; attention's two products over T tokens add 12 D T a layer.  What is
  computed again under rematerialisation is not counted.

  Args:
    num_parameters: N, those multiplied with every token, the output head among
      them (`num_parameters_per_token`).
    num_layers: L.
    hidden_size: D.
    length: T, tokens that attend to each other (all to all).

  Returns:
    FLOPs a token.

  >>> flops_per_token(1_000_000, 2, 100, 50)
  6120000.0
  """
  return 6.0 * num_parameters + 12.0 * num_layers * hidden_size * length


class Window:
  """Metrics of the steps since the last line, summed up on the host.

  Sums and weights are added and divided once, so that a line's loss is that of
  all tokens of its steps.
  """

  def __init__(self, saved: Mapping[str, Any] | None = None):
    """Starts empty, or as `saved` by `as_dict` beside a checkpoint."""
    saved = saved or {}
    self.steps: int = saved.get('steps', 0)
    self._sums: dict[str, float] = dict(saved.get('sums', {}))
    self._terms: dict[str, list[float]] = {
      name: list(pair) for name, pair in saved.get('terms', {}).items()
    }
    self._learning_rate: float = saved.get('learning_rate', 0.0)

  def add(self, metrics: Mapping[str, Any]) -> None:
    """Adds the metrics of a step, as `train_step` gives them, on the host."""
    self.steps += 1
    values = {
      'nats': metrics['sums']['nats'],
      'weight': metrics['sums']['weight'],
      'objective': metrics['objective'],
      'grad_norm': metrics['grad_norm'],
    }
    for name, value in values.items():
      self._sums[name] = self._sums.get(name, 0.0) + float(value)
    for name, (value, weight) in metrics['terms'].items():
      total = self._terms.setdefault(name, [0.0, 0.0])
      total[0] += float(value)
      total[1] += float(weight)
    self._learning_rate = float(metrics['learning_rate'])

  def as_dict(self) -> dict[str, Any]:
    """The sums as JSON, to go on from after a restart."""
    return {
      'steps': self.steps,
      'sums': dict(self._sums),
      'terms': {name: list(pair) for name, pair in self._terms.items()},
      'learning_rate': self._learning_rate,
    }

  def means(self) -> dict[str, Any]:
    """`loss`, `objective`, `grad_norm`, `learning_rate` and `terms`.

    A term without weight in all of the window is left out.

    Returns:
      The loss in nats per token; objective and gradient norm as means over
      steps; the learning rate of the last step; terms as Σ value / Σ weight.
    """
    sums = self._sums
    out = {
      'loss': sums['nats'] / sums['weight'],
      'objective': sums['objective'] / self.steps,
      'grad_norm': sums['grad_norm'] / self.steps,
      'learning_rate': self._learning_rate,
    }
    terms = {
      name: value / weight
      for name, (value, weight) in self._terms.items()
      if weight
    }
    return out | ({'terms': terms} if terms else {})


class Writer:
  """Appends to metrics.jsonl; a resumed run goes on after its restored step."""

  def __init__(self, path: str | os.PathLike, resume_step: int = 0):
    """Opens the file and drops the lines above the restored step.

    Also a line that a killed run left unfinished.  The shortened file takes the
    place of the old one in one move.

    Args:
      path: of metrics.jsonl.
      resume_step: the restored step; 0 starts anew.
    """
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    kept = [row for row in read(self._path) if row['step'] <= resume_step]
    if resume_step == 0:
      kept = []
    atomic.write_text(self._path, ''.join(_line(row) for row in kept))
    self._file = self._path.open('a')

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._file.close()

  def write(self, row: Mapping[str, Any]) -> None:
    """Appends a line; it is with the operating system on return."""
    self._file.write(_line(row))
    self._file.flush()


def _line(row: Mapping[str, Any]) -> str:
  # Scalars of numpy and JAX, in what an evaluation returns, become floats.
  return json.dumps(row, default=float) + '\n'


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """The lines of a metrics.jsonl; an unfinished last one is left out.

  Args:
    path: of the file; one that is not there has no lines.

  Yields:
    The objects, in order.

  Raises:
    MetricsError: a whole line is no JSON object with a step.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return
  with path.open(errors='replace') as file:
    for number, line in enumerate(file, 1):
      if not line.endswith('\n'):
        return
      try:
        row = json.loads(line)
        row['step']
      except (ValueError, KeyError, TypeError) as error:
        raise MetricsError(
          f'{path}, line {number}, is damaged: restore the file, or move it '
          'away to go on without it'
        ) from error
      yield row


class Clock:
  """Throughput since the last line, evaluation and first compilation left out.

  The first step of a process, which compiles, starts the clock.
  """

  def __init__(self, flops_per_token: float | None, peak: float | None):
    """Starts when the first step has ended.

    Args:
      flops_per_token: for the MFU; None: no MFU is reported.
      peak: FLOP/s of all devices together; None likewise.
    """
    self._flops_per_token = flops_per_token
    self._peak = peak
    self._opened = time.perf_counter()
    self._running: float | None = None
    self._seconds = 0.0
    self._tokens = 0

  def step_ended(self, tokens: int) -> None:
    """Counts the tokens of a step that has ended."""
    now = time.perf_counter()
    if self._running is not None:
      self._seconds += now - self._running
      self._tokens += tokens
    self._running = now

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out the time of the block; no step is in flight."""
    running, self._running = self._running, None
    yield
    if running is not None:
      self._running = time.perf_counter()

  def timing(self) -> dict[str, float]:
    """`seconds` in all since the last call, `tokens_per_second`, `mfu`.

    Throughput is left out where nothing was timed, the MFU (model FLOPs a
    second over the devices' peak) where FLOPs or peak are not known.
    """
    now = time.perf_counter()
    out = {'seconds': round(now - self._opened, 4)}
    if self._seconds:
      rate = self._tokens / self._seconds
      out['tokens_per_second'] = round(rate, 1)
      if self._flops_per_token and self._peak:
        out['mfu'] = round(rate * self._flops_per_token / self._peak, 4)
    self._opened, self._seconds, self._tokens = now, 0.0, 0
    return out


class Progress:
  """A bar on a terminal, a line at every report elsewhere."""

  def __init__(
    self,
    start: int,
    num_steps: int,
    stream: TextIO | None = None,
    quiet: bool = False,
  ):
    """Shows the run's place.

    Args:
      start: steps made already.
      num_steps: steps of the whole run.
      stream: where to; standard error by default.
      quiet: show nothing, as all processes but the first.
    """
    self._num_steps = num_steps
    self._stream = sys.stderr if stream is None else stream
    self._quiet = quiet
    self._bar = None
    if self._stream.isatty() and not quiet:
      # Late, as it serves terminals only.
      import tqdm

      self._bar = tqdm.tqdm(
        initial=start,
        total=num_steps,
        unit='step',
        file=self._stream,
        dynamic_ncols=True,
      )

  def step(self) -> None:
    """One more step is on its way."""
    if self._bar is not None:
      self._bar.update()

  def report(self, row: Mapping[str, Any]) -> None:
    """Shows a line of metrics.jsonl."""
    parts = [f'loss {row["loss"]:.4f}']
    parts += [
      f'{name} {value:.4f}' for name, value in row.get('terms', {}).items()
    ]
    if 'bpc' in row:
      parts.append(f'bpc {row["bpc"]:.4f}')
    rate = row['timing'].get('tokens_per_second')
    if rate:
      parts.append(f'{rate:,.0f} tokens/s')
    if self._bar is not None:
      self._bar.set_postfix_str(', '.join(parts))
    else:
      self.message(f'step {row["step"]}/{self._num_steps}: {", ".join(parts)}')
    if 'validation' in row:
      values = ', '.join(
        f'{name} {value:.4f}'
        for name, value in row['validation'].items()
        if isinstance(value, float)
      )
      self.message(f'step {row["step"]}: validation {values}')

  def message(self, text: str) -> None:
    """A line of its own."""
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    elif not self._quiet:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Ends the bar."""
    if self._bar is not None:
      self._bar.close()


def plot_loss(
  metrics_path: str | os.PathLike, image_path: str | os.PathLike
) -> bool:
  """Draws bits a character over steps, of training and validation, as PNG.

  Where the loss is no likelihood's, it is drawn as it is.

  Args:
    metrics_path: of metrics.jsonl; a validation needs `bits_per_character`.
    image_path: of the picture.

  Returns:
    Whether there was anything to draw.
  """
  rows = list(read(metrics_path))
  if not rows:
    return False
  # Late: importing matplotlib takes a second.  The figure is drawn without
  # pyplot, so that a notebook's or a user's backend stays as it is.
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  canvas = figure.Figure(figsize=(7, 4), layout='constrained')
  backend_agg.FigureCanvasAgg(canvas)
  axes = canvas.add_subplot()
  in_bits = 'bpc' in rows[0]
  # A line of many steps is a curve, of a few a row of points.
  axes.plot(
    [row['step'] for row in rows],
    [row['bpc' if in_bits else 'loss'] for row in rows],
    '.-' if len(rows) < 40 else '-',
    color='#4477aa',
    label='training loss',
  )
  validated = [
    row for row in rows if 'bits_per_character' in row.get('validation', {})
  ]
  if in_bits and validated:
    axes.plot(
      [row['step'] for row in validated],
      [row['validation']['bits_per_character'] for row in validated],
      'o-',
      color='#cc5522',
      label='validation bound',
    )
  axes.set_xlabel('step')
  axes.set_ylabel('bits per character' if in_bits else 'loss')
  axes.grid(alpha=0.3)
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(frameon=False)
  canvas.savefig(image_path, dpi=150)
  return True
