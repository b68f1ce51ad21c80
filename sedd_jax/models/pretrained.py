"""SEDD's released weights, and those of its relatives, in and out.

The original (arXiv 2310.16834, repository
louaaron/Score-Entropy-Discrete-Diffusion) stores a PyTorch state dict: linear
weights are `[outputs, inputs]`, blocks are numbered, and the frequencies of the
rotary embedding are among the tensors.  The hub's repositories hold it as
`model.safetensors` beside the training run's `config.json`; its own training
checkpoints hold it in a `.pth` file with the optimizer and a running mean.
Weights of MDLM and RADD are brought into this layout (`masked_weights`).
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sedd_jax.core import atomic, names
from sedd_jax.models import (
  embeddings,
  masked_weights,
  state_dicts,
  tensor_files,
  torch_file,
)
from sedd_jax.models.state_dicts import CONFIG, SUFFIXES, WEIGHTS, Params
from sedd_jax.models.tensor_files import PretrainedError
from sedd_jax.models.transformer import DiffusionTransformer

# The original's name to the place in our tree.  Kernels are transposed.
_TENSORS = {
  'vocab_embed.embedding': 'embed.embedding',
  'sigma_map.mlp.0.weight': 'sigma_embed.inner.kernel',
  'sigma_map.mlp.0.bias': 'sigma_embed.inner.bias',
  'sigma_map.mlp.2.weight': 'sigma_embed.outer.kernel',
  'sigma_map.mlp.2.bias': 'sigma_embed.outer.bias',
}
_BLOCK_TENSORS = {
  'norm1.weight': 'norm_1.weight',
  'attn_qkv.weight': 'qkv.kernel',
  'attn_out.weight': 'attention_out.kernel',
  'norm2.weight': 'norm_2.weight',
  'mlp.0.weight': 'mlp_in.kernel',
  'mlp.0.bias': 'mlp_in.bias',
  'mlp.2.weight': 'mlp_out.kernel',
  'mlp.2.bias': 'mlp_out.bias',
  'adaLN_modulation.weight': 'modulation.linear.kernel',
  'adaLN_modulation.bias': 'modulation.linear.bias',
}
_HEAD_TENSORS = {
  'output_layer.norm_final.weight': 'head.norm.weight',
  'output_layer.linear.weight': 'head.kernel',
  'output_layer.linear.bias': 'head.bias',
  'output_layer.adaLN_modulation.weight': 'head.modulation.linear.kernel',
  'output_layer.adaLN_modulation.bias': 'head.modulation.linear.bias',
}
# Not a parameter: it follows from the width of a head, and tells it.
_FREQUENCIES = 'rotary_emb.inv_freq'

# What a folder is searched for, in this order.
_FOLDER_FILES = (
  WEIGHTS,
  'pytorch_model.bin',
  'checkpoints-meta/checkpoint.pth',
)
_PROCESSES = {'absorb': 'absorbing', 'uniform': 'uniform'}


def _places(num_layers: int) -> dict[str, tuple[str, int | None]]:
  """The original's name to our dotted place and, in a block, its number.

  In the order of the original's parameters.
  """
  places: dict[str, tuple[str, int | None]] = {
    name: (place, None) for name, place in _TENSORS.items()
  }
  for i in range(num_layers):
    for name, place in _BLOCK_TENSORS.items():
      places[f'blocks.{i}.{name}'] = (f'blocks.{place}', i)
  places |= {name: (place, None) for name, place in _HEAD_TENSORS.items()}
  return places


def _sizes(
  tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, Any]:
  """What the tensors and the config say about the network, held together."""
  table = state_dicts.require(tensors, 'vocab_embed.embedding')
  if table.ndim != 2:
    raise PretrainedError(
      f"tensor 'vocab_embed.embedding' has shape {table.shape}, not two axes"
    )
  num_states, hidden_size = table.shape
  num_layers = state_dicts.count_layers(tensors, 'blocks.')
  state_dicts.require(tensors, 'blocks.0.norm1.weight')
  cond_size = state_dicts.require(tensors, 'sigma_map.mlp.0.bias').size
  if not num_states * hidden_size * cond_size:
    raise PretrainedError(
      f'a network of {num_states} states, hidden size {hidden_size} and '
      f'conditioning size {cond_size} is empty'
    )

  model = config.get('model') or {}
  graph = (config.get('graph') or {}).get('type')
  if graph is not None and graph not in _PROCESSES:
    raise PretrainedError(
      f'{CONFIG}: unknown graph.type {graph!r}; '
      f'{names.alternatives(str(graph), _PROCESSES)}'
    )
  num_heads = model.get('n_heads')
  if _FREQUENCIES in tensors:
    frequencies = tensors[_FREQUENCIES].astype(np.float64)
    heads, rest = divmod(hidden_size, max(2 * frequencies.size, 1))
    if frequencies.ndim != 1 or rest or not heads:
      raise PretrainedError(
        f'tensor {_FREQUENCIES!r} has shape {frequencies.shape}, which divides '
        f'no hidden size of {hidden_size} into heads'
      )
    expected = embeddings.frequencies(frequencies.size)
    # Wide enough for bfloat16, far from another base than 10000.
    if not np.allclose(frequencies, expected, rtol=1e-2):
      raise PretrainedError(
        f'tensor {_FREQUENCIES!r} is not {embeddings.MAX_PERIOD}^(-2 i / '
        f'{2 * frequencies.size}), the only rotary embedding known here'
      )
    num_heads = heads if num_heads is None else num_heads
    if num_heads != heads:
      raise PretrainedError(
        f'{CONFIG} says model.n_heads = {num_heads!r}, the tensors {heads}'
      )
  if type(num_heads) is not int or num_heads < 1:
    raise PretrainedError(
      f'the number of heads is unknown: neither a tensor {_FREQUENCIES!r} nor '
      f'model.n_heads in a {CONFIG}'
    )
  if hidden_size % (2 * num_heads):
    raise PretrainedError(
      f'{CONFIG} says model.n_heads = {num_heads}, which does not divide the '
      f'hidden size of {hidden_size} into even parts'
    )
  found = {
    'model.hidden_size': hidden_size,
    'model.n_blocks': num_layers,
    'model.cond_dim': cond_size,
  }
  for field, value in found.items():
    said = model.get(field.removeprefix('model.'), value)
    if said != value:
      raise PretrainedError(
        f'{CONFIG} says {field} = {said!r}, the tensors {value}'
      )
  scale = model.get('scale_by_sigma')
  if scale is not None and type(scale) is not bool:
    raise PretrainedError(
      f'{CONFIG}: model.scale_by_sigma must be true or false, not {scale!r}'
    )
  return {
    'num_states': num_states,
    'hidden_size': hidden_size,
    'num_layers': num_layers,
    'num_heads': num_heads,
    'cond_size': cond_size,
    'scale_by_sigma': scale,
    'process': None if graph is None else _PROCESSES[graph],
  }


def _network(sizes: Mapping[str, Any]) -> DiffusionTransformer:
  fields = 'num_states hidden_size num_layers num_heads cond_size'.split()
  return DiffusionTransformer(**{key: sizes[key] for key in fields})


def from_state_dict(
  tensors: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None
) -> tuple[Params, dict[str, Any]]:
  """Our parameters from the original's tensors.

  Args:
    tensors: name to array, all of the network's and nothing else, of a layout
      of `masked_weights.LAYOUTS`; the prefix `module.` that PyTorch's data
      parallelism adds is dropped.
    config: the original's config, for what tensors do not tell, or None.

  Returns:
    The parameters of a `DiffusionTransformer` as float32 numpy arrays, and its
    sizes: `num_states hidden_size num_layers num_heads cond_size layout`, and
    `scale_by_sigma` (bool) and `process` ('absorbing' or 'uniform'), None where
    there is no config to say so.

  Raises:
    PretrainedError: for a tensor that is missing, unknown, of a wrong shape,
      not floating or not finite, or sizes that contradict the config.
  """
  if tensors and all(name.startswith('module.') for name in tensors):
    tensors = {
      name.removeprefix('module.'): tensor for name, tensor in tensors.items()
    }
  config = config or {}
  layout = masked_weights.layout_of(tensors)
  if layout == 'mdlm':
    tensors = masked_weights.of_mdlm(tensors)
    config = masked_weights.mdlm_config(config)
  elif layout == 'radd':
    size = config.get('model', {}).get('cond_dim', masked_weights.COND_SIZE)
    tensors = masked_weights.of_radd(tensors, size)
  sizes = {**_sizes(tensors, config), 'layout': layout}
  places = _places(sizes['num_layers'])
  shapes = state_dicts.shapes_of(_network(sizes), places)
  params = state_dicts.to_params(tensors, places, shapes, (_FREQUENCIES,))
  return params, sizes


def to_state_dict(
  params: Mapping[str, Any], num_heads: int
) -> dict[str, np.ndarray]:
  """The original's tensors from our parameters; `from_state_dict` backwards.

  Args:
    params: of a `DiffusionTransformer`.
    num_heads: attention heads, which the parameters do not tell.

  Returns:
    Name to float32 array, in the original's order.
  """
  hidden_size = params['embed']['embedding'].shape[1]
  num_layers = params['blocks']['norm_1']['weight'].shape[0]
  host = jax.device_get(params)
  tensors: dict[str, np.ndarray] = {}
  for name, (place, layer) in _places(num_layers).items():
    if name == 'blocks.0.norm1.weight':
      tensors[_FREQUENCIES] = embeddings.frequencies(
        hidden_size // num_heads // 2
      ).astype(np.float32)
    tensor = np.asarray(state_dicts.get(host, place), np.float32)
    tensor = tensor if layer is None else tensor[layer]
    tensors[name] = tensor.T if place.endswith('kernel') else tensor
  return tensors


def _torch_tensors(path: pathlib.Path, use_ema: bool) -> dict[str, np.ndarray]:
  """A state dict out of a torch file, be it alone or a training checkpoint."""
  with torch_file.TorchFile(path) as file:
    content = file.content
    state = content
    if isinstance(content, Mapping) and isinstance(
      content.get('model'), Mapping
    ):
      state = content['model']
      if use_ema and content.get('ema') is not None:
        state = _with_mean(state, content['ema'])
    return state_dicts.of_torch(file, state)


def _with_mean(state: Mapping[str, Any], ema: Any) -> dict[str, Any]:
  """The state dict with its parameters replaced by their running means.

  The original stores the means as a list in the order of the parameters, which
  is that of the state dict without its one buffer.
  """
  means = ema.get('shadow_params') if isinstance(ema, Mapping) else None
  if not isinstance(means, (list, tuple)):
    raise PretrainedError("'ema' has no list 'shadow_params'")
  parameters = [name for name in state if not name.endswith(_FREQUENCIES)]
  if len(means) != len(parameters):
    raise PretrainedError(
      f"'ema' has {len(means)} shadow_params for {len(parameters)} parameters"
    )
  return {**state, **dict(zip(parameters, means))}


def _parsed_config(text: str, where: str) -> dict[str, Any]:
  config = state_dicts.parsed_config(text, where)
  # Some versions of the hub's library put the config one level down.
  if isinstance(config, dict) and isinstance(config.get('config'), dict):
    config = config['config']
  groups = ('model', 'graph')
  if not isinstance(config, dict) or not all(
    isinstance(config.get(group, {}), dict) for group in groups
  ):
    raise PretrainedError(f'{where} does not hold groups model and graph')
  return config


def load_sedd(
  path: str | os.PathLike, *, use_ema: bool = True
) -> tuple[Params, dict[str, Any]]:
  """Reads weights of SEDD, MDLM or RADD as released; nothing in them is run.

  Args:
    path: a folder as on the hub (`model.safetensors`, `config.json`) or of the
      original's training run; a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin`
      file; or, where nothing of that name exists, a hub id 'owner/name'.
      `config.json` is read where it lies beside the weights.
    use_ema: take the running mean of a training checkpoint that has one.

  Returns:
    Parameters and sizes, as `from_state_dict`.

  Raises:
    PretrainedError: in one line that names the file and what is wrong with it.
    OSError: for a file that cannot be opened.
  """
  file = state_dicts.located(path, _FOLDER_FILES)
  config: dict[str, Any] = {}
  beside = file.parent / CONFIG
  try:
    if file.suffix == '.npz':
      tensors = tensor_files.read_npz(file)
      if CONFIG in tensors:
        config = _parsed_config(str(tensors.pop(CONFIG)), CONFIG)
    elif file.suffix == '.safetensors':
      tensors = tensor_files.read_safetensors(file)
    else:
      tensors = _torch_tensors(file, use_ema)
    if file.suffix != '.npz' and beside.is_file():
      config = _parsed_config(beside.read_text('utf-8'), CONFIG)
    return from_state_dict(tensors, config)
  except PretrainedError as error:
    text = str(error)
    if str(file) in text:
      raise
    raise PretrainedError(f'{file}: {text}') from error


def files(path: str | os.PathLike) -> tuple[pathlib.Path, ...]:
  """The files that weights have in a folder."""
  return pathlib.Path(path, WEIGHTS), pathlib.Path(path, CONFIG)


def save_sedd(
  path: str | os.PathLike,
  params: Mapping[str, Any],
  sizes: Mapping[str, Any],
  config: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
  """Writes weights in a released layout; `load_sedd` backwards.

  Args:
    path: a folder, made if need be, that gets `model.safetensors` and
      `config.json`; or a file that ends in `.npz`.
    params: of a `DiffusionTransformer`.
    sizes: as `load_sedd` returns them; `num_heads` is needed, `layout` is
      'sedd' where it is not given, and `scale_by_sigma` and `process` are
      written down where they are given.  A network in the layout 'radd' has to
      be one that is told sigma = 0 alone; so is one with `timed` False, which
      in the layout 'sedd' is written such that it does not heed sigma.
    config: further groups of the original's config and their fields, which its
      own code reads: `{'noise': {'type': 'loglinear'}, 'model': {'length':
      1024, 'dropout': 0.1}}`.

  Raises:
    ValueError: for another suffix, sizes without `num_heads`, an unknown
      layout, or a process that the original does not have.
  """
  path = pathlib.Path(path)
  if path.suffix in SUFFIXES and path.suffix != '.npz':
    raise ValueError(f'{path} must be a folder or end in .npz')
  if not sizes.get('num_heads'):
    raise ValueError("sizes need 'num_heads'")
  layout = sizes.get('layout', 'sedd')
  if layout not in masked_weights.LAYOUTS:
    raise ValueError(
      f'unknown layout {layout!r}; '
      f'{names.alternatives(layout, masked_weights.LAYOUTS)}'
    )
  tensors = to_state_dict(params, sizes['num_heads'])
  if layout == 'sedd' and not sizes.get('timed', True):
    tensors = masked_weights.told_zero(tensors)
  described = _config_of(params, sizes, config or {})
  if layout == 'radd':
    tensors = masked_weights.to_radd(tensors)
    described['tokens'] = len(params['embed']['embedding']) - 1
    # Without the last two its network is not built.
    described['model'] = {
      'dtype': 'float32',
      **described['model'],
      'type': 'ddit_wot',
      'use_checkpoint': False,
    }
  elif layout == 'mdlm':
    tensors = {f'{masked_weights.PREFIX}{k}': x for k, x in tensors.items()}
    described = _mdlm_config_of(described, len(params['embed']['embedding']))
  text = json.dumps(described, indent=2)
  if path.suffix == '.npz':
    tensor_files.write_npz(path, {**tensors, CONFIG: np.array(text)})
    return
  path.mkdir(parents=True, exist_ok=True)
  weights, config_file = files(path)
  # Both are whole before either is there.
  with atomic.replacing(config_file) as stream:
    stream.write(f'{text}\n'.encode())
    tensor_files.write_safetensors(weights, tensors)


def _config_of(
  params: Mapping[str, Any],
  sizes: Mapping[str, Any],
  further: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """The original's config, as far as it can be told."""
  num_states, hidden_size = params['embed']['embedding'].shape
  config: dict[str, Any] = {
    'model': {
      'type': 'ddit',
      'hidden_size': hidden_size,
      'cond_dim': params['sigma_embed']['inner']['bias'].shape[0],
      'n_blocks': params['blocks']['norm_1']['weight'].shape[0],
      'n_heads': sizes['num_heads'],
    }
  }
  if sizes.get('scale_by_sigma') is not None:
    config['model']['scale_by_sigma'] = bool(sizes['scale_by_sigma'])
  process = sizes.get('process')
  if process is not None:
    graphs = {value: key for key, value in _PROCESSES.items()}
    if process not in graphs:
      raise ValueError(
        f'the original has no process {process!r}; '
        f'{names.alternatives(process, graphs)}'
      )
    config['graph'] = {'type': graphs[process]}
    # The original counts data symbols, and adds the mask itself.
    config['tokens'] = num_states - (process == 'absorbing')
  for group, fields in further.items():
    config[group] = {**config.get(group, {}), **fields}
  return config


def _mdlm_config_of(
  config: Mapping[str, Mapping[str, Any]], num_states: int
) -> dict[str, Any]:
  """MDLM's config, which is flat, of SEDD's."""
  model = config['model']
  found = {
    'model_type': 'mdlm',
    'vocab_size': num_states,
    'hidden_dim': model['hidden_size'],
    'cond_dim': model['cond_dim'],
    'n_blocks': model['n_blocks'],
    'n_heads': model['n_heads'],
    'time_conditioning': False,
  }
  further = {'model_length': 'length', 'dropout': 'dropout'}
  return found | {k: model[v] for k, v in further.items() if v in model}
