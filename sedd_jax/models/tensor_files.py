"""Reads and writes files of named tensors: safetensors and npz.

Only what a file declares is trusted as far as it has been checked: sizes and
offsets are held against the file before a byte of a tensor is read.
"""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from sedd_jax.core import atomic

_DTYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I64': np.dtype(np.int64),
  'I32': np.dtype(np.int32),
  'I16': np.dtype(np.int16),
  'I8': np.dtype(np.int8),
  'U8': np.dtype(np.uint8),
  'BOOL': np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# The format's own limit.
_LONGEST_HEADER = 100_000_000


class PretrainedError(ValueError):
  """A checkpoint that cannot be read; the message names file and offender."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  result = dict(pairs)
  if len(result) != len(pairs):
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    raise PretrainedError(f'the header has {twice!r} twice')
  return result


def is_count(value: Any) -> bool:
  """Whether a declared number is a non-negative integer."""
  return type(value) is int and value >= 0


def is_possible(shape: Iterable[int]) -> bool:
  """Whether numpy can have a shape, which 0 x 2^80 is not for all its size."""
  return math.prod(n for n in shape if n) <= 2**48


def _safetensors_header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
  """The header as a dict, and where the tensors' bytes begin."""
  size = path.stat().st_size
  with path.open('rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
      raise PretrainedError(
        f'{path}: truncated or no safetensors file: {size} bytes cannot hold '
        f'a header of {length}'
      )
    try:
      header = json.loads(file.read(length), object_pairs_hook=_unique)
    except PretrainedError as error:
      raise PretrainedError(f'{path}: {error}') from None
    except (ValueError, RecursionError) as error:
      raise PretrainedError(f'{path}: the header is no JSON: {error}') from None
  if not isinstance(header, dict):
    raise PretrainedError(f'{path}: the header is no JSON object')
  return header, 8 + length


def _safetensors_entry(
  path: pathlib.Path, name: str, entry: Any
) -> tuple[int, int, np.dtype, tuple[int, ...]]:
  """Begin and end within the data, dtype and shape of one tensor."""
  if not isinstance(entry, dict) or not {
    'dtype',
    'shape',
    'data_offsets',
  } == set(entry):
    raise PretrainedError(
      f'{path}: tensor {name!r} needs dtype, shape and data_offsets'
    )
  dtype, shape, offsets = entry['dtype'], entry['shape'], entry['data_offsets']
  if not isinstance(dtype, str) or dtype not in _DTYPES:
    raise PretrainedError(
      f'{path}: tensor {name!r} has dtype {dtype!r}; known: '
      f'{", ".join(_DTYPES)}'
    )
  if (
    not isinstance(shape, list)
    or not all(map(is_count, shape))
    or not is_possible(shape)
  ):
    raise PretrainedError(f'{path}: tensor {name!r} has shape {shape!r}')
  if (
    not isinstance(offsets, list)
    or len(offsets) != 2
    or not all(map(is_count, offsets))
  ):
    raise PretrainedError(f'{path}: tensor {name!r} has offsets {offsets!r}')
  begin, end = offsets
  if math.prod(shape) * _DTYPES[dtype].itemsize != end - begin:
    raise PretrainedError(
      f'{path}: tensor {name!r} of shape {shape} and dtype {dtype} does not '
      f'fill its {end - begin} bytes'
    )
  return begin, end, _DTYPES[dtype], tuple(shape)


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The tensors of a `.safetensors` file, mapped rather than read.

  Args:
    path: the file.

  Returns:
    Name to read-only array, in the order of the file's bytes.

  Raises:
    PretrainedError: for a file that is truncated, has bytes that belong to no
      tensor or to two, or declares what does not fit.
    OSError: for a file that cannot be opened.
  """
  path = pathlib.Path(path)
  header, start = _safetensors_header(path)
  header.pop('__metadata__', None)
  entries = {
    name: _safetensors_entry(path, name, entry)
    for name, entry in header.items()
  }
  data = np.memmap(path, np.uint8, 'r')[start:]
  tensors = {}
  place = 0
  for name, (begin, end, dtype, shape) in sorted(
    entries.items(), key=lambda item: item[1][:2]
  ):
    if end > data.size:
      raise PretrainedError(
        f'{path}: truncated: tensor {name!r} ends at byte {end} of {data.size}'
      )
    if begin != place:
      raise PretrainedError(
        f'{path}: tensor {name!r} begins at byte {begin}, where the one before '
        f'it ends at {place}'
      )
    place = end
    tensors[name] = data[begin:end].view(dtype).reshape(shape)
  if place != data.size:
    raise PretrainedError(
      f'{path}: {data.size - place} bytes at the end belong to no tensor'
    )
  return tensors


def write_safetensors(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes a `.safetensors` file; an older one is replaced in one move.

  Args:
    path: the file.
    tensors: name to array.

  Raises:
    ValueError: for an array whose dtype the format does not have.
  """
  path = pathlib.Path(path)
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  place = 0
  for name, tensor in tensors.items():
    if tensor.dtype not in _NAMES:
      raise ValueError(f'tensor {name!r}: no safetensors dtype {tensor.dtype}')
    header[name] = {
      'dtype': _NAMES[tensor.dtype],
      'shape': list(tensor.shape),
      'data_offsets': [place, place + tensor.nbytes],
    }
    place += tensor.nbytes
  text = json.dumps(header, separators=(',', ':')).encode()
  # The tensors begin at a multiple of 8 bytes.
  text += b' ' * (-len(text) % 8)
  with atomic.replacing(path) as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for tensor in tensors.values():
      # As bytes, for bfloat16 has no buffer of its own.
      flat = np.ascontiguousarray(tensor).reshape(-1)
      file.write(flat.view(np.uint8).data)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays of an `.npz` file; pickled objects are refused.

  Args:
    path: the file.

  Returns:
    Name to array.

  Raises:
    PretrainedError: for a file that is damaged or holds Python objects.
    OSError: for a file that cannot be opened.
  """
  path = pathlib.Path(path)
  tensors: dict[str, np.ndarray] = {}
  name = None
  with path.open('rb') as stream:
    # A damaged archive can fail in any way.
    try:
      file = np.load(stream, allow_pickle=False)
      for name in getattr(file, 'files', ()):
        tensors[name] = file[name]
    except Exception as error:
      where = f'array {name!r}' if name else 'truncated or no npz file'
      raise PretrainedError(f'{path}: {where}: {error}') from error
  if name is None:
    raise PretrainedError(f'{path}: no npz file, or one without arrays')
  return tensors


def write_npz(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes an `.npz` file; an older one is replaced in one move.

  Args:
    path: the file.
    tensors: name to array.
  """
  with atomic.replacing(path) as file:
    np.savez(file, allow_pickle=False, **tensors)
