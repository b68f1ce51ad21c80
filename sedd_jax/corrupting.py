"""Writes pairs for any system to learn from: texts corrupted by edits.

  python -m sedd_jax.corrupting --input wikisplit/tune.tsv.xz \\
    --split-at '<::::>' --output data_cache/wikisplit_corrupted.jsonl

A line of the output is {"id": ..., "src": corrupted, "trg": text, "steps": n},
as data.source=seq2seq reads it.  Texts are the targets of files of pairs, in
order; the chain of n steps of `processes.edit_noise`, DiffusER's, is on words
at white space, n even from 1 to --steps.  Each line depends on the seed, its
number and the words of all texts alone.
"""

import argparse
import collections
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.core import atomic
from sedd_jax.data.errors import DataError
from sedd_jax.data.paired import pairs
from sedd_jax.processes import edit_noise

DISTRACTORS = ('uniform', 'corpus')


class Text(NamedTuple):
  """A text that is corrupted: its id, and its words."""

  id: str
  words: tuple[str, ...]


def texts_of(read: Sequence[pairs.Pair], split_at: str = '') -> list[Text]:
  """The targets of pairs, each divided at a mark if there is one.

  Args:
    read: pairs.
    split_at: stands between the texts of a target, not empty ones; empty: a
      target is one.

  Returns:
    Of what a target is one of several, or a part, the id tells by '#1', '#2'.

  Raises:
    DataError: for an empty text beside a mark.
  """
  found = []
  for pair in read:
    parts = [
      part
      for target in pair.targets
      for part in (target.split(split_at) if split_at else [target])
    ]
    for number, part in enumerate(parts, 1):
      if not part.strip():
        raise DataError(f'{pair.id}: an empty text beside {split_at!r}')
      name = f'{pair.id}#{number}' if len(parts) > 1 else pair.id
      found.append(Text(name, tuple(part.split())))
  return found


def corrupted(
  texts: Sequence[Text],
  *,
  steps: int,
  copies: int = 1,
  seed: int = 0,
  distractors: str = 'corpus',
  **rates: Any,
) -> Iterator[tuple[dict[str, Any], int]]:
  """Texts with what noise made of them.

  Args:
    texts: at least one.
    steps: at most, of a chain.
    copies: chains of each text.
    seed: of all.
    distractors: words that come in, all of those of the texts alike
      ('uniform') or as often as there ('corpus').
    rates: see `edit_noise.EditNoise`.

  Yields:
    A line, and how many chains before left no word of the text, which no file
    of pairs may hold: they are drawn again.

  Raises:
    DataError: for numbers that do not fit.
  """
  if steps < 1 or copies < 1 or seed < 0:
    raise DataError(
      f'--steps {steps} and --copies {copies} are above 0, --seed {seed} is '
      'not below'
    )
  counts = collections.Counter(word for text in texts for word in text.words)
  words = list(counts)
  numbers = {word: number for number, word in enumerate(words)}
  try:
    noise = edit_noise.EditNoise(
      vocab_size=len(words),
      weights=tuple(map(float, counts.values()))
      if distractors == 'corpus'
      else None,
      **rates,
    )
  except ValueError as error:
    raise DataError(str(error)) from error
  if noise.keep + noise.replace + noise.insert == 0:
    raise DataError('where all is deleted no text is left')
  for place, text in enumerate(texts):
    x_0 = tuple(numbers[word] for word in text.words)
    for copy in range(copies):
      rng = np.random.default_rng([seed, place, copy])
      count, again = int(rng.integers(1, steps + 1)), -1
      x_t: tuple[int, ...] = ()
      while not x_t:
        x_t, _ = noise.chain(rng, x_0, count, sys.maxsize)
        again += 1
      line = {
        'id': text.id if copies == 1 else f'{text.id}/{copy + 1}',
        'src': ' '.join(words[i] for i in x_t),
        'trg': ' '.join(text.words),
        'steps': count,
      }
      yield line, again


def write(
  output: pathlib.Path, lines: Iterator[tuple[dict[str, Any], int]]
) -> tuple[int, int]:
  """Writes lines to a file that appears whole or not at all.

  Returns:
    The lines, and the chains that were drawn again.
  """
  output.parent.mkdir(parents=True, exist_ok=True)
  number = again = 0
  with atomic.replacing(output) as stream:
    for line, empty in lines:
      stream.write(f'{json.dumps(line, ensure_ascii=False)}\n'.encode())
      number, again = number + 1, again + empty
  return number, again


def main(argv: Sequence[str] | None = None) -> int:
  """The command line.

  Args:
    argv: arguments after the program's name; None: the process' own.

  Returns:
    Exit code: 0, or 1 after a message on what is wrong.
  """
  parser = argparse.ArgumentParser(
    prog='python -m sedd_jax.corrupting',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--input', required=True, help='files of pairs or texts')
  parser.add_argument('--output', required=True, help='file, .jsonl')
  parser.add_argument('--split-at', default='', help='between texts of a line')
  parser.add_argument('--seed', type=int, default=0, help='default: 0')
  parser.add_argument('--copies', type=int, default=1, help='of each text; 1')
  parser.add_argument(
    '--steps', type=int, default=2, help='of noise at most; default: 2'
  )
  for name, rate in (
    *(('keep', 0.88), ('replace', 0.08), ('delete', 0.025), ('insert', 0.015)),
    ('mean_length', 1.0),
  ):
    parser.add_argument(
      f'--{name.replace("_", "-")}',
      type=float,
      default=rate,
      help=f'see docs/systems.md (DiffusER); default: {rate}',
    )
  parser.add_argument(
    '--distractors',
    choices=DISTRACTORS,
    default='corpus',
    help='words that come in; default: corpus, as often as in the texts',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace the output'
  )
  options = vars(parser.parse_args(argv))
  source, output = options.pop('input'), pathlib.Path(options.pop('output'))
  split_at, overwrite = options.pop('split_at'), options.pop('overwrite')
  try:
    if output.suffix != '.jsonl':
      raise DataError(f'{output}: the output is a .jsonl')
    if output.exists() and not overwrite:
      raise DataError(f'{output}: there already; replace it with --overwrite')
    texts = texts_of(pairs.read(pairs.find(source)), split_at)
    if not texts:
      raise DataError(f'{source}: there is no text')
    number, again = write(output, corrupted(texts, **options))
  except (DataError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  told = f'; {again:,} chains left no word and were drawn again' * bool(again)
  print(
    f'{output}: {number:,} pairs of {len(texts):,} texts{told}; use it with: '
    f'--config.data.source=seq2seq --config.data.path={output}'
  )
  return 0


if __name__ == '__main__':
  sys.exit(main())
