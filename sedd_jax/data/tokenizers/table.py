"""Tokenizers by name.

A tokenizer is a name of `TOKENIZERS`, the path of a `tokenizer.json`, or of a
folder with GPT-2's `encoder.json` and `vocab.bpe`, BERT's `vocab.txt` or a
`words.txt` of whole words; or `owner/name`, whose `tokenizer.json` is fetched
from the Hugging Face hub.
"""

import importlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable

from sedd_jax.core import names
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.tokenizers.base import Tokenizer
from sedd_jax.data.tokenizers.byte_pairs import BytePairs, gpt2
from sedd_jax.data.tokenizers.library import TokenizerFile, WordPiece
from sedd_jax.data.tokenizers.symbols import Bytes, Text8
from sedd_jax.data.tokenizers.words import WORDS_FILE, Words

TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
  'text8': Text8,
  'bytes': Bytes,
  'gpt2': gpt2,
}

_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+')
_ON_HUB = 'tokenizer.json'


def make(
  name: str, folders: Iterable[str | os.PathLike[str]] = ()
) -> Tokenizer:
  """The tokenizer that a config names.

  Args:
    name: of `TOKENIZERS`, the path of a `tokenizer.json`, or of a folder with
      `encoder.json` and `vocab.bpe`, with `vocab.txt` or with `words.txt`; or
      the hub's id of a repository with a `tokenizer.json`.
    folders: where else the files of a known tokenizer may be.

  Raises:
    DataError: for an unknown name or a missing or faulty file.

  >>> make('text8').vocab_size
  27
  """
  path = pathlib.Path(name)
  if name in TOKENIZERS:
    target = TOKENIZERS[name]
    return target(**names.accepted(target, {'folders': folders}))
  if (path / 'vocab.txt').is_file():
    return WordPiece(path / 'vocab.txt', path.name)
  if (path / WORDS_FILE).is_file():
    return Words(path / WORDS_FILE, path.name)
  if (path / 'tokenizer.json').is_file():
    return TokenizerFile(path / 'tokenizer.json')
  if path.is_dir():
    return BytePairs(path / 'encoder.json', path / 'vocab.bpe', path.name)
  if path.is_file():
    return TokenizerFile(path)
  if path.suffix == '.json' or len(path.parts) > 1:
    told = f'tokenizer {documents.missing(path)}'
    if not _is_hub_id(name):
      raise DataError(told)
    for folder in folders:
      # A prepared folder keeps what it was prepared with.
      if (kept := pathlib.Path(folder) / _ON_HUB).is_file():
        return TokenizerFile(kept)
    return TokenizerFile(_of_hub(name, told))
  raise DataError(
    f'unknown tokenizer {name!r}; {names.alternatives(name, TOKENIZERS)}; or '
    "the path of a tokenizer.json, or of a folder with GPT-2's encoder.json "
    "and vocab.bpe, BERT's vocab.txt or a words.txt"
  )


def file_name(name: str) -> str:
  """What a tokenizer from the path of a file or folder is called."""
  path = pathlib.Path(name)
  if _is_hub_id(name):
    return _ON_HUB
  if (path / 'vocab.txt').is_file() or (path / WORDS_FILE).is_file():
    return path.name
  inside = path / 'tokenizer.json'
  return inside.name if inside.is_file() else path.name


def _is_hub_id(name: str) -> bool:
  """Whether a name that is no path here may be one of the hub's."""
  path = pathlib.Path(name)
  # A folder that is there and lacks the file is a mistake in a path.
  there = path.exists() or path.parent.is_dir()
  return not there and path.suffix != '.json' and bool(_HUB_ID.fullmatch(name))


def _of_hub(name: str, told: str) -> pathlib.Path:
  """A repository's tokenizer; `told` begins what is said where there is none.

  Raises:
    DataError: without huggingface_hub or a network, or such a file.
  """
  try:
    hub = importlib.import_module('huggingface_hub')
  except ModuleNotFoundError as error:
    raise DataError(
      f"{told}; to fetch it from the hub: pip install 'sedd_jax[hub]'"
    ) from error
  try:
    return pathlib.Path(hub.hf_hub_download(name, _ON_HUB))
  # The library's own errors, those of its HTTP client, a missing network.
  except Exception as error:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise DataError(
      f'{told}, and the hub did not give {_ON_HUB}: {text[:300]}'
    ) from error
