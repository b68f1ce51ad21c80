"""Documents of text to prepared folders, batch by batch, on many cores.

What is written depends on the text and on the recipe only: batches are cut by
the size of their documents, each is turned into tokens by whichever process is
free, and all are written in order.  What is written is recorded every other
second, and whoever comes after a kill goes on behind it.  In memory are some
batches for each process, whatever the size of the corpus.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import process
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.data import tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document
from sedd_jax.data.prepared.writer import Writer
from sedd_jax.data.sets import detokenizers, evaluation_sets
from sedd_jax.data.tokenizers import Tokenizer

# Documents that are turned into tokens together.
BATCH_BYTES = 2**22
# What a kill loses at most, beside the batches under way: to flush to disk
# takes its time too.
RECORD_SECONDS = 2.0
# Batches under way, a process.
_AHEAD = 2


def train_only(document: Document) -> str:
  """The split of every document where splits are by position, made later."""
  del document
  return 'train'


def split_of(document: Document, validation_fraction: float) -> str:
  """The split of a document, by its text alone.

  A text that is there twice is on one side both times, and neither order nor
  number of the files matters.

  >>> document = Document('a.txt', 0, b'a document')
  >>> split_of(document, 1.0), split_of(document, 0.0)
  ('validation', 'train')
  """
  digest = hashlib.sha256(document.data).digest()
  draw = int.from_bytes(digest[:8], 'big') / 2**64
  return 'validation' if draw < validation_fraction else 'train'


def text_of(document: Document, source: str, as_is: bool) -> Document:
  """A line, row or passage of a published corpus as text.

  The rules are those that its test split is read with.

  Args:
    document: as `documents` reads it.
    source: of `published.CORPORA`.
    as_is: without the rules of `detokenizers`.

  Raises:
    DataError: for invalid UTF-8.
  """
  known = evaluation_sets.SETS[source]
  text = document.text()
  # A passage of LAMBADA is out of its JSON already.
  if source != 'lambada':
    assert known.examples is not None
    text = next(known.examples([text]))
  if text and not as_is:
    text = detokenizers.detokenized(text, known.detokenizer)
  return document._replace(data=text.encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How documents become tokens.  Goes to other processes: it is pickled.

  Attributes:
    tokenizer: as `tokenizers.make` takes it.
    split_of: document to its split, or to None: it is left out.
    text_of: document to what is written of it, or None: all as it is.
    lines: as `documents.read_documents` takes it.
    label: likewise.
  """

  tokenizer: str
  split_of: Callable[[Document], str | None] = train_only
  text_of: Callable[[Document], Document] | None = None
  lines: Callable[[str], bool] | None = None
  label: str = ''


class Piece(NamedTuple):
  """The documents of a batch that belong to one split.

  Attributes:
    tokens: `[n]`, joined by the tokenizer's separator.
    begins: `[documents]` places in `tokens`.
    num_characters: that the tokens spell.
    labels: `[documents]`, or None where there are none.
  """

  tokens: np.ndarray
  begins: np.ndarray
  num_characters: int
  labels: list[str] | None = None


Place = dict[str, int]


def encoded(
  recipe: Recipe, tokenizer: Tokenizer, batch: Sequence[Document]
) -> dict[str, Piece]:
  """A batch as tokens, by split.

  Raises:
    DataError: for a document that the tokenizer cannot read.
  """
  parts: dict[str, list[np.ndarray]] = {}
  begins: dict[str, list[int]] = {}
  named: dict[str, list[str]] = {}
  sizes: dict[str, int] = {}
  last: dict[str, int] = {}
  splits = [recipe.split_of(document) for document in batch]
  chosen = [document for document, split in zip(batch, splits) if split]
  if recipe.text_of:
    chosen = list(map(recipe.text_of, chosen))
  ids = tokenizer.encode_documents(chosen)
  for split, each, document in zip(filter(None, splits), ids, chosen):
    if not len(each):
      continue
    joined = tokenizers.seam(last.get(split), each, tokenizer.separator)
    last[split] = int(each[-1])
    size = sizes.get(split, 0)
    begins.setdefault(split, []).append(tokenizers.begin(size, joined, each))
    named.setdefault(split, []).append(document.label)
    sizes[split] = size + len(joined)
    parts.setdefault(split, []).append(joined)
  pieces = {}
  for split, arrays in parts.items():
    tokens = np.concatenate(arrays)
    places = np.array(begins[split], np.int64)
    told = named[split] if recipe.label else None
    count = tokenizer.num_characters(tokens)
    pieces[split] = Piece(tokens, places, count, told)
  return pieces


def write(
  writer: Writer,
  files: Sequence[pathlib.Path],
  recipe: Recipe,
  tokenizer: Tokenizer,
  workers: int = 1,
  progress: Callable[[int], Any] = lambda size: None,
) -> None:
  """Writes documents as they are read, from where a writer before ended.

  Args:
    writer: entered, and not done.
    files: kinds as in `documents.read_documents`.
    recipe: how they become tokens.
    tokenizer: the recipe's; its separator stands where two documents meet.
    workers: processes that turn text into tokens.
    progress: told how many bytes of the files more have been read.

  Raises:
    DataError: for faulty files, and a process that ended.
  """
  place = writer.place or {'file': 0, 'documents': 0}
  batches = _batches(files, recipe, place, progress)
  recorded = time.monotonic()
  with contextlib.closing(
    _encoded_in_order(batches, recipe, tokenizer, workers)
  ) as results:
    for pieces, place in results:
      for split, piece in pieces.items():
        _append(writer, split, piece, tokenizer)
      if time.monotonic() - recorded >= RECORD_SECONDS:
        writer.record(place)
        recorded = time.monotonic()
  writer.record({'file': len(files), 'documents': 0})


def _append(
  writer: Writer, split: str, piece: Piece, tokenizer: Tokenizer
) -> None:
  """Adds a batch behind what is there, one separator between."""
  tokens = tokenizers.seam(
    writer.last(split), piece.tokens, tokenizer.separator
  )
  more = len(tokens) - len(piece.tokens)
  count = piece.num_characters
  if more:
    separator = np.array([tokenizer.separator], tokens.dtype)
    count += more * tokenizer.num_characters(separator)
  begins = np.maximum(piece.begins + more, 0)
  writer.append(split, tokens, count, begins, piece.labels)


def _batches(
  files: Sequence[pathlib.Path],
  recipe: Recipe,
  place: Place,
  progress: Callable[[int], Any],
) -> Iterator[tuple[list[Document], Place]]:
  """Documents from a place on, and the place behind each batch."""
  batch: list[Document] = []
  size = 0
  options: dict[str, Any] = {'lines': recipe.lines} if recipe.lines else {}
  for number, path in enumerate(files):
    if number < place['file']:
      progress(path.stat().st_size)
      continue
    passed = place['documents'] if number == place['file'] else 0
    found = documents.read_documents(
      [path], progress, label=recipe.label, **options
    )
    for count, document in enumerate(found, start=1):
      if count <= passed:
        continue
      batch.append(document)
      size += len(document.data)
      if size >= BATCH_BYTES:
        yield batch, {'file': number, 'documents': count}
        batch, size = [], 0
  if batch:
    yield batch, {'file': len(files), 'documents': 0}


def _encoded_in_order(
  batches: Iterator[tuple[list[Document], Place]],
  recipe: Recipe,
  tokenizer: Tokenizer,
  workers: int,
) -> Generator[tuple[dict[str, Piece], Place], None, None]:
  """Batches as tokens, in their order."""
  first = list(itertools.islice(batches, 2))
  # One batch is done before a process has begun.
  if workers == 1 or len(first) < 2:
    for batch, place in itertools.chain(first, batches):
      yield encoded(recipe, tokenizer, batch), place
    return
  waiting: collections.deque[tuple[concurrent.futures.Future, Place]]
  waiting = collections.deque()
  pool = concurrent.futures.ProcessPoolExecutor(
    workers,
    # A fork would carry the threads of JAX along, and the writer's lock.
    multiprocessing.get_context('spawn'),
    _begin_worker,
    (recipe,),
  )
  try:
    for batch, place in itertools.chain(first, batches):
      waiting.append((pool.submit(_work, batch), place))
      if len(waiting) > _AHEAD * workers:
        future, done = waiting.popleft()
        yield future.result(), done
    while waiting:
      future, done = waiting.popleft()
      yield future.result(), done
  except process.BrokenProcessPool as error:
    raise DataError(
      'a process that turns text into tokens ended (out of memory?); go on '
      'with the same command and fewer --workers'
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}


def _begin_worker(recipe: Recipe) -> None:
  """Runs first in every process of the pool."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # The processes are as many as there are cores.
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'
  threading.Thread(target=_end_with_parent, daemon=True).start()
  _worker['recipe'] = recipe
  _worker['tokenizer'] = tokenizers.make(recipe.tokenizer)


def _end_with_parent() -> None:
  """Ends this process when the one that began it is gone, killed or not."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(batch: list[Document]) -> dict[str, Piece]:
  return encoded(_worker['recipe'], _worker['tokenizer'], batch)
