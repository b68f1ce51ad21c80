"""Reading `.zst`, which Python cannot before 3.14: the extra `zstd`."""

import importlib
import io
from typing import IO, Any

from sedd_jax.data.errors import DataError

# A run of equal bytes is packed 40,000 to one: what is read at a time bounds
# what is in memory.
_BLOCK = 2**13
_MAX_WINDOW = 2**31


class _Reader(io.RawIOBase):
  """Frames one after another; one that is cut short is an error."""

  def __init__(self, stream: IO[bytes], library: Any):
    self._stream = stream
    self._frames = library.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    self._frame: Any = None
    self._error = library.ZstdError
    self._packed = b''
    self._ready = memoryview(b'')

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    while not self._ready:
      if not self._packed:
        self._packed = self._stream.read(_BLOCK)
      if not self._packed:
        if self._frame is not None:
          raise EOFError('the last frame is cut short')
        return 0
      self._unpack()
    size = min(len(buffer), len(self._ready))
    buffer[:size] = self._ready[:size]
    self._ready = self._ready[size:]
    return size

  def _unpack(self) -> None:
    if self._frame is None:
      self._frame = self._frames.decompressobj()
    try:
      self._ready = memoryview(self._frame.decompress(self._packed))
    except self._error as error:
      raise OSError(str(error)) from error
    self._packed = b''
    if self._frame.eof:
      self._packed = self._frame.unused_data
      self._frame = None


def opened(stream: IO[bytes]) -> io.RawIOBase:
  """A stream of what a `.zst` stream packs.

  Raises:
    DataError: without the library.
  """
  try:
    library = importlib.import_module('zstandard')
  except ModuleNotFoundError as error:
    raise DataError(
      ".zst needs zstandard: pip install 'sedd_jax[zstd]', or unpack it first"
    ) from error
  return _Reader(stream, library)
