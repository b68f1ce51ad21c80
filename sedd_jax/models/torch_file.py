"""Reads the tensors of a `torch.save` file without torch.

Such a file is a zip archive with a pickle and one record of raw bytes for each
storage.  A pickle is a program; this one runs with an allow-list of the few
names that tensors and plain containers need, so that a file can call nothing.
"""

import collections
import io
import math
import os
import pathlib
import pickle
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from sedd_jax.models.tensor_files import (
  PretrainedError,
  is_count,
  is_possible,
)

_STORAGES = {
  'DoubleStorage': np.dtype(np.float64),
  'FloatStorage': np.dtype(np.float32),
  'HalfStorage': np.dtype(np.float16),
  'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
  'LongStorage': np.dtype(np.int64),
  'IntStorage': np.dtype(np.int32),
  'ShortStorage': np.dtype(np.int16),
  'CharStorage': np.dtype(np.int8),
  'ByteStorage': np.dtype(np.uint8),
  'BoolStorage': np.dtype(np.bool_),
}


# What a pickle gets hold of is immutable and without a __dict__, so that its
# BUILD instruction cannot change it.
class _StorageType(NamedTuple):
  name: str


class _Storage(NamedTuple):
  kind: str
  key: str
  size: int


class TorchTensor(NamedTuple):
  """A tensor that has not been read yet; see `TorchFile.array`.

  Attributes:
    storage: the record that holds its bytes.
    offset: its first element there.
    shape: of the tensor.
    stride: elements from one entry to the next, for each axis.
  """

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


def _allowed() -> dict[str, Any]:
  """Global names of the pickle to what stands for them, made anew each time."""

  def rebuild_tensor(storage, offset, shape, stride, *_):
    if (
      not isinstance(storage, _Storage)
      or not isinstance(shape, tuple)
      or not isinstance(stride, tuple)
      or not all(map(is_count, (offset, *shape, *stride)))
      or len(shape) != len(stride)
      or not is_possible(shape)
    ):
      raise pickle.UnpicklingError('a tensor with an impossible layout')
    return TorchTensor(storage, offset, shape, stride)

  def rebuild_parameter(data, *_):
    return data

  return {
    'collections.OrderedDict': collections.OrderedDict,
    'torch._utils._rebuild_tensor_v2': rebuild_tensor,
    'torch._utils._rebuild_parameter': rebuild_parameter,
    **{f'torch.{name}': _StorageType(name) for name in _STORAGES},
  }


class _Unpickler(pickle.Unpickler):
  """Knows the allowed names and nothing else."""

  def __init__(self, file):
    super().__init__(file)
    self._names = _allowed()

  def find_class(self, module: str, name: str) -> Any:
    full = f'{module}.{name}'
    if full not in self._names:
      raise PretrainedError(
        f'the pickle asks for {full!r}, which is not allowed in a file of '
        'weights'
      )
    return self._names[full]

  def persistent_load(self, pid: Any) -> _Storage:
    match pid:
      case ('storage', _StorageType(name), str(key), _, size) if is_count(size):
        return _Storage(name, key, size)
    raise PretrainedError(f'the pickle refers to {pid!r}, which is no storage')


class TorchFile:
  """An open `torch.save` file; a context manager.

  Attributes:
    content: what was saved, with `TorchTensor` in place of tensors.
  """

  def __init__(self, path: str | os.PathLike):
    """Opens the file and reads everything but the tensors.

    Args:
      path: the file.

    Raises:
      PretrainedError: for a file that is damaged, or whose pickle asks for a
        name that is not allowed.
      OSError: for a file that cannot be opened.
    """
    self._path = pathlib.Path(path)
    self._file = self._path.open('rb')
    try:
      self._archive = self._opened()
      self.content = self._unpickled()
    except BaseException:
      self._file.close()
      raise

  def __enter__(self) -> 'TorchFile':
    return self

  def __exit__(self, *_: Any) -> None:
    self._file.close()

  def _opened(self) -> zipfile.ZipFile:
    try:
      return zipfile.ZipFile(self._file)
    # A damaged archive can fail in any way, here and below.
    except Exception as error:
      raise PretrainedError(
        f'{self._path}: truncated, or not a zip archive as torch has written '
        'since version 1.6'
      ) from error

  def _record(self, name: str, size: int | None = None) -> bytes:
    """The bytes of a record; `size` is checked before they are read."""
    if name not in self._archive.namelist():
      raise PretrainedError(f'{self._path}: no record {name!r}')
    info = self._archive.getinfo(name)
    # Nor could a small file then ask for much memory.
    if info.compress_type != zipfile.ZIP_STORED:
      raise PretrainedError(
        f'{self._path}: record {name!r} is compressed, as torch never does'
      )
    size = info.file_size if size is None else size
    if info.file_size != size:
      raise PretrainedError(
        f'{self._path}: record {name!r} has {info.file_size} bytes, not {size}'
      )
    try:
      data = self._archive.read(name)
    except Exception as error:
      raise PretrainedError(
        f'{self._path}: record {name!r} is damaged: {error}'
      ) from error
    # The archive says two sizes, and they need not be the same.
    if len(data) != size:
      raise PretrainedError(
        f'{self._path}: record {name!r} is damaged: {len(data)} of {size} bytes'
      )
    return data

  def _unpickled(self) -> Any:
    pickles = [
      name
      for name in self._archive.namelist()
      if name == 'data.pkl' or name.endswith('/data.pkl')
    ]
    if len(pickles) != 1:
      raise PretrainedError(
        f'{self._path}: a torch file has one data.pkl, not {len(pickles)}'
      )
    self._folder = pickles[0].removesuffix('data.pkl')
    order = self._folder + 'byteorder'
    if order in self._archive.namelist() and self._record(order) != b'little':
      raise PretrainedError(f'{self._path}: the bytes are not little-endian')
    text = self._record(pickles[0])
    try:
      return _Unpickler(io.BytesIO(text)).load()
    except PretrainedError as error:
      raise PretrainedError(f'{self._path}: {error}') from None
    except Exception as error:
      raise PretrainedError(
        f'{self._path}: damaged pickle: {type(error).__name__}: {error}'
      ) from error

  def array(self, tensor: TorchTensor) -> np.ndarray:
    """Reads one tensor.

    Args:
      tensor: out of `content`.

    Returns:
      A contiguous array of its shape and dtype.

    Raises:
      PretrainedError: for a storage that is missing, damaged or smaller than
        the tensor says.
    """
    count = tensor.storage.size
    dtype = _STORAGES[tensor.storage.kind]
    name = f'{self._folder}data/{tensor.storage.key}'
    data = np.frombuffer(self._record(name, count * dtype.itemsize), dtype)
    if not math.prod(tensor.shape):
      return np.zeros(tensor.shape, dtype)
    last = tensor.offset + sum(
      (n - 1) * step for n, step in zip(tensor.shape, tensor.stride)
    )
    if last >= count or math.prod(tensor.shape) > count:
      raise PretrainedError(
        f'{self._path}: a tensor of shape {tensor.shape} reaches beyond the '
        f'{count} elements of record {name!r}'
      )
    strides = tuple(step * dtype.itemsize for step in tensor.stride)
    view = np.lib.stride_tricks.as_strided(
      data[tensor.offset :], tensor.shape, strides, writeable=False
    )
    return np.array(view, order='C')
