"""Training a byte-level BPE on text of one's own, by the tokenizers library."""

import importlib
import pathlib
from collections.abc import Iterator, Sequence

from sedd_jax.data.errors import DataError
from sedd_jax.data.files import documents, durable
from sedd_jax.data.paired import pairs

END = '<|endoftext|>'
FILE = 'tokenizer.json'
_BYTES = 256
# Several times the largest that are published; the library makes room for all.
MAX_VOCAB = 2**20
# Longer documents are given in pieces: words are counted, not kept.
_PIECE = 2**20


def train(
  files: Sequence[pathlib.Path],
  folder: pathlib.Path,
  vocab_size: int,
  *,
  of_pairs: bool = False,
  overwrite: bool = False,
) -> pathlib.Path:
  """Learns merges and writes them as a `tokenizer.json`.

  Words are cut as GPT-2's are; any text has ids, since every byte has one.
  Token 0 is `<|endoftext|>`, which stands between documents.

  Args:
    files: kinds as in `documents.read_documents`; read once, one document at a
      time.
    folder: where the file goes.
    vocab_size: tokens at most; fewer where the text gives no more merges.
    of_pairs: the files are of pairs (`pairs.find`), both sides of which are
      read, each by itself.
    overwrite: replace a file that is there.

  Returns:
    The file.

  Raises:
    DataError: without the library, for a size below 257 or above
      `MAX_VOCAB`, a file that is there
      already, no text, and faulty text.
  """
  path = folder / FILE
  if vocab_size <= _BYTES:
    raise DataError(
      f'--vocab-size is {vocab_size}: the bytes and {END} alone are '
      f'{_BYTES + 1}'
    )
  if vocab_size > MAX_VOCAB:
    raise DataError(f'--vocab-size is {vocab_size}: at most {MAX_VOCAB:,}')
  if path.exists() and not overwrite:
    raise DataError(f'{path}: there already; replace it with --overwrite')
  try:
    hub = importlib.import_module('tokenizers')
  except ModuleNotFoundError as error:
    raise DataError(
      "train-tokenizer needs tokenizers: pip install 'sedd_jax[tokenizers]'"
    ) from error
  tokenizer = hub.Tokenizer(hub.models.BPE())
  tokenizer.pre_tokenizer = hub.pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = hub.decoders.ByteLevel()
  trainer = hub.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[END],
    initial_alphabet=sorted(hub.pre_tokenizers.ByteLevel.alphabet()),
  )
  texts = _sides(files) if of_pairs else _pieces(files)
  tokenizer.train_from_iterator(texts, trainer)
  durable.make_folder(folder)
  durable.write_text(path, tokenizer.to_str(pretty=True))
  return path


def _pieces(files: Sequence[pathlib.Path]) -> Iterator[str]:
  empty = True
  for document in documents.read_documents(files):
    text = document.text()
    for begin in range(0, len(text), _PIECE):
      empty = False
      yield text[begin : begin + _PIECE]
  if empty:
    raise DataError('train-tokenizer: the files hold no text')


def _sides(files: Sequence[pathlib.Path]) -> Iterator[str]:
  read = pairs.read(files)
  if not read:
    raise DataError('train-tokenizer: the files hold no pairs')
  for pair in read:
    yield from (pair.source, *pair.targets)
