"""Text of a source to a folder of token files: what `prepare` says of it."""

import argparse
import functools
import os
import pathlib
from typing import Any

from sedd_jax.core import names
from sedd_jax.data import streaming, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, downloads, durable, labels
from sedd_jax.data.prepared import packing, writer
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
    return corpora.find_text_file(required_input(arguments))
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
    required_input(arguments)
    options['validation_fraction'] = (
      arguments.validation_fraction or VALIDATION_FRACTION
    )
  built = tfds_builders.build(source, arguments.output, folder, **options)
  print(
    f'use it with: --config.data.source={source} --config.data.path={built}'
  )


def verify(arguments: argparse.Namespace) -> None:
  """Reads a prepared folder whole and compares it with its manifest."""
  folder = required_input(arguments)
  _report(folder, packing.verify(folder))


def required_input(arguments: argparse.Namespace) -> str:
  """What `--input` says, which must be there.

  Raises:
    DataError: it is missing.
  """
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
