"""Rows of parquet files, a few at a time.

A parquet file may hold a text once and say that it is there a million times, so
texts stay as they are stored, each of them once, and are given out one by one:
who reads them can stop before they fill the memory.
"""

import importlib
from collections.abc import Iterator
from typing import IO, Any

from sedd_jax.core import names
from sedd_jax.data.errors import DataError

# Where parquet files of the hub have the text.
_COLUMNS = ('text', 'sentence')
_TEXTS = ('string', 'large_string', 'string_view', 'null')
_INTEGERS = tuple(
  f'{sign}int{n}' for sign in ('', 'u') for n in (8, 16, 32, 64)
)
# Rows that are decoded together: few where they are long.
_ROWS, _BYTES = 2**10, 2**26
# Rows are written as what they add to those before; pyarrow has no way to read
# that but to spell them all out.
_SPELLED_OUT = 'DELTA_BYTE_ARRAY'


def rows(
  where: str, stream: IO[bytes], field: str = ''
) -> Iterator[tuple[int, Any, Any]]:
  """The rows of the column `text` or `sentence` that have a text.

  Args:
    where: the file, for the error's text.
    stream: of the file; one that can seek.
    field: a column of labels; '' for none.

  Yields:
    The number of the row, from 1 on; its text, a `pyarrow.Buffer` of what
    should be UTF-8, which is not copied yet; its label, or None.

  Raises:
    DataError: without pyarrow, for a file that is no parquet file, and for
      columns that are missing or of another type.
    OSError: for a damaged file.
  """
  try:
    # Optional, and 55 MB large: not a dependency of the package.
    pyarrow = importlib.import_module('pyarrow')
    parquet = importlib.import_module('pyarrow.parquet')
  except ModuleNotFoundError as error:
    raise DataError(
      f"{where}: needs pyarrow: pip install 'sedd_jax[parquet]'"
    ) from error
  try:
    table = parquet.ParquetFile(stream)
  except ValueError as error:
    raise DataError(f'{where}: not a parquet file: {error}') from error
  column = _column(where, table.schema_arrow, field)
  wanted = list(dict.fromkeys([column, field or column]))
  size, spelled_out = _row(table.metadata, wanted)
  if not spelled_out:
    table = parquet.ParquetFile(
      stream, metadata=table.metadata, read_dictionary=wanted
    )
  count = 1 if spelled_out else max(1, min(_ROWS, _BYTES // size))
  row = 0
  try:
    for batch in table.iter_batches(batch_size=count, columns=wanted):
      # Not in the order that was asked for.
      texts, labels = (
        batch.column(batch.schema.get_field_index(name))
        for name in (column, field or column)
      )
      indices, stored = _stored(pyarrow, texts)
      for place, index in enumerate(indices):
        if index is not None and (text := stored[index].as_buffer()).size:
          label = labels[place].as_py() if field else None
          yield row + place + 1, text, label
      row += len(texts)
  except pyarrow.ArrowException as error:
    raise OSError(str(error)) from error


def _column(where: str, schema: Any, field: str) -> str:
  """The column of the texts; it and that of the labels are checked."""
  there = schema.names
  column = next((name for name in _COLUMNS if name in there), None)
  if column is None:
    raise DataError(
      f"{where}: no column 'text'; {names.alternatives('text', there)}"
    )
  if field and field not in there:
    raise DataError(
      f'{where}: no column {field!r} for labels; '
      f'{names.alternatives(field, there)}'
    )
  if _type(schema, column) not in _TEXTS:
    raise DataError(
      f'{where}: column {column!r} holds no texts (string) but '
      f'{_type(schema, column)}'
    )
  if field and _type(schema, field) not in (*_TEXTS, *_INTEGERS, 'bool'):
    raise DataError(
      f'{where}: column {field!r} holds no labels (string or integers) but '
      f'{_type(schema, field)}'
    )
  return column


def _type(schema: Any, column: str) -> str:
  kind = schema.field(column).type
  return str(getattr(kind, 'value_type', kind)) if _encoded(kind) else str(kind)


def _encoded(kind: Any) -> bool:
  return str(kind).startswith('dictionary<')


def _row(metadata: Any, wanted: list[str]) -> tuple[int, bool]:
  """Bytes of a row, of the row group where they are most, before texts are
  repeated; and whether texts are to be spelled out."""
  size, spelled_out = 1, False
  for number in range(metadata.num_row_groups):
    group = metadata.row_group(number)
    columns = [group.column(i) for i in range(group.num_columns)]
    columns = [each for each in columns if each.path_in_schema in wanted]
    total = sum(each.total_uncompressed_size for each in columns)
    size = max(size, total // max(group.num_rows, 1))
    spelled_out |= any(_SPELLED_OUT in each.encodings for each in columns)
  return size, spelled_out


def _stored(pyarrow: Any, texts: Any) -> tuple[list[int | None], Any]:
  """The place of each row's text among those that are stored, and these."""
  if not _encoded(texts.type):
    texts = texts.cast(pyarrow.large_binary()).dictionary_encode()
  return texts.indices.to_pylist(), texts.dictionary.cast(
    pyarrow.large_binary()
  )
