"""Metrics to TensorBoard and Weights & Biases, beside metrics.jsonl.

Both come with the extra `tracking` and are imported when they are asked for.
A tracker has `write(row)` and is a context manager, as `metrics.Writer`.
"""

import importlib.util
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from sedd_jax.core import names

_ID_FILE = 'wandb_id.txt'


def scalars(row: Mapping[str, Any], prefix: str = '') -> Iterator[Any]:
  """The numbers of a line of metrics.jsonl under names with slashes.

  Args:
    row: the line; what is neither number nor mapping is left out.
    prefix: of all names.

  Yields:
    Pairs of name and float.

  >>> list(scalars({'step': 2, 'loss': 1.5, 'timing': {'seconds': 3}}))
  [('loss', 1.5), ('timing/seconds', 3.0)]
  """
  for name, value in row.items():
    if isinstance(value, Mapping):
      yield from scalars(value, f'{prefix}{name}/')
    elif isinstance(value, int | float) and not isinstance(value, bool):
      if prefix or name != 'step':
        yield f'{prefix}{name}', float(value)


class TensorBoard:
  """Event files in `<workdir>/tensorboard`, by tensorboardX."""

  package = 'tensorboardX'

  def __init__(
    self, workdir: pathlib.Path, step: int, config: Mapping[str, Any]
  ):
    """Opens the files.

    Args:
      workdir: the run's folder.
      step: the step a run goes on after; later points are taken back.
      config: of the run; not written.
    """
    del config
    import tensorboardX

    self._writer = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=step + 1 if step else None
    )

  def __enter__(self) -> 'TensorBoard':
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._writer.close()

  def write(self, row: Mapping[str, Any]) -> None:
    """Adds the numbers of a line."""
    for name, value in scalars(row):
      self._writer.add_scalar(name, value, row['step'])


class WeightsAndBiases:
  """A run of the project `sedd_jax`; the variables WANDB_* set all else."""

  package = 'wandb'

  def __init__(
    self, workdir: pathlib.Path, step: int, config: Mapping[str, Any]
  ):
    """Starts the run, or goes on with the one of this folder.

    Args:
      workdir: the run's folder; keeps the run's id.
      step: the step a run goes on after; 0 starts a run of its own.
      config: of the run, shown beside it.
    """
    import wandb

    identity = workdir / _ID_FILE
    if step == 0 or not identity.is_file():
      identity.write_text(uuid.uuid4().hex)
    self._run = wandb.init(
      project='sedd_jax',
      name=workdir.name,
      dir=str(workdir),
      id=identity.read_text(),
      resume='allow',
      config=dict(config),
    )

  def __enter__(self) -> 'WeightsAndBiases':
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._run.finish(exit_code=0 if exc_info[0] is None else 1)

  def write(self, row: Mapping[str, Any]) -> None:
    """Logs the numbers of a line."""
    self._run.log(dict(scalars(row)), step=row['step'])


TRACKERS: dict[str, Any] = {
  'tensorboard': TensorBoard,
  'wandb': WeightsAndBiases,
}


def named(text: str) -> list[Any]:
  """The trackers of a list of names.

  Args:
    text: names of `TRACKERS` with commas between; empty for none.

  Returns:
    Their classes.

  Raises:
    ValueError: an unknown name, or a package that is not installed.

  >>> named('')
  []
  """
  found = []
  for name in filter(None, (part.strip() for part in text.split(','))):
    tracker = names.resolve(TRACKERS, name, 'tracker')
    if importlib.util.find_spec(tracker.package) is None:
      raise ValueError(
        f'training.trackers: {name} needs the package {tracker.package}: '
        "pip install 'sedd_jax[tracking]'"
      )
    found.append(tracker)
  return found
