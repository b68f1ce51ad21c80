"""Published weights that a system can begin from, and how it writes them."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sedd_jax.core import names
from sedd_jax.models import (
  Bert,
  DiffusionTransformer,
  bert_weights,
  pretrained,
)
from sedd_jax.systems import base

# What of a config makes a size, where it is not its own name under `model`.
_FIELDS = {
  'num_states': 'data.tokenizer',
  'mlp_size': 'model.args.mlp_size',
  'max_positions': 'model.args.max_positions',
  'scale_by_sigma': 'process.name',
}
_SIZES = ('num_states', 'hidden_size', 'num_layers', 'num_heads', 'cond_size')
Loader = Callable[[str | os.PathLike], Any]
Task = Callable[[Any, Any, Mapping[str, Any], Any], dict[str, Any]]


def bert_loader(
  network: Any, start: Callable[[], Any], masked: bool
) -> Loader | None:
  """What reads BERT's weights for a network, or None where it is no BERT.

  Args:
    network: of `models.MODELS`.
    start: `() -> params`, where what tells the time is taken from.
    masked: whether the network's last state is the mask.

  Returns:
    `System.load_pretrained`.
  """
  if not isinstance(network, Bert):
    return None
  return functools.partial(
    _load_bert, network=network, start=start, masked=masked
  )


def sedd_loader(network: Any, scale_by_sigma: bool) -> Loader | None:
  """What reads SEDD's weights, or None for another network.

  Args:
    network: of `models.MODELS`.
    scale_by_sigma: of the score.

  Returns:
    `System.load_pretrained`.
  """
  if not isinstance(network, DiffusionTransformer):
    return None
  return functools.partial(
    _load_sedd, network=network, scale_by_sigma=scale_by_sigma
  )


def masked_loader(network: Any) -> Loader | None:
  """What reads MDLM's and RADD's weights, or None for another network.

  Args:
    network: of `models.MODELS`, told no time, its last state the mask.

  Returns:
    `System.load_pretrained`.
  """
  if not isinstance(network, DiffusionTransformer):
    return None
  return functools.partial(_load_masked, network=network)


def exporter(
  config: Any,
  layouts: tuple[str, ...],
  process: str = '',
  timed: bool = True,
) -> Task:
  """A task that writes a run's weights in a released layout.

  Args:
    config: the whole config.
    layouts: that may be asked for, the first by default.
    process: 'absorbing' or 'uniform' for SEDD's, whose config says it.
    timed: whether a network of SEDD's is told the noise.

  Returns:
    For `System.tasks`; its options are `path`, the folder to write, `layout`,
    and `overwrite`, without which weights that are there stay.
  """

  def export(
    params: Any, aux: Any, options: Mapping[str, Any], tokenizer: Any
  ) -> dict[str, Any]:
    del aux, tokenizer
    known = ('path', 'layout', 'overwrite')
    for name in options:
      if name not in known:
        raise base.TaskError(
          f'unknown option task.{name}; {names.alternatives(name, known)}'
        )
    path, layout = options.get('path', ''), options.get('layout', layouts[0])
    if not path:
      raise base.TaskError('mode export needs --config.task.path=FOLDER')
    if layout not in layouts:
      raise base.TaskError(
        f'system {config.system.name} is not written in the layout {layout!r}; '
        f'{names.alternatives(str(layout), layouts)}'
      )
    overwrite = options.get('overwrite', False)
    if not isinstance(overwrite, bool):
      raise base.TaskError(
        f'task.overwrite must be true or false, not {overwrite!r}'
      )
    there = [
      file
      for file in (pathlib.Path(path), *pretrained.files(path))
      if file.is_file()
    ]
    if there and not overwrite:
      raise base.TaskError(
        f'{there[0]}: there already; replace it with '
        '--config.task.overwrite=true'
      )
    if 'label_embed' in params:
      raise base.TaskError(
        'the run was trained with labels (data.label), and no released layout '
        'has a place for them'
      )
    if 'sigma_embed' not in params:
      raise base.TaskError(
        f'model.name {config.model.name!r} has no released layout here; it is '
        'that of transformer'
      )
    sizes = {'num_heads': config.model.num_heads, 'layout': layout}
    if process:
      sizes |= {'process': process, 'scale_by_sigma': process == 'absorbing'}
      sizes['timed'] = timed
    try:
      pretrained.save_sedd(path, params, sizes, _described(config))
    except OSError as error:
      raise base.TaskError(f'task.path {path}: {error}') from error
    count = sum(x.size for x in jax.tree.leaves(params))
    return {'path': str(path), 'layout': layout, 'parameters': count}

  return export


def _described(config: Any) -> dict[str, Any]:
  """What the originals' code reads of a config besides the network's sizes."""
  noise = {'log_linear': 'loglinear', 'geometric': 'geometric'}
  schedule = config.schedule
  told: dict[str, Any] = {
    'model': {
      'length': config.data.seq_len,
      'dropout': config.model.dropout,
      'dtype': config.model.dtype,
    },
  }
  if schedule.name in noise:
    told['noise'] = {
      'type': noise[schedule.name],
      'sigma_min': schedule.sigma_min,
      'sigma_max': schedule.sigma_max,
    }
  return told


def _load_masked(
  path: str | os.PathLike, *, network: DiffusionTransformer
) -> Any:
  params, sizes = pretrained.load_sedd(path)
  if sizes['layout'] == 'sedd':
    graph = f' with graph {sizes["process"]}' if sizes['process'] else ''
    raise ValueError(
      f'{path} is SEDD{graph}, whose network is told the noise: use '
      'system.name=sedd'
    )
  _require(path, sizes, {name: getattr(network, name) for name in _SIZES})
  return params


def _load_bert(
  path: str | os.PathLike,
  *,
  network: Bert,
  start: Callable[[], Any],
  masked: bool,
) -> Any:
  params, sizes = bert_weights.load_bert(path)
  if not masked:
    sizes['num_states'] -= 1
    params['embed']['embedding'] = params['embed']['embedding'][:-1]
    params['head']['bias'] = params['head']['bias'][:-1]
  wanted = {name: getattr(network, name) for name in sizes}
  wanted['mlp_size'] = network.mlp_size or 4 * network.hidden_size
  _require(path, sizes, wanted)
  if network.time == 'layer':
    params['blocks']['time'] = start()['blocks']['time']
  elif network.time == 'prefix':
    params['time_token'] = start()['time_token']
  return params


def _load_sedd(
  path: str | os.PathLike,
  *,
  network: DiffusionTransformer,
  scale_by_sigma: bool,
) -> Any:
  params, sizes = pretrained.load_sedd(path)
  if sizes['layout'] != 'sedd':
    raise ValueError(
      f'{path} is in the layout of {sizes["layout"].upper()}, a masked '
      'diffusion: use system.name=masked_diffusion'
    )
  wanted = {name: getattr(network, name) for name in _SIZES}
  _require(path, sizes, {**wanted, 'scale_by_sigma': scale_by_sigma})
  return params


def _require(
  path: str | os.PathLike, sizes: dict[str, Any], wanted: dict[str, Any]
) -> None:
  """Raises ValueError for weights of another size."""
  for name, value in wanted.items():
    if sizes[name] is not None and sizes[name] != value:
      field = _FIELDS.get(name, f'model.{name}')
      raise ValueError(
        f'{path} has {name} = {sizes[name]}, the config makes it {value}'
        f' ({field})'
      )
