"""GPT-2's byte-level BPE, from its two files."""

import functools
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document
from sedd_jax.data.tokenizers.base import (
  NEEDS_EXTRA,
  Tokenizer,
  checked_ids,
  optional_library,
  storage_dtype,
)

GPT2_URL = 'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/'
# Name to SHA-256 of the two files that OpenAI published.
GPT2_FILES = {
  'encoder.json': (
    '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'
  ),
  'vocab.bpe': (
    '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5'
  ),
}
GPT2_FOLDER = os.path.join('data_cache', 'gpt2')

END_OF_TEXT = '<|endoftext|>'
# How GPT-2 cuts text into words before it merges bytes (released code).
_GPT2_WORDS = (
  r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
# Unicode's White_Space, which is what tiktoken takes \s for, not Python.
_WHITE = '\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000'
# tiktoken keeps a way back to each sign of a run of white space that it reads,
# a million at most.
_LONG = 2**19


class BytePairs(Tokenizer):
  """GPT-2's byte-level BPE, from its two files.

  Decoding needs the files only; encoding needs tiktoken or tokenizers.
  """

  unit = 'token'
  adds_up = True

  def __init__(
    self,
    encoder: pathlib.Path,
    merges: pathlib.Path,
    name: str = 'gpt2',
  ):
    """Reads the vocabulary.

    Args:
      encoder: `encoder.json` (elsewhere `vocab.json`): token to id.
      merges: `vocab.bpe` (elsewhere `merges.txt`): pairs in order of merging.
      name: as the config says it.

    Raises:
      DataError: for files that are missing or no such vocabulary.
    """
    self.name = name
    encoder, merges = pathlib.Path(encoder), pathlib.Path(merges)
    self.files = {'encoder.json': encoder, 'vocab.bpe': merges}
    for path in self.files.values():
      if not path.is_file():
        raise DataError(documents.missing(path))
    to_byte = {character: byte for byte, character in byte_characters().items()}
    try:
      vocabulary = json.loads(encoder.read_text('utf-8'))
      by_id = {index: token for token, index in vocabulary.items()}
      ordered = [by_id[index] for index in range(len(vocabulary))]
      self._pieces = [
        token.encode()
        if token == END_OF_TEXT
        else bytes(to_byte[character] for character in token)
        for token in ordered
      ]
      lines = merges.read_text('utf-8').split('\n')
      pairs = lines[lines[0].startswith('#version') :]
      merged = [pair.replace(' ', '') for pair in pairs if pair]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
      raise DataError(
        f'{encoder}: not a byte-level BPE vocabulary: {error!r}'
      ) from error
    # tiktoken takes an id for the order of its merge.
    if ordered[256 : 256 + len(merged)] != merged:
      raise DataError(
        f'{encoder}: its ids do not follow the merges of {merges}'
      )
    self._vocabulary = vocabulary
    self.vocab_size = len(vocabulary)
    self.separator = vocabulary.get(END_OF_TEXT)

  @property
  def pieces(self) -> Sequence[bytes]:
    """Those of the vocabulary; an end of text is none."""
    return [
      b'' if token == self.separator else piece
      for token, piece in enumerate(self._pieces)
    ]

  @property
  def vocabulary(self) -> Mapping[str, int]:
    """Token to id, bytes written as characters."""
    return self._vocabulary

  def encode(self, text: str, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Ids `[tokens]`; special tokens in the text are read as plain text.

    Raises:
      DataError: if neither tiktoken nor tokenizers is installed.
    """
    # As tiktoken does: a lone surrogate becomes U+FFFD.
    text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
    [ids] = self._encode_batch([text])
    return np.array(ids, dtype)

  def decode(self, ids: ArrayLike) -> str:
    """UTF-8, with U+FFFD for what is invalid; `[MASK]` from `vocab_size` up."""
    pieces = [*self._pieces, b'[MASK]']
    joined = b''.join(pieces[i] for i in checked_ids(ids, self.vocab_size))
    return joined.decode('utf-8', 'replace')

  def num_characters(self, ids: np.ndarray) -> int:
    """Characters that begin in the tokens; an end of text has none."""
    step = 2**24
    counts = sum(
      np.bincount(ids[i : i + step], minlength=self.vocab_size)
      for i in range(0, len(ids), step)
    )
    return int(np.sum(counts * self._characters))

  def encode_documents(self, batch: Sequence[Document]) -> list[np.ndarray]:
    """Ids of the documents."""
    dtype = storage_dtype(self.vocab_size)
    texts = [document.text() for document in batch]
    return [np.array(ids).astype(dtype) for ids in self._encode_batch(texts)]

  @functools.cached_property
  def _characters(self) -> np.ndarray:
    # A character begins at every byte but UTF-8's continuation bytes.
    counts = [sum(b & 0xC0 != 0x80 for b in piece) for piece in self._pieces]
    if self.separator is not None:
      counts[self.separator] = 0
    return np.array(counts, np.int64)

  @functools.cached_property
  def _encode_batch(self) -> Callable[[list[str]], Iterable[ArrayLike]]:
    if tiktoken := optional_library('tiktoken'):
      special = {} if self.separator is None else {END_OF_TEXT: self.separator}
      of_words, of_one_word = (
        tiktoken.Encoding(
          self.name,
          pat_str=pattern,
          mergeable_ranks={
            piece: rank
            for rank, piece in enumerate(self._pieces)
            if rank != self.separator
          },
          special_tokens=special,
        )
        for pattern in (_GPT2_WORDS, '(?s:.+)')
      )

      def encoded(text: str) -> np.ndarray:
        ids = [
          (of_one_word if is_word else of_words).encode_to_numpy(
            part, disallowed_special=()
          )
          for part, is_word in parts(text)
        ]
        return ids[0] if len(ids) == 1 else np.concatenate(ids)

      return lambda texts: [encoded(text) for text in texts]
    if hub := optional_library('tokenizers'):
      model = hub.models.BPE.from_file(*map(str, self.files.values()))
      tokenizer = hub.Tokenizer(model)
      tokenizer.pre_tokenizer = hub.pre_tokenizers.ByteLevel(
        add_prefix_space=False
      )
      return lambda texts: [e.ids for e in tokenizer.encode_batch(texts)]
    raise DataError(
      f'tokenizer {self.name!r} needs tiktoken or tokenizers to encode text: '
      f'{NEEDS_EXTRA}'
    )


def parts(text: str, long: int = _LONG) -> Iterator[tuple[str, bool]]:
  """A text, cut where GPT-2's words begin and end, by its long white space.

  A run of white space begins a word, since no other word goes on into one; it
  is one word without its last sign, which belongs to what follows, or with it
  where the text ends.

  Args:
    text: any.
    long: signs of a run that is cut out, 2 or more.

  Yields:
    The parts in their order, and whether each is one word; not, it may have
    many words or none.

  >>> list(parts('a   b ', long=3))
  [('a', False), ('  ', True), (' b ', False)]
  """
  begin = 0
  if len(text) >= long:
    for run in re.finditer(f'[{_WHITE}]{{{long},}}', text):
      end = run.end() - (run.end() < len(text))
      yield text[begin : run.start()], False
      yield text[run.start() : end], True
      begin = end
  yield text[begin:], False


def gpt2(folders: Iterable[str | os.PathLike[str]] = ()) -> BytePairs:
  """GPT-2's tokenizer, from files that are already on this machine.

  Args:
    folders: where to look first for `encoder.json` and `vocab.bpe`; then
      follow `data_cache/gpt2` and the cache of tiktoken.

  Raises:
    DataError: if the files are nowhere, or not the published ones.
  """
  places = [
    {name: pathlib.Path(folder, name) for name in GPT2_FILES}
    for folder in (*folders, GPT2_FOLDER)
  ]
  environment = os.environ.get
  cache = (
    environment('TIKTOKEN_CACHE_DIR')
    or environment('DATA_GYM_CACHE_DIR')
    or os.path.join(tempfile.gettempdir(), 'data-gym-cache')
  )
  places.append(
    {
      name: pathlib.Path(
        cache, hashlib.sha1((GPT2_URL + name).encode()).hexdigest()
      )
      for name in GPT2_FILES
    }
  )
  for place in places:
    if all(path.is_file() for path in place.values()):
      for name, path in place.items():
        if documents.sha256(path) != GPT2_FILES[name]:
          raise DataError(f'{path}: not the published {name} of GPT-2 (sha256)')
      return BytePairs(place['encoder.json'], place['vocab.bpe'])
  raise DataError(
    "tokenizer 'gpt2': encoder.json and vocab.bpe are not in "
    f'{GPT2_FOLDER}; fetch them with: python -m sedd_jax.data.prepare gpt2 '
    f'--output {GPT2_FOLDER} (or put them there, or name their folder in '
    'data.tokenizer)'
  )


def byte_characters() -> dict[int, str]:
  """The characters that byte-level BPE writes bytes as."""
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in shown]
  table = {byte: chr(byte) for byte in shown}
  return table | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
