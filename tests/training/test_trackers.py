import sys
import types

import pytest

from sedd_jax.training import trackers

ROW = {
  'step': 3,
  'loss': 1.5,
  'validation': {'split': 'validation', 'nats_per_token': 2.0},
  'timing': {'seconds': 1},
}
NUMBERS = {
  'loss': 1.5,
  'validation/nats_per_token': 2.0,
  'timing/seconds': 1.0,
}


class Recorder:
  """Stands for tensorboardX and for wandb: keeps what it is told."""

  def __init__(self):
    self.calls = []

  def __getattr__(self, name):
    def call(*args, **kwargs):
      self.calls.append((name, args, kwargs))
      return self

    return call

  def named(self, name):
    return [call for call in self.calls if call[0] == name]


@pytest.fixture
def packages(monkeypatch):
  found = {}
  for name in ('tensorboardX', 'wandb'):
    found[name] = Recorder()
    module = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace(name=name)
    module.SummaryWriter = found[name].SummaryWriter
    module.init = found[name].init
    monkeypatch.setitem(sys.modules, name, module)
  return found


def test_tensorboard(packages, tmp_path):
  (kind,) = trackers.named('tensorboard')
  with kind(tmp_path, 0, {}) as tracker:
    tracker.write(ROW)
  recorder = packages['tensorboardX']
  assert {args[0]: args[1] for _, args, _ in recorder.named('add_scalar')} == (
    NUMBERS
  )
  assert {args[2] for _, args, _ in recorder.named('add_scalar')} == {3}
  assert recorder.named('SummaryWriter')[0][2] == {'purge_step': None}
  assert recorder.calls[-1][0] == 'close'
  # A run that goes on takes the points after its checkpoint back.
  with kind(tmp_path, 5, {}):
    pass
  assert recorder.named('SummaryWriter')[1][2] == {'purge_step': 6}


def test_wandb_goes_on_with_the_same_run(packages, tmp_path):
  kinds = trackers.named('tensorboard, wandb')
  assert len(kinds) == 2
  for step in (0, 5, 0):
    with kinds[1](tmp_path, step, {'seed': 1}) as tracker:
      tracker.write(ROW)
  recorder = packages['wandb']
  started = [kwargs for _, _, kwargs in recorder.named('init')]
  assert started[0]['id'] == started[1]['id'] != started[2]['id']
  assert started[0]['config'] == {'seed': 1}
  name, args, kwargs = recorder.named('log')[0]
  assert args == (NUMBERS,) and kwargs == {'step': 3}
  assert len(recorder.named('finish')) == 3


def test_unknown_and_missing(monkeypatch):
  with pytest.raises(ValueError, match="'tensorbord'.*tensorboard"):
    trackers.named('tensorbord')
  monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'wandb.*sedd_jax\[tracking\]'):
    trackers.named('wandb')
