"""One training step, the same function on one device and on thousands.

A step minimises, over the global batch,

  objective = Σ nats / Σ weight       (reduction 'token'), or
  objective = Σ nats / examples       (reduction 'sequence')

where padding (rows with index >= count, or without weight) counts nowhere.  The
sums of all micro-batches and devices are taken first and divided once, so that
the step does not depend on how the batch is spread.
"""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from sedd_jax.core import names
from sedd_jax.systems import base
from sedd_jax.training import optimizer as optimizer_lib
from sedd_jax.training import state as state_lib

PyTree = Any
Batch = Mapping[str, Array]


def _per_token(sums: Mapping[str, Array]) -> Array:
  return sums['weight']


def _per_sequence(sums: Mapping[str, Array]) -> Array:
  return sums['examples']


REDUCTIONS = {'token': _per_token, 'sequence': _per_sequence}


def train_step(
  state: state_lib.TrainState,
  batch: Batch,
  *,
  system: base.System,
  optimizer: optimizer_lib.Optimizer,
  reduction: str,
  ema_decay: float,
  axis: str | None = None,
  accumulation: int = 1,
) -> tuple[state_lib.TrainState, dict[str, Any]]:
  """One update of the parameters.

  Args:
    state: the state before; step number n (from 0) draws from fold_in(key, n).
    batch: this device's rows: arrays `[b, ...]`, among them `index [b]`, and
      scalars, among them `count`, the size of the global batch.
    system: gives `loss` and `update_aux`.
    optimizer: of `optimizer.make`.
    reduction: of `REDUCTIONS`: the loss is nats a token or nats a sequence.
    ema_decay: decay of the running mean after its warm-up.
    axis: name of the mapped axis that the batch is spread over, or None where
      the batch is the whole of it.
    accumulation: micro-batches that the rows are taken in; divides b.

  Returns:
    The state after, and metrics, alike on every device: `loss` (nats per
    token), `objective` (what is minimised), `grad_norm` (before the clip),
    `learning_rate`, `finite` (False if objective or gradient is not), `sums`
    (`nats`, `weight`, `examples` of the global batch) and `terms`, name to
    `(sum, weight)`.

  Raises:
    ValueError: an unknown reduction, or rows that do not divide into
      micro-batches.
    AssertionError: a system whose loss is not one number a sequence.
  """
  normalizer = names.resolve(REDUCTIONS, reduction, 'reduction')
  gradients, sums, stats = _accumulated(
    system, state, batch, axis, accumulation
  )
  scale = normalizer(sums)
  gradients = jax.tree.map(lambda g: g / scale.astype(g.dtype), gradients)
  grad_norm = optax.tree.norm(gradients)
  objective = sums['nats'] / scale

  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  number = state.step + 1
  rate = optimizer_lib.ema_rate(ema_decay, number)
  aux = state.aux
  if system.update_aux is not None:
    aux = system.update_aux(aux, stats)
  after = state_lib.TrainState(
    step=number,
    params=params,
    ema=optimizer_lib.ema_update(state.ema, params, rate),
    opt_state=opt_state,
    aux=aux,
    key=state.key,
  )
  return after, {
    'loss': sums['nats'] / sums['weight'],
    'objective': objective,
    'grad_norm': grad_norm,
    'learning_rate': optimizer.learning_rate(state.step),
    'finite': jnp.isfinite(objective) & jnp.isfinite(grad_norm),
    'sums': {name: sums[name] for name in ('nats', 'weight', 'examples')},
    'terms': sums['terms'],
  }


def _accumulated(
  system: base.System,
  state: state_lib.TrainState,
  batch: Batch,
  axis: str | None,
  accumulation: int,
) -> tuple[PyTree, dict[str, Any], PyTree]:
  """Sums of gradients and losses over the global batch, and its stats.

  Returns:
    The gradient of Σ nats, the sums, and, for a system with `update_aux`, the
    stats `[global batch, ...]` in order of index.
  """
  collects = system.update_aux is not None

  def sum_of_nats(params: PyTree, rows: Batch) -> tuple[Array, Any]:
    # Built anew in every micro-batch: all of a step draw from the same key.
    key = jax.random.fold_in(state.key, state.step)
    loss = system.loss(params, state.aux, key, rows)
    return _sums(loss, rows, loss.stats if collects else ())

  gradient = jax.grad(sum_of_nats, has_aux=True)
  if accumulation == 1:
    gradients, (sums, stats) = gradient(state.params, batch)
  else:
    micro_batches = _split(batch, accumulation)
    first = jax.tree.map(lambda x: x[0], micro_batches)
    shapes = jax.eval_shape(gradient, state.params, first)
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[1][0])
    )

    def add(totals: PyTree, rows: Batch) -> tuple[PyTree, PyTree]:
      gradients, (sums, stats) = gradient(state.params, rows)
      return jax.tree.map(jnp.add, totals, (gradients, sums)), stats

    (gradients, sums), stats = jax.lax.scan(add, zeros, micro_batches)
    stats = jax.tree.map(_merge, stats)
  if axis is not None:
    gradients, sums = jax.lax.psum((gradients, sums), axis)
  return gradients, sums, _in_order(stats, batch, axis) if collects else ()


def _sums(loss: base.Loss, rows: Batch, stats: PyTree) -> tuple[Array, Any]:
  """Σ nats over the rows that count, with the other sums and the stats."""
  # One number a sequence; another shape would be summed in silence.
  chex.assert_shape((loss.nats, loss.weight), rows['index'].shape)
  counts = (rows['index'] < rows['count']) & (loss.weight > 0)

  def total(values: Array) -> Array:
    # A select and not a product, which would let a padding row's NaN through.
    return jnp.sum(jnp.where(counts, values, 0))

  nats = total(loss.nats)
  sums = {
    'nats': nats,
    'weight': total(loss.weight.astype(nats.dtype)),
    'examples': jnp.sum(counts.astype(nats.dtype)),
    'terms': {
      name: (total(value), total(weight.astype(nats.dtype)))
      for name, (value, weight) in loss.terms.items()
    },
  }
  return nats, (sums, stats)


def _split(batch: Batch, accumulation: int) -> Batch:
  """Micro-batch m gets the rows m, m + accumulation, ...; scalars all of them.

  With every accumulation-th row, a batch that is sharded over its rows stays
  where it is.
  """

  def split(name: str, x: Array) -> Array:
    if jnp.ndim(x) == 0:
      return jnp.broadcast_to(x, (accumulation,))
    if x.shape[0] % accumulation:
      raise ValueError(
        f'{x.shape[0]} rows of {name!r} on a device do not divide into '
        f'{accumulation} micro-batches'
      )
    parts = x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:])
    return parts.swapaxes(0, 1)

  return {name: split(name, x) for name, x in batch.items()}


def _merge(x: Array) -> Array:
  """The inverse of `_split`: `[accumulation, rows, ...]` to one batch."""
  return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _in_order(stats: PyTree, batch: Batch, axis: str | None) -> PyTree:
  """The stats of the whole global batch, sorted by index; padding comes last.

  A device's rows need not be a contiguous stretch of the batch.
  """
  gathered = (stats, batch['index'])
  if axis is not None:
    gathered = jax.lax.all_gather(gathered, axis, tiled=True)
  stats, index = gathered
  order = jnp.argsort(index)
  return jax.tree.map(lambda x: x[order], stats)
