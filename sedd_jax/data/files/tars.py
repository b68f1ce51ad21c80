"""Reading tar archives as a stream, with bounded memory."""

import tarfile
from collections.abc import Iterator
from typing import IO, Any

from sedd_jax.data.errors import DataError

# What may stand before a member's data: names, places of holes.
MAX_HEADER = 2**20


class _Bounded:
  """A stream that is read no further than it may be.

  The library reads headers whole, and what is packed may swell a thousand
  times: a header of two hundred kilobytes took gigabytes.
  """

  def __init__(self, stream: IO[bytes], where: str):
    self._stream, self._where = stream, where
    self.left = MAX_HEADER

  def read(self, size: int) -> bytes:
    data = self._stream.read(size)
    self.left -= len(data)
    if self.left < 0:
      raise DataError(
        f'{self._where}: a header in the archive takes more than '
        f'{MAX_HEADER:,} bytes'
      )
    return data


def members(
  stream: IO[bytes], where: str
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
  """The files in an archive, and what is in them, one after another.

  Args:
    stream: of the archive, unpacked.
    where: what messages call it.

  Raises:
    DataError: a header of more than `MAX_HEADER`.
    tarfile.TarError: a damaged archive.
  """
  bounded: Any = _Bounded(stream, where)
  with tarfile.open(fileobj=bounded, mode='r|') as tar:
    for entry in tar:
      bounded.left = entry.size + MAX_HEADER
      # None for what is no file: folders, links, devices.
      content = tar.extractfile(entry) if entry.isfile() else None
      if content is not None:
        yield entry, content
