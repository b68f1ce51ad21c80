import functools
import pathlib
import re

import jax
import numpy as np
import pytest

from sedd_jax.training import optimizer, parallel, state, step
from tests.training import toys

STEPS = 3


def run(num_devices, accumulation=1, reduction='token', layout='pmap'):
  """Losses and last state of some steps with SGD."""
  system = toys.remembering(8)
  layout = parallel.make(layout, jax.devices()[:num_devices])
  updates = optimizer.make('sgd', learning_rate=0.5, clip_norm=1.0)
  train_step = layout.compile_step(
    functools.partial(
      step.train_step,
      system=system,
      optimizer=updates,
      reduction=reduction,
      ema_decay=0.9,
      axis=layout.axis,
      accumulation=accumulation,
    )
  )
  carried = layout.place(state.create(system.init, updates, 0))
  losses = []
  for number in range(STEPS):
    batch = layout.put(toys.batch(step=number))
    carried, metrics = train_step(carried, batch)
    losses.append(float(metrics['loss']))
  return losses, jax.device_get((carried.params, carried.ema, carried.aux))


@functools.cache
def reference(reduction):
  return run(1, reduction=reduction)


@pytest.mark.parametrize('layout', parallel.PARALLELISM)
@pytest.mark.parametrize(
  'num_devices, accumulation, reduction',
  [
    (1, 2, 'sequence'),
    (1, 4, 'token'),
    (2, 1, 'sequence'),
    (2, 2, 'token'),
    (4, 1, 'token'),
    (4, 2, 'sequence'),
    (8, 1, 'sequence'),
    (8, 1, 'token'),
  ],
)
def test_layout_changes_nothing(num_devices, accumulation, reduction, layout):
  losses, tree = run(num_devices, accumulation, reduction, layout)
  expected_losses, expected = reference(reduction)
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, tree, expected)


def test_losses_tell_the_reductions_apart():
  """The comparison above is not one of equal things."""
  first, second = reference('token')[0], reference('sequence')[0]
  assert abs(first[-1] - second[-1]) > 1e-4


@pytest.mark.parametrize('name', parallel.PARALLELISM)
def test_one_compilation_and_donation(name):
  layout = parallel.make(name, jax.devices()[:4])
  updates = optimizer.make('adamw', learning_rate=0.1)
  traces = []

  def train_step(carried, batch):
    traces.append(1)
    return step.train_step(
      carried,
      batch,
      system=toys.SYSTEM,
      optimizer=updates,
      reduction='token',
      ema_decay=0.9,
      axis=layout.axis,
    )

  compiled = layout.compile_step(train_step)
  compilations = []

  def listen(event, duration, **kwargs):
    del duration, kwargs
    if event == '/jax/core/compile/backend_compile_duration':
      compilations.append(event)

  carried = layout.place(state.create(toys.init, updates, 0))
  batches = [layout.put(toys.batch(step=number)) for number in range(3)]
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for batch in batches:
      before, (carried, _) = carried, compiled(carried, batch)
      assert before.params['embed'].is_deleted()
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert len(traces) == 1
  assert len(compilations) == 1


@pytest.mark.parametrize('name', parallel.PARALLELISM)
def test_state_has_no_device_axis(name):
  layout = parallel.make(name, jax.devices()[:4])
  updates = optimizer.make('sgd', learning_rate=0.1)
  carried = state.create(toys.init, updates, 0)
  placed = layout.place(carried)
  shapes = jax.tree.map(lambda x: x.shape, carried)
  assert jax.tree.map(lambda x: x.shape, placed) == shapes
  assert len(placed.params['embed'].sharding.device_set) == 4
  held = {'pmap': 1, 'fsdp': 4}[name]
  for leaf in jax.tree.leaves((placed.params, placed.ema)):
    (size,) = {shard.data.size for shard in leaf.addressable_shards}
    assert size * held == leaf.size
  whole = layout.whole(placed)
  jax.tree.map(np.testing.assert_array_equal, whole.params, carried.params)
  assert isinstance(whole.params['embed'], np.ndarray)


def test_sharded_state_stays_sharded():
  """Optimizer moments too, after a step; what does not divide is replicated."""
  layout = parallel.make('fsdp', jax.devices()[:4])
  updates = optimizer.make('adamw', learning_rate=0.1)
  carried = layout.place(state.create(toys.init, updates, 0))
  placed = jax.tree.map(lambda x: x.sharding, carried)
  train_step = layout.compile_step(
    functools.partial(
      step.train_step,
      system=toys.SYSTEM,
      optimizer=updates,
      reduction='token',
      ema_decay=0.9,
    )
  )
  after, _ = train_step(carried, layout.put(toys.batch()))
  assert jax.tree.map(lambda x: x.sharding, after) == placed
  split = [
    leaf
    for leaf in jax.tree.leaves(after.opt_state)
    if leaf.shape in ((toys.VOCAB, toys.WIDTH), (toys.WIDTH, toys.VOCAB))
  ]
  assert len(split) == 4
  assert not any(leaf.sharding.is_fully_replicated for leaf in split)
  assert after.step.sharding.is_fully_replicated


def test_template_restores_to_shards():
  layout = parallel.make('fsdp', jax.devices()[:4])
  carried = state.create(toys.init, optimizer.make('sgd', learning_rate=1.0), 0)
  template = layout.template(jax.eval_shape(lambda: carried))
  placed = layout.place(carried)
  assert jax.tree.map(lambda x: x.sharding, template) == jax.tree.map(
    lambda x: x.sharding, placed
  )


@pytest.mark.parametrize('name', parallel.PARALLELISM)
@pytest.mark.parametrize('num_devices', [1, 2, 8])
def test_compile_rows(num_devices, name):
  """Every row once, in order, whatever the devices; padding rows as well."""
  layout = parallel.make(name, jax.devices()[:num_devices])
  params, aux = toys.init(jax.random.key(1))
  batch = toys.batch() | {'count': np.int32(5)}
  expected = toys.bound(params, aux, jax.random.key(2), batch)
  rows = layout.compile_rows(toys.bound)
  found = rows(layout.place(params), aux, jax.random.key(2), batch)
  assert isinstance(found.nats, np.ndarray)
  assert found.nats.shape == (8,)
  np.testing.assert_allclose(found.nats, expected.nats, rtol=1e-5)
  np.testing.assert_allclose(found.terms['all'], expected.nats, rtol=1e-5)
  np.testing.assert_array_equal(found.weight, expected.weight)


@pytest.mark.parametrize(
  'batch_size, devices, accumulation, nearest',
  [(12, 8, 1, '8, 16'), (3, 2, 4, '8'), (0, 2, 1, '2'), (10, 2, 2, '8, 12')],
)
def test_batch_size_that_does_not_divide(
  batch_size, devices, accumulation, nearest
):
  message = (
    f'a batch of {batch_size} sequences .* into {devices * accumulation} '
    f'parts .*{devices} devices x {accumulation} .*: {re.escape(nearest)}$'
  )
  with pytest.raises(ValueError, match=message):
    parallel.check_batch_size(batch_size, devices, accumulation)


def test_batch_size_that_divides():
  parallel.check_batch_size(48, 8, 3)


@pytest.mark.parametrize('name', parallel.PARALLELISM)
def test_put_names_what_does_not_divide(name):
  layout = parallel.make(name, jax.devices()[:8])
  with pytest.raises(ValueError, match="6 rows of 'tokens' .* 8 devices"):
    layout.put(toys.batch(6))


def test_local_indices_are_a_partition():
  parts = [parallel.local_indices(12, index, 3) for index in range(3)]
  np.testing.assert_array_equal(np.concatenate(parts), np.arange(12))
  assert parts[1].dtype == np.int32
  with pytest.raises(ValueError, match='12 sequences .* 5 processes'):
    parallel.local_indices(12, 0, 5)


def test_pmap_is_said_in_one_file():
  package = pathlib.Path(parallel.__file__).parents[1]
  sayers = {
    path.name
    for path in package.rglob('*.py')
    if re.search(r'\bpmap\(|shard_map', path.read_text())
  }
  assert sayers == {'parallel.py'}


def test_unknown_parallelism():
  with pytest.raises(ValueError, match="'pmpa'.*pmap"):
    parallel.make('pmpa')
