"""How a step is spread over devices and processes.

The only file that says `pmap`.  A layout places state and batches and compiles
functions of them; step, loop and evaluation know nothing of devices.  Each
process reads its own stretch of the global batch (`local_indices`), each of its
devices a stretch of that, and since noise hangs on the global index alone, the
layout changes no result but for the order of sums.

- `pmap`: every device holds the state and computes on its rows.
- `fsdp`: every device holds a part of each array of the state, too; XLA gathers
  parameters where they are used and spreads the gradients' sums.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from sedd_jax.core import names

PyTree = Any
HostBatch = Mapping[str, Any]

_AXIS = 'data'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """One way to spread a program over devices.

  Attributes:
    devices: those of this process.
    axis: what `train_step` gets as `axis`.
    place: `(tree) -> tree`: parameters or a state onto the devices, from host
      arrays or others.  What is placed already is not copied.
    put: `(host_batch) -> batch`: this process's rows onto the devices.
    compile_step: `(step) -> (state, batch) -> (state, metrics)` for a step
      without keyword arguments; the state is placed, and donated; the batch
      comes from `put`.
    compile_rows: `(fn) -> (params, aux, key, host_batch) -> tree`, for an `fn`
      of params, aux, key and batch that gives a tree of `[b, ...]`, such as
      `System.bound`.  The result is in numpy, has the rows of all processes in
      order, and is the same on each; params and aux are placed.
    whole: `(tree) -> tree`: placed arrays as numpy arrays, host arrays as they
      are; with several processes, all must call it.
    storable: `(tree) -> tree`: what a checkpoint can save.
    template: `(abstract tree) -> tree`: how a checkpoint restores it: leaves
      with a sharding as such arrays, others as numpy arrays.
  """

  devices: tuple[jax.Device, ...]
  axis: str | None
  place: Callable[[PyTree], PyTree]
  put: Callable[[HostBatch], PyTree]
  compile_step: Callable[..., Callable[..., Any]]
  compile_rows: Callable[..., Callable[..., Any]]
  whole: Callable[[PyTree], PyTree]
  storable: Callable[[PyTree], PyTree]
  template: Callable[[PyTree], PyTree]


def pmap(devices: Sequence[jax.Device]) -> Layout:
  """Data parallelism: every device holds the state and a share of the rows.

  Args:
    devices: of this process; with several processes, all of them.

  Returns:
    A layout whose state has no device axis.
  """
  devices = tuple(devices)
  mesh = jax.sharding.Mesh(np.asarray(devices), (_AXIS,))
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  by_device = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(_AXIS)
  )
  # Axes, donation and placement as here compile once; a state that is not
  # committed to the devices before its first step would compile twice.
  options: dict[str, Any] = {'axis_name': _AXIS, 'out_axes': None}
  if jax.process_count() == 1:
    options['devices'] = devices

  def put(batch: HostBatch) -> PyTree:
    def share(name: str, x: Any) -> np.ndarray:
      x = np.asarray(x)
      if x.ndim == 0:
        return np.broadcast_to(x, (len(devices),))
      _check_rows(name, x, len(devices))
      return x.reshape(len(devices), len(x) // len(devices), *x.shape[1:])

    shared = {name: share(name, x) for name, x in batch.items()}
    return jax.device_put(shared, by_device)

  def compile_step(step: Callable[..., Any]) -> Callable[..., Any]:
    return jax.pmap(step, in_axes=(None, 0), donate_argnums=0, **options)

  def compile_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
    def gathered(params, aux, key, batch):
      rows = fn(params, aux, key, batch)
      return jax.lax.all_gather(rows, _AXIS, tiled=True)

    mapped = jax.pmap(gathered, in_axes=(None, None, None, 0), **options)

    def evaluate(params, aux, key, batch):
      return jax.device_get(mapped(params, aux, place(key), put(batch)))

    return evaluate

  def place(tree: PyTree) -> PyTree:
    return jax.device_put(tree, replicated)

  def storable(tree: PyTree) -> PyTree:
    if jax.process_count() == 1:
      return tree
    everywhere = jax.sharding.Mesh(np.asarray(jax.devices()), (_AXIS,))
    return multihost_utils.host_local_array_to_global_array(
      tree, everywhere, jax.sharding.PartitionSpec()
    )

  return Layout(
    devices=devices,
    axis=_AXIS,
    place=place,
    put=put,
    compile_step=compile_step,
    compile_rows=compile_rows,
    whole=jax.device_get,
    storable=storable,
    template=lambda tree: tree,
  )


def fsdp(devices: Sequence[jax.Device]) -> Layout:
  """Fully sharded data parallelism, by XLA's partitioner.

  An array of the state is split along its longest axis that the number of
  devices divides; where there is none, every device holds it.

  Args:
    devices: of this process; with several processes, all of them.

  Returns:
    A layout whose state is spread over the devices of all processes.
  """
  devices = tuple(devices)
  several = jax.process_count() > 1
  everywhere = np.asarray(jax.devices() if several else devices)
  mesh = jax.sharding.Mesh(everywhere, (_AXIS,))
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))

  def sharding_of(x: Any) -> jax.sharding.NamedSharding:
    divisible = [
      axis
      for axis, size in enumerate(x.shape)
      if size and size % len(everywhere) == 0
    ]
    spec: list[str | None] = []
    if divisible:
      longest = max(divisible, key=lambda axis: x.shape[axis])
      spec = [None] * longest + [_AXIS]
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

  def place(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: _placed(x, sharding_of(x)), tree)

  def put(batch: HostBatch) -> PyTree:
    def share(name: str, x: Any) -> Array:
      x = np.asarray(x)
      if x.ndim == 0:
        return _placed(x, replicated)
      _check_rows(name, x, len(devices))
      return jax.make_array_from_process_local_data(by_row, x)

    return {name: share(name, x) for name, x in batch.items()}

  def constrained(tree: PyTree) -> PyTree:
    return jax.lax.with_sharding_constraint(
      tree, jax.tree.map(sharding_of, tree)
    )

  def compile_step(step: Callable[..., Any]) -> Callable[..., Any]:
    def sharded(state, batch):
      state, metrics = step(state, batch)
      return constrained(state), jax.lax.with_sharding_constraint(
        metrics, replicated
      )

    return jax.jit(sharded, donate_argnums=0)

  def compile_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
    mapped = jax.jit(fn, out_shardings=replicated)

    def evaluate(params, aux, key, batch):
      rows = mapped(params, aux, _placed(key, replicated), put(batch))
      return jax.device_get(rows)

    return evaluate

  def whole(tree: PyTree) -> PyTree:
    def gathered(x: Any) -> Any:
      # Of an array that is no global one, each process' would be joined.
      if isinstance(x, Array) and not x.is_fully_addressable:
        x = multihost_utils.process_allgather(x, tiled=True)
      return jax.device_get(x)

    return jax.tree.map(gathered, tree)

  def template(tree: PyTree) -> PyTree:
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x)),
      tree,
    )

  return Layout(
    devices=devices,
    axis=None,
    place=place,
    put=put,
    compile_step=compile_step,
    compile_rows=compile_rows,
    whole=whole,
    storable=lambda tree: tree,
    template=template,
  )


def _placed(x: Any, sharding: jax.sharding.Sharding) -> Array:
  """An array that is the same on every process, spread over the devices."""
  if isinstance(x, Array) and x.sharding == sharding:
    return x
  if jax.process_count() == 1:
    return jax.device_put(x, sharding)
  # From the host: an array of one process's device is no part of a global one.
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    words = _placed(np.asarray(jax.random.key_data(x)), sharding)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
  host = np.asarray(x)
  return jax.make_array_from_callback(
    host.shape, sharding, lambda part: host[part]
  )


def _check_rows(name: str, x: np.ndarray, num_devices: int) -> None:
  if len(x) % num_devices:
    raise ValueError(
      f'{len(x)} rows of {name!r} do not divide over {num_devices} devices'
    )


PARALLELISM = {'pmap': pmap, 'fsdp': fsdp}


def make(name: str, devices: Sequence[jax.Device] | None = None) -> Layout:
  """The layout of a name.

  Args:
    name: of `PARALLELISM`.
    devices: devices of this process to use; all of them by default, and always
      with several processes.

  Returns:
    A `Layout`.

  Raises:
    ValueError: an unknown name.
  """
  build = names.resolve(PARALLELISM, name, 'parallelism')
  return build(jax.local_devices() if devices is None else devices)


def check_batch_size(
  batch_size: int, num_devices: int, accumulation: int = 1
) -> None:
  """Checks that a global batch divides into equal parts, before compiling.

  Args:
    batch_size: rows of the global batch.
    num_devices: devices of all processes.
    accumulation: micro-batches a step.

  Raises:
    ValueError: naming the numbers and the nearest sizes that would do.

  >>> check_batch_size(12, 8)
  Traceback (most recent call last):
  ...
  ValueError: a batch of 12 sequences does not divide into 8 parts (8 devices \
x 1 micro-batches); the nearest sizes that do: 8, 16
  """
  parts = num_devices * accumulation
  if batch_size > 0 and batch_size % parts == 0:
    return
  below = batch_size // parts * parts
  nearest = [str(size) for size in (below, below + parts) if size > 0]
  raise ValueError(
    f'a batch of {batch_size} sequences does not divide into {parts} parts '
    f'({num_devices} devices x {accumulation} micro-batches); the nearest '
    f'sizes that do: {", ".join(nearest)}'
  )


def local_indices(
  batch_size: int,
  process_index: int | None = None,
  process_count: int | None = None,
) -> np.ndarray:
  """The places in the global batch that a process reads.

  Args:
    batch_size: rows of the global batch.
    process_index: this process by default.
    process_count: processes that share the batch; all by default.

  Returns:
    `[batch_size / process_count]` int32, a contiguous stretch.

  Raises:
    ValueError: the batch does not divide over the processes.

  >>> local_indices(6, process_index=1, process_count=2)
  array([3, 4, 5], dtype=int32)
  """
  count = jax.process_count() if process_count is None else process_count
  index = jax.process_index() if process_index is None else process_index
  if batch_size % count:
    raise ValueError(
      f'a batch of {batch_size} sequences does not divide over {count} '
      'processes'
    )
  rows = batch_size // count
  return np.arange(index * rows, (index + 1) * rows, dtype=np.int32)


def num_devices(layout: Layout) -> int:
  """Devices that share a global batch, those of all processes."""
  return len(layout.devices) * jax.process_count()


def by_first(work: Callable[[], None]) -> None:
  """Has one process do what needs no other; all must call it, and wait.

  Should a process end much before the others, jax would take it for lost.

  Args:
    work: nothing in it may ask other processes.
  """
  if jax.process_index() == 0:
    work()
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('done by the first')


def abstract(tree: PyTree) -> PyTree:
  """Shapes and types of a tree of arrays, without shardings."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), tree
  )
