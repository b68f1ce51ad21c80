"""Examples for DiffusER: texts edited by noise, and what undoes the edit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sedd_jax.processes import edit_arrays, edit_noise, edits


def prepared(
  seed: int,
  step: int,
  index: int,
  example: Mapping[str, Any],
  *,
  noise: edit_noise.EditNoise,
  layout: edit_arrays.Layout,
  num_steps: int,
  null_share: float = 0.0,
  source_share: float = 0.0,
  source_length: int = 0,
) -> dict[str, Any]:
  """`System.prepare` of DiffusER: a pure function of its arguments.

  Args:
    seed: of the run.
    step: of training.
    index: place in the global batch.
    example: `tokens [length]`, and where it has them `valid`, `given`, `source`
      and `source_valid`.  The noise's excluded symbols, marks around the texts,
      are left out of them.
    noise: one step of it.
    layout: sizes of the arrays.
    num_steps: T.
    null_share: of the examples begin with nothing, at T.
    source_share: of the others that have a source begin with it.
    source_length: tokens of a source, 0 for none.

  Returns:
    The example with the arrays of `Layout.example`, `time`, a float32 from 1 to
    T, `tags_scored` and `inserts_scored`, bool `[places]`: all but what is
    given; and `counted`, a float32, the tokens of x_0 but for these.

  Raises:
    ValueError: what is given does not stand at the beginning, or there is no
      source.
  """
  rng = np.random.default_rng([seed, step, index])
  tokens = example['tokens']
  read = example.get('valid', True) & ~np.isin(tokens, noise.excluded)
  x_0 = tuple(tokens[read].tolist())
  fixed = given_first(example['given'][read] if 'given' in example else None)
  time = int(rng.integers(1, num_steps + 1))
  share = rng.random()
  source: tuple[int, ...] = ()
  if source_length:
    require_source(example, source_length)
    source = _source(example, noise.excluded)
  capacity = layout.capacity
  if share < null_share:
    time, x_t = num_steps, x_0[:fixed]
    edit = edits.alignment(x_t, x_0)
  elif source and share < null_share + (1 - null_share) * source_share:
    x_t = (*x_0[:fixed], *source)[:capacity]
    edit = _after(fixed, edits.alignment(x_t[fixed:], x_0[fixed:]))
  else:
    y, edit = noise.chain(rng, x_0[fixed:], time, capacity - fixed)
    x_t, edit = (*x_0[:fixed], *y), _after(fixed, edit)
  places = np.arange(layout.places)
  return {
    **example,
    **layout.example(x_t, edit),
    'time': np.float32(time),
    'counted': np.float32(len(x_0) - fixed),
    'tags_scored': (places >= fixed) & (places < len(x_t)),
    'inserts_scored': (places >= fixed) & (places <= len(x_t)),
  }


def require_source(batch: Mapping[str, Any], source_length: int) -> None:
  """Raises ValueError for data without a source, or with another length."""
  if 'source' not in batch:
    raise ValueError(
      'system.args.source_length is set, but the data has no source'
    )
  if batch['source'].shape[-1] != source_length:
    raise ValueError(
      f'sources of {batch["source"].shape[-1]} tokens: set '
      f'system.args.source_length to it, not to {source_length}'
    )


def given_first(given: np.ndarray | None) -> int:
  """Tokens that are given at the beginning of a sequence.

  Raises:
    ValueError: there are some behind free ones.
  """
  if given is None:
    return 0
  count = int(np.sum(given))
  if np.any(np.asarray(given)[count:]):
    raise ValueError(
      'system diffuser keeps the beginning of a text only: no blank may stand '
      'before given text'
    )
  return count


def _source(
  example: Mapping[str, np.ndarray], excluded: tuple[int, ...]
) -> tuple[int, ...]:
  source = example['source']
  read = example.get('source_valid', True) & ~np.isin(source, excluded)
  return tuple(source[read].tolist())


def _after(fixed: int, edit: edits.Edit) -> edits.Edit:
  """The edit of a sequence behind so many tokens that stay."""
  return edits.Edit(
    np.append(np.zeros(fixed, np.int8), edit.tags),
    np.append(np.zeros(fixed, bool), edit.inserts),
    edit.spans,
  )
