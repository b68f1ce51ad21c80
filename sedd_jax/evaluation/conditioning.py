"""Conditions on the text of samples, and files of prompts."""

import functools
import json
import operator
import pathlib
from collections.abc import Sequence
from typing import Any

from sedd_jax.core import automata, names
from sedd_jax.data import patterns
from sedd_jax.data.paired import marked
from sedd_jax.samplers import conditions
from sedd_jax.samplers.conditions import Condition

# Where a text ends: with the samples, or before, at an end of text.
ENDS = ('length', 'separator')
# What a sample may be asked to be, all of them texts.
ASKED = (
  *('prompt', 'suffix', 'contains', 'avoids', 'regex', 'json_schema', 'ends'),
  'label',
)


def condition(
  tokenizer: Any,
  *,
  contains: str | Sequence[str] = '',
  avoids: str | Sequence[str] = '',
  regex: str = '',
  json_schema: str = '',
  ends: str = 'length',
) -> Condition | None:
  """What the text of a sample has to be, all of it at once.

  Args:
    tokenizer: has `encode(text)`, `vocab_size`, `pieces` and `separator`.
    contains: a text that is in it, as `decode` writes it; or several, also as
      a JSON list.
    avoids: a text that is not in it; or several.  Where a token's text depends
      on its neighbours (`pieces` is None), it is the tokens that `encode` makes
      of either that are found or avoided.
    regex: an expression that matches the whole, see `data.patterns.regex`; of
      texts between marks (`data.paired.marked`) what stands between them.
    json_schema: a schema that it satisfies, as JSON text or a path.
    ends: of `ENDS`; 'separator': at the tokenizer's end of text, somewhere
      before the end of the samples, and what follows is no part of it.

  Returns:
    The condition, or None where nothing is asked for.

  Raises:
    ValueError: a text that the tokenizer does not take, an expression or schema
      that is none, a missing extra, or too large an automaton.
  """
  size = tokenizer.vocab_size
  parts = [
    _of_text(tokenizer, kind, text)
    for kind, asked in (('contains', contains), ('avoids', avoids))
    for text in texts_of(asked, kind)
  ]
  for kind, pattern in (
    (f'regex {regex!r}', regex),
    ('the JSON schema', json_schema and _of_schema(json_schema)),
  ):
    if pattern:
      found = patterns.over_tokens(patterns.regex(pattern), tokenizer)
      if isinstance(tokenizer, marked.Marked):
        found = automata.between(found, tokenizer.cls, tokenizer.sep)
      parts.append(conditions.matches(found, kind))
  if names.resolve({end: end for end in ENDS}, ends, 'ends') == 'separator':
    if tokenizer.separator is None:
      raise ValueError(
        "sampling.ends='separator': the tokenizer has no end of text"
      )
    parts.append(conditions.ends(tokenizer.separator, size))
  if not parts:
    return None
  return functools.reduce(operator.and_, parts)


def texts_of(asked: str | Sequence[str], kind: str = 'texts') -> list[str]:
  """The texts of a field: none, one, or those of a JSON list.

  >>> texts_of(''), texts_of('a b'), texts_of('["a", "b"]')
  ([], ['a b'], ['a', 'b'])

  Raises:
    ValueError: a list with something else in it, or an empty text.
  """
  if isinstance(asked, str):
    asked = (
      _json_list(asked) if asked.startswith('[') else [asked][: len(asked)]
    )
  if bad := [text for text in asked if not isinstance(text, str) or not text]:
    raise ValueError(
      f'{kind} takes texts with something in them, not {bad[0]!r}'
    )
  return list(asked)


def _json_list(text: str) -> list[Any]:
  """A JSON list, or the text itself where it is none."""
  try:
    found = json.loads(text)
  except (ValueError, RecursionError):
    return [text]
  return found if isinstance(found, list) else [text]


def _of_text(tokenizer: Any, kind: str, text: str) -> Condition:
  """Contains or avoids a text."""
  try:
    ids = tokenizer.encode(text)
  except ValueError as error:
    raise ValueError(f'{kind} {text!r}: {error}') from error
  name = f'{kind} {text!r}'
  if tokenizer.pieces is None:
    of_tokens = {'contains': conditions.contains, 'avoids': conditions.avoids}
    return of_tokens[kind](ids, tokenizer.vocab_size, name)
  of_bytes = {'contains': patterns.containing, 'avoids': patterns.avoiding}
  found = patterns.over_tokens(of_bytes[kind](text), tokenizer, written=True)
  return conditions.matches(found, name)


def _of_schema(schema: str) -> str:
  """The expression of a schema, JSON text or a path."""
  if not schema.lstrip().startswith('{'):
    try:
      schema = pathlib.Path(schema).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(f'json_schema: {error}') from error
  return patterns.json_schema(schema)


def read_prompts(path: str) -> list[dict[str, Any]]:
  """What each line of a file of JSON objects asks for.

  Args:
    path: a file with an object a line, of the names in `ASKED`.

  Returns:
    The objects.

  Raises:
    ValueError: naming the line, for what is no such file.
  """
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f'sampling.prompts: {error}') from error
  found = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    where = f'{path}, line {number}'
    try:
      asked = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise ValueError(f'{where}: no JSON: {error}') from error
    if not isinstance(asked, dict):
      raise ValueError(f'{where}: no JSON object')
    for name in asked:
      if name not in ASKED:
        raise ValueError(
          f'{where}: unknown {name!r}; {names.alternatives(name, ASKED)}'
        )
    several = {n: v for n, v in asked.items() if n in ('contains', 'avoids')}
    for name, value in asked.items():
      if isinstance(several.get(name), list):
        texts_of(value, f'{where}: {name}')
      elif not isinstance(value, str):
        raise ValueError(f'{where}: {name} takes text, not {value!r}')
    found.append(asked)
  if not found:
    raise ValueError(f'sampling.prompts: {path} has no lines')
  return found
