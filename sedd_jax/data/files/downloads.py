"""The published files: where they are, how large, and their checksums."""

import hashlib
import http.client
import os
import pathlib
import shutil
import urllib.error
import urllib.request
from typing import NamedTuple

from sedd_jax.core import atomic
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents

_TIMEOUT_SECONDS = 60
_BLOCK = 2**20


class Published(NamedTuple):
  """A published corpus of one file in a zip.

  Attributes:
    url: of the zip.
    zip_size: its bytes.
    zip_sha256: its checksum.
    member: name of the file inside.
    size: bytes of the file inside.
    md5: checksum of the file inside.
    sha256: another, where one was published; '' without.
  """

  url: str
  zip_size: int
  zip_sha256: str
  member: str
  size: int
  md5: str
  sha256: str = ''


PUBLISHED = {
  'text8': Published(
    url='http://mattmahoney.net/dc/text8.zip',
    zip_size=31_344_016,
    zip_sha256=(
      'a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232'
    ),
    member='text8',
    size=100_000_000,
    md5='3bea1919949baf155f99411df5fada7e',
  ),
  'enwik8': Published(
    url='http://mattmahoney.net/dc/enwik8.zip',
    zip_size=36_445_475,
    zip_sha256=(
      '547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc'
    ),
    member='enwik8',
    size=100_000_000,
    md5='a1fa5ffddb56f4953e226637dabbb36a',
    sha256=('2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8'),
  ),
}


def fetch(
  url: str,
  path: str | os.PathLike[str],
  *,
  sha256: str,
  size: int | None = None,
  what_then: str,
) -> None:
  """Downloads a file, checks it, and only then gives it its name.

  Args:
    url: http or https.
    path: the file to make; its folder exists.
    sha256: the checksum it must have.
    size: the bytes it must have, if known.
    what_then: what to do without a network, for the error's text.

  Raises:
    DataError: if it cannot be had, or is not the wanted file; nothing is kept.
  """
  path = pathlib.Path(path)
  try:
    with (
      urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
      atomic.replacing(path) as stream,
    ):
      shutil.copyfileobj(response, stream, _BLOCK)
      stream.flush()
      check_file(stream.name, sha256=sha256, size=size, url=url)
  except (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
  ) as error:
    reason = getattr(error, 'reason', error)
    raise DataError(
      f'cannot download {url} ({reason}); without a network, {what_then}'
    ) from error
  except OSError as error:
    raise DataError(f'{path}: cannot write: {error.strerror}') from error


def check_file(
  path: str | os.PathLike[str],
  *,
  sha256: str,
  size: int | None,
  url: str,
) -> None:
  """Checks that a file is the published one.

  Raises:
    DataError: for a wrong size or checksum.
  """
  found = os.stat(path).st_size
  if size is not None and found != size:
    raise DataError(
      f'{path}: {found:,} bytes, where {url} has {size:,}: truncated, or '
      'another file'
    )
  digest = documents.sha256(path)
  if digest != sha256:
    raise DataError(
      f'{path}: wrong checksum: sha256 {digest}, where {url} has {sha256}'
    )


def check_content(where: str, data: bytes, published: Published) -> None:
  """Checks that the text is the published one.

  Raises:
    DataError: for a wrong size or checksum.
  """
  if len(data) != published.size:
    raise DataError(
      f'{where}: {len(data):,} bytes, where the published {published.member} '
      f'has {published.size:,}'
    )
  for kind in ('md5', 'sha256'):
    expected = getattr(published, kind)
    digest = hashlib.new(kind, data, usedforsecurity=False).hexdigest()
    if expected and digest != expected:
      raise DataError(
        f'{where}: wrong checksum: {kind} {digest}, where the published '
        f'{published.member} has {expected}; for other text set '
        "data.source='text_file'"
      )
