"""Prepares a corpus: text to token files that training maps into memory.

  python -m sedd_jax.data.prepare text8 --output data_cache/text8
  python -m sedd_jax.data.prepare enwik8 --input downloads/enwik8.zip
  python -m sedd_jax.data.prepare text_file --input a.txt,b.jsonl.gz \\
    --tokenizer bytes --output data_cache/mine
  python -m sedd_jax.data.prepare openwebtext --input openwebtext/
  python -m sedd_jax.data.prepare gpt2
  python -m sedd_jax.data.prepare verify --input data_cache/text8

Nothing is downloaded but by the commands text8, enwik8 and gpt2 where their
files are not at hand, and all that is downloaded is checked.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sedd_jax.core import names
from sedd_jax.data import corpora, documents, downloads, packing, tokenizers
from sedd_jax.data.documents import Document
from sedd_jax.data.errors import DataError
from sedd_jax.data.tokenizers import Tokenizer

TOKENIZER = {
  'text8': 'text8',
  'enwik8': 'bytes',
  'pydoc': 'text8',
  'text_file': 'text8',
  'openwebtext': 'gpt2',
}
# OpenWebText has no splits; 0.05 % of it are some 4000 documents.
OPENWEBTEXT_FRACTION = 5e-4
VALIDATION_FRACTION = 0.05

# Documents that are turned into tokens together.
_BATCH_BYTES = 2**22
_BLOCK = 2**24


def write_corpus(
  writer: packing.Writer, corpus: corpora.Corpus, tokenizer: Tokenizer
) -> None:
  """Writes a corpus that is in memory, split by position.

  Args:
    writer: entered.
    corpus: the tokens and the shares of the splits.
    tokenizer: the one it was made with.
  """
  writer.sources += corpus.files
  parts = corpora.split_by_position([corpus.tokens], corpus.shares)
  for split, tokens in parts.items():
    if not len(tokens):
      raise DataError(f'too little text: the {split} split is empty')
    for begin in range(0, len(tokens), _BLOCK):
      block = tokens[begin : begin + _BLOCK]
      writer.append(split, block, tokenizer.num_characters(block))


def split_of(data: bytes, validation_fraction: float) -> str:
  """The split of a document, by its text alone.

  A text that is there twice is on one side both times, and neither order nor
  number of the files matters.

  >>> split_of(b'a document', 1.0), split_of(b'a document', 0.0)
  ('validation', 'train')
  """
  draw = int.from_bytes(hashlib.sha256(data).digest()[:8], 'big') / 2**64
  return 'validation' if draw < validation_fraction else 'train'


def write_documents(
  writer: packing.Writer,
  files: Sequence[pathlib.Path],
  tokenizer: Tokenizer,
  validation_fraction: float,
  progress: Callable[[int], object] = lambda size: None,
) -> None:
  """Writes documents as they are read, split by document.

  Args:
    writer: entered.
    files: kinds as in `documents.read_documents`.
    tokenizer: its separator stands where two documents meet.
    validation_fraction: share of the documents held out.
    progress: told how many bytes of the files more have been read.

  Raises:
    DataError: for faulty files, and if a split stays empty.
  """
  last: dict[str, int] = {}

  def flush(batch: list[Document]) -> None:
    pieces: dict[str, list[np.ndarray]] = {'train': [], 'validation': []}
    for document, ids in zip(batch, tokenizer.encode_documents(batch)):
      if len(ids):
        split = split_of(document.data, validation_fraction)
        joined = tokenizers.seam(last.get(split), ids, tokenizer.separator)
        pieces[split].append(joined)
        last[split] = int(ids[-1])
    for split, arrays in pieces.items():
      if arrays:
        tokens = np.concatenate(arrays)
        writer.append(split, tokens, tokenizer.num_characters(tokens))

  batch: list[Document] = []
  size = 0
  for document in documents.read_documents(files, progress):
    batch.append(document)
    size += len(document.data)
    if size >= _BATCH_BYTES:
      flush(batch)
      batch, size = [], 0
  flush(batch)
  for split in ('train', 'validation'):
    if not writer.num_tokens(split):
      raise DataError(
        f'the {split} split is empty: too little text for a validation '
        f'fraction of {validation_fraction}'
      )
  writer.sources += documents.described(files)


def prepare_source(arguments: argparse.Namespace) -> None:
  """Text of one of `corpora.SOURCES` to a prepared folder."""
  source, output = arguments.source, pathlib.Path(arguments.output)
  fraction = arguments.validation_fraction
  tokenizer_name = arguments.tokenizer or TOKENIZER[source]
  if source == 'openwebtext':
    files = documents.find(_input(arguments))
    fraction = OPENWEBTEXT_FRACTION if fraction is None else fraction
    corpora.held_out(fraction)
  else:
    fraction = VALIDATION_FRACTION if fraction is None else fraction
    place = _located(arguments, output)
  tokenizer = tokenizers.make(tokenizer_name)
  with packing.Writer(
    output,
    source=source,
    division='document' if source == 'openwebtext' else 'position',
    tokenizer=tokenizer,
    overwrite=arguments.overwrite,
  ) as writer:
    if source == 'openwebtext':
      # Late: only this long work shows a bar.
      import tqdm

      total = sum(file.stat().st_size for file in files)
      with tqdm.tqdm(total=total, unit='B', unit_scale=True) as bar:
        write_documents(writer, files, tokenizer, fraction, bar.update)
    else:
      corpus = corpora.SOURCES[source].read(place, tokenizer, fraction)
      write_corpus(writer, corpus, tokenizer)
  manifest = packing.verify(output)
  _report(output, manifest)
  print(
    f'use it with: --config.data.source={source} --config.data.path={output} '
    f'--config.data.tokenizer={tokenizer_name}'
  )


def prepare_tfds(arguments: argparse.Namespace) -> None:
  """Text of one source to a TFDS dataset (array_record)."""
  # Takes half a second to import.
  from sedd_jax.data import tfds_builders

  source = arguments.source
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
  output.mkdir(parents=True, exist_ok=True)
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


def verify(arguments: argparse.Namespace) -> None:
  """Reads a prepared folder whole and compares it with its manifest."""
  folder = _input(arguments)
  _report(folder, packing.verify(folder))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
  **{source: prepare_source for source in corpora.SOURCES},
  'gpt2': prepare_gpt2,
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
    output.mkdir(parents=True, exist_ok=True)
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
      f'{entry["num_characters"]:,} {unit}, sha256 {entry["sha256"]}'
    )


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
    help='share held out: of pydoc and text_file (0.05) at the end, of '
    'openwebtext (0.0005) by document',
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
  except KeyboardInterrupt:
    print('interrupted; nothing was kept', file=sys.stderr)
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main())
