"""Pairs of texts from files: a source, and what it is to become.

By suffix, each also in `.gz`, `.xz`, `.zst` or `.zip`:

  .jsonl, .json  a line an object with the strings `src` and `trg`, or with
                 `src` and a list `refs`, and an `id` if it has one; or a list
                 of one string, or a string: a text without a source
  .tsv           source, tab, target
  .csv           a header with `mr` and `ref`, as E2E's: meaning and text
  .src           a source a line; NAME.trg, or NAME.ref0, NAME.ref1, ... beside
                 it have the targets of the same line

Pairs keep the order of the file and have the number of their line.
"""

import csv
import io
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sedd_jax.core import names
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents

_PACKED = ('.gz', '.xz', '.zst', '.zip')
_BYTE_ORDER_MARK = b'\xef\xbb\xbf'


class Pair(NamedTuple):
  """A source and its targets.

  Attributes:
    id: the file's own, or its base name and the line: 'test.jsonl:17'.
    source: a text; empty where the file has texts only.
    targets: at least one, of several the references in order.
  """

  id: str
  source: str
  targets: tuple[str, ...]


class _Line(NamedTuple):
  """A line of a file, as it is there; a CSV's record has its first line.

  `id` is empty, and `source` None, where the file has none.
  """

  number: int
  id: str
  source: str | None
  targets: tuple[str, ...]


def find(path: str) -> list[pathlib.Path]:
  """The files of pairs that a path stands for.

  Args:
    path: a file, or several separated by commas.

  Raises:
    DataError: for a missing file (with names like it) and another suffix.
  """
  parts = [path] if pathlib.Path(path).exists() else path.split(',')
  files = [pathlib.Path(part.strip()) for part in parts]
  for file in files:
    if not file.is_file():
      raise DataError(documents.missing(file))
    _format_of(file)
  return files


def with_references(files: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """The files, each `.src` followed by those that have its targets."""
  found = []
  for file in files:
    found.append(file)
    if _format_of(file) == '.src':
      found += _beside(file)
  return found


def read(files: Sequence[pathlib.Path]) -> list[Pair]:
  """The pairs of files, in order.

  Args:
    files: as `find` gives them.  Of a second file of the same base name the
      ids begin with 'NAME(2)'.

  Raises:
    DataError: for a damaged file, and with its number for a line that is no
      pair, invalid UTF-8, an empty source or target, and an id that is there
      already.
  """
  pairs: list[Pair] = []
  places: dict[str, str] = {}
  labels: list[str] = []
  for file in files:
    labels.append(file.name)
    count = labels.count(file.name)
    label = file.name if count == 1 else f'{file.name}({count})'
    for line in _READERS[_format_of(file)](file):
      place = f'{file}:{line.number}'
      pair = Pair(
        line.id or f'{label}:{line.number}',
        *_checked(place, line.source, line.targets),
      )
      if pair.id in places:
        raise DataError(
          f'{place}: the id {pair.id!r} is that of {places[pair.id]} already'
        )
      places[pair.id] = place
      pairs.append(pair)
  return pairs


def _checked(
  place: str, source: str | None, targets: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
  """Texts without white space around them; `source` None: there is none."""
  kinds = ['target'] * len(targets)
  texts = [*targets]
  if source is not None:
    kinds.insert(0, 'source')
    texts.insert(0, source)
  for kind, text in zip(kinds, texts):
    if not text.strip():
      raise DataError(f'{place}: the {kind} is empty')
    try:
      text.encode('utf-8')
    except UnicodeEncodeError as error:
      raise DataError(
        f'{place}: the {kind} has a lone surrogate, {text[error.start]!r}'
      ) from error
  stripped = tuple(target.strip() for target in targets)
  return (source or '').strip(), stripped


def _format_of(file: pathlib.Path) -> str:
  """The suffix that says how a file is read."""
  suffix = _unpacked(file).suffix.lower()
  if suffix not in _READERS:
    raise DataError(
      f'{file}: no file of pairs by its suffix {suffix!r}; '
      f'{names.alternatives(suffix, _READERS)}'
    )
  return suffix


def _unpacked(file: pathlib.Path) -> pathlib.Path:
  """The name without the suffix of a compression."""
  return file.with_suffix('') if file.suffix.lower() in _PACKED else file


def lines(file: pathlib.Path) -> Iterator[tuple[int, str]]:
  """The lines of a file, compressed or not, from 1, without their ends.

  Only a line feed ends a line, after a carriage return or not.

  Raises:
    DataError: for a missing or damaged file, and invalid UTF-8 by its line.
  """
  data = documents.read_whole(file, _unpacked(file).name)
  found = data.removeprefix(_BYTE_ORDER_MARK).split(b'\n')
  if found[-1] == b'':
    found.pop()
  for number, line in enumerate(found, start=1):
    try:
      yield number, line.decode('utf-8').removesuffix('\r')
    except UnicodeDecodeError as error:
      raise DataError(
        f'{file}:{number}: invalid UTF-8 (byte 0x{line[error.start]:02x})'
      ) from error


def _json_lines(file: pathlib.Path) -> Iterator[_Line]:
  for number, text in lines(file):
    try:
      value = json.loads(text)
    except ValueError as error:
      raise DataError(f'{file}:{number}: no JSON: {error}') from error
    except RecursionError as error:
      raise DataError(f'{file}:{number}: JSON in JSON, too deep') from error
    line = _of_json(number, value)
    if line is None:
      raise DataError(
        f'{file}:{number}: not a pair; a line is an object with the strings '
        "'src' and 'trg', or 'src' and a list 'refs' of strings, or a list of "
        f'one string, not {text[:60]!r}'
      )
    yield line


def _of_json(number: int, value: Any) -> _Line | None:
  if isinstance(value, list) and len(value) == 1:
    [value] = value
  if isinstance(value, str):
    return _Line(number, '', None, (value,))
  if not isinstance(value, dict) or ('trg' in value) == ('refs' in value):
    return None
  source, given = value.get('src'), value.get('id', '')
  targets = value['refs'] if 'refs' in value else [value['trg']]
  if not isinstance(given, str | int) or not isinstance(targets, list):
    return None
  if not targets or not all(isinstance(x, str) for x in (source, *targets)):
    return None
  return _Line(number, str(given), source, tuple(targets))


def _tab_separated(file: pathlib.Path) -> Iterator[_Line]:
  for number, text in lines(file):
    columns = text.split('\t')
    if len(columns) != 2:
      raise DataError(
        f'{file}:{number}: {len(columns)} columns; a line is source, tab, '
        'target'
      )
    yield _Line(number, '', columns[0], (columns[1],))


def _meanings(file: pathlib.Path) -> Iterator[_Line]:
  # A record may hold line ends, which stay in it.
  text = '\n'.join(line for _, line in lines(file))
  reader = csv.reader(io.StringIO(text, newline=''), strict=True)
  try:
    header = next(reader, [])
    if not {'mr', 'ref'} <= set(header):
      raise DataError(
        f"{file}:1: a header with 'mr' and 'ref' is missing; it has "
        f'{", ".join(header) or "nothing"}'
      )
    begin = reader.line_num + 1
    for row in reader:
      if len(row) != len(header):
        raise DataError(
          f'{file}:{begin}: {len(row)} columns, where the header has '
          f'{len(header)}'
        )
      record = dict(zip(header, row))
      yield _Line(begin, '', record['mr'], (record['ref'],))
      begin = reader.line_num + 1
  except csv.Error as error:
    raise DataError(f'{file}:{reader.line_num}: no CSV: {error}') from error


def _side_by_side(file: pathlib.Path) -> Iterator[_Line]:
  sources = list(lines(file))
  columns = []
  for other in _beside(file):
    columns.append([text for _, text in lines(other)])
    if len(columns[-1]) != len(sources):
      raise DataError(
        f'{other}: {len(columns[-1]):,} lines, where {file.name} has '
        f'{len(sources):,}'
      )
  for (number, source), targets in zip(sources, zip(*columns)):
    yield _Line(number, '', source, targets)


def _beside(file: pathlib.Path) -> list[pathlib.Path]:
  """The files with the targets of a `.src`."""
  packing = file.suffix if file.suffix.lower() in _PACKED else ''
  stem = _unpacked(file).with_suffix('')
  target = stem.with_name(f'{stem.name}.trg{packing}')
  if target.is_file():
    return [target]
  found: list[pathlib.Path] = []
  while True:
    other = stem.with_name(f'{stem.name}.ref{len(found)}{packing}')
    if not other.is_file():
      break
    found.append(other)
  if not found:
    raise DataError(
      f'{file}: neither {target.name} nor {stem.name}.ref0{packing} is beside '
      'it'
    )
  return found


_READERS: dict[str, Callable[[pathlib.Path], Iterable[_Line]]] = {
  '.jsonl': _json_lines,
  '.json': _json_lines,
  '.tsv': _tab_separated,
  '.csv': _meanings,
  '.src': _side_by_side,
}
