"""Texts that other models are compared on, packed as their papers pack them.

A perplexity a token belongs to its protocol: how a corpus is cut into examples,
brought back into text (`detokenizers`), ended, joined, and cut again into
sequences.  A suite names all of it, and the published figures beside it.
"""

import json
import lzma
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sedd_jax.core import names
from sedd_jax.data import detokenizers, documents, pipeline
from sedd_jax.data.errors import DataError
from sedd_jax.data.tokenizers import Tokenizer, storage_dtype

# Examples that the released code joins at once.
_GROUP = 1000


def _passages(lines: Iterable[str]) -> Iterator[str]:
  """JSON lines with a `text`, or a `context` and its `continuation`."""
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      value = json.loads(line)
      text = value.get('text')
      if text is None:
        text = f'{value["context"]} {value["continuation"]}'
      if not isinstance(text, str):
        raise ValueError(text)
    except (ValueError, KeyError, AttributeError) as error:
      raise DataError(
        f"line {number}: no object with the string 'text', or with 'context' "
        "and 'continuation'"
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
    examples: its lines as examples.
    detokenizer: of `detokenizers.NAMES`.
  """

  files: tuple[str, ...]
  examples: Callable[[Iterable[str]], Iterator[str]]
  detokenizer: str


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
}


def packed_as_sedd(
  examples: Sequence[np.ndarray], length: int, end: int
) -> np.ndarray:
  """Examples, each with an end behind, joined by the thousand and cut.

  What is left over of a thousand is dropped (the released code of SEDD, arXiv
  2310.16834).

  Args:
    examples: ids `[tokens]` each.
    length: tokens a sequence.
    end: the token behind every example.

  Returns:
    `[sequences * length]`.
  """
  pieces = []
  for first in range(0, len(examples), _GROUP):
    group = examples[first : first + _GROUP]
    joined = np.concatenate([piece for ids in group for piece in (ids, [end])])
    pieces.append(joined[: len(joined) // length * length])
  return np.concatenate([np.zeros(0, np.int64), *pieces]).astype(np.int64)


PROTOCOLS = {'sedd': packed_as_sedd}


class Suite(NamedTuple):
  """Sets that are told together.

  Attributes:
    sets: of `SETS`.
    protocol: of `PROTOCOLS`.
    published: model to set to its perplexity a token, by this protocol.
    source: of the published figures.
  """

  sets: tuple[str, ...]
  protocol: str
  published: Mapping[str, Mapping[str, float]]
  source: str


_ZERO_SHOT = ('lambada', 'wikitext2', 'ptb', 'wikitext103', 'lm1b')


def _row(*perplexities: float) -> dict[str, float]:
  return dict(zip(_ZERO_SHOT, perplexities, strict=True))


SUITES = {
  'sedd_zero_shot': Suite(
    sets=_ZERO_SHOT,
    protocol='sedd',
    published={
      'GPT-2 small': _row(45.04, 42.43, 138.43, 41.60, 75.20),
      'SEDD small, absorbing': _row(50.92, 41.84, 114.24, 40.62, 79.29),
      'SEDD small, uniform': _row(65.40, 50.27, 140.12, 49.60, 101.37),
      'GPT-2 medium': _row(35.66, 31.80, 123.14, 31.39, 55.72),
      'SEDD medium, absorbing': _row(42.77, 31.04, 87.12, 29.98, 61.19),
      'SEDD medium, uniform': _row(51.28, 38.93, 102.28, 36.81, 79.12),
    },
    source='arXiv 2310.16834, table 1',
  )
}

# What a config may name.
NAMES = ('', *SUITES)


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
  opened = lzma.open if path.suffix == '.xz' else open
  with opened(path, 'rt', encoding='utf-8', newline='\n') as stream:
    for example in chosen.examples(stream):
      yield detokenizers.detokenized(example, chosen.detokenizer)


def load(
  suite: str, folder: str, tokenizer: Tokenizer, seq_len: int
) -> pipeline.Dataset:
  """The sets of a suite that are at hand, as splits of a data set.

  Args:
    suite: of `SUITES`.
    folder: holds files named as in `SETS`.
    tokenizer: of the model; needs a separator, which ends the examples.
    seq_len: tokens a sequence.

  Returns:
    A data set with a split for each set that is there.

  Raises:
    DataError: an unknown suite, none of its files, a tokenizer without a
      separator, or a set that is shorter than a sequence.
  """
  try:
    chosen = names.resolve(SUITES, suite, 'suite')
  except ValueError as error:
    raise DataError(str(error)) from None
  if tokenizer.separator is None:
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
    wanted = ', '.join(SETS[name].files[0] for name in chosen.sets)
    raise DataError(
      f'{folder} holds no file of suite {suite}: wanted are {wanted} (or .xz)'
    )
  dtype = storage_dtype(tokenizer.vocab_size)
  tokens, characters = {}, {}
  for name, path in there.items():
    try:
      ids = [tokenizer.encode(text) for text in examples_of(name, path)]
    except (DataError, UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
      raise DataError(f'{path}: {error}') from error
    packed = PROTOCOLS[chosen.protocol](ids, seq_len, tokenizer.separator)
    if not len(packed):
      raise DataError(
        f'{path}: {sum(map(len, ids)):,} tokens are fewer than one sequence of '
        f'{seq_len}'
      )
    tokens[name] = packed.astype(dtype)
    characters[name] = tokenizer.num_characters(tokens[name])
  info = pipeline.DataInfo(
    name=suite,
    vocab_size=tokenizer.vocab_size,
    tokenizer=tokenizer,
    num_tokens={name: len(ids) for name, ids in tokens.items()},
    num_characters=characters,
    unit=tokenizer.unit,
    files=documents.described(there.values()),
  )
  return pipeline.Dataset(info, tokens, seq_len)
