"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """Opens a file that takes its place in one move when the block ends.

  Until then, and for good where the block fails, an older file stays as it is.
  What is written is with the disk before the move.  A killed process leaves it
  beside, as `NAME.part`.

  Args:
    path: the file; its folder is there.

  Yields:
    A stream for bytes.

  Raises:
    OSError: where it cannot be written.
  """
  path = pathlib.Path(path)
  part = path.with_name(f'{path.name}.part')
  try:
    with open(part, 'wb') as stream:
      yield stream
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise


def write_text(path: str | os.PathLike, text: str) -> None:
  """Replaces a file by a text, in UTF-8.

  Raises:
    OSError: where it cannot be written.
  """
  # No newline is translated.
  with replacing(path) as stream:
    stream.write(text.encode())
