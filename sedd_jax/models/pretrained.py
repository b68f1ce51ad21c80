"""SEDD's released weights, in and out.

The original (arXiv 2310.16834, repository
louaaron/Score-Entropy-Discrete-Diffusion) stores a PyTorch state dict: linear
weights are `[outputs, inputs]`, blocks are numbered, and the frequencies of the
rotary embedding are among the tensors.  The hub's repositories hold it as
`model.safetensors` beside the training run's `config.json`; its own training
checkpoints hold it in a `.pth` file with the optimizer and a running mean.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.core import names
from sedd_jax.models import embeddings, tensor_files, torch_file
from sedd_jax.models.tensor_files import PretrainedError
from sedd_jax.models.transformer import DiffusionTransformer

Params = dict[str, Any]

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

_CONFIG = 'config.json'
_WEIGHTS = 'model.safetensors'
# What a folder is searched for, in this order.
_FOLDER_FILES = (
  _WEIGHTS,
  'pytorch_model.bin',
  'checkpoints-meta/checkpoint.pth',
)
_TORCH_SUFFIXES = ('.pt', '.pth', '.bin')
_SUFFIXES = ('.safetensors', '.npz', *_TORCH_SUFFIXES)
_HUB_ID = re.compile(r'[\w.-]+/[\w.-]+')
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


def _get(tree: Mapping[str, Any], place: str) -> Any:
  for key in place.split('.'):
    tree = tree[key]
  return tree


def _set(tree: dict[str, Any], place: str, value: Any) -> None:
  *groups, last = place.split('.')
  for key in groups:
    tree = tree.setdefault(key, {})
  tree[last] = value


def _require(
  tensors: Mapping[str, np.ndarray], name: str, unknown: Collection[str] = ()
) -> np.ndarray:
  """A tensor that has to be there; `unknown` may hold it under a wrong name."""
  if name not in tensors:
    hint = f'; unknown here, {names.alternatives(name, unknown)}'
    raise PretrainedError(f'no tensor {name!r}{hint if unknown else ""}')
  return tensors[name]


def _sizes(
  tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, Any]:
  """What the tensors and the config say about the network, held together."""
  table = _require(tensors, 'vocab_embed.embedding')
  if table.ndim != 2:
    raise PretrainedError(
      f"tensor 'vocab_embed.embedding' has shape {table.shape}, not two axes"
    )
  num_states, hidden_size = table.shape
  # Counted, so that a gap in the numbers shows up as a missing tensor.
  numbers = [re.match(r'blocks\.(\d+)\.', name) for name in tensors]
  num_layers = len({match[1] for match in numbers if match})
  _require(tensors, 'blocks.0.norm1.weight')
  cond_size = _require(tensors, 'sigma_map.mlp.0.bias').size
  if not num_states * hidden_size * cond_size:
    raise PretrainedError(
      f'a network of {num_states} states, hidden size {hidden_size} and '
      f'conditioning size {cond_size} is empty'
    )

  model = config.get('model') or {}
  graph = (config.get('graph') or {}).get('type')
  if graph is not None and graph not in _PROCESSES:
    raise PretrainedError(
      f'{_CONFIG}: unknown graph.type {graph!r}; '
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
        f'{_CONFIG} says model.n_heads = {num_heads!r}, the tensors {heads}'
      )
  if type(num_heads) is not int or num_heads < 1:
    raise PretrainedError(
      f'the number of heads is unknown: neither a tensor {_FREQUENCIES!r} nor '
      f'model.n_heads in a {_CONFIG}'
    )
  if hidden_size % (2 * num_heads):
    raise PretrainedError(
      f'{_CONFIG} says model.n_heads = {num_heads}, which does not divide the '
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
        f'{_CONFIG} says {field} = {said!r}, the tensors {value}'
      )
  scale = model.get('scale_by_sigma')
  if scale is not None and type(scale) is not bool:
    raise PretrainedError(
      f'{_CONFIG}: model.scale_by_sigma must be true or false, not {scale!r}'
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


def _expected_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Shape of each of the original's tensors, from those of our network."""
  network = DiffusionTransformer(
    **{
      key: sizes[key]
      for key in (
        'num_states',
        'hidden_size',
        'num_layers',
        'num_heads',
        'cond_size',
      )
    }
  )
  params = jax.eval_shape(
    network.init,
    jax.random.key(0),
    jnp.zeros((1, 2), jnp.int32),
    jnp.ones((1,), jnp.float32),
  )['params']
  shapes = {}
  for name, (place, layer) in _places(sizes['num_layers']).items():
    shape = _get(params, place).shape
    shape = shape if layer is None else shape[1:]
    shapes[name] = shape[::-1] if place.endswith('kernel') else shape
  return shapes


def from_state_dict(
  tensors: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None
) -> tuple[Params, dict[str, Any]]:
  """Our parameters from the original's tensors.

  Args:
    tensors: name to array, all of the network's and nothing else; the prefix
      `module.` that PyTorch's data parallelism adds is dropped.
    config: the original's config, for what tensors do not tell, or None.

  Returns:
    The parameters of a `DiffusionTransformer` as float32 numpy arrays, and its
    sizes: `num_states hidden_size num_layers num_heads cond_size`, and
    `scale_by_sigma` (bool) and `process` ('absorbing' or 'uniform'), None where
    there is no config to say so.

  Raises:
    PretrainedError: for a tensor that is missing, unknown, of a wrong shape or
      not floating, or sizes that contradict the config.
  """
  if tensors and all(name.startswith('module.') for name in tensors):
    tensors = {
      name.removeprefix('module.'): tensor for name, tensor in tensors.items()
    }
  sizes = _sizes(tensors, config or {})
  expected = _expected_shapes(sizes)
  unknown = [name for name in tensors if name not in (*expected, _FREQUENCIES)]
  for name, shape in expected.items():
    tensor = _require(tensors, name, unknown)
    if tensor.shape != shape:
      raise PretrainedError(
        f'tensor {name!r} has shape {tensor.shape}, not {shape}'
      )
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
      raise PretrainedError(f'tensor {name!r} holds {tensor.dtype}, no floats')
  if unknown:
    raise PretrainedError(
      f'unknown tensor {unknown[0]!r} ({len(unknown)} in all); '
      f'{names.alternatives(unknown[0], expected)}'
    )
  params: Params = {}
  for name, (place, layer) in _places(sizes['num_layers']).items():
    tensor = np.asarray(tensors[name], np.float32)
    tensor = tensor.T if place.endswith('kernel') else tensor
    if layer is None:
      _set(params, place, np.array(tensor, order='C'))
      continue
    if not layer:
      shape = (sizes['num_layers'], *tensor.shape)
      _set(params, place, np.empty(shape, np.float32))
    _get(params, place)[layer] = tensor
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
    tensor = np.asarray(_get(host, place), np.float32)
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
    if not isinstance(state, Mapping):
      raise PretrainedError(
        f'neither a state dict nor a training checkpoint, but a '
        f'{type(state).__name__}'
      )
    for name, tensor in state.items():
      if not isinstance(tensor, torch_file.TorchTensor):
        raise PretrainedError(
          f'entry {name!r} is no tensor but a {type(tensor).__name__}; a '
          "training checkpoint has its tensors under 'model'"
        )
    return {str(name): file.array(tensor) for name, tensor in state.items()}


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
  try:
    config = json.loads(text)
  except ValueError as error:
    raise PretrainedError(f'{where} is no JSON: {error}') from None
  # Some versions of the hub's library put the config one level down.
  if isinstance(config, dict) and isinstance(config.get('config'), dict):
    config = config['config']
  groups = ('model', 'graph')
  if not isinstance(config, dict) or not all(
    isinstance(config.get(group, {}), dict) for group in groups
  ):
    raise PretrainedError(f'{where} does not hold groups model and graph')
  return config


def _from_hub(name: str) -> pathlib.Path:
  """Downloads config and weights of a hub's repository; their folder."""
  if importlib.util.find_spec('huggingface_hub') is None:
    raise PretrainedError(
      f'{name!r} is no file or folder here; to download it from the hub: '
      "pip install 'sedd_jax[hub]'"
    )
  hub = importlib.import_module('huggingface_hub')
  try:
    hub.hf_hub_download(name, _CONFIG)
    return pathlib.Path(hub.hf_hub_download(name, _WEIGHTS)).parent
  # The library's own errors, those of its HTTP client, a missing network.
  except Exception as error:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise PretrainedError(
      f'{name!r} is no file or folder here, and the hub did not give it: {text}'
    ) from error


def _located(path: str | os.PathLike) -> pathlib.Path:
  """The file that a path, folder or hub id stands for."""
  found = pathlib.Path(path)
  if not found.exists():
    if not isinstance(path, str) or not _HUB_ID.fullmatch(path):
      raise PretrainedError(f'{str(path)!r} does not exist')
    found = _from_hub(path)
  if found.is_dir():
    files = [found / name for name in _FOLDER_FILES]
    if not any(file.is_file() for file in files):
      raise PretrainedError(f'{found} holds none of {", ".join(_FOLDER_FILES)}')
    found = next(file for file in files if file.is_file())
  if found.suffix not in _SUFFIXES:
    raise PretrainedError(f'{found} ends in none of {", ".join(_SUFFIXES)}')
  return found


def load_sedd(
  path: str | os.PathLike, *, use_ema: bool = True
) -> tuple[Params, dict[str, Any]]:
  """Reads weights in the layout of SEDD's release; nothing in them is run.

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
  file = _located(path)
  config: dict[str, Any] = {}
  beside = file.parent / _CONFIG
  try:
    if file.suffix == '.npz':
      tensors = tensor_files.read_npz(file)
      if _CONFIG in tensors:
        config = _parsed_config(str(tensors.pop(_CONFIG)), _CONFIG)
    elif file.suffix == '.safetensors':
      tensors = tensor_files.read_safetensors(file)
    else:
      tensors = _torch_tensors(file, use_ema)
    if file.suffix != '.npz' and beside.is_file():
      config = _parsed_config(beside.read_text('utf-8'), _CONFIG)
    return from_state_dict(tensors, config)
  except PretrainedError as error:
    text = str(error)
    if str(file) in text:
      raise
    raise PretrainedError(f'{file}: {text}') from error


def save_sedd(
  path: str | os.PathLike,
  params: Mapping[str, Any],
  sizes: Mapping[str, Any],
  config: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
  """Writes weights in the layout of SEDD's release; `load_sedd` backwards.

  Args:
    path: a folder, made if need be, that gets `model.safetensors` and
      `config.json`; or a file that ends in `.npz`.
    params: of a `DiffusionTransformer`.
    sizes: as `load_sedd` returns them; `num_heads` is needed, and
      `scale_by_sigma` and `process` are written down where they are given.
    config: further groups of the original's config and their fields, which its
      own code reads: `{'noise': {'type': 'loglinear'}, 'model': {'length':
      1024, 'dropout': 0.1}}`.

  Raises:
    ValueError: for another suffix, sizes without `num_heads`, or a process that
      the original does not have.
  """
  path = pathlib.Path(path)
  if path.suffix in _SUFFIXES and path.suffix != '.npz':
    raise ValueError(f'{path} must be a folder or end in .npz')
  if not sizes.get('num_heads'):
    raise ValueError("sizes need 'num_heads'")
  tensors = to_state_dict(params, sizes['num_heads'])
  text = json.dumps(_config_of(params, sizes, config or {}), indent=2)
  if path.suffix == '.npz':
    tensor_files.write_npz(path, {**tensors, _CONFIG: np.array(text)})
    return
  path.mkdir(parents=True, exist_ok=True)
  tensor_files.write_safetensors(path / _WEIGHTS, tensors)
  (path / _CONFIG).write_text(text + '\n', 'utf-8')


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
