"""Documents of text files: plain, compressed, in archives, in JSON lines.

Archives are read member by member, in memory; nothing is ever unpacked to disk,
so that no name inside an archive can become a path.  What one member or one
document may hold is bounded by `MAX_BYTES`, what a file may swell to by
`MAX_SWELL`, headers in archives by `tars.MAX_HEADER`, and what is read back and
forth, a zip or parquet file inside of another, by `MAX_INSIDE`.
"""

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

from sedd_jax.core import names
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import labels, parquets, tars, zstd

# The line that ends a document inside a plain text file.
END_OF_TEXT = b'<|endoftext|>'
MAX_BYTES = 2**32
# Times its size on disk that the text of a file may have beyond `MAX_BYTES`.
MAX_SWELL = 1000
# Of a zip or parquet file in an archive, or compressed: it is held in memory.
MAX_INSIDE = 2**30
SUFFIXES = (
  '.txt',
  '.jsonl',
  '.gz',
  '.tgz',
  '.xz',
  '.zst',
  '.zip',
  '.tar',
  '.parquet',
)

_OPENERS: dict[str, Callable[..., Any]] = {
  '.gz': gzip.open,
  '.tgz': gzip.open,
  '.xz': lzma.open,
  '.zst': zstd.opened,
}
# openwebtext.tar.xz holds archives of text files.
_MAX_DEPTH = 3
# Some programs put it before UTF-8.
_BYTE_ORDER = '\ufeff'
_TAR_MAGIC = slice(257, 262)
_DIVIDED = (
  ' without an end of a document; divide it by lines '
  f'{END_OF_TEXT.decode()}, or make it JSON lines'
)
_ABSOLUTE = re.compile(r'[/\\]|[A-Za-z]:')
_DAMAGED = (
  EOFError,
  OSError,
  RuntimeError,  # zipfile: an encrypted member
  lzma.LZMAError,
  tarfile.TarError,
  zipfile.BadZipFile,
  zlib.error,
)


class Document(NamedTuple):
  """One document.

  Attributes:
    where: its file, with the member or line if any.
    offset: of its first byte in the decompressed file or member.
    data: the text, UTF-8 unless the file is faulty.
    label: its label, where labels were asked for.
  """

  where: str
  offset: int
  data: bytes
  label: str = ''

  def text(self) -> str:
    """The text.

    Raises:
      DataError: for invalid UTF-8; names file and offset.
    """
    try:
      return self.data.decode('utf-8')
    except UnicodeDecodeError as error:
      raise DataError(
        f'{self.where}: invalid UTF-8 (byte 0x{self.data[error.start]:02x}) at '
        f"offset {self.offset + error.start:,}; data.tokenizer='bytes' takes "
        'any bytes'
      ) from error


def sha256(path: str | os.PathLike[str]) -> str:
  """SHA-256 of a file, in hexadecimal."""
  with open(path, 'rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


def described(paths: Iterable[pathlib.Path]) -> tuple[dict[str, str], ...]:
  """Base name and SHA-256 of files: `({'name', 'sha256'}, ...)`."""
  return tuple({'name': path.name, 'sha256': sha256(path)} for path in paths)


def find(path: str) -> list[pathlib.Path]:
  """The text files that a path stands for.

  Args:
    path: a file, a folder (every file of `files_in` with a suffix of
      `SUFFIXES`), or several of them separated by commas.

  Returns:
    At least one file.

  Raises:
    DataError: for a path that is missing (with names like it that are there),
      and for a folder without text files.
  """
  found: list[pathlib.Path] = []
  # A file's own name may hold a comma.
  parts = [path] if os.path.exists(path) else path.split(',')
  for part in (pathlib.Path(part.strip()) for part in parts):
    if part.is_dir():
      inside = [f for f in files_in(part) if f.suffix.lower() in SUFFIXES]
      if not inside:
        raise DataError(
          f'{part}: no text files in this folder ({" ".join(SUFFIXES)})'
        )
      found += inside
    elif part.is_file():
      found.append(part)
    else:
      raise DataError(missing(part))
  return found


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files in a folder and below, in order of name.

  Hidden ones are left out, and those in hidden folders: the hub's library keeps
  its books in `.cache`, under the names of the files that it fetched.
  """
  return sorted(
    file
    for file in folder.rglob('*')
    if file.is_file()
    and not any(part.startswith('.') for part in file.relative_to(folder).parts)
  )


def missing(path: pathlib.Path) -> str:
  """What to say of a path that is not there, with names like it that are."""
  folder = path.parent
  there = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
  alike = names.nearest(path.name, there)
  hint = f'; nearest: {", ".join(alike)}' if alike else ''
  return f'{str(path)!r}: no such file or folder{hint}'


def read_documents(
  paths: Iterable[pathlib.Path],
  progress: Callable[[int], Any] = lambda size: None,
  *,
  lines: Callable[[str], bool] = lambda where: False,
  label: str = '',
) -> Iterator[Document]:
  """The documents of files, in order, one at a time.

  By suffix: `.gz`, `.xz` and `.zst` (needs zstandard) are decompressed; `.zip`,
  `.tar` and `.tgz` give their members; `.jsonl` one document a line (a string,
  or an object with the string `text`, or with `context` and `continuation`);
  `.parquet` one a row of the column `text` or `sentence` (needs pyarrow);
  anything else is plain text, one document unless lines `<|endoftext|>` divide
  it.

  Args:
    paths: the files.
    progress: told, after each document, how many bytes of the files more have
      been read.
    lines: told a plain file, or a member, whether it has a document a line,
      with the line's end, also where it is empty.
    label: a field of JSON lines, a column, or `labels.FILE` or `FOLDER`, that
      gives documents their labels; '' for none.

  Raises:
    DataError: for a damaged or truncated file, an archive's member with a name
      that leaves its folder or of more than `MAX_BYTES`, a file that swells
      beyond `MAX_SWELL`, a line that is no document, and a document without a
      label where it must have one.
  """

  field = label if labels.is_field(label) else ''

  def plain(where: str, stream: IO[bytes]) -> Iterator[Document]:
    if field:
      raise DataError(
        f'{where}: plain text has no field {field!r} for labels: they are in '
        f'JSON lines or parquet, or {labels.FILE} or {labels.FOLDER}, the '
        "names of text's files or folders"
      )
    return (_each_line if lines(where) else _plain)(where, stream)

  for path in paths:
    named = labels.of_path(path, label, SUFFIXES)
    try:
      with open(path, 'rb') as stream:
        size, done, swollen = path.stat().st_size, 0, 0
        for document in _documents(
          path.name, str(path), stream, 0, plain, field
        ):
          swollen += len(document.data) + len(document.label)
          if swollen > max(MAX_BYTES, MAX_SWELL * size):
            raise DataError(
              f'{path}: its text is more than {MAX_SWELL:,} times its '
              f'{size:,} bytes, and more than {MAX_BYTES:,}'
            )
          yield document._replace(label=named) if named else document
          progress(stream.tell() - done)
          done = stream.tell()
    except _DAMAGED as error:
      raise DataError(damaged(path, error)) from error


def damaged(path: pathlib.Path, error: BaseException) -> str:
  """What to say of a file that cannot be read to its end."""
  text = ' '.join(str(error).split()) or type(error).__name__
  return f'{path}: cannot be read to its end (damaged or truncated?): {text}'


def read_whole(path: pathlib.Path, member: str) -> bytes:
  """All bytes of one plain, `.gz`, `.xz` or `.zip` file.

  Args:
    path: the file.
    member: the name inside a `.zip`.

  Raises:
    DataError: for a missing, damaged or too large file, and a missing member.
  """
  suffix = path.suffix.lower()
  try:
    with contextlib.ExitStack() as stack:
      stream: IO[bytes] = stack.enter_context(open(path, 'rb'))
      if suffix == '.zip':
        archive = stack.enter_context(zipfile.ZipFile(stream))
        if member not in archive.namelist():
          raise DataError(
            f'{path}: no member {member!r}; '
            f'{names.alternatives(member, archive.namelist())}'
          )
        _check_member(str(path), member, archive.getinfo(member).file_size)
        stream = stack.enter_context(archive.open(member))
      elif suffix in _OPENERS:
        stream = stack.enter_context(_OPENERS[suffix](stream))
      data = stream.read(MAX_BYTES + 1)
  except FileNotFoundError as error:
    raise DataError(missing(path)) from error
  except _DAMAGED as error:
    raise DataError(damaged(path, error)) from error
  _check_size(str(path), len(data))
  return data


def _documents(
  name: str,
  where: str,
  stream: IO[bytes],
  depth: int,
  plain: Callable[[str, IO[bytes]], Iterator[Document]],
  field: str,
) -> Iterator[Document]:
  stem, suffix = os.path.splitext(name.lower())
  if depth > _MAX_DEPTH:
    raise DataError(f'{where}: archives in archives, more than {_MAX_DEPTH}')
  if suffix in _OPENERS:
    with io.BufferedReader(_OPENERS[suffix](stream)) as inner:
      # The shards of OpenWebText are tar archives without `.tar` in the name.
      is_tar = inner.peek(512)[_TAR_MAGIC] == b'ustar'
      stem = f'{stem}.tar' if is_tar and not stem.endswith('.tar') else stem
      yield from _documents(stem, where, inner, depth, plain, field)
  elif suffix == '.zip':
    with zipfile.ZipFile(_seekable(where, stream)) as archive:
      for info in archive.infolist():
        if info.is_dir():
          continue
        _check_member(where, info.filename, info.file_size)
        with archive.open(info) as member:
          place = f'{where}:{info.filename}'
          yield from _documents(
            info.filename, place, member, depth + 1, plain, field
          )
  elif suffix == '.tar':
    for entry, content in tars.members(stream, where):
      _check_member(where, entry.name, entry.size)
      place = f'{where}:{entry.name}'
      yield from _documents(entry.name, place, content, depth + 1, plain, field)
  elif suffix == '.jsonl':
    yield from _json_lines(where, stream, field)
  elif suffix == '.parquet':
    yield from _parquet(where, _seekable(where, stream), field)
  else:
    yield from plain(where, stream)


def _seekable(where: str, stream: IO[bytes]) -> IO[bytes]:
  """A stream that can go back at no cost: a file on disk, or its bytes."""
  if isinstance(getattr(stream, 'raw', None), io.FileIO):
    return stream
  data = stream.read(MAX_INSIDE + 1)
  if len(data) > MAX_INSIDE:
    raise DataError(
      f'{where}: more than {MAX_INSIDE:,} bytes, inside of another file: take '
      'it out'
    )
  return io.BytesIO(data)


def _check_member(where: str, name: str, size: int) -> None:
  parts = pathlib.PurePosixPath(name.replace('\\', '/')).parts
  if '..' in parts or _ABSOLUTE.match(name):
    raise DataError(f'{where}: the name of member {name!r} leaves the archive')
  _check_size(f'{where}:{name}', size)


def _check_size(where: str, size: int, besides: str = '') -> None:
  if size > MAX_BYTES:
    raise DataError(f'{where}: more than {MAX_BYTES:,} bytes{besides}')


def _lines(where: str, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
  offset = 0
  while line := stream.readline(MAX_BYTES + 1):
    _check_size(where, len(line))
    yield offset, line
    offset += len(line)


def _plain(where: str, stream: IO[bytes]) -> Iterator[Document]:
  # Not a list: an object a line would take many times the text's memory.
  text = bytearray()
  begin = 0
  for offset, line in _lines(where, stream):
    if line.strip() != END_OF_TEXT:
      text += line
      _check_size(where, len(text), _DIVIDED)
      continue
    if text:
      yield Document(where, begin, bytes(text))
    text.clear()
    begin = offset + len(line)
  if text:
    yield Document(where, begin, bytes(text))


def _each_line(where: str, stream: IO[bytes]) -> Iterator[Document]:
  for offset, line in _lines(where, stream):
    yield Document(where, offset, line)


def _json_lines(
  where: str, stream: IO[bytes], field: str
) -> Iterator[Document]:
  for number, (offset, line) in enumerate(_lines(where, stream), start=1):
    if not line.strip():
      continue
    place = f'{where}:{number}'
    try:
      text = Document(place, offset, line).text()
      value = json.loads(text if offset else text.removeprefix(_BYTE_ORDER))
      data = _text_of(value).encode('utf-8')
    except DataError:
      raise
    except (ValueError, KeyError, AttributeError) as error:
      raise DataError(
        f'{place}: not a document; a line is a JSON string or an object with '
        "the string 'text', or with 'context' and 'continuation', not "
        f'{line[:60].decode("utf-8", "replace")!r}'
      ) from error
    label = labels.of_value(value, field, place) if field else ''
    yield Document(place, 0, data, label)


def _text_of(value: Any) -> Any:
  """The text of a JSON value that stands for a document."""
  if not isinstance(value, dict):
    return value
  if 'text' in value or 'context' not in value:
    return value['text']
  return f'{value["context"]} {value["continuation"]}'


def _parquet(where: str, stream: IO[bytes], field: str) -> Iterator[Document]:
  for row, text, value in parquets.rows(where, stream, field):
    place = f'{where}:row {row}'
    _check_size(place, text.size)
    label = labels.of_value({field: value}, field, place) if field else ''
    yield Document(place, 0, text.to_pybytes(), label)
