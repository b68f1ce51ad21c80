"""Texts revised by a system that edits."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sedd_jax.core import names
from sedd_jax.data import DataError
from sedd_jax.data.paired import pairs
from sedd_jax.processes import edits
from sedd_jax.systems import base
from sedd_jax.systems.editing import edit_requests

# What is asked of the sampler besides `config.sampling`.
_DRAWING = ('begin', 'keep_bias')
_KNOWN = ('text', 'path', 'references', 'output', *_DRAWING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revised:
  """What became of texts.

  Attributes:
    rows: a JSON-able dict a text, in order: `text`, `revised`, `changed`,
      `too_long` (left as it is, for it has more tokens than a text may have),
      `log_prob` (nats, of all revisions; None if too long) and `history`, a
      line a revision: what goes out as [-this-], what comes in as {+this+}.
    histories: of each text its revisions, as `base.Samples.history`.
    references: of each text one or several; empty: none were named.
    output: folder for the files; empty: the run's.
    drawing: options of the sampler beside those of the config.
    calls: of the networks, a batch, mean.
  """

  rows: Sequence[dict[str, Any]]
  histories: Sequence[tuple[Any, ...]]
  references: Sequence[tuple[str, ...]] = ()
  output: str = ''
  drawing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  calls: float = 0.0


def task(
  config: Any,
  sample: Callable[..., base.Samples],
  check_request: Callable[[base.Request], None],
  *,
  capacity: int,
  source_length: int,
  marks: tuple[int, ...],
) -> Callable[..., Revised]:
  """The task of a system that revises texts.

  Args:
    config: the whole config.
    sample: of the system.
    check_request: of the system.
    capacity: tokens that a state may have.
    source_length: tokens of a source, which is then the text too; 0: none.
    marks: around a source: before and behind it; or none.

  Returns:
    For `System.tasks`: `(params, aux, options, tokenizer) -> Revised`.  Its
    options are `text`, or `path`, a file with a text a line; `references`,
    files with a line for each; `output`, a folder; `begin` and `keep_bias`, as
    the sampler's.
  """
  longest = capacity
  if source_length:
    longest = min(capacity, source_length - len(marks[:2]))

  def request_of(start: np.ndarray, first: int, drawing: Any) -> base.Request:
    source = None
    if source_length:
      source = np.full((len(start), source_length), -1, np.int32)
      for row, ids in zip(source, start):
        framed = [*marks[:1], *ids[ids >= 0].tolist(), *marks[1:2]]
        row[: len(framed)] = framed
    return base.Request(
      length=capacity,
      seeds=[(config.seed + first + i) % 2**32 for i in range(len(start))],
      start=start,
      source=source,
      method=config.sampling.method,
      steps=config.sampling.steps,
      batch_size=config.sampling.batch_size,
      record_path=True,
      options={**edit_requests.decoding(config.sampling), **drawing},
    )

  def revise(
    params: Any, aux: Any, options: Mapping[str, Any], tokenizer: Any
  ) -> Revised:
    for name in options:
      if name not in _KNOWN:
        raise base.TaskError(
          f'unknown option task.{name}; {names.alternatives(name, _KNOWN)}'
        )
    drawing = {name: options[name] for name in _DRAWING if name in options}
    texts = _texts_of(options)
    references = _references_of(options, texts)
    ids = [list(tokenizer.encode(text)) for text in texts]
    if options.get('text') and len(ids[0]) > longest:
      raise base.TaskError(
        f'the text has {len(ids[0])} tokens, more than the {longest} that a '
        'text may have: shorten it, or train with more data.seq_len or '
        'system.args.capacity'
      )
    fits = [i for i, own in enumerate(ids) if len(own) <= longest]
    start = np.full((len(fits), longest), -1, np.int32)
    for row, i in zip(start, fits):
      row[: len(ids[i])] = ids[i]
    try:
      check_request(request_of(start, 0, drawing))
    except ValueError as error:
      raise base.TaskError(str(error)) from error
    output = str(options.get('output', ''))
    if output:
      _make_folder(output)
    histories: list[tuple[Any, ...]] = [()] * len(texts)
    results: list[list[int]] = [list(own) for own in ids]
    calls = []
    size = config.sampling.batch_size
    for first in range(0, len(fits), size):
      # A history is that of a first batch.
      asked = request_of(start[first : first + size], first, drawing)
      samples = sample(params, aux, asked)
      calls.append(samples.calls)
      assert samples.history is not None
      for i, history, tokens, length in zip(
        fits[first:], samples.history, samples.tokens, samples.lengths
      ):
        histories[i] = history
        results[i] = [int(token) for token in tokens[:length]]
    return Revised(
      rows=[
        _row(*found, tokenizer, longest)
        for found in zip(texts, ids, results, histories)
      ],
      histories=histories,
      references=references,
      output=output,
      drawing=drawing,
      calls=float(np.mean(calls)) if calls else 0.0,
    )

  return revise


def _row(
  text: str,
  ids: list[int],
  result: list[int],
  history: tuple[Any, ...],
  tokenizer: Any,
  longest: int,
) -> dict[str, Any]:
  def decoded(ids: Any) -> str:
    return tokenizer.decode([int(i) for i in ids])

  def line(revision: Any) -> str:
    return ''.join(
      {'keep': '{}', 'out': '[-{}-]', 'in': '{{+{}+}}'}[kind].format(
        decoded(tokens)
      )
      for kind, tokens in edits.pieces(revision.state, revision.edit)
    )

  too_long = len(ids) > longest
  changed = result != ids
  return {
    'text': text,
    # What nothing was done to is not spelled anew.
    'revised': decoded(result) if changed else text,
    'changed': changed,
    'too_long': too_long,
    'log_prob': None if too_long else float(sum(r.log_prob for r in history)),
    'history': [line(revision) for revision in history],
  }


def _texts_of(options: Mapping[str, Any]) -> list[str]:
  """The texts that are to be revised."""
  text, path = options.get('text', ''), options.get('path', '')
  if bool(text) == bool(path):
    raise base.TaskError(
      'mode revise needs one of --config.task.text=TEXT and '
      '--config.task.path=FILE'
    )
  if not path:
    return [str(text)]
  texts = _lines('task.path', path)
  if not texts:
    raise base.TaskError(f'task.path {path}: there is no text to revise')
  return texts


def _references_of(
  options: Mapping[str, Any], texts: Sequence[str]
) -> list[tuple[str, ...]]:
  """Of each text its references, one of each file."""
  files = [f.strip() for f in str(options.get('references', '')).split(',')]
  if files == ['']:
    return []
  for number, text in enumerate(texts, 1):
    if not text.strip():
      raise base.TaskError(
        f'text {number} is empty, and there is nothing to score: leave its '
        'line out, of task.references too'
      )
  columns = []
  for file in files:
    columns.append(_lines('task.references', file))
    if len(columns[-1]) != len(texts):
      raise base.TaskError(
        f'task.references {file}: {len(columns[-1]):,} lines for '
        f'{len(texts):,} texts'
      )
    for number, reference in enumerate(columns[-1], 1):
      if not reference.strip():
        raise base.TaskError(
          f'task.references {file}:{number}: the reference is empty'
        )
  return list(zip(*columns))


def _lines(option: str, path: str) -> list[str]:
  """The lines of a file, compressed or not, as pairs are read."""
  try:
    return [text for _, text in pairs.lines(pathlib.Path(path))]
  except DataError as error:
    raise base.TaskError(f'{option} {path}: {error}') from error


def _make_folder(output: str) -> None:
  try:
    os.makedirs(output, exist_ok=True)
  except OSError as error:
    raise base.TaskError(f'task.output {output}: {error}') from error
