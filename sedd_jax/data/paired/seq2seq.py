"""Pairs of texts as batches that are pure functions of (seed, step, index).

`load` reads files of pairs; a `PairDataset` gives what `pipeline.Dataset`
gives.  A *row* is a source with one of its targets, in the order of the files.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from numpy.typing import ArrayLike

from sedd_jax.core import names
from sedd_jax.data import crops, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document
from sedd_jax.data.info import DataInfo
from sedd_jax.data.paired import marked, pair_layouts, pairs
from sedd_jax.data.paired.pairs import Pair
from sedd_jax.data.sources import corpora

# Texts turned into tokens at a time.
_AT_ONCE = 4096


class Rows:
  """The rows of a split, as tokens without marks.

  Attributes:
    pairs: in the order of the files.
    places: int32 `[n, 2]`: of each row its pair and which of its targets.
    sources: of each pair its ids; empty where it has no source.
    targets: of each row its ids.
  """

  def __init__(self, read: Sequence[Pair], tokenizer: marked.Marked):
    """Turns the texts into tokens.

    Raises:
      DataError: for a text without tokens, or that holds a mark.
    """
    self.pairs = list(read)
    places = [
      (i, j) for i, pair in enumerate(read) for j in range(len(pair.targets))
    ]
    self.places = np.array(places, np.int32).reshape(-1, 2)
    self.sources = _encoded(
      [(pair.id, pair.source) for pair in read], tokenizer
    )
    self.targets = _encoded(
      [(pair.id, target) for pair in read for target in pair.targets],
      tokenizer,
    )

  def __len__(self) -> int:
    return len(self.places)


def _counters(index: ArrayLike, count: int) -> dict[str, np.ndarray]:
  return {
    'index': np.asarray(index, np.int32),
    'count': np.array(count, np.int32),
  }


def _encoded(
  texts: Sequence[tuple[str, str]], tokenizer: marked.Marked
) -> list[np.ndarray]:
  """Ids of texts, each with what it is called; an empty one stays empty."""
  found: list[np.ndarray] = []
  for begin in range(0, len(texts), _AT_ONCE):
    some = texts[begin : begin + _AT_ONCE]
    batch = [Document(where, 0, text.encode('utf-8')) for where, text in some]
    found += tokenizer.encode_documents(batch)
  for (where, text), ids in zip(texts, found):
    if text and not len(ids):
      raise DataError(
        f'{where}: no token of tokenizer {tokenizer.name!r} is in {text[:60]!r}'
      )
  return found


class PairDataset:
  """Pairs as batches.

  A batch is a dict of numpy arrays: `tokens [b, seq_len]` int32, `index [b]`
  int32, `count`, and by layout

  - 'joint': source and target in `tokens` (`pair_layouts.joint`), `given
    [b, seq_len]` bool, True where they are the source's;
  - 'split': the target in `tokens` (`pair_layouts.framed`), and `source
    [b, source_len]` int32 with `source_valid`, bool, False on its padding;
  - 'target': the target in `tokens`; a source is not read.

  `valid [b, seq_len]` is False on the padding of `tokens`, or True there too
  where padding is predicted; then a batch of training has none.
  """

  def __init__(
    self,
    info: DataInfo,
    rows: Mapping[str, Rows],
    seq_len: int,
    *,
    layout: str = 'joint',
    source_len: int = 0,
    predict_padding: bool = True,
  ):
    """Lays out the rows, and counts their tokens.

    Args:
      info: of the corpus; its counts are replaced.
      rows: split to rows, at least one each.
      seq_len: tokens of `tokens`.
      layout: a name of `pair_layouts.LAYOUTS`.
      source_len: tokens of `source`; 0: seq_len.
      predict_padding: whether padding behind a target counts.

    Raises:
      DataError: for an unknown layout, a length in which no pair fits, and a
        text without a source in a layout that has one.
    """
    _check_layout(layout, seq_len, source_len or seq_len)
    tokenizer = info.tokenizer
    assert isinstance(tokenizer, marked.Marked)
    self.seq_len = seq_len
    self.layout = layout
    self.source_len = source_len or seq_len
    self.predict_padding = predict_padding
    self._rows = dict(rows)
    self._tokenizer = tokenizer
    self._marks = pair_layouts.Marks(
      tokenizer.cls, tokenizer.sep, tokenizer.pad
    )
    for split, own in self._rows.items():
      _check_rows(info.name, split, own, layout)
    self.info = self._counted(info)

  def pairs(self, split: str) -> Sequence[Pair]:
    """The pairs of a split, as texts, in the order of the files.

    Raises:
      DataError: for a split that the corpus lacks.
    """
    return self._of(split).pairs

  def places(self, split: str) -> np.ndarray:
    """int32 `[rows, 2]`: the pair of each row, and which of its targets.

    Rows with a 0 behind are one a pair: what to generate from.
    """
    return self._of(split).places

  def spelled(self, split: str) -> tuple[list[str], list[str]]:
    """The source of each pair and the target of each row, as text again.

    They are whole, and as the tokenizer spells what it has read: without white
    space or case that it does not keep.
    """
    rows = self._of(split)
    sources, targets = (
      [self._tokenizer.text(ids) for ids in own]
      for own in (rows.sources, rows.targets)
    )
    return sources, targets

  def target_ids(self, split: str) -> list[np.ndarray]:
    """The ids of each row's target without marks, as far as batches have them.

    Raises:
      ValueError: where sources stand in the same sequence.
    """
    if self.layout == 'joint':
      raise ValueError("targets are cut by their sources: data.layout='joint'")
    return [ids[: self.seq_len - 2] for ids in self._of(split).targets]

  def was_cut(self, split: str) -> np.ndarray:
    """Whether each row lost tokens, of its source or its target, bool."""
    rows = self._of(split)
    return np.array(
      [self._kept_of(rows, row)[1] for row in range(len(rows))], bool
    )

  def num_sequences(self, split: str) -> int:
    """Rows of a split."""
    return len(self._of(split))

  def tokens(self, split: str) -> np.ndarray:
    """The counted tokens of a split, `[num_tokens]` int32, row after row."""
    rows = self._of(split)
    batch = self._batch(rows, np.arange(len(rows)))
    given = batch.get('given', np.zeros_like(batch['valid']))
    return batch['tokens'][batch['valid'] & ~given]

  def train_batch(
    self, seed: int, step: int, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """Rows of the train split, drawn with replacement.

    Row i depends on seed, step and `indices[i]` only.

    Args:
      seed: of the run.
      step: of training.
      indices: `[b]` places in the global batch.
      count: size of the global batch.

    Returns:
      A batch, without `valid` where padding is predicted.
    """
    rows = self._of('train')
    batch = self._batch(rows, crops.starts(seed, step, indices, len(rows)))
    if self.predict_padding:
      del batch['valid']
    return batch | _counters(indices, count)

  def eval_batch(
    self, split: str, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """Rows of a split, in order.

    Args:
      split: of the corpus.
      indices: `[b]` rows; those from `num_sequences` up count nothing.
      count: number of evaluated rows.

    Returns:
      A batch.

    Raises:
      DataError: for a split that the corpus lacks.
      ValueError: for a negative index.
    """
    index = np.asarray(indices, np.int64)
    if index.size and index.min() < 0:
      raise ValueError(f'index {index.min()} is negative')
    return self._batch(self._of(split), index) | _counters(index, count)

  def _of(self, split: str) -> Rows:
    if split not in self._rows:
      raise DataError(
        f'{self.info.name} has no split {split!r}; '
        f'{names.alternatives(split, self._rows)}'
      )
    return self._rows[split]

  def _batch(self, rows: Rows, index: np.ndarray) -> dict[str, np.ndarray]:
    """Rows laid out; of those beyond the split nothing is valid."""
    shape = (len(index), self.seq_len)
    tokens = np.full(shape, self._marks.pad, np.int32)
    given, valid = np.zeros(shape, bool), np.zeros(shape, bool)
    source_shape = (len(index), self.source_len)
    source = np.full(source_shape, self._marks.pad, np.int32)
    source_valid = np.zeros(source_shape, bool)
    for i in np.flatnonzero(index < len(rows)):
      x, y = self._ids(rows, index[i])
      if self.layout == 'joint':
        tokens[i], given[i], used = pair_layouts.joint(
          x, y, self.seq_len, self._marks
        )
      else:
        tokens[i], used = pair_layouts.framed(y, self.seq_len, self._marks)
      if self.layout == 'split':
        source[i], length = pair_layouts.framed(x, self.source_len, self._marks)
        source_valid[i, :length] = True
      valid[i, : self.seq_len if self.predict_padding else used] = True
    batch = {'tokens': tokens, 'valid': valid}
    if self.layout == 'joint':
      batch['given'] = given
    if self.layout == 'split':
      batch |= {'source': source, 'source_valid': source_valid}
    return batch

  @staticmethod
  def _ids(rows: Rows, row: int) -> tuple[np.ndarray, np.ndarray]:
    return rows.sources[rows.places[row, 0]], rows.targets[row]

  def _kept_of(self, rows: Rows, row: int) -> tuple[tuple[int, int], bool]:
    """Tokens of a source and a target that stay, and whether some do not."""
    x, y = self._ids(rows, row)
    kept = len(x), min(len(y), self.seq_len - 2)
    if self.layout == 'joint':
      kept = pair_layouts.kept_of_pair(len(x), len(y), self.seq_len)
    elif self.layout == 'split':
      kept = min(len(x), self.source_len - 2), kept[1]
    return kept, kept != (len(x), len(y))

  def _counted(self, info: DataInfo) -> DataInfo:
    """Counts tokens, characters and cut rows of each split, and tells these."""
    num_tokens, num_characters, cut = {}, {}, {}
    for split, rows in self._rows.items():
      totals = np.zeros(2, np.int64)
      kept = []
      for row in range(len(rows)):
        (first, second), lost = self._kept_of(rows, row)
        before = first + 3 if self.layout == 'joint' else 0
        tokens = self.seq_len - before if self.predict_padding else second + 2
        totals += (tokens, lost)
        kept.append(rows.targets[row][:second])
      num_tokens[split], cut[split] = totals.tolist()
      num_characters[split] = self._characters(kept)
      if cut[split]:
        logging.warning(
          '%s: %s of %s rows of the %s split do not fit %s and were cut',
          info.name,
          f'{cut[split]:,}',
          f'{len(rows):,}',
          split,
          self._lengths(),
        )
    return dataclasses.replace(
      info, num_tokens=num_tokens, num_characters=num_characters, cut=cut
    )

  def _characters(self, texts: Sequence[np.ndarray]) -> int:
    # At once, unless what a token spells depends on its neighbours.
    if self._tokenizer.pieces is not None:
      texts = [np.concatenate(texts)]
    return sum(map(self._tokenizer.num_characters, texts))

  def _lengths(self) -> str:
    told = f'data.seq_len={self.seq_len}'
    if self.layout == 'split':
      told += f' or data.source_len={self.source_len}'
    return told


def load(
  *,
  path: str,
  validation_path: str = '',
  test_path: str = '',
  tokenizer: str,
  seq_len: int,
  layout: str = 'joint',
  source_len: int = 0,
  predict_padding: bool = True,
  limit: int = 0,
  validation_fraction: float = 0.05,
  test_fraction: float = 0.0,
) -> PairDataset:
  """Reads files of pairs.

  Args:
    path: files of the train split, as for `pairs.find`.
    validation_path: files of the validation split; empty: the end of the train
      files, `validation_fraction` of their pairs.
    test_path: files of the test split; empty: `test_fraction` of the pairs of
      the train files, at their end; 0: none.
    tokenizer: a name of `tokenizers.TOKENIZERS` or a path.
    seq_len, layout, source_len, predict_padding: as for `PairDataset`.
    limit: pairs of the train files that are read, the first; 0: all.
    validation_fraction: see above.
    test_fraction: see above.

  Raises:
    DataError: for what is missing, damaged, empty, or not what the arguments
      say.
  """
  _check_layout(layout, seq_len, source_len or seq_len)
  if test_path and test_fraction:
    raise DataError('data.test_path and data.test_fraction are two: choose one')
  files = {'train': find(path)}
  for split, own in (('validation', validation_path), ('test', test_path)):
    if own:
      files[split] = pairs.find(own)
  made = describe(tokenizer)
  read = {split: pairs.read(own) for split, own in files.items()}
  shares = {'train': 1.0}
  if not validation_path:
    shares = corpora.held_out(validation_fraction)
  shares = corpora.with_test(shares, test_fraction)
  order = np.arange(len(read['train']))
  places = corpora.split_by_position([order], shares, limit)
  train = read['train']
  read |= {
    split: [train[i] for i in np.asarray(own)] for split, own in places.items()
  }
  described = [
    entry
    for own in files.values()
    for entry in documents.described(pairs.with_references(own))
  ]
  info = DataInfo(
    name='seq2seq',
    vocab_size=made.vocab_size,
    tokenizer=made,
    num_tokens={},
    num_characters={},
    unit=made.unit,
    files=tuple(described),
  )
  return PairDataset(
    info,
    {split: Rows(own, made) for split, own in read.items()},
    seq_len,
    layout=layout,
    source_len=source_len,
    predict_padding=predict_padding,
  )


def find(path: str) -> list[pathlib.Path]:
  """The files of the train split.

  Raises:
    DataError: for no path, a missing file and one that has no pairs.
  """
  if not path:
    raise DataError(
      "data.source='seq2seq' needs data.path: a file of pairs "
      '(.jsonl, .tsv, .csv or .src), or several separated by commas'
    )
  return pairs.find(path)


def describe(tokenizer: str) -> marked.Marked:
  """The tokenizer of pairs: that of the name, with marks.

  Raises:
    DataError: for an unknown tokenizer, or one whose files are missing.

  >>> describe('bytes').vocab_size
  259
  """
  return marked.Marked(tokenizers.make(tokenizer))


def _check_layout(layout: str, seq_len: int, source_len: int) -> None:
  if layout not in pair_layouts.LAYOUTS:
    raise DataError(
      f'unknown data.layout {layout!r}; '
      f'{names.alternatives(layout, pair_layouts.LAYOUTS)}'
    )
  least = pair_layouts.MIN_LENGTH[layout]
  lengths = {'seq_len': seq_len}
  if layout == 'split':
    lengths['source_len'] = source_len
  for name, length in lengths.items():
    if length < least:
      raise DataError(
        f'data.{name} is {length}; with its marks a text needs {least} or more '
        f'under data.layout={layout!r}'
      )


def _check_rows(name: str, split: str, rows: Rows, layout: str) -> None:
  if not len(rows):
    raise DataError(
      f'{name}: the {split} split is empty: too few pairs, or '
      'data.validation_fraction or data.limit too small'
    )
  if layout == 'target':
    return
  for pair in rows.pairs:
    if not pair.source:
      raise DataError(
        f'{pair.id}: a text without a source, under data.layout={layout!r}; '
        "'target' takes it"
      )
