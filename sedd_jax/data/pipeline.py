"""The reader: batches that are pure functions of (seed, step, index).

`load` finds a corpus - a prepared folder, mapped into memory, or text, turned
into tokens here - and gives a `Dataset`.  Training reads random crops of the
train split; evaluation reads a split in consecutive chunks, every token exactly
once.  A process asks for the indices that are its own.  Pairs of texts are
`seq2seq`'s.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sedd_jax.core import names
from sedd_jax.data import crops, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import labels
from sedd_jax.data.info import DataInfo
from sedd_jax.data.labelling import meanings, tagged, taggers
from sedd_jax.data.paired import seq2seq
from sedd_jax.data.prepared import packing, shards
from sedd_jax.data.sources import corpora
from sedd_jax.data.tokenizers import Tokenizer

# Beyond so many files of text, a prepared corpus is named by its token files.
_MANY_FILES = 16


# Fields of a config's data that only pairs have, as `seq2seq.load` takes them.
PAIR_FIELDS = (
  'validation_path',
  'test_path',
  'layout',
  'source_len',
  'predict_padding',
)


class Dataset:
  """A corpus as batches.

  A batch is a dict of numpy arrays: `tokens [b, seq_len]` int32, `index [b]`
  int32, `count`, scalar int32, and in evaluation `valid [b, seq_len]` bool.
  Without `valid` every token is valid, which spares attention a mask.  Where
  documents have labels there is `label [b, seq_len]` int32: that of the token's
  document, `labels.NONE` beyond the end of a split.
  """

  def __init__(
    self,
    info: DataInfo,
    tokens: Mapping[str, shards.Tokens],
    seq_len: int,
    labelled: Mapping[str, labels.Index] | None = None,
  ):
    """Checks that there is something to read.

    Args:
      info: of the corpus.
      tokens: split to `[num_tokens]` integers, in memory or mapped, one array
        or several that are read as one.
      seq_len: tokens a sequence.
      labelled: split to the labels of its tokens; None: there are none.

    Raises:
      DataError: if a split is empty, or the train split is shorter than a
        sequence.
    """
    if seq_len < 1:
      raise DataError(f'data.seq_len is {seq_len}, not above 0')
    for split, array in tokens.items():
      if not len(array):
        raise DataError(
          f'{info.name}: the {split} split is empty: too little text, or '
          'data.validation_fraction or data.limit too small'
        )
    if 'train' in tokens and len(tokens['train']) < seq_len:
      raise DataError(
        f'{info.name}: the train split has {len(tokens["train"]):,} tokens, '
        f'fewer than one sequence (data.seq_len={seq_len:,})'
      )
    self.info = info
    self.seq_len = seq_len
    self._tokens = dict(tokens)
    self._labelled = dict(labelled or {})

  def tokens(self, split: str) -> shards.Tokens:
    """All tokens `[num_tokens]` of a split, in order, of the type on disk.

    Of a split of several shards `shards.Joined`: length, index and slices are
    an array's, and `np.asarray` makes one.

    Raises:
      DataError: for a split that the corpus lacks.
    """
    if split not in self._tokens:
      raise DataError(
        f'{self.info.name} has no split {split!r}; '
        f'{names.alternatives(split, self._tokens)}'
      )
    return self._tokens[split]

  def num_sequences(self, split: str) -> int:
    """Chunks of a split, the short last one included."""
    return -(-len(self.tokens(split)) // self.seq_len)

  def train_batch(
    self, seed: int, step: int, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """Random crops of the train split.

    Row i depends on seed, step and `indices[i]` only.

    Args:
      seed: of the run.
      step: of training.
      indices: `[b]` places in the global batch.
      count: size of the global batch.

    Returns:
      A batch without `valid`: crops are whole.
    """
    tokens = self.tokens('train')
    num_starts = len(tokens) - self.seq_len + 1
    starts = crops.starts(seed, step, indices, num_starts)
    return {
      'tokens': self._known(
        'train', shards.windows(tokens, starts, self.seq_len)
      ),
      'index': np.asarray(indices, np.int32),
      'count': np.array(count, np.int32),
      **self._label('train', starts),
    }

  def _known(self, split: str, tokens: np.ndarray) -> np.ndarray:
    """The tokens; DataError for one that is not of the vocabulary."""
    size = self.info.vocab_size
    if tokens.size and tokens.max() >= size:
      raise DataError(
        f'{self.info.name}: the {split} split has a token {tokens.max()}, and '
        f'the vocabulary {size} symbols: a damaged file, which `python -m '
        'sedd_jax.data.prepare verify` finds'
      )
    return tokens

  def _label(self, split: str, starts: np.ndarray) -> dict[str, np.ndarray]:
    """The labels of sequences that begin at such tokens, if there are any."""
    if split not in self._labelled:
      return {}
    places = starts[:, None] + np.arange(self.seq_len)
    found = self._labelled[split].at(places)
    inside = places < len(self._tokens[split])
    return {'label': np.where(inside, found, np.int32(labels.NONE))}

  def eval_batch(
    self, split: str, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """Consecutive chunks of a split.

    Chunk i is tokens `i * seq_len` up to `(i + 1) * seq_len`; beyond the end of
    the split tokens are 0 and `valid` False, so that indices from
    `num_sequences` up give rows that count nothing.

    Args:
      split: of the corpus.
      indices: `[b]` chunks.
      count: number of evaluated sequences.

    Returns:
      A batch.

    Raises:
      DataError: for a split that the corpus lacks.
      ValueError: for a negative index.
    """
    tokens = self.tokens(split)
    index = np.asarray(indices, np.int64)
    if index.size and index.min() < 0:
      raise ValueError(f'index {index.min()} is negative')
    num_full, rest = divmod(len(tokens), self.seq_len)
    rows = np.zeros((index.size, self.seq_len), np.int32)
    valid = np.zeros(rows.shape, bool)
    full = index < num_full
    rows[full] = shards.chunks(tokens, index[full], self.seq_len)
    valid[full] = True
    last = index == num_full
    rows[last, :rest] = tokens[num_full * self.seq_len :]
    valid[last, :rest] = True
    return {
      'tokens': self._known(split, rows),
      'valid': valid,
      'index': index.astype(np.int32),
      'count': np.array(count, np.int32),
      **self._label(split, index * self.seq_len),
    }


AnyDataset = (
  Dataset | seq2seq.PairDataset | meanings.LabelledPairs | tagged.TaggedPairs
)


def load(
  *,
  source: str,
  path: str = '',
  tokenizer: str = 'text8',
  seq_len: int,
  limit: int = 0,
  validation_fraction: float = 0.05,
  test_fraction: float = 0.0,
  label: str = '',
  tagger: str = 'textblob',
  known: Sequence[str] | None = None,
  pairs: Mapping[str, Any] | None = None,
) -> AnyDataset:
  """Opens a corpus.

  Args:
    source: a name of `corpora.SOURCES`.
    path: a folder that `prepare` made, or the source's text; empty: the
      source's default, `data_cache/<source>`.
    tokenizer: a name of `tokenizers.TOKENIZERS` or a path.
    seq_len: tokens a sequence.
    limit: tokens used at most, 0 for all: the first of the corpus, then split
      by position; of a corpus split by document, the first of each split, in
      proportion.
    validation_fraction: share held out of a corpus that has no splits of its
      own, at its end, or before the test split.
    test_fraction: share of the test split at the end of such a corpus.
    label: where documents' labels are, as `documents.read_documents` takes it,
      of pairs as `meanings.LabelledPairs`, or `labels.SPANS`; '' for none.
    tagger: of the latter, as `taggers.make` takes it.
    known: the labels of a run in the order of their numbers; None: those of
      the corpus, by the alphabet.
    pairs: of source 'seq2seq' what `seq2seq.load` takes besides:
      validation_path, test_path, layout, source_len, predict_padding.

  Raises:
    DataError: for an unknown name, and data that is missing, damaged, empty, or
      not what the arguments say.

  >>> dataset = load(source='pydoc', seq_len=64)
  >>> dataset.train_batch(0, 0, [0, 1], 2)['tokens'].shape
  (2, 64)
  """
  if source not in corpora.SOURCES:
    raise DataError(
      f'unknown data source {source!r}; '
      f'{names.alternatives(source, corpora.SOURCES)}'
    )
  if limit < 0:
    raise DataError(f'data.limit is {limit}, not 0 or above')
  _check_label(label, source)
  if source == corpora.PAIRS:
    # It is told before anything is read where there is none.
    made = taggers.make(tagger) if label == labels.SPANS else None
    pairs_read = seq2seq.load(
      path=path,
      tokenizer=tokenizer,
      seq_len=seq_len,
      limit=limit,
      validation_fraction=validation_fraction,
      test_fraction=test_fraction,
      **(pairs or {}),
    )
    if made is not None:
      return tagged.TaggedPairs(pairs_read, made, known)
    return (
      meanings.LabelledPairs(pairs_read, label, known) if label else pairs_read
    )
  folder = path or corpora.default_path(source)
  # Text that is at hand needs no folder of its own.
  if (path or source not in corpora.AT_HAND) and packing.is_prepared(folder):
    return _prepared(
      source,
      folder,
      tokenizer,
      seq_len,
      limit,
      validation_fraction,
      test_fraction,
      label,
      known,
    )
  place = corpora.SOURCES[source].locate(path)
  maker = tokenizers.make(tokenizer)
  options = {'label': label} if label else {}
  corpus = corpora.SOURCES[source].read(
    place, maker, validation_fraction, **options
  )
  if not len(corpus.tokens):
    raise DataError(f'{source}: {path or source!r} has no text')
  shares = corpora.with_test(corpus.shares, test_fraction)
  splits = corpora.split_by_position([corpus.tokens], shares, limit)
  named: tuple[str, ...] = ()
  labelled = None
  if corpus.labelled is not None:
    named = _names(corpus.names, known)
    index = _numbered(corpus.labelled, corpus.names, named)
    labelled = _by_position(splits, index)
  info = _info(source, maker, splits, corpus.files, {}, named)
  return Dataset(info, splits, seq_len, labelled)


def _check_label(label: str, source: str) -> None:
  """Raises DataError for a label that a source's documents cannot have."""
  if label and source not in corpora.LABELLED:
    raise DataError(
      f'data.label={label!r}: the documents of data.source={source!r} have no '
      f'labels; those of {", ".join(corpora.LABELLED)} may have'
    )
  if source != corpora.PAIRS:
    labels.is_field(label)
  elif label.startswith('@') and label not in (labels.MEANING, labels.SPANS):
    raise DataError(
      f'data.label={label!r}: of pairs it is a field of the meanings that are '
      f'their sources, or {labels.MEANING} for all, or {labels.SPANS}, the '
      'tags and phrases of their targets'
    )


def describe(
  *,
  source: str,
  path: str = '',
  tokenizer: str = 'text8',
  known: Sequence[str] = (),
) -> DataInfo:
  """What is known of a corpus without its text: enough to draw samples.

  Args:
    source: a name of `corpora.SOURCES`.
    path: as for `load`; a folder there may hold the tokenizer's files.
    tokenizer: a name of `tokenizers.TOKENIZERS` or a path.
    known: the labels, in the order of their numbers.

  Returns:
    The vocabulary, the tokenizer and the labels; no counts and no files.

  Raises:
    DataError: for an unknown tokenizer, or one whose files are missing.

  >>> describe(source='text8').vocab_size
  27
  """
  if source == corpora.PAIRS:
    return _info(source, seq2seq.describe(tokenizer), {}, (), {}, tuple(known))
  maker = tokenizers.make(tokenizer, [path or corpora.default_path(source)])
  return _info(source, maker, {}, (), {}, tuple(known))


def _prepared(
  source: str,
  folder: str,
  tokenizer: str,
  seq_len: int,
  limit: int,
  validation_fraction: float,
  test_fraction: float,
  label: str,
  known: Sequence[str] | None,
) -> Dataset:
  """Opens a prepared folder; its splits anew where they are by position."""
  manifest = packing.read_manifest(folder)
  if manifest.source != source:
    raise DataError(
      f'{folder}: prepared from data.source={manifest.source!r}, not {source!r}'
    )
  name = manifest.tokenizer['name']
  if name not in (tokenizer, tokenizers.file_name(tokenizer)):
    raise DataError(
      f'{folder}: prepared with data.tokenizer={name!r}, not {tokenizer!r}'
    )
  maker = tokenizers.make(tokenizer, [folder])
  if packing.identity(maker) != manifest.tokenizer:
    raise DataError(
      f'{folder}: prepared with another {name!r} than {tokenizer!r} (sha256 '
      'of its files)'
    )
  if maker.vocab_size != manifest.vocab_size:
    raise DataError(
      f'{folder}: its manifest says {manifest.vocab_size:,} tokens, where '
      f'{name!r} has {maker.vocab_size:,}: prepare the data again'
    )
  _require_label(folder, manifest, label)
  stored = packing.read_tokens(folder, manifest)
  if manifest.division != 'position':
    if test_fraction:
      raise DataError(
        f'{folder}: its splits are fixed (division {manifest.division!r}), so '
        'data.test_fraction must be 0'
      )
    splits = _in_proportion(stored, limit)
  else:
    own = source in ('text8', 'enwik8')
    shares = (
      corpora.PUBLISHED_SHARES if own else corpora.held_out(validation_fraction)
    )
    shares = corpora.with_test(shares, test_fraction)
    parts = [
      part
      for split in packing.SPLITS
      if split in stored
      for part in shards.parts_of(stored[split])
    ]
    splits = corpora.split_by_position(parts, shares, limit)
  counted = {
    split: entry['num_characters']
    for split, entry in manifest.splits.items()
    if split in splits and len(splits[split]) == entry['num_tokens']
  }
  if manifest.division == 'position' and len(counted) < len(manifest.splits):
    counted = {}
  files = manifest.sources
  if not 0 < len(files) <= _MANY_FILES:
    files = [
      {'name': name, 'sha256': shard['sha256']}
      for _, name, shard in packing.token_files(manifest)
    ]
  named: tuple[str, ...] = ()
  labelled = None
  if label:
    assert manifest.labels is not None
    named = _names(manifest.labels['names'], known)
    labelled = _read_labels(folder, manifest, splits, named)
  info = _info(source, maker, splits, tuple(files), counted, named)
  info = dataclasses.replace(info, token_files=(packing.described(manifest),))
  return Dataset(info, splits, seq_len, labelled)


def _require_label(folder: str, manifest: packing.Manifest, label: str) -> None:
  """Raises DataError for labels that were not prepared."""
  if not label:
    return
  again = f'prepare it again with --label {label}'
  if manifest.labels is None:
    raise DataError(
      f'{folder}: prepared without labels, and data.label is {label!r}: {again}'
    )
  if manifest.labels['from'] != label:
    raise DataError(
      f'{folder}: prepared with --label {manifest.labels["from"]}, and '
      f'data.label is {label!r}: {again}'
    )


def _read_labels(
  folder: str,
  manifest: packing.Manifest,
  splits: Mapping[str, shards.Tokens],
  named: tuple[str, ...],
) -> dict[str, labels.Index]:
  """The labels of the tokens of a prepared folder."""
  assert manifest.labels is not None
  stored = manifest.labels['names']
  position = manifest.division == 'position'
  begins: dict[str, np.ndarray] = {}
  numbers: dict[str, np.ndarray] = {}
  offset = 0
  for split in (name for name in packing.SPLITS if name in manifest.splits):
    begins[split] = packing.read_begins(folder, manifest, split)
    if position:
      # All are one corpus, that is divided anew.
      begins[split] = begins[split] + np.uint64(offset)
      offset += manifest.splits[split]['num_tokens']
    numbers[split] = packing.read_labels(folder, manifest, split)
  if position:
    begins = {'': np.concatenate(list(begins.values()))}
    numbers = {'': np.concatenate(list(numbers.values()))}
  indexes = {
    split: _numbered(labels.Index(each, numbers[split]), stored, named)
    for split, each in begins.items()
  }
  return _by_position(splits, indexes['']) if position else indexes


def _names(
  stored: Sequence[str], known: Sequence[str] | None
) -> tuple[str, ...]:
  """Labels in the order of a run's numbers, or of the alphabet."""
  return tuple(sorted(stored) if known is None else known)


def _numbered(
  index: labels.Index, stored: Sequence[str], named: Sequence[str]
) -> labels.Index:
  """Labels by their places in other names."""
  table = labels.renumbered(stored, named)
  return index._replace(numbers=table[index.numbers])


def _by_position(
  splits: Mapping[str, shards.Tokens], index: labels.Index
) -> dict[str, labels.Index]:
  """The labels of consecutive splits of a corpus."""
  ends = np.cumsum([len(tokens) for tokens in splits.values()]).tolist()
  return {
    split: index._replace(offset=end - len(splits[split]))
    for split, end in zip(splits, ends)
  }


def _info(
  source: str,
  tokenizer: Tokenizer,
  splits: Mapping[str, shards.Tokens],
  files: tuple[dict[str, str], ...],
  known: Mapping[str, int],
  named: tuple[str, ...] = (),
) -> DataInfo:
  """Counts the characters of the splits that they are not `known` of."""
  counts = {
    split: sum(map(tokenizer.num_characters, shards.parts_of(tokens)))
    for split, tokens in splits.items()
    if split not in known
  }
  return DataInfo(
    name=source,
    vocab_size=tokenizer.vocab_size,
    tokenizer=tokenizer,
    num_tokens={split: len(tokens) for split, tokens in splits.items()},
    num_characters=counts | dict(known),
    unit=tokenizer.unit,
    files=files,
    labels=named,
  )


def _in_proportion(
  stored: Mapping[str, shards.Tokens], limit: int
) -> dict[str, shards.Tokens]:
  total = sum(map(len, stored.values()))
  if not limit or limit >= total:
    return dict(stored)
  return {
    split: shards.joined(
      shards.between(tokens, 0, len(tokens) * limit // total)
    )
    for split, tokens in stored.items()
  }
