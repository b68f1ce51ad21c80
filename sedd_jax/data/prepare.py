"""Prepares a corpus: text to token files that training maps into memory.

  python -m sedd_jax.data.prepare text8 --output data_cache/text8
  python -m sedd_jax.data.prepare enwik8 --input downloads/enwik8.zip
  python -m sedd_jax.data.prepare text_file --input a.txt,b.jsonl.gz \\
    --tokenizer bytes --output data_cache/mine
  python -m sedd_jax.data.prepare text_file --input reviews.jsonl \\
    --label stars --output data_cache/reviews
  python -m sedd_jax.data.prepare openwebtext --input openwebtext/
  python -m sedd_jax.data.prepare wikitext103 --input wikitext-103-raw-v1.zip
  python -m sedd_jax.data.prepare gpt2
  python -m sedd_jax.data.prepare train-tokenizer --input a.txt \\
    --vocab-size 8192 --output data_cache/my_tokenizer
  python -m sedd_jax.data.prepare train-words --input pairs.jsonl \\
    --output data_cache/my_words
  python -m sedd_jax.data.prepare verify --input data_cache/text8
  python -m sedd_jax.data.prepare held-out --input openwebtext/

text8, enwik8 and gpt2 are downloaded where their files are not at hand, and
checked; openwebtext, lm1b, wikitext2, wikitext103, ptb and lambada are fetched
from the Hugging Face hub where no --input is given.

After a kill the same command goes on from the last batch that it recorded, and
what it writes is the same, whenever it was killed and with however many
--workers.  One large compressed file is read again up to that batch, though not
turned into tokens again.
"""

import argparse
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence

from sedd_jax.core import names
from sedd_jax.data import bpe_training, preparing, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, downloads, durable, labels
from sedd_jax.data.paired import pairs
from sedd_jax.data.prepared import writer
from sedd_jax.data.sets import evaluation_sets
from sedd_jax.data.sources import corpora, published


def prepare_tokenizer(arguments: argparse.Namespace) -> None:
  """A byte-level BPE of the user's own text."""
  output = pathlib.Path(arguments.output)
  if arguments.vocab_size is None:
    raise DataError('train-tokenizer: --vocab-size is missing')
  find = pairs.find if arguments.pairs else documents.find
  path = bpe_training.train(
    find(preparing.required_input(arguments)),
    output,
    arguments.vocab_size,
    of_pairs=arguments.pairs,
    overwrite=arguments.overwrite,
  )
  tokenizer = tokenizers.make(str(path))
  print(
    f'{path}: {tokenizer.vocab_size:,} tokens; use it with: --tokenizer '
    f'{output}, and then --config.data.tokenizer={output}'
  )


def prepare_gpt2(arguments: argparse.Namespace) -> None:
  """GPT-2's `encoder.json` and `vocab.bpe`, downloaded or copied, checked."""
  output = pathlib.Path(arguments.output)
  durable.make_folder(output)
  for name, sha256 in tokenizers.GPT2_FILES.items():
    url = tokenizers.GPT2_URL + name
    target = output / name
    if target.is_file() and documents.sha256(target) == sha256:
      continue
    if not arguments.input:
      downloads.fetch(
        url,
        target,
        sha256=sha256,
        what_then=f'fetch it elsewhere and put it into {output}',
      )
      continue
    given = pathlib.Path(arguments.input, name)
    if not given.is_file():
      raise DataError(documents.missing(given))
    downloads.check_file(given, sha256=sha256, size=None, url=url)
    shutil.copyfile(given, target)
  print(f'encoder.json and vocab.bpe of GPT-2 are in {output}')


def prepare_words(arguments: argparse.Namespace) -> None:
  """The words of pairs of texts, counted, as a vocabulary."""
  files = pairs.find(preparing.required_input(arguments))
  path = pathlib.Path(arguments.output, tokenizers.WORDS_FILE)
  if path.exists() and not arguments.overwrite:
    raise DataError(f'{path}: there already; replace it with --overwrite')
  read = pairs.read(files)
  texts = [target for pair in read for target in pair.targets]
  if arguments.words_of == 'both':
    texts += [pair.source for pair in read]
  counts = tokenizers.word_counts(texts)
  text = tokenizers.words_file(counts, arguments.more_than)
  durable.make_folder(path.parent)
  durable.write_text(path, text)
  size = tokenizers.make(str(path.parent)).vocab_size
  print(
    f'{path}: {size:,} words of {len(counts):,}, 4 of them special; use it '
    f'with: --config.data.tokenizer={path.parent}'
  )


def prepare_held_out(arguments: argparse.Namespace) -> None:
  """The last documents of OpenWebText, as the suite `owt` reads them."""
  output = pathlib.Path(arguments.output)
  path = output / evaluation_sets.SETS['openwebtext'].files[0]
  if path.exists() and not arguments.overwrite:
    raise DataError(f'{path}: there already; replace it with --overwrite')
  if arguments.documents < 1:
    raise DataError(f'--documents is {arguments.documents}, not above 0')
  place = arguments.input or published.download(
    'openwebtext', output / 'downloads'
  )
  count = evaluation_sets.write_last(
    path, documents.find(str(place)), arguments.documents
  )
  if count < arguments.documents:
    print(
      f'{place}: all of its {count:,} documents, fewer than --documents='
      f'{arguments.documents:,}',
      file=sys.stderr,
    )
  print(
    f'{path}: {count:,} documents; use it with: --config.eval.suite=owt '
    f'--config.eval.suite_path={output}'
  )


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
  **{source: preparing.prepare_source for source in corpora.SOURCES},
  'gpt2': prepare_gpt2,
  'train-tokenizer': prepare_tokenizer,
  'train-words': prepare_words,
  'held-out': prepare_held_out,
  'verify': preparing.verify,
}


def argument_parser() -> argparse.ArgumentParser:
  """What the command line may be."""
  parser = argparse.ArgumentParser(
    prog='python -m sedd_jax.data.prepare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('source', help=', '.join(COMMANDS))
  parser.add_argument(
    '--input', default='', help='files or folder, several by commas'
  )
  parser.add_argument('--output', help='folder; default: data_cache/<source>')
  parser.add_argument(
    '--tokenizer',
    help='text8, bytes, gpt2, or others as data.tokenizer of a config',
  )
  parser.add_argument(
    '--validation-fraction',
    type=float,
    help='share held out: of pydoc, waves and text_file (0.05) and of '
    'openwebtext (0.0005)',
  )
  parser.add_argument(
    '--split-by',
    choices=('position', 'document', 'name'),
    help='how text_file (position) and openwebtext (document) are split: '
    'the end is held out, or each document by its text, or by the names of '
    'the files, train.*, validation.*, test.*',
  )
  parser.add_argument(
    '--label',
    default='',
    help='text_file, openwebtext: a field of .jsonl or .parquet with the '
    f'labels of documents, or {labels.FILE} or {labels.FOLDER}: what their '
    'files or folders are called',
  )
  parser.add_argument(
    '--workers',
    type=int,
    default=os.cpu_count() or 1,
    help='processes that turn text into tokens; default: one a core',
  )
  parser.add_argument(
    '--shard-bytes',
    type=int,
    default=writer.SHARD_BYTES,
    help='size of a token file at most',
  )
  parser.add_argument(
    '--as-is',
    action='store_true',
    help='lm1b, wikitext2, wikitext103, ptb and lambada without the rules that '
    'make text of their tokens',
  )
  parser.add_argument(
    '--vocab-size', type=int, help='of train-tokenizer: tokens, 257 or more'
  )
  parser.add_argument(
    '--pairs',
    action='store_true',
    help='train-tokenizer: --input are files of pairs, both sides of which are '
    'read',
  )
  parser.add_argument(
    '--more-than',
    type=int,
    default=10,
    help='train-words: a word is kept that is there more often; default: 10',
  )
  parser.add_argument(
    '--words-of',
    choices=('targets', 'both'),
    default='targets',
    help='train-words: the sides of the pairs; default: targets',
  )
  parser.add_argument(
    '--documents',
    type=int,
    default=evaluation_sets.HELD_OUT,
    help=f'held-out: so many at the end; default: {evaluation_sets.HELD_OUT:,}',
  )
  parser.add_argument(
    '--restart',
    action='store_true',
    help='throw away what an interrupted preparation left in --output',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace prepared data'
  )
  parser.add_argument(
    '--tfds',
    action='store_true',
    help='write a TFDS dataset (array_record) of the text, not token files; '
    '--input is the folder of the files',
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command line.

  Args:
    argv: arguments after the program's name; None: the process' own.

  Returns:
    Exit code: 0, or 1 after a message on what is wrong.
  """
  arguments = argument_parser().parse_args(argv)
  source = arguments.source
  arguments.output = arguments.output or corpora.default_path(source)
  try:
    if source not in COMMANDS:
      raise DataError(
        f'unknown source {source!r}; {names.alternatives(source, COMMANDS)}'
      )
    (preparing.prepare_tfds if arguments.tfds else COMMANDS[source])(arguments)
  except DataError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except OSError as error:
    # Of the place, not of the text: --output or --input, and what is in them.
    place = error.filename or arguments.output
    print(f'error: {place}: {error.strerror or error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    kept = (
      'the same command goes on'
      if writer.begun(arguments.output)
      else 'nothing was kept'
    )
    print(f'interrupted; {kept}', file=sys.stderr)
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main())
