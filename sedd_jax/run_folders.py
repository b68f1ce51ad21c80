"""The folder of a run: its checkpoints, and what a config shares with it."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from sedd_jax import config_checks, flags
from sedd_jax.core import names
from sedd_jax.data.prepared import packing
from sedd_jax.systems import SYSTEMS
from sedd_jax.systems.base import System
from sedd_jax.training import checkpoint

PyTree = Any

# Fields that may differ when a stored run is continued: how far and how it is
# computed, what is reported on the way, and all that comes after the training.
_MAY_DIFFER = (
  *('training.num_steps', 'training.accumulation', 'training.loss_chunk'),
  *('training.parallelism', 'training.compilation_cache'),
  *('training.log_every', 'training.eval_every', 'training.sample_every'),
  *('training.checkpoint_every', 'training.keep_checkpoints'),
  *('training.keep_best', 'training.trackers', 'training.profile'),
  'training.peak_flops',
  *('model.scan_layers', 'model.remat', 'model.attention'),
  # The text behind another path must be the same: `require_same_files`.
  *('data.path', 'eval.', 'sampling.', 'task'),
)


def require_same(config: Any, workdir: str | os.PathLike) -> None:
  """Refuses to continue a run with another model, data, noise or optimizer.

  Args:
    config: what is to be run.
    workdir: a run's folder; one without a checkpoint starts anew.

  Raises:
    ConfigError: naming the fields that differ.
  """
  stored = pathlib.Path(workdir) / flags.CONFIG_FILE
  if not stored.is_file() or not has_checkpoint(workdir):
    return
  before = config_checks.read(stored)
  folder = pathlib.Path(workdir) / 'checkpoints'
  with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
    made = max(checkpoints.steps(), default=0)
  if config.training.num_steps < made:
    raise config_checks.ConfigError(
      f'{workdir} has made {made} steps already, and training.num_steps is '
      f'{config.training.num_steps}; choose another --workdir'
    )
  changed = [
    f'{path} ({old!r}, now {new!r})'
    for path, (old, new) in config_checks.differences(before, config).items()
    if not path.startswith(_MAY_DIFFER)
  ]
  if changed:
    raise config_checks.ConfigError(
      f'{workdir} holds a run with other settings: {", ".join(changed)}; '
      'choose another --workdir, or start from its weights with '
      f'--config.init_from={workdir}'
    )


def require_same_files(
  stored: Sequence[Mapping[str, str]], files: Sequence[Mapping[str, str]]
) -> None:
  """Refuses to continue a run with another text or other noise.

  Args:
    stored: `name` and `sha256` of the files that the run was trained on.
    files: those of now, perhaps under other names.

  Raises:
    ConfigError: naming both.
  """

  # Text that is read as it is has tokens too, of which nothing is written.
  manifests = [
    any(file['name'] == packing.MANIFEST for file in listed)
    for listed in (stored, files)
  ]
  if not all(manifests):
    stored, files = (
      [file for file in listed if file['name'] != packing.MANIFEST]
      for listed in (stored, files)
    )

  def sums(listed: Sequence[Mapping[str, str]]) -> list[str]:
    return sorted(file['sha256'] for file in listed)

  def told(
    listed: Sequence[Mapping[str, str]], others: Sequence[Mapping[str, str]]
  ) -> str:
    apart = [file for file in listed if file['sha256'] not in sums(others)]
    some = [f'{file["name"]} (sha256 {file["sha256"]})' for file in apart[:3]]
    more = len(apart) > 3 or len(apart) < len(listed)
    return ', '.join([*some, '...'] if more else some)

  if sums(stored) != sums(files):
    raise config_checks.ConfigError(
      f'the run was trained on {told(stored, files)}, and the files are now '
      f'{told(files, stored)}; choose another --workdir, or start from its '
      'weights with init_from'
    )


def has_checkpoint(workdir: str | os.PathLike) -> bool:
  """Whether a run has saved a checkpoint; it may be damaged since."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  # What reads checkpoints takes seconds to import.
  if not folder.is_dir():
    return False
  with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
    return checkpoints.begun()


def is_run(folder: pathlib.Path) -> bool:
  """Whether a folder is that of a run that has saved a checkpoint."""
  return (folder / flags.CONFIG_FILE).is_file() and has_checkpoint(folder)


# Where the checkpoints lie that `eval.checkpoint` names.
_FOLDERS = {'last': 'checkpoints', 'best': 'best'}


def restored(
  system: System,
  workdir: str | os.PathLike,
  which: str = 'last',
  *,
  with_aux: bool = True,
) -> tuple[PyTree, PyTree, int]:
  """Averaged parameters, aux and step of a checkpoint of a run.

  Args:
    system: of the run's config.
    workdir: the run's folder.
    which: 'last', the newest whole one, or 'best', that of the lowest
      validation.
    with_aux: read aux too; else it is None.

  Raises:
    ValueError: there is none.
    checkpoint.CheckpointError: all are damaged.
  """
  folder = pathlib.Path(workdir) / names.resolve(_FOLDERS, which, 'checkpoint')
  params, aux = jax.eval_shape(system.init, jax.random.key(0))
  with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
    found = checkpoints.restore_ema(params, aux if with_aux else None)
  if found is None:
    raise ValueError(
      f'no checkpoint in {folder}: '
      + (
        'train the run first'
        if which == 'last'
        else 'a run keeps its best with training.eval_every above 0; the '
        "other choice is eval.checkpoint='last'"
      )
    )
  params, aux, step, _ = found
  return params, aux, step


def require_same_meaning(folder: pathlib.Path, config: Any) -> None:
  """Refuses weights whose outputs the same system reads as something else.

  Args:
    folder: a run's.
    config: what begins with its weights.

  Raises:
    ValueError: naming the argument that differs; shapes do not tell.
  """
  before = config_checks.read(folder / flags.CONFIG_FILE)
  if before.system.name != config.system.name:
    return
  make: Any = SYSTEMS.get(config.system.name)
  had, wanted = (
    names.argument(make, each.system.args, 'parametrization') if make else None
    for each in (before, config)
  )
  if had != wanted:
    raise ValueError(
      f'init_from: {folder} was trained with '
      f'system.args.parametrization={had!r}, and the config has {wanted!r}: '
      'what the network gives would be read as something else'
    )


def require_same_shapes(params: PyTree, wanted: PyTree, source: str) -> None:
  """Raises ValueError, naming the first parameter that does not fit."""
  have, want = (
    {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
    for leaves in (
      jax.tree_util.tree_leaves_with_path(params),
      jax.tree_util.tree_leaves_with_path(wanted),
    )
  )
  for name in sorted(have.keys() | want.keys()):
    if have.get(name) != want.get(name):
      raise ValueError(
        f'init_from: {source} has {name} of shape {have.get(name)}, the config '
        f'makes it {want.get(name)}'
      )
