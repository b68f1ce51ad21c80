"""Labels of documents: where they are read, and which token has which.

A label is a name: a text or an integer in a field of a JSON line (a column of
a parquet file), or what the document's file or folder is called.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.core import names
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import durable

# The names of files and folders, in place of a field's name.
FILE, FOLDER = '@file', '@folder'
# Of pairs: all fields of the meanings that are their sources (`meanings`).
MEANING = '@meaning'
# Of pairs: the tags and phrases of the targets' words (`tagged`).
SPANS = '@spans'
# A field of other things, such as titles, has more values.
MAX_LABELS = 1024
# In place of a label's number.
NONE = -1
# A label's number on disk.
STORED = np.dtype('<u2')
# What a trained run keeps its labels in.
RUN_FILE = 'labels.json'


def is_field(label: str) -> bool:
  """Whether labels are read inside files.

  Args:
    label: `FILE`, `FOLDER` or a field's name; '' for none.

  Raises:
    DataError: for another name that begins with '@'.

  >>> is_field('genre'), is_field('@file'), is_field('')
  (True, False, False)
  """
  if label.startswith('@') and label not in (FILE, FOLDER):
    raise DataError(
      f'unknown label {label!r}; {names.alternatives(label, (FILE, FOLDER))}; '
      'or the name of a field'
    )
  return bool(label) and label not in (FILE, FOLDER)


def of_path(
  path: pathlib.Path, label: str, suffixes: Iterable[str]
) -> str | None:
  """The label that a file's name or its folder's gives, or None.

  Args:
    path: of the file.
    label: see `is_field`.
    suffixes: that are no part of a name.

  >>> of_path(pathlib.Path('in/poems.jsonl.gz'), '@file', ('.jsonl', '.gz'))
  'poems'
  >>> of_path(pathlib.Path('in/poems.txt'), '@folder', ('.txt',))
  'in'
  """
  if is_field(label) or not label:
    return None
  if label == FOLDER:
    return path.absolute().parent.name or '/'
  name = path.name
  while (inner := pathlib.PurePath(name)).suffix.lower() in suffixes:
    name = inner.stem
  return name


def of_value(value: Any, field: str, where: str) -> str:
  """The label of a JSON value that stands for a document.

  Args:
    value: of the line or row.
    field: the field's name.
    where: the line's place, for the error's text.

  Raises:
    DataError: for a value without that field, or with neither text nor an
      integer in it.

  >>> of_value({'text': 'a', 'genre': 3}, 'genre', 'a.jsonl:1')
  '3'
  """
  fields = value if isinstance(value, Mapping) else {}
  if field not in fields:
    raise DataError(
      f'{where}: no label: there is no field {field!r}; '
      f'{names.alternatives(field, fields)}'
    )
  found = fields[field]
  if isinstance(found, str) and found:
    return found
  if isinstance(found, int):
    return json.dumps(found)
  raise DataError(
    f'{where}: {field!r} is no label: neither a text nor an integer, but '
    f'{json.dumps(found)[:40]}'
  )


class Names:
  """Labels' names, numbered as they come.

  >>> names = Names()
  >>> names.numbers(['b', 'a', 'b']).tolist(), list(names)
  ([0, 1, 0], ['b', 'a'])
  """

  def __init__(self, known: Iterable[str] = ()):
    """With names that have come already."""
    self._numbers = {name: number for number, name in enumerate(known)}

  def __iter__(self) -> Iterator[str]:
    return iter(self._numbers)

  def numbers(self, labels: Sequence[str]) -> np.ndarray:
    """The numbers `[n]` of labels, in `STORED`.

    Raises:
      DataError: for more than `MAX_LABELS` names.
    """
    numbers = self._numbers
    found = [numbers.setdefault(label, len(numbers)) for label in labels]
    if len(numbers) > MAX_LABELS:
      some = ', '.join(repr(name)[:40] for name in list(numbers)[:3])
      raise DataError(
        f'more than {MAX_LABELS:,} labels ({some}, ...): is this a field of '
        'labels?'
      )
    return np.array(found, STORED)


def renumbered(stored: Sequence[str], known: Sequence[str]) -> np.ndarray:
  """The numbers that names have elsewhere, int32 `[names]`.

  Args:
    stored: names.
    known: names in another order, and perhaps more.

  Raises:
    DataError: for a name that is not known.

  >>> renumbered(['b', 'a'], ['a', 'b', 'c']).tolist()
  [1, 0]
  """
  for name in stored:
    if name not in known:
      raise DataError(
        f'label {name!r} of this text is none of those that the run was '
        f'trained with; {names.alternatives(name, known)}'
      )
  return np.array([known.index(name) for name in stored], np.int32)


def numbered(
  found: Iterable[str], known: Sequence[str] | None = None
) -> dict[str, int]:
  """The numbers of labels, in their order: all that a corpus or a run has.

  Args:
    found: the labels of a corpus, in any order, more than once.
    known: those of a run in the order of their numbers; None: by the alphabet.

  Raises:
    DataError: for more than `MAX_LABELS`, and one that is not known.

  >>> numbered(['b', 'a', 'b']), numbered(['b'], known=['c', 'b'])
  ({'a': 0, 'b': 1}, {'c': 0, 'b': 1})
  """
  own = sorted(set(found))
  Names().numbers(own)
  if known is not None:
    renumbered(own, known)
    own = list(known)
  return {name: number for number, name in enumerate(own)}


class Index(NamedTuple):
  """The labels of the tokens of a split.

  Attributes:
    begins: `[documents]` uint64, ascending: a document's first token, counted
      from the beginning of the corpus.
    numbers: `[documents]` integers, their labels.
    offset: the split's first token, counted likewise.
  """

  begins: np.ndarray
  numbers: np.ndarray
  offset: int = 0

  def at(self, places: np.ndarray) -> np.ndarray:
    """The labels of tokens: those of the last documents begun before them.

    So a separator has the label of the document that it ends.

    Args:
      places: `[...]` integers from 0 on, in the split.

    Returns:
      int32 `[...]`.

    >>> index = Index(np.array([0, 3], np.uint64), np.array([7, 5]))
    >>> index.at(np.arange(5)).tolist()
    [7, 7, 7, 5, 5]
    """
    # Of one type: else all begins were converted at every call.
    wanted = (places + self.offset).astype(self.begins.dtype)
    last = np.searchsorted(self.begins, wanted, 'right') - 1
    return self.numbers[last].astype(np.int32)


def write_run(folder: pathlib.Path, known: Sequence[str]) -> None:
  """Writes the labels of a run, in the order of their numbers; whole, or not.

  Raises:
    DataError: where they cannot be written.
  """
  text = json.dumps(list(known), ensure_ascii=False, indent=1)
  durable.write_text(folder / RUN_FILE, text + '\n')


def read_run(folder: pathlib.Path) -> tuple[str, ...] | None:
  """The labels of a run in the order of their numbers; None: it has none.

  Raises:
    DataError: for a file that is damaged.
  """
  path = folder / RUN_FILE
  try:
    found = json.loads(path.read_text('utf-8'))
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise DataError(f'{path}: cannot be read: {error}') from error
  if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
    raise DataError(f'{path}: not a list of labels')
  return tuple(found)
