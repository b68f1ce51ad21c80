"""Samples as text: prompts with blanks, requests, rows."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.evaluation import text_metrics
from sedd_jax.systems.base import Request, Samples

_BLANK = re.compile(r'\{blank:([0-9]+)\}')
_BRACES = re.compile(r'\{blank[^}]*\}?', re.IGNORECASE)


class Prompt(NamedTuple):
  """A prompt as tokens.

  Attributes:
    tokens: `[length]` int32, 0 where free.
    given: `[length]` bool.
  """

  tokens: np.ndarray
  given: np.ndarray


def parse_prompt(
  tokenizer: Any, prompt: str, suffix: str, length: int
) -> Prompt:
  """Places a prompt at the start and a suffix at the end of a sequence.

  `{blank:n}` in either is n free tokens; what lies between them is free too.

  Args:
    tokenizer: has `encode(text)`.
    prompt: text, may be empty.
    suffix: text, may be empty.
    length: tokens of the sequence.

  Returns:
    Tokens and where they are given.

  Raises:
    ValueError: a blank that is not `{blank:n}`, a text that the tokenizer does
      not take, or more text than fits.
  """
  first = _pieces(tokenizer, prompt, 'prompt', length)
  last = _pieces(tokenizer, suffix, 'suffix', length)
  needed = len(first.tokens) + len(last.tokens)
  if needed > length:
    raise ValueError(
      f'prompt and suffix take {needed} tokens, but the samples have {length}: '
      'set sampling.length'
    )
  tokens, given = np.zeros(length, np.int32), np.zeros(length, bool)
  tokens[: len(first.tokens)], given[: len(first.given)] = first
  if len(last.tokens):
    tokens[-len(last.tokens) :], given[-len(last.given) :] = last
  return Prompt(tokens, given)


def _pieces(tokenizer: Any, text: str, kind: str, length: int) -> Prompt:
  tokens, given = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
  # An odd place holds the number of a blank, an even one text.
  for place, piece in enumerate(_BLANK.split(text)):
    if place % 2:
      if int(piece) > length:
        raise ValueError(
          f'{{blank:{piece}}} in the {kind} is longer than the samples, which '
          f'have {length} tokens: set sampling.length'
        )
      tokens.append(np.zeros(int(piece), np.int32))
      given.append(np.zeros(int(piece), bool))
      continue
    if bad := _BRACES.search(piece):
      raise ValueError(
        f'{bad.group()!r} in the {kind} is no blank: write {{blank:12}} for '
        '12 free tokens'
      )
    try:
      ids = np.asarray(tokenizer.encode(piece), np.int32).reshape(-1)
    except ValueError as error:
      raise ValueError(f'{piece!r} in the {kind}: {error}') from error
    tokens.append(ids)
    given.append(np.ones(len(ids), bool))
  return Prompt(np.concatenate(tokens), np.concatenate(given))


def request(
  tokenizer: Any,
  *,
  length: int,
  seeds: Sequence[int],
  prompt: str = '',
  suffix: str = '',
  **options: Any,
) -> Request:
  """A request for samples that keep a prompt.

  Args:
    tokenizer: has `encode(text)`.
    length: tokens a sample.
    seeds: one a sample.
    prompt: see `parse_prompt`.
    suffix: see `parse_prompt`.
    **options: further fields of `Request`.

  Returns:
    The request.

  Raises:
    ValueError: a prompt that cannot be placed, a seed beyond 32 bits, no
      samples or samples without tokens.
  """
  if length < 1 or not len(seeds):
    raise ValueError(
      f'{len(seeds)} samples of {length} tokens are asked for: both are at '
      'least 1'
    )
  if bad := [seed for seed in seeds if not 0 <= seed < 2**32]:
    raise ValueError(f'seeds of samples are in [0, 2**32), not {bad[0]}')
  if not prompt and not suffix:
    return Request(length=length, seeds=tuple(seeds), **options)
  placed = parse_prompt(tokenizer, prompt, suffix, length)
  rows = len(seeds)
  return Request(
    length=length,
    seeds=tuple(seeds),
    tokens=np.tile(placed.tokens, (rows, 1)),
    given=np.tile(placed.given, (rows, 1)),
    **options,
  )


def rows(
  samples: Samples, tokenizer: Any, request: Request, **record: Any
) -> list[dict[str, Any]]:
  """Samples as JSON-able rows with `text`, `seed`, `method` and `steps`.

  Args:
    samples: what came of the request.
    tokenizer: has `decode(ids)`.
    request: the request.
    **record: further entries of every row.

  Returns:
    One row a sample.
  """
  return [
    {
      'text': tokenizer.decode(tokens[:length]),
      'seed': int(seed),
      'method': request.method,
      'steps': request.steps,
      **record,
    }
    for tokens, length, seed in zip(
      samples.tokens, samples.lengths, request.seeds
    )
  ]


def sequences(samples: Samples) -> list[np.ndarray]:
  """The tokens `[length]` of each sample that count."""
  return [
    np.asarray(tokens[:length])
    for tokens, length in zip(samples.tokens, samples.lengths)
  ]


def unigram_entropy(samples: Samples) -> float:
  """Entropy of the tokens within a sample, the mean over samples.

  Repetitive samples are low in it: a figure to be read beside a likelihood or a
  perplexity under another model, which such samples flatter (arXiv 2409.02908).

  Args:
    samples: with at least one token each.

  Returns:
    Nats; at most the log of a sample's length.

  >>> tokens = np.array([[0, 1, 2, 3], [5, 5, 5, 5]])
  >>> round(unigram_entropy(Samples(tokens, np.array([4, 4]), 1)), 4)
  0.6931
  """
  return text_metrics.unigram_entropy(sequences(samples))
