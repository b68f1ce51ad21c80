"""Checkpoints that are whole or not there: Orbax, with a manifest over it.

A checkpoint is `<folder>/<step>/`, written by Orbax in the background.  When
Orbax is done, `manifest.json` with the SHA-256 of every file is added; only
then does the checkpoint count, and only then are older ones removed.  So

- a run killed at any moment leaves at least the checkpoint before;
- restoring verifies every byte, which Orbax does not, and where a checkpoint is
  damaged goes back to the one before, with a warning;
- removal renames into `<folder>/trash` first, so that a half-deleted checkpoint
  is never listed.
"""

import hashlib
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from sedd_jax.core import atomic
from sedd_jax.training import state as state_lib

PyTree = Any

MANIFEST = 'manifest.json'
_TRASH = 'trash'
_HASH_BLOCK = 1 << 22
_FIELDS = ('step', 'params', 'ema', 'opt_state', 'aux', 'key')


class CheckpointError(RuntimeError):
  """No checkpoint can be restored."""


class Checkpoints:
  """The checkpoints of a run.

  Use as a context manager, or call `close`: saves end in the background.
  """

  # Whose save began last, in this process.
  _last: 'ClassVar[Checkpoints | None]' = None

  def __init__(
    self, folder: str | os.PathLike, *, keep: int = 2, read_only: bool = False
  ):
    """Opens a folder, which need not exist yet.

    Args:
      folder: `<workdir>/checkpoints`.
      keep: newest checkpoints kept.
      read_only: change nothing in the folder, for evaluation and sampling
        beside a running training.

    Raises:
      ValueError: `keep` below 1.
    """
    if keep < 1:
      raise ValueError(f'at least one checkpoint is kept, not {keep}')
    # Late: importing Orbax takes seconds.
    import orbax.checkpoint as ocp

    self.folder = pathlib.Path(folder).absolute()
    self._ocp = ocp
    self._keep = keep
    self._read_only = read_only
    self._sealing: threading.Thread | None = None
    self._failure: BaseException | None = None
    # None once closed, and where nothing is to be changed.
    self._manager: Any = None
    if not read_only:
      self.folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        self.folder,
        options=ocp.CheckpointManagerOptions(cleanup_tmp_directories=True),
      )
      self._empty_trash()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self.close()

  def steps(self) -> list[int]:
    """Steps of the finished checkpoints, ascending; their bytes unchecked."""
    return [
      step for step in self._listed() if (self._path(step) / MANIFEST).exists()
    ]

  def begun(self) -> bool:
    """Whether a run has saved here, though its checkpoints may be damaged.

    A kill leaves at most one checkpoint without a manifest and no other: the
    first that was being saved.
    """
    return bool(self.steps()) or len(self._listed()) > 1

  def save(
    self,
    step: int,
    state: state_lib.TrainState,
    record: Mapping[str, Any] | None = None,
  ) -> None:
    """Starts to save; returns when the state's buffers may be reused.

    Waits for the save before, if it has not ended, with several processes also
    for that into another folder.  A step that is there stays as it is: after a
    restore, `discard_after` has removed what is not whole.

    Args:
      step: the state's step.
      state: arrays of all processes (`Layout.storable`).
      record: what is stored beside the state, as JSON.

    Raises:
      Exception: what the save before failed with.
    """
    self.wait()
    if step in self.steps():
      return
    if jax.process_count() > 1 and Checkpoints._last is not None:
      # Orbax numbers its barriers: two saves at once would number them in one
      # order here and in another there, and wait for each other.
      Checkpoints._last.wait()
    Checkpoints._last = self
    args = self._ocp.args
    # A copy, for it is written while the caller goes on.
    record = json.loads(json.dumps(dict(record or {})))
    self._manager.save(
      step,
      args=args.Composite(
        state=args.StandardSave(_stored(_fields(state))),
        record=args.JsonSave(record),
      ),
      force=True,
    )
    self._sealing = threading.Thread(
      target=self._seal, args=(step,), name=f'seal checkpoint {step}'
    )
    self._sealing.start()

  def wait(self) -> None:
    """Waits until the last save is whole, and removes old checkpoints.

    Raises:
      Exception: what the save failed with.
    """
    if self._sealing is None:
      return
    self._sealing.join()
    self._sealing = None
    if self._failure is not None:
      failure, self._failure = self._failure, None
      raise failure
    for step in self.steps()[: -self._keep]:
      self._remove(step)

  def close(self) -> None:
    """Waits for the last save and ends Orbax's threads."""
    if self._manager is None:
      return
    try:
      self.wait()
    finally:
      self._manager.close()
      self._manager = None

  def restore(
    self, template: state_lib.TrainState
  ) -> tuple[state_lib.TrainState, dict[str, Any]] | None:
    """The newest whole checkpoint.

    Args:
      template: a state of `jax.ShapeDtypeStruct`: a leaf with a sharding is
        restored as such an array, one without as a numpy array.  Any number of
        devices may have saved it.

    Returns:
      The state and the record, or None where nothing was saved.

    Raises:
      CheckpointError: there are checkpoints, all of them damaged.
    """
    found = self._newest(_fields(template))
    if found is None:
      return None
    tree, record = found
    return state_lib.TrainState(**tree), record

  def restore_ema(
    self, params: PyTree, aux: PyTree | None
  ) -> tuple[PyTree, PyTree, int, dict[str, Any]] | None:
    """What evaluation needs: the running mean, without the optimizer's state.

    Args:
      params: a tree of `jax.ShapeDtypeStruct`, as for `restore`.
      aux: likewise; None: it is not read, and None in the result.

    Returns:
      The averaged parameters, aux, step and record; None where nothing was
      saved.

    Raises:
      CheckpointError: there are checkpoints, all of them damaged.
    """
    step = jax.ShapeDtypeStruct((), np.int32)
    wanted = {'ema': params, 'step': step}
    found = self._newest(wanted if aux is None else {**wanted, 'aux': aux})
    if found is None:
      return None
    tree, record = found
    return tree['ema'], tree.get('aux'), int(tree['step']), record

  def newest(self) -> tuple[int, dict[str, Any]] | None:
    """Step and record of the newest whole checkpoint, its state unread.

    Raises:
      CheckpointError: there are checkpoints, all of them damaged.
    """
    step = self._agreed()
    return None if step is None else (step, self._record(step))

  def discard_after(self, step: int) -> None:
    """Removes what lies above a step: unfinished, damaged, or given up.

    To be called by all processes before the first save.

    Args:
      step: the step restored; -1 removes all.
    """
    for later in self._listed():
      if later > step:
        self._remove(later)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('discarded checkpoints')
    self._manager.reload()

  def preempted(self, step: int) -> bool:
    """Whether all processes shall stop after this step.

    Needs `jax.distributed`, which takes the SIGTERM that any of them gets.

    Args:
      step: the same on all processes, which all must ask.
    """
    return self._manager.reached_preemption(step)

  def _path(self, step: int) -> pathlib.Path:
    return self.folder / str(step)

  def _listed(self) -> list[int]:
    """Steps with a folder; its save may have been interrupted."""
    if not self.folder.exists():
      return []
    return sorted(
      int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()
    )

  def _seal(self, step: int) -> None:
    """Adds the manifest once Orbax has finished the checkpoint."""
    try:
      self._manager.wait_until_finished()
      if jax.process_index() == 0:
        _write_manifest(self._path(step))
    # Raised in the training thread, by `wait`.
    except BaseException as error:
      self._failure = error

  def _remove(self, step: int) -> None:
    """Takes a checkpoint out of the list at once, then deletes its files."""
    if jax.process_index() == 0:
      trash = self.folder / _TRASH
      trash.mkdir(exist_ok=True)
      os.replace(self._path(step), trash / str(step))
      self._empty_trash()

  def _empty_trash(self) -> None:
    if jax.process_index() == 0:
      shutil.rmtree(self.folder / _TRASH, ignore_errors=True)

  def _newest(
    self, fields: Mapping[str, PyTree]
  ) -> tuple[dict[str, PyTree], dict[str, Any]] | None:
    """The wanted fields and the record of the newest whole checkpoint."""
    step = self._agreed()
    if step is None:
      return None
    return self._read(step, fields), self._record(step)

  def _agreed(self) -> int | None:
    """The newest whole checkpoint, the same on all processes."""
    found: int | None = None
    faults: list[str] = []
    if jax.process_index() == 0:
      found, faults = self._newest_whole()
    if jax.process_count() > 1:
      # One process looks and all follow, for the folder may change meanwhile.
      code = -1 if found is None else found
      code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
      found = None if code < 0 else code
    if found is None and faults:
      raise CheckpointError(
        f'every checkpoint is damaged ({"; ".join(faults)}); restore the '
        f'files, or remove {self.folder} to start anew'
      )
    return found

  def _newest_whole(self) -> tuple[int | None, list[str]]:
    """The newest step whose files are as saved, and faults of newer ones."""
    faults: list[str] = []
    begun = self.begun()
    for step in reversed(self._listed()):
      path = self._path(step)
      if not (path / MANIFEST).exists():
        logging.warning('%s was not saved to its end; passed over', path)
        if begun:
          faults.append(f'{path}: {MANIFEST} is missing')
        continue
      fault = _fault(path)
      if fault is None:
        return step, faults
      faults.append(f'{path}: {fault}')
      logging.warning('%s: %s; trying the checkpoint before', path, fault)
    return None, faults

  def _read(self, step: int, fields: Mapping[str, PyTree]) -> dict[str, PyTree]:
    ocp = self._ocp
    template = _stored(fields)
    with ocp.PyTreeCheckpointer() as checkpointer:
      tree = checkpointer.restore(
        self._path(step) / 'state',
        args=ocp.args.PyTreeRestore(
          item=template,
          restore_args=jax.tree.map(self._restore_arg, template),
          partial_restore=True,
        ),
      )
    return _loaded(fields, tree)

  def _record(self, step: int) -> dict[str, Any]:
    ocp = self._ocp
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
      return checkpointer.restore(self._path(step) / 'record')

  def _restore_arg(self, leaf: jax.ShapeDtypeStruct) -> Any:
    ocp = self._ocp
    if getattr(leaf, 'sharding', None) is None:
      return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    return ocp.ArrayRestoreArgs(
      sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype
    )


def _fields(state: state_lib.TrainState) -> dict[str, PyTree]:
  return {name: getattr(state, name) for name in _FIELDS}


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored(tree: PyTree) -> PyTree:
  """Typed keys as their words, of arrays and of `ShapeDtypeStruct` alike."""

  def words(leaf: Any) -> Any:
    if not _is_key(leaf):
      return leaf
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.random.key_data(leaf)
    shape = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=leaf.sharding
    )

  return jax.tree.map(words, tree)


def _loaded(template: PyTree, tree: PyTree) -> PyTree:
  """The inverse of `_stored`, with shapes and types checked."""

  def load(path: Any, wanted: Any, leaf: Any) -> Any:
    if _is_key(wanted):
      leaf = jax.random.wrap_key_data(
        leaf, impl=jax.random.key_impl(jax.random.key(0))
      )
    if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
      raise CheckpointError(
        f'{jax.tree_util.keystr(path)} is {leaf.dtype}{list(leaf.shape)} in '
        f'the checkpoint, not {wanted.dtype}{list(wanted.shape)}: it is of '
        'another model'
      )
    return leaf

  return jax.tree_util.tree_map_with_path(load, template, tree)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    file for file in path.rglob('*') if file.is_file() and file.name != MANIFEST
  )


def _sha256(path: pathlib.Path) -> str:
  digest = hashlib.sha256()
  with path.open('rb') as file:
    while block := file.read(_HASH_BLOCK):
      digest.update(block)
  return digest.hexdigest()


def _write_manifest(path: pathlib.Path) -> None:
  """Lists size and SHA-256 of every file; there or not, never in part."""
  entries = {
    file.relative_to(path).as_posix(): {
      'bytes': file.stat().st_size,
      'sha256': _sha256(file),
    }
    for file in _files(path)
  }
  text = json.dumps({'files': entries}, indent=1)
  atomic.write_text(path / MANIFEST, text)


def _fault(path: pathlib.Path) -> str | None:
  """What is wrong with a checkpoint's files, None if nothing is."""
  try:
    entries = json.loads((path / MANIFEST).read_text())['files']
    for name, entry in entries.items():
      file = path / name
      if not file.exists():
        return f'{name} is missing'
      if file.stat().st_size != entry['bytes']:
        return f'{name} has {file.stat().st_size} of {entry["bytes"]} bytes'
      if _sha256(file) != entry['sha256']:
        return f'{name} is not as it was saved (SHA-256 differs)'
  except (OSError, ValueError, KeyError, TypeError) as error:
    return f'{MANIFEST} cannot be read ({error})'
  return None
