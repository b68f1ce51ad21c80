import pytest

from sedd_jax.training import tracing


@pytest.mark.parametrize('text', ['5', '0-3', '4-2', 'a-b', '1-2-3', '-'])
def test_mistakes(text):
  with pytest.raises(ValueError, match="'10-20'"):
    tracing.steps_of(text)


def test_steps():
  assert tracing.steps_of('') is None
  assert tracing.steps_of('7-7') == (7, 7)


@pytest.mark.parametrize('first', [1, 3])
def test_a_trace_spans_its_steps_once(tmp_path, monkeypatch, first):
  """Also where a run goes on in the middle of them."""
  calls = []
  profiler = tracing.jax.profiler
  monkeypatch.setattr(profiler, 'start_trace', lambda f: calls.append(f))
  monkeypatch.setattr(profiler, 'stop_trace', lambda: calls.append('stop'))
  seen = []
  with tracing.Trace(tmp_path, (2, 4)) as trace:
    for number in range(first, 8):
      if trace.starts(number):
        trace.start()
        seen.append(number)
      if trace.ends(number):
        trace.stop()
        seen.append(number)
  assert seen == [max(first, 2), 4]
  assert calls == [str(tmp_path), 'stop']


def test_an_unfinished_trace_is_written(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(tracing.jax.profiler, 'start_trace', calls.append)
  monkeypatch.setattr(
    tracing.jax.profiler, 'stop_trace', lambda: calls.append('stop')
  )
  with tracing.Trace(tmp_path, (1, 9)) as trace:
    assert trace.starts(1)
    trace.start()
  assert calls == [str(tmp_path), 'stop']
