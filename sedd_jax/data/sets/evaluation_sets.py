"""Texts that other models are compared on, packed as their papers pack them.

A perplexity a token belongs to its protocol: how a corpus is cut into examples,
brought back into text (`detokenizers`), ended, joined, and cut again into
sequences.  A suite names all of it, and the published figures beside it.
"""

import collections
import json
import lzma
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sedd_jax.core import names
from sedd_jax.data import pipeline
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, durable
from sedd_jax.data.sets import detokenizers, set_packing
from sedd_jax.data.tokenizers import Tokenizer, storage_dtype

_UNREADABLE = (
  *(DataError, UnicodeDecodeError, lzma.LZMAError, EOFError),
  *(zipfile.BadZipFile, KeyError),
)
# Bytes of text8 and of enwik8, and of their test splits at the end.
_LARGE, _LARGE_TEST = 10**8, 5 * 10**6


def _passages(lines: Iterable[str]) -> Iterator[str]:
  """JSON lines with a `text`, `article`, or `context` and `continuation`."""
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      value = json.loads(line)
      text = value.get('text', value.get('article'))
      if text is None:
        text = f'{value["context"]} {value["continuation"]}'
      if not isinstance(text, str):
        raise ValueError(text)
    except (ValueError, KeyError, AttributeError) as error:
      raise DataError(
        f"line {number}: no object with the string 'text' or 'article', or "
        "with 'context' and 'continuation'"
      ) from error
    yield text


def _lines(lines: Iterable[str]) -> Iterator[str]:
  """Lines as they are, with their ends; those without a word are empty."""
  for line in lines:
    yield line if line.strip() else ''


def _sentences(lines: Iterable[str]) -> Iterator[str]:
  """A sentence a line, without the space around it."""
  return map(str.strip, lines)


class EvaluationSet(NamedTuple):
  """A published test split.

  Attributes:
    files: names that it has, any of which is taken, also with `.xz` behind.
    examples: its lines as examples; None: the text is one, as bytes.
    detokenizer: of `detokenizers.NAMES`.
  """

  files: tuple[str, ...]
  examples: Callable[[Iterable[str]], Iterator[str]] | None
  detokenizer: str = 'none'


SETS = {
  'lambada': EvaluationSet(
    ('lambada_test.jsonl', 'lambada_openai.jsonl'), _passages, 'lambada'
  ),
  'wikitext2': EvaluationSet(
    ('wikitext2-test.raw', 'wikitext2-test.txt'), _lines, 'wikitext'
  ),
  'ptb': EvaluationSet(('ptb.test.txt', 'ptb-test.txt'), _sentences, 'ptb'),
  'wikitext103': EvaluationSet(
    ('wikitext103-test.raw', 'wikitext103-test.txt'), _lines, 'wikitext'
  ),
  'lm1b': EvaluationSet(
    ('lm1b-test.txt', 'news.en.heldout-00000-of-00050'), _sentences, 'lm1b'
  ),
  # MDLM's code takes the validation split, but for LM1B and AG News.
  'wikitext103_validation': EvaluationSet(
    ('wikitext103-valid.raw', 'wikitext103-valid.txt'), _lines, 'wikitext'
  ),
  'ptb_validation': EvaluationSet(
    ('ptb.valid.txt', 'ptb-valid.txt'), _sentences, 'ptb'
  ),
  'ag_news': EvaluationSet(('ag_news-test.jsonl',), _passages),
  'pubmed': EvaluationSet(
    ('pubmed-valid.jsonl',), _passages, 'scientific_papers'
  ),
  'arxiv': EvaluationSet(
    ('arxiv-valid.jsonl',), _passages, 'scientific_papers'
  ),
  'openwebtext': EvaluationSet(('openwebtext-valid.jsonl',), _passages),
  'text8': EvaluationSet(('text8', 'text8.zip', 'text8.test'), None),
  'enwik8': EvaluationSet(('enwik8', 'enwik8.zip', 'enwik8.test'), None),
}


class Suite(NamedTuple):
  """Sets that are told together.

  Attributes:
    sets: of `SETS`.
    protocol: of `set_packing.PROTOCOLS`.
    published: model to set to its figure, by this protocol.
    source: of the published figures.
    figure: 'perplexity', a token, or 'bits_per_character'.
    unit: that the tokenizer has to have, or '' for any.
    tokens: of the published figures' vocabulary, and its name; a perplexity
      a token of another one is another quantity.
    length: of their sequences; 0 where it is not one.
  """

  sets: tuple[str, ...]
  protocol: str
  published: Mapping[str, Mapping[str, float]]
  source: str
  figure: str = 'perplexity'
  unit: str = ''
  tokens: tuple[int, str] = (50257, 'gpt2')
  length: int = 0


_ZERO_SHOT = ('lambada', 'wikitext2', 'ptb', 'wikitext103', 'lm1b')
_MDLM_ZERO_SHOT = (
  *('ptb_validation', 'wikitext103_validation', 'lm1b', 'lambada', 'ag_news'),
  *('pubmed', 'arxiv'),
)


def _row(
  *figures: float, sets: tuple[str, ...] = _ZERO_SHOT
) -> dict[str, float]:
  return dict(zip(sets, figures, strict=True))


def _mdlm_row(*figures: float) -> dict[str, float]:
  return _row(*figures, sets=_MDLM_ZERO_SHOT)


SUITES = {
  'sedd_zero_shot': Suite(
    sets=_ZERO_SHOT,
    protocol='sedd',
    published={
      'GPT-2 small': _row(45.04, 42.43, 138.43, 41.60, 75.20),
      'SEDD small, absorbing': _row(50.92, 41.84, 114.24, 40.62, 79.29),
      'SEDD small, uniform': _row(65.40, 50.27, 140.12, 49.60, 101.37),
      'MD4 small': _row(48.43, 34.94, 102.26, 35.90, 68.10),
      'GPT-2 medium': _row(35.66, 31.80, 123.14, 31.39, 55.72),
      'SEDD medium, absorbing': _row(42.77, 31.04, 87.12, 29.98, 61.19),
      'SEDD medium, uniform': _row(51.28, 38.93, 102.28, 36.81, 79.12),
    },
    source='arXiv 2310.16834, table 1; of MD4 2406.04329',
    length=1024,
  ),
  'mdlm_zero_shot': Suite(
    sets=_MDLM_ZERO_SHOT,
    protocol='mdlm',
    published={
      'autoregressive': _mdlm_row(
        82.05, 25.75, 51.25, 51.28, 52.09, 49.01, 41.73
      ),
      'SEDD, absorbing': _mdlm_row(
        100.09, 34.28, 68.20, 49.86, 62.09, 44.53, 38.48
      ),
      'MDLM': _mdlm_row(95.26, 32.83, 67.01, 47.52, 61.15, 41.89, 37.37),
    },
    source='arXiv 2406.07524, table 3',
    length=1024,
  ),
  'owt': Suite(
    sets=('openwebtext',),
    protocol='mdlm',
    published={
      'autoregressive': {'openwebtext': 17.54},
      'SEDD, absorbing': {'openwebtext': 24.10},
      'MDLM': {'openwebtext': 23.21},
    },
    source='arXiv 2406.07524, table 2',
    length=1024,
  ),
  'lm1b': Suite(
    sets=('lm1b',),
    protocol='mdlm_apart',
    published={
      'autoregressive': {'lm1b': 22.3},
      'MDLM': {'lm1b': 27.0},
    },
    source=(
      'arXiv 2406.07524, by BERT tokens, length 128; packed instead (mdlm): '
      'autoregressive 22.8, MDLM 31.8. SEDD absorbing 32.7 there; in its own '
      'paper (2310.16834) autoregressive 31.98, absorbing 32.79, uniform 40.25'
    ),
    tokens=(30522, 'bert-base-uncased'),
    length=128,
  ),
  'text8': Suite(
    sets=('text8',),
    protocol='whole',
    published={
      'autoregressive': {'text8': 1.23},
      'MD4': {'text8': 1.37},
      'SEDD, absorbing': {'text8': 1.39},
      'MDLM': {'text8': 1.40},
      'D3PM, absorbing': {'text8': 1.45},
      'SEDD, uniform': {'text8': 1.47},
      'D3PM, uniform': {'text8': 1.61},
      'multinomial diffusion': {'text8': 1.72},
    },
    source=(
      'arXiv 2107.03006, table 1, 2310.16834, table 2, 2406.04329 and '
      '2406.07524, at length 256'
    ),
    figure='bits_per_character',
    length=256,
  ),
  'enwik8': Suite(
    sets=('enwik8',),
    protocol='whole',
    published={
      'autoregressive': {'enwik8': 1.06},
      'argmax flow, autoregressive': {'enwik8': 1.42},
      'multinomial diffusion': {'enwik8': 1.75},
    },
    source='arXiv 2102.05379, table 2; no score entropy is published',
    figure='bits_per_character',
    unit='byte',
  ),
}

# MDLM's validation split of OpenWebText: its last documents.
HELD_OUT = 100_000

# What a config may name.
NAMES = ('', *SUITES)


def write_last(
  path: pathlib.Path, files: Iterable[pathlib.Path], count: int
) -> int:
  """Writes the last documents of files as JSON lines.

  Args:
    path: of the file, whose folder is made.
    files: text files, see `documents.read_documents`.
    count: documents at most; that many are held in memory.

  Returns:
    How many were written.

  Raises:
    DataError: for damaged files, what is no UTF-8, and where it cannot be
      written; nothing is.
  """
  # Before the reading, which takes hours of OpenWebText.
  durable.make_folder(path.parent)
  last = collections.deque[documents.Document](maxlen=count)
  last.extend(documents.read_documents(files))
  texts = [json.dumps({'text': each.text()}) for each in last]
  durable.write_text(path, ''.join(f'{text}\n' for text in texts))
  return len(texts)


def located(name: str, folder: pathlib.Path) -> pathlib.Path | None:
  """The file of a set in a folder, or None."""
  for file in SETS[name].files:
    for place in (folder / file, folder / f'{file}.xz'):
      if place.is_file():
        return place
  return None


def examples_of(name: str, path: pathlib.Path) -> Iterator[str]:
  """The examples of a set as text.

  Args:
    name: of `SETS`.
    path: its file.

  Yields:
    Texts, as they are tokenised.

  Raises:
    DataError: for a line that is no example.
  """
  chosen = SETS[name]
  assert chosen.examples is not None
  opened = lzma.open if path.suffix == '.xz' else open
  with opened(path, 'rt', encoding='utf-8', newline='\n') as stream:
    for example in chosen.examples(stream):
      yield detokenizers.detokenized(example, chosen.detokenizer)


def _test_split(path: pathlib.Path) -> bytes:
  """The last bytes of text8 or enwik8, or the whole of a file of them alone.

  Raises:
    DataError: for a file of another size.
  """
  if path.name.removesuffix('.xz').endswith('.test'):
    with (lzma.open if path.suffix == '.xz' else open)(path, 'rb') as stream:
      return stream.read(_LARGE)
  if path.suffix == '.zip':
    with zipfile.ZipFile(path) as archive, archive.open(path.stem) as stream:
      data = stream.read(_LARGE + 1)
  else:
    with (lzma.open if path.suffix == '.xz' else open)(path, 'rb') as stream:
      data = stream.read(_LARGE + 1)
  if len(data) != _LARGE:
    more = 'more than' if len(data) > _LARGE else ''
    raise DataError(
      f'{more} {min(len(data), _LARGE):,} bytes, where the published file has '
      f'{_LARGE:,}; a test split alone is read from '
      f'{path.name.split(".")[0]}.test'.strip()
    )
  return data[-_LARGE_TEST:]


def _ids_of(
  name: str, path: pathlib.Path, tokenizer: Tokenizer
) -> list[np.ndarray]:
  """The examples of a set as ids."""
  if SETS[name].examples is None:
    document = documents.Document(path.name, 0, _test_split(path))
    return tokenizer.encode_documents([document])
  return [tokenizer.encode(text) for text in examples_of(name, path)]


class _Sets(pipeline.Dataset):
  """Sets as rows, with padding and context of their own."""

  def __init__(
    self,
    info: pipeline.DataInfo,
    rows: Mapping[str, set_packing.Rows],
    seq_len: int,
  ):
    dtype = storage_dtype(info.vocab_size)
    counted = {name: row.counted().astype(dtype) for name, row in rows.items()}
    super().__init__(info, counted, seq_len)
    self._rows = {
      name: row._replace(tokens=row.tokens.astype(dtype))
      for name, row in rows.items()
    }

  def num_sequences(self, split: str) -> int:
    """Rows of a set."""
    self.tokens(split)
    return len(self._rows[split].tokens)

  def eval_batch(
    self, split: str, indices: ArrayLike, count: int
  ) -> dict[str, np.ndarray]:
    """Rows of a set, as `pipeline.Dataset`, and what of them is given."""
    self.tokens(split)
    rows, index = self._rows[split], np.asarray(indices, np.int64)
    there = index < len(rows.tokens)
    tokens, valid, given = (
      np.where(there[:, None], part[np.where(there, index, 0)], 0)
      for part in rows
    )
    batch = {
      'tokens': tokens.astype(np.int32),
      'valid': valid.astype(bool),
      'index': index.astype(np.int32),
      'count': np.array(count, np.int32),
    }
    # Without context there is no mask to compute.
    return {**batch, 'given': given.astype(bool)} if rows.given.any() else batch


def load(
  suite: str, folder: str, tokenizer: Tokenizer, seq_len: int, stride: int = 0
) -> pipeline.Dataset:
  """The sets of a suite that are at hand, as splits of a data set.

  Args:
    suite: of `SUITES`.
    folder: holds files named as in `SETS`.
    tokenizer: of the model; its separator ends the examples.
    seq_len: tokens a sequence.
    stride: 0 for the suite's own packing; else all of a set in windows that
      begin so many tokens apart, see `set_packing.slid`.

  Returns:
    A data set with a split for each set that is there.

  Raises:
    DataError: an unknown suite, none of its files, a tokenizer without a
      separator or of another unit, a stride beyond a sequence, or a set that is
      shorter than one.
  """
  try:
    chosen = names.resolve(SUITES, suite, 'suite')
  except ValueError as error:
    raise DataError(str(error)) from None
  if chosen.unit and tokenizer.unit != chosen.unit:
    raise DataError(
      f'suite {suite} is in bits a {chosen.unit}, and a token of tokenizer '
      f'{tokenizer.name!r} is a {tokenizer.unit}'
    )
  if stride > seq_len:
    raise DataError(
      f'eval.stride={stride} is beyond the {seq_len} tokens of a sequence '
      '(data.seq_len)'
    )
  if chosen.protocol in set_packing.BETWEEN and seq_len < 3:
    raise DataError(f'suite {suite} needs sequences of 3 tokens, not {seq_len}')
  lines = any(SETS[name].examples is not None for name in chosen.sets)
  if lines and tokenizer.separator is None:
    raise DataError(
      f'tokenizer {tokenizer.name!r} has no token that ends a document, which '
      f'suite {suite} needs'
    )
  there = {
    name: path
    for name in chosen.sets
    if (path := located(name, pathlib.Path(folder))) is not None
  }
  if not there:
    wanted = ', '.join(' or '.join(SETS[name].files) for name in chosen.sets)
    raise DataError(
      f'{folder} holds no file of suite {suite}: wanted are {wanted} (or .xz)'
    )
  end = tokenizer.separator if lines else None
  # BERT's has a token of its own for the beginning, GPT-2's has not.
  begin = (tokenizer.vocabulary or {}).get('[CLS]', end)
  rows, counts, characters = {}, {}, {}
  for name, path in there.items():
    try:
      ids = _ids_of(name, path, tokenizer)
    except _UNREADABLE as error:
      raise DataError(f'{path}: {error}') from error
    rows[name] = (
      set_packing.slid(ids, seq_len, end, stride)
      if stride
      else set_packing.PROTOCOLS[chosen.protocol](ids, seq_len, begin, end)
    )
    if not len(rows[name].tokens):
      raise DataError(
        f'{path}: {sum(map(len, ids)):,} tokens are fewer than one sequence of '
        f'{seq_len}'
      )
    counted = rows[name].counted()
    counts[name] = len(counted)
    characters[name] = tokenizer.num_characters(counted)
  info = pipeline.DataInfo(
    name=suite,
    vocab_size=tokenizer.vocab_size,
    tokenizer=tokenizer,
    num_tokens=counts,
    num_characters=characters,
    unit=tokenizer.unit,
    files=documents.described(there.values()),
    remarks={
      name: 'words are <unk> here, not in the published text'
      for name, path in there.items()
      if SETS[name].detokenizer == 'wikitext'
      and any('<unk>' in text for text in examples_of(name, path))
    },
  )
  return _Sets(info, rows, seq_len)


def packing_of(suite: str, stride: int) -> str:
  """How a suite's sets are packed, in words for a table."""
  protocol = SUITES[suite].protocol
  if not stride:
    return protocol
  return f'windows {stride} tokens apart, in place of {protocol}'
