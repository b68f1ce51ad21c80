"""Likelihood bounds over a split: sums, standard error, units."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from sedd_jax.core import times, units

RowsFn = Callable[..., Any]


class BoundError(ArithmeticError):
  """The bound of a sequence is NaN or infinite."""


def evaluated_indices(num_sequences: int, max_sequences: int) -> np.ndarray:
  """The sequences that are evaluated: all, or evenly spread ones.

  Args:
    num_sequences: sequences of the split.
    max_sequences: how many at most; 0 for all.

  Returns:
    int32 `[n]`, ascending.

  >>> evaluated_indices(10, 5).tolist()
  [0, 2, 4, 6, 8]
  """
  count = min(num_sequences, max_sequences or num_sequences)
  return (np.arange(count) * num_sequences // max(count, 1)).astype(np.int32)


def evaluate(
  bound_fn: RowsFn,
  params: Any,
  aux: Any,
  dataset: Any,
  *,
  split: str,
  seed: int = 0,
  batch_size: int = 32,
  multiple_of: int = 1,
  max_sequences: int = 0,
  fit_batches: int = 0,
  update_aux: Callable[[Any, Any], Any] | None = None,
  spread: bool = True,
  progress: Callable[..., Any] = lambda batches, total: batches,
) -> dict[str, Any]:
  """The mean bound on -log p over a split, with its standard error.

  A sequence's noise depends on its place in the split and its times on its
  place among those evaluated, so the figures do not depend on the batch size;
  but what is fitted before (`fit_batches`) is whole batches.
  The standard error is that of the ratio of sums over sequences; it covers the
  choice of sequences and the draws of time and noise alike.

  Args:
    bound_fn: `(params, aux, key, batch) -> Bound` of host arrays `[b]`.
    params: the system's parameters.
    aux: what it carries besides.
    dataset: has `info`, `num_sequences(split)` and `eval_batch(split, indices,
      count)`.
    split: its name.
    seed: of the noise.
    batch_size: sequences at once.
    multiple_of: batches have a multiple of so many rows, that of devices.
    max_sequences: how many, evenly spread over the split; 0 for all.
    fit_batches: batches of sequences, evenly spread, whose stats `update_aux`
      takes in before the evaluation; aux is then frozen, and the evaluation
      draws afresh.
    update_aux: `(aux, stats) -> aux`.
    spread: times are stratified over the sequences too (`core.times.spread`):
      bounds that draw times find the batch's `within`.  Else each sequence
      draws its own, independently.
    progress: wraps the iterable of batches.

  Returns:
    A JSON-able dict: nats_per_token, standard_error (of it; None for a single
    sequence), bits_per_character, perplexity (None beyond 1e304), terms (nats a
    token; they sum to nats_per_token), split, num_sequences, split_sequences
    (those of the whole split), num_tokens, seed.

  Raises:
    ValueError: a split with nothing to evaluate.
    BoundError: a bound that is not finite.
  """
  total = dataset.num_sequences(split)
  indices = evaluated_indices(total, max_sequences)
  if not len(indices):
    raise ValueError(f'split {split!r} has no sequence to evaluate')
  size = -(-min(batch_size, len(indices)) // multiple_of) * multiple_of

  def places_in_time(number: int, step: int) -> np.ndarray:
    # The sequences' keys are of `step` itself.
    key = jax.random.fold_in(jax.random.key(seed), 2 + step)
    start, *draws = np.asarray(
      jax.random.uniform(key, (number + 1,)), np.float64
    )
    return times.spread(np.array(draws), int(start * number))

  def bounds(aux: Any, wanted: np.ndarray, step: int) -> Iterator[Any]:
    """The bound of batches of sequences; `step` sets the draws apart."""
    # Padding rows lie beyond the split: the data gives them no valid token.
    padded = np.full(-(-len(wanted) // size) * size, total, np.int32)
    padded[: len(wanted)] = wanted
    within = np.zeros(len(padded), np.float32)
    within[: len(wanted)] = places_in_time(len(wanted), step)
    key = jax.random.fold_in(jax.random.key(seed), step)
    for place in range(0, len(padded), size):
      rows = slice(place, place + size)
      batch = dataset.eval_batch(split, padded[rows], total)
      if spread:
        batch = {**batch, 'within': within[rows]}
      yield jax.device_get(bound_fn(params, aux, key, batch))

  if update_aux is not None and fit_batches:
    fitting = evaluated_indices(total, min(fit_batches * size, len(indices)))
    for row in bounds(aux, fitting, 1):
      # Rows of padding have no weight, and would count as seen.
      counted = np.asarray(row.weight) > 0
      stats = jax.tree.map(lambda x: np.asarray(x)[counted], row.stats)  # noqa: B023
      aux = jax.device_get(update_aux(aux, stats))
  number = -(-len(indices) // size)
  rows = list(progress(bounds(aux, indices, 0), total=number))
  nats, weight = (
    np.concatenate([np.asarray(getattr(row, field)) for row in rows])
    for field in ('nats', 'weight')
  )
  nats, weight = (x[: len(indices)].astype(np.float64) for x in (nats, weight))
  if not np.isfinite(nats).all():
    place = int(np.argmin(np.isfinite(nats)))
    raise BoundError(
      f'the bound of sequence {indices[place]} of split {split!r} is '
      f'{nats[place]}'
    )
  places = None
  if spread and _draws_times(rows):
    places = places_in_time(len(indices), 0)
  mean, error = ratio_and_error(nats, weight, places)
  terms = {}
  for name in rows[0].terms:
    term = np.concatenate([np.asarray(row.terms[name]) for row in rows])
    term = term[: len(indices)].astype(np.float64)
    terms[name] = float(term.sum() / weight.sum())
  info = dataset.info
  return {
    'nats_per_token': mean,
    'standard_error': error,
    'bits_per_character': units.bits_per_character(
      mean, info.num_tokens[split], info.num_characters[split]
    ),
    'perplexity': math.exp(mean) if mean < 700 else None,
    'terms': terms,
    'split': split,
    'num_sequences': len(indices),
    'split_sequences': total,
    'num_tokens': int(weight.sum()),
    'seed': seed,
  }


def _draws_times(rows: list[Any]) -> bool:
  """Whether bounds tell of times that are not the same for all sequences."""
  stats = [row.stats for row in rows]
  if not all(isinstance(each, Mapping) and 'u' in each for each in stats):
    return False
  return np.ptp(np.concatenate([each['u'][:, 0] for each in stats])) > 0


def ratio_and_error(
  nats: np.ndarray, weight: np.ndarray, within: np.ndarray | None = None
) -> tuple[float, float | None]:
  """Sum of nats over sum of weights, and the standard error of that ratio.

  Args:
    nats: `[n]`, nats a sequence.
    weight: `[n]`, tokens a sequence.
    within: `[n]`, the places of sequences whose times are spread evenly; None
      where they are independent.

  Returns:
    The ratio, and its standard error by linearisation: the spread of
    nats - ratio * weight over sequences; None for one sequence.  What times do
    to nats is no error where they are spread evenly: the spread is then that of
    the differences between neighbours in time (Wolter, Introduction to Variance
    Estimation, 2007, chapter 8), which is rather too large than too small.
  """
  count, total = len(nats), weight.sum()
  ratio = nats.sum() / total
  if count < 2:
    return float(ratio), None
  residual = nats - ratio * weight
  squares = np.sum(residual**2)
  if within is not None:
    steps = np.diff(residual[np.argsort(within, kind='stable')])
    squares = np.sum(steps**2) / 2
  variance = squares * count / (count - 1)
  return float(ratio), float(np.sqrt(variance) / total)


def counted(result: Mapping[str, Any]) -> str:
  """How many sequences were evaluated, and of how many, where not all.

  >>> counted({'num_sequences': 4, 'split_sequences': 1024})
  '4 of 1,024'
  >>> counted({'num_sequences': 4, 'split_sequences': 4})
  '4'
  """
  number = result['num_sequences']
  whole = result.get('split_sequences', number)
  return f'{number}' if number == whole else f'{number} of {whole:,}'


def is_exact(result: Mapping[str, Any]) -> bool:
  """Whether the figures of `evaluate` are no bound, but -log p itself."""
  return set(result.get('terms', ())) == {'nll'}


def describe(result: Mapping[str, Any], unit: str) -> str:
  """One line of text about an evaluation.

  Args:
    result: of `evaluate`, and the `protocol` of its bound; `given`, where the
      run has labels; `chain_steps`, where the bound is of fewer steps;
      `bits_per_dimension`, where tokens are diffused as vectors.
    unit: the data's, 'character', 'byte' or 'token'.

  >>> describe({
  ...   'split': 'test', 'num_sequences': 2, 'protocol': 'bound',
  ...   'nats_per_token': 1.0, 'standard_error': None,
  ...   'bits_per_character': 1.4427, 'perplexity': 2.71828
  ... }, 'byte')
  'bound on test, 2 sequences: 1.0000 nats per token, 1.4427 bits per byte, \
perplexity 2.72'
  """
  per = 'byte' if unit == 'byte' else 'character'
  error, perplexity = result['standard_error'], result['perplexity']
  given = f' given {result["given"]}' if 'given' in result else ''
  steps = result.get('chain_steps')
  of_steps = f' of {steps} steps' if steps else ''
  dims = 'bits_per_dimension'
  how = 'exact' if is_exact(result) else f'{result["protocol"]}{of_steps}'
  return (
    f'{how} on {result["split"]}{given}, '
    f'{counted(result)} sequences: {result["nats_per_token"]:.4f}'
    + (' nats' if error is None else f' ± {error:.4f} nats')
    + f' per token, {result["bits_per_character"]:.4f} bits per {per}'
    + (f', {result[dims]:.4f} bits per dimension' if dims in result else '')
    + ('' if perplexity is None else f', perplexity {perplexity:.2f}')
  )
