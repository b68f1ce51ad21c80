"""Samples as text: prompts with blanks, requests, rows."""

import dataclasses
import functools
import operator
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.core import automata
from sedd_jax.data.paired import marked
from sedd_jax.evaluation import conditioning, text_metrics
from sedd_jax.samplers import conditions
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
  Where texts stand between marks (`data.paired.marked`) `[CLS]` comes before
  the prompt, and `[SEP]` behind a suffix.

  Args:
    tokenizer: has `encode(text)`.
    prompt: text, may be empty.
    suffix: text, may be empty.
    length: tokens of the sequence.

  Returns:
    Tokens and where they are given.

  Raises:
    ValueError: a blank that is not `{blank:n}` with n at least 1, a text that
      the tokenizer does not take, or more text than fits.
  """
  first = _pieces(tokenizer, prompt, 'prompt', length)
  last = _pieces(tokenizer, suffix, 'suffix', length)
  if isinstance(tokenizer, marked.Marked):
    first = _joined(_mark(tokenizer.cls), first)
    last = _joined(last, _mark(tokenizer.sep)) if suffix else last
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


def _mark(number: int) -> Prompt:
  return Prompt(np.array([number], np.int32), np.ones(1, bool))


def _joined(*parts: Prompt) -> Prompt:
  return Prompt(*(np.concatenate(arrays) for arrays in zip(*parts)))


def _pieces(tokenizer: Any, text: str, kind: str, length: int) -> Prompt:
  tokens, given = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
  # An odd place holds the number of a blank, an even one text.
  for place, piece in enumerate(_BLANK.split(text)):
    if place % 2:
      if not int(piece):
        raise ValueError(
          f'{{blank:{piece}}} in the {kind} is no blank: it has no tokens; '
          'leave it out'
        )
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
  contains: str | Sequence[str] = '',
  avoids: str | Sequence[str] = '',
  regex: str = '',
  json_schema: str = '',
  ends: str = 'length',
  condition: conditions.Condition | None = None,
  **options: Any,
) -> Request:
  """A request for samples that keep a prompt, and satisfy a condition.

  Args:
    tokenizer: has `encode(text)`; for conditions see
        `conditioning.condition`.
    length: tokens a sample.
    seeds: one a sample.
    prompt: see `parse_prompt`.
    suffix: see `parse_prompt`.
    contains: see `conditioning.condition`, also the following.
    avoids: texts that are in no sample.
    regex: an expression.
    json_schema: a schema.
    ends: where texts end.
    condition: of tokens, besides.
    **options: further fields of `Request`.

  Returns:
    The request.

  Raises:
    ValueError: a prompt that cannot be placed, a condition that cannot be met,
      a seed beyond 32 bits, no samples or samples without tokens.
  """
  if length < 1 or not len(seeds):
    raise ValueError(
      f'{len(seeds)} samples of {length} tokens are asked for: both are at '
      'least 1'
    )
  if bad := [seed for seed in seeds if not 0 <= seed < 2**32]:
    raise ValueError(f'seeds of samples are in [0, 2**32), not {bad[0]}')
  wanted = conditioning.condition(
    tokenizer,
    contains=contains,
    avoids=avoids,
    regex=regex,
    json_schema=json_schema,
    ends=ends,
  )
  parts = [part for part in (wanted, condition) if part is not None]
  if prompt or suffix:
    placed = parse_prompt(tokenizer, prompt, suffix, length)
    if suffix and ends == 'separator':
      raise ValueError(
        'a suffix stands at the end of the samples, where no text is with '
        "ends='separator': ask for it by regex"
      )
    if suffix and wanted and isinstance(tokenizer, marked.Marked):
      # Else a text might end before its suffix.
      last = automata.only_last(tokenizer.sep, tokenizer.vocab_size)
      parts.append(conditions.matches(last, 'one [SEP], behind the suffix'))
    parts.append(
      conditions.template(placed.tokens, placed.given, tokenizer.vocab_size)
    )
  if not parts:
    return Request(length=length, seeds=tuple(seeds), **options)
  whole = functools.reduce(operator.and_, parts)
  whole.require_possible(length)
  tokens, given = whole.template(length)
  rows = len(seeds)
  return Request(
    length=length,
    seeds=tuple(seeds),
    tokens=None if whole.given is None else np.tile(tokens, (rows, 1)),
    given=None if whole.given is None else np.tile(given, (rows, 1)),
    conditions=(whole,) * rows if whole.binds else None,
    **options,
  )


def joined(requests: Sequence[Request]) -> Request:
  """One request of all rows of several, which differ in nothing else.

  Args:
    requests: with the same length and options.
  """
  first = requests[0]

  def stacked(
    name: str, missing: Any, shape: tuple[int, ...] = (first.length,)
  ) -> np.ndarray | None:
    if all(getattr(one, name) is None for one in requests):
      return None
    return np.concatenate(
      [
        np.full((len(one.seeds), *shape), missing)
        if getattr(one, name) is None
        else getattr(one, name)
        for one in requests
      ]
    )

  wanted = tuple(
    asked
    for one in requests
    for asked in (one.conditions or (None,) * len(one.seeds))
  )
  return dataclasses.replace(
    first,
    seeds=tuple(seed for one in requests for seed in one.seeds),
    tokens=stacked('tokens', np.int32(0)),
    given=stacked('given', False),
    label=stacked('label', np.int32(-1), ()),
    pinned=stacked('pinned', np.int32(-1)),
    conditions=wanted if any(asked is not None for asked in wanted) else None,
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


def words(ids: np.ndarray, tokenizer: Any) -> list[str]:
  """The words of a sample, without marks around it and what is behind them.

  Args:
    ids: `[length]`.
    tokenizer: has `decode(ids)`.
  """
  if isinstance(tokenizer, marked.Marked):
    return tokenizer.text(ids, cut=True).split()
  return tokenizer.decode(ids).split()


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
