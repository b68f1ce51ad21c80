"""A profiler's trace of some steps of a run."""

import os
import re
from typing import Any

import jax


def steps_of(text: str) -> tuple[int, int] | None:
  """First and last step of a text such as '10-20'.

  Args:
    text: two step numbers from 1 on with a dash between; empty for none.

  Returns:
    The steps, both of them traced, or None.

  Raises:
    ValueError: the text is something else.

  >>> steps_of('10-20')
  (10, 20)
  """
  if not text:
    return None
  match = re.fullmatch(r'(\d+)-(\d+)', text.strip())
  first, last = map(int, match.groups()) if match else (0, 0)
  if not 1 <= first <= last:
    raise ValueError(
      "training.profile takes the first and last step to trace, as '10-20', "
      f'not {text!r}'
    )
  return first, last


class Trace:
  """Writes what the devices do in some steps, for TensorBoard or Perfetto."""

  def __init__(self, folder: str | os.PathLike, steps: tuple[int, int] | None):
    """Waits for the first step.

    Args:
      folder: gets the trace.
      steps: first and last step; None for no trace.
    """
    self._folder = os.fspath(folder)
    self._steps = steps
    self._last = steps[1] if steps else 0
    self._running = False

  def __enter__(self) -> 'Trace':
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._stop()

  def starts(self, number: int) -> bool:
    """Whether a step is the first to be traced, also in a run that goes on."""
    if self._steps is None or self._running:
      return False
    return self._steps[0] <= number <= self._steps[1]

  def start(self) -> None:
    """Starts; no step should be in flight."""
    jax.profiler.start_trace(self._folder)
    self._running = True

  def ends(self, number: int) -> bool:
    """Whether a step is the last to be traced."""
    return (
      self._running and self._steps is not None and number >= self._steps[1]
    )

  def stop(self) -> None:
    """Writes the trace; no step should be in flight."""
    self._stop()
    self._steps = None

  def _stop(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
