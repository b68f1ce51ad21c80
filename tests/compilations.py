"""Whether something is compiled."""

import contextlib
from collections.abc import Iterator

import jax

EVENT = '/jax/core/compile/backend_compile_duration'


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
  """The compilations in this block; a new program is shown to be heard."""
  events: list[str] = []

  def listen(name, duration, **kwargs):
    del duration, kwargs
    if name == EVENT:
      events.append(name)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    # A closure of its own has never been compiled in this process.
    jax.jit(lambda x: x + 1)(1.0)
    assert events
    events.clear()
    yield events
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
