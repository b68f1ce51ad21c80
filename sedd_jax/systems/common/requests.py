"""Requests for samples: what a system does not take, batches of one shape."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from sedd_jax.processes import TokenProcess
from sedd_jax.samplers import conditions, constrained
from sedd_jax.systems import base


def checked(
  request: base.Request,
  methods: Iterable[str],
  options: Iterable[str],
  system: str,
  takes: Iterable[str] = (),
  process: TokenProcess | None = None,
) -> dict[str, Any]:
  """A request's options, if it asks for nothing that a system has not.

  Args:
    request: what is asked for.
    methods: the samplers that the system knows.
    options: the options that these know.
    system: its name, for the errors' text.
    takes: which of source, label, guides and pinned it takes.
    process: its noise, where it takes conditions.

  Returns:
    The options.

  Raises:
    ValueError: naming what the system does not take.
  """
  known = list(options)
  for name in request.options:
    if name not in known:
      raise ValueError(
        f'unknown sampling option {name!r}: sampling.method '
        f'{request.method!r} takes {", ".join(known)}'
        if known
        else f'system {system} takes no sampling option {name!r}'
      )
  unused = {
    'source': request.source,
    'label': request.label,
    'guides': request.guides or None,
    'pinned': request.pinned,
  }
  if given := [
    name
    for name, value in unused.items()
    if value is not None and name not in takes
  ]:
    raise ValueError(f'system {system} takes no {given[0]} in a request')
  if request.conditions is not None:
    _check_conditions(request, system, process)
  if request.method not in methods:
    raise ValueError(
      f'unknown sampling method {request.method!r}: use {", ".join(methods)}'
    )
  return dict(request.options)


def _check_conditions(request, system, process):
  if process is None:
    raise ValueError(
      f'system {system} takes no conditions, but prompts only: contains, '
      'avoids, regex, json_schema and ends are for the systems with noise'
    )
  constrained.require_process(process)
  if request.start is not None:
    raise ValueError('conditions and an initial state do not go together')
  if len(request.conditions) != len(request.seeds):
    raise ValueError(
      f'{len(request.conditions)} conditions for {len(request.seeds)} '
      'sequences: give one, or None, for each'
    )
  conditions.tables(request.conditions)


def require_satisfied(samples: base.Samples, request: base.Request) -> None:
  """Raises RuntimeError for samples that are not as their conditions say.

  A system from elsewhere may not know of conditions.

  Args:
    samples: what came of the request.
    request: the request.
  """
  for tokens, condition in zip(samples.tokens, request.conditions or ()):
    if condition is not None and not condition.automaton.accepted(tokens):
      names = ', '.join(clause.name for clause in condition.clauses)
      raise RuntimeError(
        f'a sample is not as its condition ({names or "an end"}) says: the '
        'system does not impose conditions'
      )


def require_even(grid: str) -> None:
  """Raises ValueError for another grid than that of even steps."""
  if grid != 'uniform':
    raise ValueError(
      f'these steps are even: sampling.grid must be uniform, not {grid!r}'
    )


def require_time_free(request: base.Request, told: bool) -> None:
  """Raises ValueError where `cached` is asked of what depends on the time.

  Args:
    request: what is asked for.
    told: whether the network is told the time; guides are.
  """
  if request.options.get('cached') and request.guides:
    raise ValueError(
      'sampling.cached: guides are told the noise, so what they say of a state '
      'they say once'
    )
  if request.options.get('cached') and told:
    raise ValueError(
      'sampling.cached: the network is told the time, so what it says of a '
      'state it says once; use a run with system.args.timed=False (of '
      "model.name=bert: model.args.time='none')"
    )


def in_batches(
  of_batch: Callable[[Any, dict[str, Any]], tuple[Any, Any]],
  request: base.Request,
) -> base.Samples:
  """Runs a request in batches of one shape, the last one padded.

  Args:
    of_batch: `(keys [b], states)` to tokens `[b, length]`, or the path
      `[states, b, length]` where the request wants it, and the network calls
      made.  The states are arguments of the samplers by name: `tokens` and
      `given` `[b, length]`, `start` and `condition`, these or None; and, what
      is none (`of_loop`), `rows [b]`, places in the request, and where they are
      asked for `guides`, `label [b]` and `pinned [b, length]`.
    request: what is asked for.

  Returns:
    The samples.
  """
  count, length = len(request.seeds), request.length
  # One compiled shape, whatever the request's size.
  size = request.batch_size or count
  seeds = np.asarray(request.seeds, np.uint32)
  tokens, given = request.tokens, request.given
  if tokens is None:
    tokens, given = np.zeros((count, length), np.int32), None
  if given is None:
    given = np.zeros((count, length), bool)
  imposed = conditions.tables(request.conditions or ())
  results: list[np.ndarray] = []
  counted: list[int] = []
  path = None
  for first in range(0, count, size):
    # Rows beyond the last are drawn again from row 0, and dropped.
    rows = np.arange(first, first + size)
    rows = np.where(rows < count, rows, 0)
    keys = jax.vmap(jax.random.key)(seeds[rows])
    states = {
      'tokens': tokens[rows],
      'given': given[rows],
      'start': None if request.start is None else request.start[rows],
      'condition': imposed and imposed._replace(which=imposed.which[rows]),
      'rows': rows,
    }
    if request.guides:
      states['guides'] = tuple(
        _of_rows(guide, rows) for guide in request.guides
      )
    if request.pinned is not None:
      states['pinned'] = np.asarray(request.pinned, np.int32)[rows]
    if request.label is not None:
      states['label'] = np.asarray(request.label, np.int32)[rows]
    drawn, calls = of_batch(keys, states)
    counted.append(int(calls))
    drawn = np.asarray(drawn)
    drawn = drawn[..., : min(size, count - first), :]
    if request.record_path:
      # Of all sequences they would fill the memory.
      path = drawn if path is None else path
      drawn = drawn[-1]
    results.append(drawn)
  found = np.concatenate(results)
  mean = sum(counted) / len(counted)
  return base.Samples(
    tokens=found,
    lengths=_lengths(found, request.conditions),
    path=path,
    calls=int(mean) if mean.is_integer() else mean,
  )


def _of_rows(guide: Callable, rows: np.ndarray) -> Callable:
  """A guide for some rows, as an argument of what is compiled.

  It is a pytree that is a function; another label needs no compilation.
  """
  if hasattr(guide, 'of_rows'):
    return guide.of_rows(rows)
  return jax.tree_util.Partial(guide)


def of_loop(states: Mapping[str, Any]) -> dict[str, Any]:
  """The states of `in_batches` that a sampler takes as arguments."""
  others = ('rows', 'guides', 'label', 'pinned')
  return {name: x for name, x in states.items() if name not in others}


def _lengths(tokens, wanted):
  """Tokens before the end of each text, `[n]` int32."""
  lengths = np.full(len(tokens), tokens.shape[1], np.int32)
  for row, condition in enumerate(wanted or ()):
    if condition is not None and condition.end is not None:
      lengths[row] = np.argmax(tokens[row] == condition.end)
  return lengths
