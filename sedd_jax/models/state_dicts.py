"""PyTorch state dicts as trees of parameters, and where files of them lie.

A layout is a table of places: the original's name of a tensor to the dotted
path in our tree and, under `blocks`, where layers are stacked, the layer.
Linear weights are `[outputs, inputs]` there and `[inputs, outputs]` here.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.core import names
from sedd_jax.models import tensor_files, torch_file
from sedd_jax.models.tensor_files import PretrainedError

Params = dict[str, Any]
Places = Mapping[str, tuple[str, int | None]]

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
SUFFIXES = ('.safetensors', '.npz', '.pt', '.pth', '.bin')
_HUB_ID = re.compile(r'[\w.-]+/[\w.-]+')


def get(tree: Mapping[str, Any], place: str) -> Any:
  """The entry of a tree at a dotted path."""
  for key in place.split('.'):
    tree = tree[key]
  return tree


def put(tree: dict[str, Any], place: str, value: Any) -> None:
  """Sets the entry of a tree at a dotted path, making what is above it."""
  *groups, last = place.split('.')
  for key in groups:
    tree = tree.setdefault(key, {})
  tree[last] = value


def require(
  tensors: Mapping[str, np.ndarray], name: str, unknown: Collection[str] = ()
) -> np.ndarray:
  """A tensor that has to be there; `unknown` may hold it under a wrong name."""
  if name not in tensors:
    hint = f'; unknown here, {names.alternatives(name, unknown)}'
    raise PretrainedError(f'no tensor {name!r}{hint if unknown else ""}')
  return tensors[name]


def count_layers(tensors: Mapping[str, np.ndarray], prefix: str) -> int:
  """Layers by their numbers after a prefix.

  Counted, so that a gap in the numbers shows up as a missing tensor.
  """
  pattern = re.compile(re.escape(prefix) + r'(\d+)\.')
  return len({match[1] for match in map(pattern.match, tensors) if match})


def shapes_of(network: Any, places: Places) -> dict[str, tuple[int, ...]]:
  """Shape of each of the original's tensors, from those of our network."""
  params = jax.eval_shape(
    network.init,
    jax.random.key(0),
    jnp.zeros((1, 2), jnp.int32),
    jnp.ones((1,), jnp.float32),
  )['params']
  shapes = {}
  for name, (place, layer) in places.items():
    shape = get(params, place).shape
    shape = shape if layer is None else shape[1:]
    shapes[name] = shape[::-1] if place.endswith('kernel') else shape
  return shapes


def to_params(
  tensors: Mapping[str, np.ndarray],
  places: Places,
  shapes: Mapping[str, tuple[int, ...]],
  ignored: Collection[str] = (),
) -> Params:
  """Our parameters from the original's tensors.

  Args:
    tensors: name to array.
    places: the layout.
    shapes: of the tensors.
    ignored: names of tensors that may be there and are not wanted.

  Returns:
    A tree of float32 numpy arrays.

  Raises:
    PretrainedError: for a tensor that is missing, unknown, of a wrong shape,
      not floating, or with NaN or an infinity.
  """
  unknown = [name for name in tensors if name not in (*places, *ignored)]
  for name, shape in shapes.items():
    tensor = require(tensors, name, unknown)
    if tensor.shape != shape:
      raise PretrainedError(
        f'tensor {name!r} has shape {tensor.shape}, not {shape}'
      )
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
      raise PretrainedError(f'tensor {name!r} holds {tensor.dtype}, no floats')
  if unknown:
    raise PretrainedError(
      f'unknown tensor {unknown[0]!r} ({len(unknown)} in all); '
      f'{names.alternatives(unknown[0], places)}'
    )
  num_layers = 1 + max(layer or 0 for _, layer in places.values())
  params: Params = {}
  for name, (place, layer) in places.items():
    tensor = np.asarray(tensors[name], np.float32)
    # A network of them gives numbers that look like samples.
    if not np.isfinite(tensor).all():
      raise PretrainedError(f'tensor {name!r} has numbers that are not finite')
    tensor = tensor.T if place.endswith('kernel') else tensor
    if layer is None:
      put(params, place, np.array(tensor, order='C'))
      continue
    if not layer:
      put(params, place, np.empty((num_layers, *tensor.shape), np.float32))
    get(params, place)[layer] = tensor
  return params


def of_torch(file: torch_file.TorchFile, state: Any) -> dict[str, np.ndarray]:
  """The tensors of a state dict in a torch file.

  Raises:
    PretrainedError: for something else than a dict of tensors.
  """
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


def read(file: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file with one of `SUFFIXES`; nothing in it is run.

  Raises:
    PretrainedError: for a damaged file.
    OSError: for a file that cannot be opened.
  """
  if file.suffix == '.npz':
    return tensor_files.read_npz(file)
  if file.suffix == '.safetensors':
    return tensor_files.read_safetensors(file)
  with torch_file.TorchFile(file) as opened:
    return of_torch(opened, opened.content)


def parsed_config(text: str, where: str) -> dict[str, Any]:
  """A config's JSON object.

  Raises:
    PretrainedError: for text that is none.
  """
  try:
    config = json.loads(text)
  except ValueError as error:
    raise PretrainedError(f'{where} is no JSON: {error}') from None
  if not isinstance(config, dict):
    raise PretrainedError(f'{where} is no object but a {type(config).__name__}')
  return config


def located(
  path: str | os.PathLike,
  files: Sequence[str],
  fetched: Sequence[str] = (CONFIG, WEIGHTS),
) -> pathlib.Path:
  """The file of weights that a path, folder or hub id stands for.

  Args:
    path: a file with one of `SUFFIXES`, a folder, or, where nothing of that
      name exists, a hub id 'owner/name'.
    files: what a folder is searched for, in this order.
    fetched: what is downloaded from the hub, the weights last.

  Returns:
    The file.

  Raises:
    PretrainedError: where there is none.
  """
  found = pathlib.Path(path)
  if not found.exists():
    if not isinstance(path, str) or not _HUB_ID.fullmatch(path):
      raise PretrainedError(f'{str(path)!r} does not exist')
    found = _from_hub(path, fetched)
  if found.is_dir():
    candidates = [found / name for name in files]
    if not any(file.is_file() for file in candidates):
      raise PretrainedError(f'{found} holds none of {", ".join(files)}')
    found = next(file for file in candidates if file.is_file())
  if found.suffix not in SUFFIXES:
    raise PretrainedError(f'{found} ends in none of {", ".join(SUFFIXES)}')
  return found


def _from_hub(name: str, files: Sequence[str]) -> pathlib.Path:
  """Downloads files of a hub's repository; their folder."""
  if importlib.util.find_spec('huggingface_hub') is None:
    raise PretrainedError(
      f'{name!r} is no file or folder here; to download it from the hub: '
      "pip install 'sedd_jax[hub]'"
    )
  hub = importlib.import_module('huggingface_hub')
  try:
    paths = [hub.hf_hub_download(name, file) for file in files]
  # The library's own errors, those of its HTTP client, a missing network.
  except Exception as error:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise PretrainedError(
      f'{name!r} is no file or folder here, and the hub did not give it: {text}'
    ) from error
  return pathlib.Path(paths[-1]).parent
