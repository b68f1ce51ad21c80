"""Files that a kill, also of the machine, leaves whole or as they were."""

import hashlib
import importlib
import json
import os
import pathlib
from typing import Any, BinaryIO

import numpy as np

from sedd_jax.core import atomic
from sedd_jax.data.errors import DataError

_BLOCK = 2**24


class Growing:
  """A file that grows, and the checksum of all that is in it."""

  def __init__(self, path: pathlib.Path, wanted: str | None):
    """Opens it, at its end.

    Args:
      path: the file.
      wanted: the checksum that it has; None: it is to be made.

    Raises:
      DataError: if it has another.
    """
    self.path = path
    self._digest = hashlib.sha256()
    if wanted is not None:
      with open(path, 'rb') as stream:
        while block := stream.read(_BLOCK):
          self._digest.update(block)
      if self.sha256 != wanted:
        raise DataError(
          f'{path}: not what was written of it; begin anew with --restart'
        )
    # Without a buffer: what was written is what a kill leaves.
    self._stream: BinaryIO = open(
      path, 'wb' if wanted is None else 'ab', buffering=0
    )

  @property
  def sha256(self) -> str:
    return self._digest.hexdigest()

  def write(self, array: np.ndarray) -> None:
    data = memoryview(array.view(np.uint8).data)
    self._digest.update(data)
    while data:
      data = data[self._stream.write(data) :]

  def flush(self) -> None:
    os.fsync(self._stream.fileno())

  def close(self) -> None:
    self._stream.close()


def locked(path: pathlib.Path) -> int:
  """Opens a file that one process at a time may hold; a kill lets go of it."""
  handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
  try:
    fcntl: Any = importlib.import_module('fcntl')
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except ModuleNotFoundError:
    # Windows: two processes at once are not noticed.
    pass
  except BlockingIOError as error:
    os.close(handle)
    raise DataError(
      f'{path.parent.parent}: another process is preparing data there'
    ) from error
  return handle


def flush_folder(path: pathlib.Path) -> None:
  """The names in a folder to disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def make_folder(path: pathlib.Path) -> None:
  """Makes a folder that may be there already.

  Raises:
    DataError: where it cannot be made.
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise DataError(f'{path}: cannot write: {error.strerror}') from error


def write_text(path: pathlib.Path, text: str) -> None:
  """Replaces a file whole: a kill leaves what was there.

  Raises:
    DataError: where it cannot be written.
  """
  try:
    atomic.write_text(path, text)
  except OSError as error:
    raise DataError(f'{path}: cannot write: {error.strerror}') from error


def write_json(
  path: pathlib.Path, value: Any, indent: int | None = None
) -> None:
  """Replaces a file whole."""
  atomic.write_text(path, f'{json.dumps(value, indent=indent)}\n')
  flush_folder(path.parent)


def read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise DataError(
      f'{path}: cannot be read ({error}); begin anew with --restart'
    ) from error
