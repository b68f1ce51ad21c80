"""Corpora that are published in splits, and what their files are called.

A file, or a member of an archive, belongs to a split by its name: those of the
published archives, of their plain copies, and of the hub's parquet files.  So
do a user's own files, where that is asked for.
"""

import importlib
import pathlib
import re
from typing import NamedTuple

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document

_ARCHIVES = ('.zip', '.tar', '.tgz', '.tar.gz', '.tar.xz', '.tar.zst')
# What `documents` puts behind a file's name.
_PLACE = re.compile(r':(row )?\d+$')


class Corpus(NamedTuple):
  """A corpus of published splits.

  Attributes:
    splits: split to what the end of the path of its files matches.
    files: names to look for, for the error's text.
    hub: data set, revision and files on the Hugging Face hub.
  """

  splits: dict[str, re.Pattern]
  files: str
  hub: tuple[str, str, str]


def _named(prefix: str, **more: str) -> dict[str, re.Pattern]:
  """Splits by name: `PREFIXtrain.x`, `train-00000-of-00002.parquet`, ...

  Args:
    prefix: expression for what may stand before the name of the split.
    **more: split to an expression for further names.
  """
  names = {'train': 'train', 'validation': 'valid(?:ation)?', 'test': 'test'}
  ends = r'(?:[-.][^/:]*|/\d+\.parquet)'
  return {
    split: re.compile(
      rf'(?:^|[/:])(?:(?:{prefix})?{name}{ends}|{more.get(split, "(?!)")})$'
    )
    for split, name in names.items()
  }


_OWN = _named(r'[^/:]*[-._]', validation=r'(?:[^/:]*[-._])?dev[-.][^/:]*')
_WIKITEXT = _named(r'wiki\.|wikitext-?(?:2|103)[-.]')
_CONVERTED = 'refs/convert/parquet'

CORPORA = {
  'lm1b': Corpus(
    _named(
      r'lm1b-',
      train=r'news\.en-(?!00000)\d{5}-of-00100(?:\.\w+)?',
      validation=r'news\.en\.heldout-(?!00000)\d{5}-of-00050(?:\.\w+)?',
      test=r'news\.en\.heldout-00000-of-00050(?:\.\w+)?',
    ),
    '1-billion-word-language-modeling-benchmark-r13output.tar.gz or its files '
    'news.en-*-of-00100 and news.en.heldout-*-of-00050',
    ('billion-word-benchmark/lm1b', _CONVERTED, 'plain_text/*/*.parquet'),
  ),
  'wikitext2': Corpus(
    _WIKITEXT,
    'wikitext-2-raw-v1.zip or wikitext-2-v1.zip, or their files '
    'wiki.{train,valid,test}.raw or .tokens',
    ('Salesforce/wikitext', 'main', 'wikitext-2-raw-v1/*.parquet'),
  ),
  'wikitext103': Corpus(
    _WIKITEXT,
    'wikitext-103-raw-v1.zip or wikitext-103-v1.zip, or their files '
    'wiki.{train,valid,test}.raw or .tokens',
    ('Salesforce/wikitext', 'main', 'wikitext-103-raw-v1/*.parquet'),
  ),
  'ptb': Corpus(
    _named(r'ptb[-.]'),
    'simple-examples.tgz or its files ptb.{train,valid,test}.txt',
    (
      'ptb-text-only/ptb_text_only',
      _CONVERTED,
      'penn_treebank/*/*.parquet',
    ),
  ),
  'lambada': Corpus(
    _named(
      r'lambada[-_]',
      train=r'train-novels(?:\.tar:.*|/.*)',
      validation=r'lambada_development_plain_text\.txt(?:\.\w+)?',
      test=r'lambada_(?:test_plain_text\.txt|openai\.jsonl)(?:\.\w+)?',
    ),
    'lambada-dataset.tar.gz or its files train-novels.tar and '
    'lambada_{development,test}_plain_text.txt',
    ('cimec/lambada', 'main', 'plain_text/*.parquet'),
  ),
}
HUB = {name: corpus.hub for name, corpus in CORPORA.items()} | {
  'openwebtext': ('Skylion007/openwebtext', 'main', 'plain_text/*.parquet')
}


def split_of(document: Document, source: str) -> str | None:
  """The split of a document, by the name of its file; None: of none.

  >>> split_of(Document('a.zip:wikitext-2/wiki.valid.raw', 0, b''), 'wikitext2')
  'validation'
  """
  return _split_of_path(document.where, source)


def split_named(document: Document) -> str:
  """The split of a document of one's own files: train.txt, my-valid.txt, ...

  Raises:
    DataError: a file that is not named as a split is.

  >>> split_named(Document('in/my-dev.txt', 0, b''))
  'validation'
  """
  split = _matching(document.where, _OWN)
  if split is None:
    raise DataError(
      f'{document.where}: named as no split is: with --split-by name files are '
      'train.*, validation.* (or valid, dev) and test.*, also behind a name: '
      'my-train.txt'
    )
  return split


def _split_of_path(where: str, source: str) -> str | None:
  return _matching(where, CORPORA[source].splits)


def _matching(where: str, splits: dict[str, re.Pattern]) -> str | None:
  path = _PLACE.sub('', where.replace('\\', '/').lower())
  found = splits.items()
  return next((split for split, name in found if name.search(path)), None)


def by_lines(where: str, source: str) -> bool:
  """Whether a plain file holds a document a line: all but LAMBADA's novels."""
  return source != 'lambada' or _split_of_path(where, source) != 'train'


def find(source: str, path: str) -> list[pathlib.Path]:
  """The files of a corpus.

  Args:
    source: of `CORPORA`.
    path: a folder, or files separated by commas.

  Returns:
    Of a folder: archives, and files named as a split is, in order of name, of
    `documents.files_in`.

  Raises:
    DataError: if there are none, and for a file that is of no split, which
      would be left out; says how they are named.
  """
  folder = pathlib.Path(path)
  if not folder.is_dir():
    named = documents.find(path)
    for file in named:
      # A file with a suffix of these may be an archive.
      plain = not file.name.lower().endswith((*_ARCHIVES, '.gz', '.xz', '.zst'))
      if plain and not _split_of_path(str(file), source):
        raise DataError(
          f'{file}: named as no split of {source} is; wanted: '
          f'{CORPORA[source].files}'
        )
    return named
  found = [
    file
    for file in documents.files_in(folder)
    if file.name.lower().endswith(_ARCHIVES)
    or _split_of_path(file.relative_to(folder).as_posix(), source)
  ]
  if not found:
    raise DataError(
      f'{folder}: no files of {source}; wanted: {CORPORA[source].files}'
    )
  return found


def download(source: str, folder: pathlib.Path) -> pathlib.Path:
  """Fetches a corpus from the Hugging Face hub.

  Args:
    source: of `HUB`.
    folder: where its files go; those that are there are not fetched again.

  Returns:
    The folder.

  Raises:
    DataError: without huggingface_hub or a network; says what to put where.
  """
  name, revision, files = HUB[source]
  wanted = (
    CORPORA[source].files
    if source in CORPORA
    else '.txt, .jsonl, .parquet, .tar.xz or .zst files'
  )
  instead = f'without it, name a folder with --input: {wanted}'
  try:
    hub = importlib.import_module('huggingface_hub')
  except ModuleNotFoundError as error:
    raise DataError(
      f'{source}: --input is missing, and to fetch it from the hub needs '
      f"huggingface_hub: pip install 'sedd_jax[hub,parquet]'; {instead}"
    ) from error
  try:
    hub.snapshot_download(
      name,
      repo_type='dataset',
      revision=revision,
      allow_patterns=[files],
      local_dir=folder,
    )
  # Of the library, of what it fetches with, and of the system.
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise DataError(
      f'{source}: --input is missing, and {name} cannot be fetched from the '
      f'hub ({reason[:200]}); {instead}'
    ) from error
  return folder
