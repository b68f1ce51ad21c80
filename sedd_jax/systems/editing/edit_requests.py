"""Requests for DiffusER: what can be asked for, where revisions begin."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sedd_jax.processes import edit_arrays, edit_noise
from sedd_jax.samplers import edits as edit_samplers
from sedd_jax.systems import base
from sedd_jax.systems.editing import edit_examples


def decoding(sampling: Any) -> dict[str, Any]:
  """Options of the configured method."""
  names = {
    'nucleus': ('temperature', 'top_p'),
    'beam': ('beam',),
    'beam_2d': ('beam', 'branches'),
  }.get(sampling.method, ())
  return {name: sampling[name] for name in names}


def check(
  request: base.Request,
  options: Mapping[str, Any],
  layout: edit_arrays.Layout,
  source_length: int,
  num_steps: int,
) -> None:
  """Raises ValueError for what no revision can begin with or end in."""
  if request.length > layout.capacity:
    raise ValueError(
      f'samples of {request.length} tokens, more than the {layout.capacity} '
      'that a state may have: set system.args.capacity'
    )
  if (given := request.given) is not None:
    for row in np.asarray(given):
      edit_examples.given_first(row)
  if request.method != 'nucleus' and {'temperature', 'top_p'} & set(options):
    raise ValueError(
      f'sampling method {request.method!r} does not draw: temperature and '
      'top_p are for nucleus'
    )
  begin = options.get('begin', num_steps)
  if not _is_number(begin) or not 0 < begin <= num_steps:
    raise ValueError(
      f'begin, the step that the first revision is told, is above 0 and at '
      f'most the {num_steps} of system.args.num_steps, not {begin!r}'
    )
  if not _is_number(bias := options.get('keep_bias', 0.0)):
    raise ValueError(f'keep_bias is a number of nats, not {bias!r}')
  start = options.get('start', 'null')
  if start not in edit_samplers.STARTS:
    raise ValueError(
      f'unknown sampling start {start!r}: use {", ".join(edit_samplers.STARTS)}'
    )
  if start == 'source' and request.source is None:
    raise ValueError("sampling start 'source': the request has no source")
  if request.start is not None:
    started = np.sum(np.asarray(request.start) >= 0, axis=-1)
    if np.max(started, initial=0) > request.length:
      raise ValueError(
        f'an initial state of {np.max(started)} tokens, where samples have at '
        f'most {request.length}'
      )
  if request.source is not None and request.source.shape != (
    len(request.seeds),
    source_length,
  ):
    raise ValueError(
      f'sources {request.source.shape}, not [n, source_length] '
      f'{(len(request.seeds), source_length)}'
    )


def _is_number(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value)


def chains(
  revise: Any,
  request: base.Request,
  num_steps: int,
  noise: edit_noise.EditNoise,
  seeds: np.ndarray,
  tokens: np.ndarray,
  given: np.ndarray,
  start: np.ndarray | None,
  source: np.ndarray | None,
) -> list[edit_samplers.Chain]:
  """The revisions of a batch."""
  options, marks = request.options, set(noise.excluded)
  # Marks around a text are no part of a state.
  prompts = [
    [
      x
      for x in row[: edit_examples.given_first(there)].tolist()
      if x not in marks
    ]
    for row, there in zip(tokens, given)
  ]
  fixed = [len(prompt) for prompt in prompts]
  kind = options.get('start', 'null')
  begun = [tuple(prompt) for prompt in prompts]
  free = [request.length - count for count in fixed]
  forced = start is None and kind in ('null', 'draft')
  if start is not None:
    begun = [tuple(row[row >= 0].tolist()) for row in start]
  elif kind == 'random':
    begun = [
      (*x, *noise.random_tokens(np.random.default_rng([s, 0]), n))
      for x, s, n in zip(begun, seeds.tolist(), free)
    ]
  elif kind == 'source':
    assert source is not None
    # Marks around it are no text.
    read = (source >= 0) & ~np.isin(source, noise.excluded)
    begun = [
      (*x, *row[own].tolist()[:n])
      for x, row, own, n in zip(begun, source, read, free)
    ]
  begin = options.get('begin', num_steps)
  times = [begin * k / request.steps for k in range(request.steps, 0, -1)]
  if kind == 'draft' and start is None:
    times = [float(num_steps), *times]
  common: dict[str, Any] = {'fixed': fixed, 'forced': forced}
  if request.method == 'nucleus':
    return edit_samplers.drawn(revise, begun, times, seeds=seeds, **common)
  width = 1 if request.method == 'greedy' else options.get('beam', 5)
  branches = options.get('branches', 3) if request.method == 'beam_2d' else 1
  return edit_samplers.best(
    revise, begun, times, width=width, branches=branches, **common
  )


def in_batches(
  chains_of: Any, request: base.Request, calls: Any
) -> base.Samples:
  """Runs a request in batches of one shape, the last one padded."""
  count, length = len(request.seeds), request.length
  size = request.batch_size or count
  seeds = np.asarray(request.seeds, np.uint32)
  tokens = np.zeros((count, length), np.int32)
  given = np.zeros((count, length), bool)
  if request.tokens is not None and request.given is not None:
    tokens, given = np.asarray(request.tokens), np.asarray(request.given)
  chains: list[edit_samplers.Chain] = []
  for first in range(0, count, size):
    rows = np.arange(first, first + size)
    rows = np.where(rows < count, rows, 0)
    start, source = (
      None if x is None else np.asarray(x)[rows]
      for x in (request.start, request.source)
    )
    found = chains_of(seeds[rows], tokens[rows], given[rows], start, source)
    chains += found[: min(size, count - first)]
  out = np.zeros((count, length), np.int32)
  for row, chain in zip(out, chains):
    row[: len(chain.state)] = chain.state
  mean = calls() / math.ceil(count / size)
  return base.Samples(
    tokens=out,
    lengths=np.array([len(chain.state) for chain in chains], np.int32),
    calls=int(mean) if mean.is_integer() else mean,
    history=tuple(chain.revisions for chain in chains[:size])
    if request.record_path
    else None,
  )
