"""What the tokenizers library reads: a `tokenizer.json`, BERT's WordPiece."""

import abc
import collections
import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document
from sedd_jax.data.tokenizers.base import (
  NEEDS_EXTRA,
  Tokenizer,
  checked_ids,
  lines_of,
  optional_library,
  storage_dtype,
)
from sedd_jax.data.tokenizers.byte_pairs import END_OF_TEXT, byte_characters

# Ends of documents in the tokenizers of other models.
_SEPARATORS = (END_OF_TEXT, '</s>', '<eos>', '<|end_of_text|>', '[SEP]')
# What lies beside BERT's vocabulary, and what of it is no text.
_SETTINGS = 'tokenizer_config.json'
_UNKNOWN = '[UNK]'
_SPECIAL = re.compile(r'\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]')


class _OfLibrary(Tokenizer):
  """What the tokenizers library reads from a file."""

  unit = 'token'
  # Between the texts before and after it.
  _mask = '[MASK]'

  def __init__(self, path: pathlib.Path, name: str):
    """Reads the file.

    Raises:
      DataError: without the library, and for a file that it cannot read.
    """
    self.name = name
    self.files = {path.name: path}
    if not path.is_file():
      raise DataError(documents.missing(path))
    hub = optional_library('tokenizers')
    if hub is None:
      raise DataError(
        f'tokenizer {str(path)!r} needs tokenizers: {NEEDS_EXTRA}'
      )
    try:
      self._tokenizer = self._read(hub, path)
    # The library raises bare Exception.
    except Exception as error:
      raise DataError(f'{path}: not a {path.name}: {error}') from error
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
    ids = map(self._tokenizer.token_to_id, _SEPARATORS)
    self.separator = next((i for i in ids if i is not None), None)

  @property
  def vocabulary(self) -> Mapping[str, int]:
    """Token to id."""
    return self._tokenizer.get_vocab(with_added_tokens=True)

  @abc.abstractmethod
  def _read(self, hub: Any, path: pathlib.Path) -> Any:
    """The library's tokenizer of a file."""

  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[tokens]`, without special tokens around them."""
    ids = self._tokenizer.encode(text, add_special_tokens=False).ids
    return np.array(ids, dtype)

  def decode(self, ids: ArrayLike) -> str:
    """The text; `[MASK]` from `vocab_size` up."""
    clipped = checked_ids(ids, self.vocab_size)
    cuts = np.flatnonzero(clipped == self.vocab_size)
    runs = np.split(clipped, cuts)
    runs[1:] = [run[1:] for run in runs[1:]]
    return self._mask.join(
      self._tokenizer.decode(run.tolist(), skip_special_tokens=False)
      for run in runs
    )

  def num_characters(self, ids: np.ndarray) -> int:
    """Characters of the decoded text; special tokens have none."""
    step = 2**20
    return sum(
      len(self._tokenizer.decode(ids[i : i + step].tolist()))
      for i in range(0, len(ids), step)
    )

  @functools.cached_property
  def _of_text(self) -> Any:
    """The library's tokenizer, to which the names of special tokens are text.

    Another one, for prompts may hold special tokens.
    """
    found = type(self._tokenizer).from_str(self._tokenizer.to_str())
    found.encode_special_tokens = True
    return found

  def encode_documents(self, batch: Sequence[Document]) -> list[np.ndarray]:
    """Ids of the documents, on all cores if the library is let.

    What in a document is written as a special token is letters to it.
    """
    dtype = storage_dtype(self.vocab_size)
    texts = [document.text() for document in batch]
    # The same ids without their places in the text.
    encode = self._of_text.encode_batch_fast
    encoded = encode(texts, add_special_tokens=False)
    return [np.array(each.ids, dtype) for each in encoded]


class TokenizerFile(_OfLibrary):
  """A `tokenizer.json` of the tokenizers library."""

  @functools.cached_property
  def pieces(self) -> Sequence[bytes] | None:
    """Those of a byte-level vocabulary; a special token is none."""
    described = json.loads(self._tokenizer.to_str())
    if (described['decoder'] or {}).get('type') != 'ByteLevel':
      return None
    bytes_of = {
      character: byte for byte, character in byte_characters().items()
    }
    special = {
      token['id'] for token in described['added_tokens'] if token['special']
    }

    def spelled(token: str) -> bytes:
      # As the library does: an added token is what it says.
      if all(character in bytes_of for character in token):
        return bytes(bytes_of[character] for character in token)
      return token.encode()

    names = map(self._tokenizer.id_to_token, range(self.vocab_size))
    return [
      b'' if name is None or number in special else spelled(name)
      for number, name in enumerate(names)
    ]

  def __init__(self, path: pathlib.Path):
    """Reads the file.

    Raises:
      DataError: without the library, and for a file that it cannot read.
    """
    super().__init__(path, path.name)

  def _read(self, hub: Any, path: pathlib.Path) -> Any:
    return hub.Tokenizer.from_file(str(path))


class WordPiece(_OfLibrary):
  """BERT's WordPiece (arXiv 1609.08144, 1810.04805), from a `vocab.txt`.

  How text is normalised is read from a `tokenizer_config.json` beside it
  (`do_lower_case`, `strip_accents`, `tokenize_chinese_chars`); without one it
  becomes lower case and loses its accents.  Names of special tokens in a text
  are read as plain text.
  """

  _mask = ' [MASK] '

  def __init__(self, path: pathlib.Path, name: str):
    """Reads the vocabulary.

    Args:
      path: `vocab.txt`, a token a line in the order of the ids.
      name: as the config says it.

    Raises:
      DataError: without the library, for a file that it cannot read, a token
        that is there twice, no [UNK], or capitals without settings that keep
        them.
    """
    self._settings: dict[str, Any] = {}
    beside = path.with_name(_SETTINGS)
    if beside.is_file():
      try:
        self._settings = dict(json.loads(beside.read_text('utf-8')))
      except (ValueError, TypeError) as error:
        raise DataError(f'{beside}: no JSON object: {error}') from error
    super().__init__(path, name)
    if beside.is_file():
      self.files = {**self.files, _SETTINGS: beside}
    words = lines_of(path)
    if len(words) != self.vocab_size:
      seen = collections.Counter(words).most_common(1)[0][0]
      raise DataError(f'{path}: the token {seen!r} is there more than once')
    if _UNKNOWN not in words:
      raise DataError(f'{path}: no token {_UNKNOWN}')
    special = [bool(_SPECIAL.fullmatch(word)) for word in words]
    self._special = np.array(special)
    capitals = [
      word
      for word, apart in zip(words, special)
      if not apart and word != word.lower()
    ]
    if capitals and self._lower_case:
      raise DataError(
        f'{path}: text in lower case never has {capitals[0]!r}; a cased '
        f'vocabulary needs {_SETTINGS} beside it, with "do_lower_case": false'
      )

  @property
  def _lower_case(self) -> bool:
    return bool(self._settings.get('do_lower_case', True))

  def _read(self, hub: Any, path: pathlib.Path) -> Any:
    model = hub.models.WordPiece.from_file(str(path), unk_token=_UNKNOWN)
    tokenizer = hub.Tokenizer(model)
    tokenizer.normalizer = hub.normalizers.BertNormalizer(
      lowercase=self._lower_case,
      strip_accents=self._settings.get('strip_accents'),
      handle_chinese_chars=self._settings.get('tokenize_chinese_chars', True),
    )
    tokenizer.pre_tokenizer = hub.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = hub.decoders.WordPiece()
    return tokenizer

  def num_characters(self, ids: np.ndarray) -> int:
    """Characters of the decoded text; special tokens, [UNK] too, have none."""
    return super().num_characters(ids[~self._special[ids]])
