import functools
import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.training import checkpoint, optimizer, parallel, state
from tests.training import toys


@pytest.fixture(autouse=True)
def absl_logs(caplog):
  """absl's own logger does not pass records on by itself."""
  logger = logging.getLogger('absl')
  logger.addHandler(caplog.handler)
  yield
  logger.removeHandler(caplog.handler)


def make_state(step, name='adamw'):
  """A state whose every leaf depends on the step."""
  updates = optimizer.make(name, learning_rate=0.1)
  system = toys.remembering(8)
  fresh = state.create(system.init, updates, seed=step)

  def shift(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return leaf
    return leaf + jnp.asarray(step, leaf.dtype)

  return jax.tree.map(shift, fresh)


def words(leaf):
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return np.asarray(jax.random.key_data(leaf))
  return np.asarray(leaf)


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(words(a), words(b)),
    found,
    expected,
  )


TEMPLATE = parallel.abstract(make_state(0))


def save(folder, *steps, keep=9):
  with checkpoint.Checkpoints(folder, keep=keep) as checkpoints:
    for step in steps:
      checkpoints.save(step, make_state(step), {'note': f'step {step}'})


def restore(folder, template=TEMPLATE):
  with checkpoint.Checkpoints(folder, keep=9) as checkpoints:
    return checkpoints.restore(template)


def largest(folder):
  files = [path for path in pathlib.Path(folder).rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip_bit(path, place=0.5):
  data = bytearray(path.read_bytes())
  data[int(len(data) * place)] ^= 1
  path.write_bytes(data)


def test_round_trip(tmp_path):
  save(tmp_path, 3, 7)
  found, record = restore(tmp_path)
  assert_same(found, make_state(7))
  assert record == {'note': 'step 7'}
  assert isinstance(found.params['embed'], np.ndarray)
  assert jax.dtypes.issubdtype(found.key.dtype, jax.dtypes.prng_key)


def test_nothing_saved(tmp_path):
  assert restore(tmp_path / 'new') is None
  read_only = checkpoint.Checkpoints(tmp_path / 'none', read_only=True)
  assert read_only.restore(TEMPLATE) is None
  assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('saved_on, restored_on', [(8, 2), (1, 4)])
def test_other_number_of_devices(tmp_path, saved_on, restored_on):
  layout = parallel.make('pmap', jax.devices()[:saved_on])
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(5, layout.storable(layout.place(make_state(5))))
  other = parallel.make('pmap', jax.devices()[:restored_on])
  found, _ = restore(tmp_path, other.template(TEMPLATE))
  placed = other.place(found)
  assert_same(placed, make_state(5))
  assert len(placed.ema['embed'].sharding.device_set) == restored_on


def test_explicit_shardings(tmp_path):
  save(tmp_path, 5)
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ('data',))

  def place(leaf):
    rows = leaf.shape and leaf.shape[0] % 4 == 0
    spec = jax.sharding.PartitionSpec('data' if rows else None)
    if not leaf.shape:
      spec = jax.sharding.PartitionSpec()
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  found, _ = restore(tmp_path, jax.tree.map(place, TEMPLATE))
  assert_same(found, make_state(5))
  assert len(found.params['head'].addressable_shards) == 4
  assert found.params['head'].addressable_shards[0].data.shape[0] == 1


def test_ema_alone(tmp_path):
  save(tmp_path, 4)
  before = sorted(path.name for path in tmp_path.iterdir())
  checkpoints = checkpoint.Checkpoints(tmp_path, read_only=True)
  ema, aux, step, record = checkpoints.restore_ema(
    TEMPLATE.params, TEMPLATE.aux
  )
  assert_same(ema, make_state(4).ema)
  assert_same(aux, make_state(4).aux)
  assert (step, record) == (4, {'note': 'step 4'})
  # Where aux is of another shape, or not wanted.
  ema, aux, _, _ = checkpoints.restore_ema(TEMPLATE.params, None)
  assert_same(ema, make_state(4).ema)
  assert aux is None
  assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_newest_are_kept(tmp_path):
  save(tmp_path, 1, 2, 5, 9, keep=2)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['5', '9']


def test_saving_a_step_again_changes_nothing(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, make_state(1))
    checkpoints.save(1, make_state(2))
  assert_same(restore(tmp_path)[0], make_state(1))


def test_save_is_safe_from_donation(tmp_path):
  layout = parallel.make('pmap', jax.devices()[:2])
  overwrite = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0
  )
  placed = layout.place(make_state(6))
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(6, layout.storable(placed))
    overwrite(placed.params)
  assert_same(restore(tmp_path)[0].params, make_state(6).params)


def test_record_is_that_of_the_call(tmp_path, monkeypatch):
  """It is written in the background, while the caller goes on."""
  record = {'window': {'sums': [1]}}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    save_late = checkpoints._manager.save

    def save_after_a_change(step, *, args, force):
      record['window']['sums'].append(2)
      return save_late(step, args=args, force=force)

    monkeypatch.setattr(checkpoints._manager, 'save', save_after_a_change)
    checkpoints.save(1, make_state(1), record)
  assert record == {'window': {'sums': [1, 2]}}
  assert restore(tmp_path)[1] == {'window': {'sums': [1]}}


@pytest.mark.parametrize('place', [0.0, 0.3, 0.5, 0.9, 0.999])
def test_flipped_bit_falls_back(tmp_path, caplog, place):
  save(tmp_path, 1, 2)
  flip_bit(largest(tmp_path / '2' / 'state'), place)
  found, record = restore(tmp_path)
  assert_same(found, make_state(1))
  assert record == {'note': 'step 1'}
  assert 'SHA-256 differs' in caplog.text
  assert str(tmp_path / '2') in caplog.text


def test_lost_and_shortened_files_fall_back(tmp_path, caplog):
  save(tmp_path, 1, 2, 3)
  largest(tmp_path / '3').unlink()
  short = largest(tmp_path / '2')
  short.write_bytes(short.read_bytes()[:-1])
  assert_same(restore(tmp_path)[0], make_state(1))
  assert 'is missing' in caplog.text
  assert 'bytes' in caplog.text


def test_damaged_manifest_falls_back(tmp_path):
  save(tmp_path, 1, 2)
  (tmp_path / '2' / checkpoint.MANIFEST).write_text('{"files": ')
  assert_same(restore(tmp_path)[0], make_state(1))


def test_all_damaged_is_an_error_and_not_a_new_start(tmp_path):
  save(tmp_path, 1, 2)
  for step in '12':
    flip_bit(largest(tmp_path / step))
  with pytest.raises(
    checkpoint.CheckpointError, match='every .*(1:.*2:|2:.*1:)'
  ):
    restore(tmp_path)


def test_unsealed_checkpoint_does_not_count(tmp_path, caplog):
  """A run killed between Orbax's end and the manifest."""
  save(tmp_path, 1, 2)
  (tmp_path / '2' / checkpoint.MANIFEST).unlink()
  assert_same(restore(tmp_path)[0], make_state(1))
  assert 'not saved to its end' in caplog.text
  # The first one of a run, alone: it begins anew.
  shutil.rmtree(tmp_path / '1')
  assert restore(tmp_path) is None


def test_several_without_manifests_are_damage(tmp_path):
  """No kill leaves them so: nothing begins anew over them."""
  save(tmp_path, 1, 2)
  for step in '12':
    (tmp_path / step / checkpoint.MANIFEST).unlink()
  with pytest.raises(checkpoint.CheckpointError, match='manifest.* missing'):
    restore(tmp_path)


def test_discarded_steps_can_be_saved_anew(tmp_path):
  save(tmp_path, 1, 2)
  flip_bit(largest(tmp_path / '2'))
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.restore(TEMPLATE)
    checkpoints.discard_after(1)
    assert checkpoints.steps() == [1]
    checkpoints.save(2, make_state(2))
  assert_same(restore(tmp_path)[0], make_state(2))


def test_leftovers_of_killed_runs_are_removed(tmp_path):
  save(tmp_path, 1)
  (tmp_path / 'trash' / '0').mkdir(parents=True)
  (tmp_path / '2.orbax-checkpoint-tmp').mkdir()
  save(tmp_path, 2)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['1', '2']


def test_a_checkpoint_is_renamed_before_it_is_deleted(tmp_path, monkeypatch):
  """At no moment a listed checkpoint lacks files."""
  save(tmp_path, 1, 2)
  seen = []

  def interrupted(folder, **options):
    del options
    seen.append(sorted(path.name for path in pathlib.Path(folder).iterdir()))

  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    monkeypatch.setattr(checkpoint.shutil, 'rmtree', interrupted)
    checkpoints.discard_after(1)
  assert seen == [['2']]
  assert not (tmp_path / '2').exists()


def test_failed_save_is_raised(tmp_path, monkeypatch):
  def fail(path):
    raise OSError(f'disk full: {path}')

  monkeypatch.setattr(checkpoint, '_write_manifest', fail)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1))
  with pytest.raises(OSError, match='disk full'):
    checkpoints.close()


def test_old_ones_stay_until_the_new_one_is_whole(tmp_path, monkeypatch):
  save(tmp_path, 1)

  def fail(path):
    raise OSError('killed')

  monkeypatch.setattr(checkpoint, '_write_manifest', fail)
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
  checkpoints.save(2, make_state(2))
  with pytest.raises(OSError, match='killed'):
    checkpoints.close()
  assert_same(restore(tmp_path)[0], make_state(1))


def test_another_models_checkpoint(tmp_path):
  save(tmp_path, 1)
  resize = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  params = TEMPLATE.params | {'head': resize((4, 9))}
  checkpoints = checkpoint.Checkpoints(tmp_path, read_only=True)
  with pytest.raises(checkpoint.CheckpointError, match=r"'head'.*\[4, 7\]"):
    checkpoints.restore_ema(params, TEMPLATE.aux)


def test_manifest_lists_every_file(tmp_path):
  save(tmp_path, 1)
  listed = json.loads((tmp_path / '1' / checkpoint.MANIFEST).read_text())
  present = {
    path.relative_to(tmp_path / '1').as_posix()
    for path in (tmp_path / '1').rglob('*')
    if path.is_file()
  }
  assert set(listed['files']) == present - {checkpoint.MANIFEST}
  assert len(present) > 5


def test_keep_at_least_one(tmp_path):
  with pytest.raises(ValueError, match='at least one'):
    checkpoint.Checkpoints(tmp_path, keep=0)
