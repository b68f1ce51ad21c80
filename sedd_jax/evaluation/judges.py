"""Perplexity of samples under another model, a judge.

A judge has an exact likelihood, token by token.  Where it reads the same ids as
the run that drew the samples, it gets these ids; else it gets their text, reads
it anew, and its perplexity a token is one of *its* tokens: then bits a
character and the perplexity a word compare, and that a token does not.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.evaluation import likelihood

_ROWS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
  """A model that scores text.

  Attributes:
    name: as it is told.
    tokenizer: has `encode(text)`, `decode(ids)`, `separator` and `vocabulary`.
    width: tokens that it takes at once.
    scores_first: whether it has a law of the first token, as GPT-2 has not.
    nats_fn: `(tokens [b, w] int32, valid [b, w], counted [b, w])` to nats `[b]`
      of the counted tokens; padding stands at the end.
  """

  name: str
  tokenizer: Any
  width: int
  scores_first: bool
  nats_fn: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Judged(NamedTuple):
  """What a judge says of samples, one entry a sample.

  Attributes:
    nats: `[n]`, -log p of the tokens that are scored.
    tokens: `[n]`, how many these are, in the judge's reading.
    characters: `[n]`, characters of the text that they spell.
    words: `[n]`, words of it, between white space.
  """

  nats: np.ndarray
  tokens: np.ndarray
  characters: np.ndarray
  words: np.ndarray


def reads_ids(judge: Judge, tokenizer: Any) -> bool:
  """Whether ids of a tokenizer mean to a judge what they mean there."""
  return same_ids(judge.tokenizer, tokenizer)


def same_ids(one: Any, other: Any) -> bool:
  """Whether the ids of two tokenizers mean the same."""
  if one.vocab_size != other.vocab_size:
    return False
  if one.vocabulary is None or other.vocabulary is None:
    return one.name == other.name
  return one.vocabulary == other.vocabulary


def require_readable(judge: Judge, tokenizer: Any) -> None:
  """Refuses a judge that cannot read what a run may write.

  Args:
    judge: it.
    tokenizer: the run's.

  Raises:
    ValueError: naming the text that the judge has no ids for.
  """
  if reads_ids(judge, tokenizer):
    return
  try:
    judge.tokenizer.encode(tokenizer.decode(np.arange(tokenizer.vocab_size)))
  except ValueError as error:
    raise ValueError(
      f'eval.judge {judge.name} reads by tokenizer {judge.tokenizer.name!r}, '
      f'the run writes by {tokenizer.name!r}, and not all of that can be read: '
      f'{error}'
    ) from error


def reading(judge: Judge, tokenizer: Any, tokens: np.ndarray) -> np.ndarray:
  """A sample in the judge's ids.

  Args:
    judge: it.
    tokenizer: the run's.
    tokens: `[length]`, the run's ids.

  Returns:
    `[any]`: the ids as they are, or those of the text.  Ends of documents are
    the judge's where the run has a token of its own for them.  Bytes that are
    no UTF-8 are read as U+FFFD.

  Raises:
    ValueError: text that the judge has no ids for.
  """
  if reads_ids(judge, tokenizer):
    return np.asarray(tokens)
  pieces = [np.asarray(tokens)]
  if tokenizer.unit == 'token' and tokenizer.separator is not None:
    cuts = np.flatnonzero(pieces[0] == tokenizer.separator)
    pieces = np.split(pieces[0], cuts)
    pieces[1:] = [piece[1:] for piece in pieces[1:]]
  ends = judge.tokenizer.separator
  between = np.array([] if ends is None else [ends], np.int64)
  found = []
  for piece in pieces:
    found += [between, judge.tokenizer.encode(tokenizer.decode(piece))]
  return np.concatenate(found[1:]).astype(np.int64)


def windows(ids: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, int]]:
  """A text in pieces of at most a width that overlap by half.

  Args:
    ids: `[length]`.
    width: of a piece.

  Yields:
    A piece, and the place in it of the first token that no piece before it has:
    every token is scored once, and after the first piece with at least half a
    width before it.
  """
  yield ids[:width], 0
  stride = max(width // 2, 1)
  start = 0
  while start + width < len(ids):
    start += stride
    yield ids[start : start + width], width - stride


def judged(
  judge: Judge, tokenizer: Any, sequences: Sequence[np.ndarray]
) -> Judged:
  """Scores samples.

  Args:
    judge: it.
    tokenizer: the run's.
    sequences: the run's ids `[length]` of each sample.

  Returns:
    Sums a sample.

  Raises:
    ValueError: text that the judge cannot read, or none that it can score.
    BoundError: a likelihood that is not finite.
  """
  read = [reading(judge, tokenizer, tokens) for tokens in sequences]
  pieces = [
    (place, piece, first)
    for place, ids in enumerate(read)
    for piece, first in windows(ids, judge.width)
  ]
  nats = np.zeros(len(read))
  for begin in range(0, len(pieces), _ROWS):
    batch = pieces[begin : begin + _ROWS]
    tokens = np.zeros((_ROWS, judge.width), np.int32)
    valid = np.zeros(tokens.shape, bool)
    counted = np.zeros(tokens.shape, bool)
    for row, (_, piece, first) in enumerate(batch):
      tokens[row, : len(piece)] = piece
      valid[row, : len(piece)] = True
      counted[row, first if first else not judge.scores_first : len(piece)] = 1
    found = np.asarray(judge.nats_fn(tokens, valid, counted), np.float64)
    for row, (place, _, _) in enumerate(batch):
      nats[place] += found[row]
  if not np.isfinite(nats).all():
    place = int(np.argmin(np.isfinite(nats)))
    raise likelihood.BoundError(
      f'-log p of sample {place} under {judge.name} is {nats[place]}'
    )
  scored = [ids if judge.scores_first else ids[1:] for ids in read]
  counts = np.array([len(ids) for ids in scored])
  if not counts.sum():
    raise ValueError(f'{judge.name} has no token of the samples to score')
  texts = [judge.tokenizer.decode(ids) for ids in scored]
  return Judged(
    nats,
    counts,
    np.array([len(text) for text in texts]),
    np.array([len(text.split()) for text in texts]),
  )


def perplexities(found: Judged) -> dict[str, float | None]:
  """Generative perplexity, in each of the ways that it is reported.

  Args:
    found: of `judged`.

  Returns:
    perplexity: exp(nats of all samples / tokens of all samples), as MDLM
      reports it (arXiv 2406.07524, released code).
    standard_error: of it, that of nats a token (`likelihood.ratio_and_error`)
      times the perplexity; None for one sample.
    mean_perplexity: the mean over samples of exp(nats / tokens), as SEDD
      reports it (arXiv 2310.16834, released code); never below it where
      samples are equally long.
    bits_per_character: nats / log 2 / characters.
    perplexity_per_word: exp(nats / words).
    Each is None where there is nothing to divide by, or beyond 1e304.
  """
  some = found.tokens > 0
  mean, error = likelihood.ratio_and_error(found.nats[some], found.tokens[some])
  perplexity = _exp(mean)
  each = [_exp(x) for x in found.nats[some] / found.tokens[some]]
  finite = [x for x in each if x is not None]
  total, characters = float(found.nats.sum()), int(found.characters.sum())
  words = int(found.words.sum())
  return {
    'perplexity': perplexity,
    'standard_error': None
    if error is None or perplexity is None
    else error * perplexity,
    'mean_perplexity': float(np.mean(finite))
    if len(finite) == len(each)
    else None,
    'bits_per_character': total / math.log(2) / characters
    if characters
    else None,
    'perplexity_per_word': _exp(total / words) if words else None,
  }


def _exp(nats: float) -> float | None:
  return math.exp(nats) if nats < 700 else None


class _HubTokenizer:
  """A tokenizer of transformers, as a judge needs one."""

  unit = 'token'

  def __init__(self, tokenizer: Any, name: str):
    self._tokenizer = tokenizer
    self.name = name
    self.separator: int | None = tokenizer.eos_token_id

  @property
  def vocab_size(self) -> int:
    return len(self._tokenizer)

  @property
  def vocabulary(self) -> Mapping[str, int]:
    return self._tokenizer.get_vocab()

  def encode(self, text: str) -> np.ndarray:
    ids = self._tokenizer.encode(text, add_special_tokens=False)
    return np.array(ids, np.int64)

  def decode(self, ids: Any) -> str:
    return self._tokenizer.decode(
      [int(i) for i in ids], clean_up_tokenization_spaces=False
    )


def of_transformers(name: str) -> Judge:
  """A GPT-2, or another causal model, of the library transformers.

  Its first token has no law: a sample's tokens from the second on are scored,
  as the papers' own code does.

  Args:
    name: a folder with `config.json`, weights and a tokenizer, or a hub id.

  Returns:
    The judge; it computes in float32, on the CPU where there is no CUDA.

  Raises:
    ValueError: the library is not installed, or there is no such model.
  """
  try:
    torch = importlib.import_module('torch')
    library = importlib.import_module('transformers')
  except ModuleNotFoundError as error:
    raise ValueError(
      f'eval.judge {name!r} is no folder of a run, and to read it as a model '
      f'of transformers {error.name} is missing: pip install '
      "'sedd_jax[judge]'"
    ) from error
  try:
    tokenizer = library.AutoTokenizer.from_pretrained(name)
    model = library.AutoModelForCausalLM.from_pretrained(
      name, dtype=torch.float32
    ).eval()
  # The library's own errors, and those of a missing network.
  except Exception as error:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(
      f'eval.judge {name!r} is no folder of a run, and transformers cannot '
      f'read it: {text}'
    ) from error
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model.to(device)

  def nats_fn(
    tokens: np.ndarray, valid: np.ndarray, counted: np.ndarray
  ) -> np.ndarray:
    # The padding that no row needs is left out.
    longest = max(int(valid.sum(axis=1).max()), 1)
    ids, mask, scored = (
      torch.as_tensor(x[:, :longest].astype(np.int64), device=device)
      for x in (tokens, valid, counted)
    )
    with torch.no_grad():
      logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    found = torch.log_softmax(logits.float(), dim=-1)
    found = found.gather(-1, ids[:, 1:, None])[..., 0]
    return -(found.double() * scored[:, 1:]).sum(dim=1).cpu().numpy()

  return Judge(
    name=name,
    tokenizer=_HubTokenizer(tokenizer, name),
    width=_positions(model.config),
    scores_first=False,
    nats_fn=nats_fn,
  )


def _positions(config: Any) -> int:
  """Tokens that a model of transformers takes."""
  return int(getattr(config, 'max_position_embeddings', 0) or 1024)
