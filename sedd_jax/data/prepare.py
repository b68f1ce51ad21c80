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
import functools
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sedd_jax.core import names
from sedd_jax.data import bpe_training, streaming, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, downloads, durable, labels
from sedd_jax.data.paired import pairs
from sedd_jax.data.prepared import packing, writer
from sedd_jax.data.sets import evaluation_sets
from sedd_jax.data.sources import corpora, published, tfds_folders
from sedd_jax.data.tokenizers import Tokenizer

TOKENIZER = {
  'text8': 'text8',
  'enwik8': 'bytes',
  'pydoc': 'text8',
  'waves': 'text8',
  corpora.PAIRS: 'text8',
  'text_file': 'text8',
  'openwebtext': 'gpt2',
  **dict.fromkeys(published.CORPORA, 'gpt2'),
}
# OpenWebText has no splits; 0.05 % of it are some 4000 documents.
OPENWEBTEXT_FRACTION = 5e-4
VALIDATION_FRACTION = 0.05

_BLOCK = 2**24
# Of many labels those with the most documents.
_LABELS_TOLD = 12


def write_corpus(
  written: writer.Writer, corpus: corpora.Corpus, tokenizer: Tokenizer
) -> None:
  """Writes a corpus that is in memory, split by position.

  Args:
    written: entered.
    corpus: the tokens and the shares of the splits.
    tokenizer: the one it was made with.
  """
  written.sources += corpus.files
  parts = corpora.split_by_position([corpus.tokens], corpus.shares)
  for split, tokens in parts.items():
    if not len(tokens):
      raise DataError(f'too little text: the {split} split is empty')
    for begin in range(0, len(tokens), _BLOCK):
      block = tokens[begin : begin + _BLOCK]
      written.append(split, block, tokenizer.num_characters(block))


def prepare_source(arguments: argparse.Namespace) -> None:
  """Text of one of `corpora.SOURCES` to a prepared folder."""
  source, output = arguments.source, pathlib.Path(arguments.output)
  arguments.tokenizer = arguments.tokenizer or TOKENIZER[source]
  if _is_streamed(arguments):
    _prepare_streamed(arguments, output)
  else:
    if arguments.split_by:
      raise DataError(f'{source}: its splits are by position; no --split-by')
    _prepare_whole(arguments, output)
  manifest = packing.verify(output)
  _report(output, manifest)
  print(
    f'use it with: --config.data.source={source} --config.data.path={output} '
    f'--config.data.tokenizer={arguments.tokenizer}'
    + (f' --config.data.label={arguments.label}' if arguments.label else '')
  )


def _is_streamed(arguments: argparse.Namespace) -> bool:
  if arguments.source == 'text_file':
    return not tfds_folders.is_tfds(arguments.input)
  return arguments.source in ('openwebtext', *published.CORPORA)


def _prepare_whole(arguments: argparse.Namespace, output: pathlib.Path) -> None:
  """A corpus that fits into memory."""
  source, fraction = arguments.source, arguments.validation_fraction
  if arguments.label:
    raise DataError(f'{source}: its text has no labels; no --label')
  fraction = VALIDATION_FRACTION if fraction is None else fraction
  place = _located(arguments, output)
  tokenizer = tokenizers.make(arguments.tokenizer)
  with writer.Writer(
    output,
    source=source,
    division='position',
    tokenizer=tokenizer,
    overwrite=arguments.overwrite,
    restart=arguments.restart,
    shard_bytes=arguments.shard_bytes,
  ) as written:
    if not written.done:
      corpus = corpora.SOURCES[source].read(place, tokenizer, fraction)
      write_corpus(written, corpus, tokenizer)


def _prepare_streamed(
  arguments: argparse.Namespace, output: pathlib.Path
) -> None:
  """A corpus of any size, by its documents."""
  source, fraction = arguments.source, arguments.validation_fraction
  division, recipe = _recipe(arguments)
  if fraction is None:
    large = source == 'openwebtext'
    fraction = OPENWEBTEXT_FRACTION if large else VALIDATION_FRACTION
  corpora.held_out(fraction)
  if arguments.workers < 1:
    raise DataError(f'--workers is {arguments.workers}, not above 0')
  files = _text_files(arguments, output)
  tokenizer = tokenizers.make(arguments.tokenizer)
  described = writer.described(output, files)
  with writer.Writer(
    output,
    source=source,
    division=division,
    tokenizer=tokenizer,
    overwrite=arguments.overwrite,
    restart=arguments.restart,
    shard_bytes=arguments.shard_bytes,
    label=recipe.label,
    work={
      'files': described,
      'validation fraction': None if division == 'published' else fraction,
      'rules': 'as is' if arguments.as_is else 'text',
      'bytes a batch': streaming.BATCH_BYTES,
    },
  ) as written:
    written.sources += [
      {'name': file['name'], 'sha256': file['sha256']} for file in described
    ]
    if not written.done:
      _write_streamed(written, files, recipe, tokenizer, arguments.workers)
      some = written.num_tokens('train')
      if division == 'position' and some and not written.held_out:
        written.hold_out(fraction)
      _check_splits(written, source, division, fraction)


def _recipe(arguments: argparse.Namespace) -> tuple[str, streaming.Recipe]:
  """How a corpus is divided, and how its documents become tokens."""
  source, name = arguments.source, arguments.tokenizer
  label = arguments.label
  labels.is_field(label)
  if source in published.CORPORA:
    for option in ('split_by', 'validation_fraction'):
      if getattr(arguments, option) is not None:
        raise DataError(
          f'{source} is published in splits: no --{option.replace("_", "-")}'
        )
    if label:
      raise DataError(f'{source}: its text has no labels; no --label')
    return 'published', streaming.Recipe(
      tokenizer=name,
      split_of=functools.partial(published.split_of, source=source),
      text_of=functools.partial(
        streaming.text_of, source=source, as_is=arguments.as_is
      ),
      lines=functools.partial(published.by_lines, source=source),
    )
  if arguments.as_is:
    raise DataError(
      f'{source}: its text is taken as it is; --as-is is for '
      f'{", ".join(published.CORPORA)}'
    )
  own = 'document' if source == 'openwebtext' else 'position'
  division = arguments.split_by or own
  if division == 'position':
    return division, streaming.Recipe(tokenizer=name, label=label)
  fraction = arguments.validation_fraction
  if division == 'name':
    if fraction is not None:
      raise DataError('--split-by name: no --validation-fraction')
    if label == labels.FILE:
      raise DataError(
        f'--split-by name: the names of files are those of splits; --label '
        f'{labels.FOLDER} takes those of their folders'
      )
    return 'published', streaming.Recipe(
      tokenizer=name, split_of=published.split_named, label=label
    )
  default = OPENWEBTEXT_FRACTION if own == division else VALIDATION_FRACTION
  split_of = functools.partial(
    streaming.split_of,
    validation_fraction=default if fraction is None else fraction,
  )
  return division, streaming.Recipe(
    tokenizer=name, split_of=split_of, label=label
  )


def _text_files(
  arguments: argparse.Namespace, output: pathlib.Path
) -> list[pathlib.Path]:
  """The files of a corpus; of those that are on the hub, fetched."""
  source, place = arguments.source, arguments.input
  if source == 'text_file':
    return corpora.find_text_file(_input(arguments))
  if not place:
    place = str(published.download(source, output / 'downloads'))
  if source in published.CORPORA:
    return published.find(source, place)
  return documents.find(place)


def _write_streamed(
  written: writer.Writer,
  files: list[pathlib.Path],
  recipe: streaming.Recipe,
  tokenizer: Tokenizer,
  workers: int,
) -> None:
  """Adds what a process before had not added, and shows how far it is."""
  if written.held_out:
    return
  if written.place is not None:
    print('going on with what an interrupted preparation made')
  # Late: only this long work shows a bar.
  import tqdm

  total = sum(file.stat().st_size for file in files)
  with tqdm.tqdm(total=total, unit='B', unit_scale=True) as bar:
    streaming.write(written, files, recipe, tokenizer, workers, bar.update)


def _check_splits(
  written: writer.Writer, source: str, division: str, fraction: float
) -> None:
  """Refuses what nobody could read."""
  sizes = {split: written.num_tokens(split) for split in packing.SPLITS}
  if division == 'published':
    if not any(sizes.values()):
      written.discard()
      wanted = published.CORPORA.get(source)
      raise DataError(
        'the files hold no text, or none is named as a split is'
        + (f'; wanted: {wanted.files}' if wanted else '')
      )
    return
  empty = [split for split in ('train', 'validation') if not sizes[split]]
  if empty:
    written.discard()
    raise DataError(
      f'the {empty[-1]} split is empty: too little text for a validation '
      f'fraction of {fraction}'
    )


def prepare_tokenizer(arguments: argparse.Namespace) -> None:
  """A byte-level BPE of the user's own text."""
  output = pathlib.Path(arguments.output)
  if arguments.vocab_size is None:
    raise DataError('train-tokenizer: --vocab-size is missing')
  find = pairs.find if arguments.pairs else documents.find
  path = bpe_training.train(
    find(_input(arguments)),
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


def prepare_tfds(arguments: argparse.Namespace) -> None:
  """Text of one source to a TFDS dataset (array_record)."""
  # Takes half a second to import.
  from sedd_jax.data.sources import tfds_builders

  source = arguments.source
  if arguments.label:
    raise DataError('--tfds keeps no labels; no --label')
  if source not in tfds_builders.BUILDERS:
    raise DataError(
      f'--tfds: no builder for {source!r}; '
      f'{names.alternatives(source, tfds_builders.BUILDERS)}'
    )
  folder = arguments.input or None
  if folder and not os.path.isdir(folder):
    raise DataError(f'--tfds: --input {folder!r} is not a folder')
  options = {}
  if source == 'text_file':
    _input(arguments)
    options['validation_fraction'] = (
      arguments.validation_fraction or VALIDATION_FRACTION
    )
  built = tfds_builders.build(source, arguments.output, folder, **options)
  print(
    f'use it with: --config.data.source={source} --config.data.path={built}'
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
  files = pairs.find(_input(arguments))
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


def verify(arguments: argparse.Namespace) -> None:
  """Reads a prepared folder whole and compares it with its manifest."""
  folder = _input(arguments)
  _report(folder, packing.verify(folder))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
  **{source: prepare_source for source in corpora.SOURCES},
  'gpt2': prepare_gpt2,
  'train-tokenizer': prepare_tokenizer,
  'train-words': prepare_words,
  'held-out': prepare_held_out,
  'verify': verify,
}


def _input(arguments: argparse.Namespace) -> str:
  if not arguments.input:
    raise DataError(f'{arguments.source}: --input is missing')
  return arguments.input


def _located(arguments: argparse.Namespace, output: pathlib.Path) -> Any:
  """The text of a source; text8 and enwik8 are downloaded where they lack."""
  source = arguments.source
  if source not in downloads.PUBLISHED or arguments.input:
    return corpora.SOURCES[source].locate(arguments.input)
  try:
    return corpora.SOURCES[source].locate(str(output))
  except DataError:
    published = downloads.PUBLISHED[source]
    print(f'downloading {published.url} ({published.zip_size / 1e6:.0f} MB)')
    durable.make_folder(output)
    file = output / f'{source}.zip'
    downloads.fetch(
      published.url,
      file,
      sha256=published.zip_sha256,
      size=published.zip_size,
      what_then=(
        f'put {source}.zip into {output} or name it: --input {source}.zip'
      ),
    )
    return file


def _report(folder: str | os.PathLike[str], manifest: packing.Manifest) -> None:
  unit = 'bytes' if manifest.unit == 'byte' else 'characters'
  for split, entry in manifest.splits.items():
    print(
      f'{folder}: {split}: {entry["num_tokens"]:,} tokens, '
      f'{entry["num_characters"]:,} {unit}'
    )
    if manifest.labels is not None:
      counts = zip(
        manifest.labels['documents'][split], manifest.labels['names']
      )
      most = sorted(counts, key=lambda counted: -counted[0])
      told = [f'{count:,} {name}' for count, name in most[:_LABELS_TOLD]]
      rest = ', ...' if len(most) > _LABELS_TOLD else ''
      print(f'{folder}: {split}: documents: {", ".join(told)}{rest}')
  for _, name, shard in packing.token_files(manifest):
    print(f'{folder}: {name}: sha256 {shard["sha256"]}')


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
    '--tokenizer', help='text8, bytes, gpt2 or the path of a tokenizer.json'
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
    (prepare_tfds if arguments.tfds else COMMANDS[source])(arguments)
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
