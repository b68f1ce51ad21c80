"""What is known of a corpus."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from sedd_jax.data.errors import DataError
from sedd_jax.data.tokenizers import Tokenizer


def _uncounted() -> np.ndarray:
  raise DataError('the tokens of this corpus were not counted')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataInfo:
  """What is known of a corpus; not its tokens.

  Attributes:
    name: the source's.
    vocab_size: number of data symbols.
    tokenizer: reads and writes the text; of pairs a `marked.Marked`.
    num_tokens: split to tokens; of pairs those that are counted.
    num_characters: split to characters that they spell (bytes, where `unit` is
      'byte'): the denominator of bits per character.
    unit: what a token is: 'character', 'byte' or 'token'.
    files: `({'name', 'sha256'}, ...)`: base name and checksum of each file that
      the text came from (for a prepared folder of many: of the token files).
    cut: of pairs: split to sequences that lost tokens, being too long.
    token_counts: gives the occurrences of each token in the train split,
      `[vocab_size]`; counted when it is first called.
    labels: their names, in the order of their numbers; empty where documents
      have none.
    remarks: split to what is to be told beside figures of its text.
    token_files: as `files`, of a prepared folder what its tokens are, which
      those do not tell: one entry for all of them.
  """

  name: str
  vocab_size: int
  tokenizer: Tokenizer
  num_tokens: Mapping[str, int]
  num_characters: Mapping[str, int]
  unit: str
  files: tuple[dict[str, str], ...]
  cut: Mapping[str, int] = dataclasses.field(default_factory=dict)
  token_counts: Callable[[], np.ndarray] = _uncounted
  labels: tuple[str, ...] = ()
  remarks: Mapping[str, str] = dataclasses.field(default_factory=dict)
  token_files: tuple[dict[str, str], ...] = ()
