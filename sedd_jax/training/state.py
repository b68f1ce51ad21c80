"""What a training run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that the next step depends on besides its batch.

  The tree has no leading device axis, so that it is the same on any number of
  devices and in every checkpoint.

  Attributes:
    step: scalar int32, the number of updates made.
    params: the system's parameters.
    ema: their running mean (`optimizer.ema_update`), like `params`.
    opt_state: the optimizer's state.
    aux: what the system carries besides parameters.
    key: typed base key; step number `step` draws from `fold_in(key, step)`.
  """

  step: Array
  params: PyTree
  ema: PyTree
  opt_state: PyTree
  aux: PyTree
  key: Array


def create(
  init_fn: Any,
  optimizer: Any,
  seed: int,
  params: PyTree | None = None,
  aux: PyTree | None = None,
) -> TrainState:
  """The state before the first step.

  Args:
    init_fn: `System.init`, `(key) -> (params, aux)`; compiled as a whole.
    optimizer: has `init(params)`.
    seed: of the parameters and of all noise.
    params: start from these instead of the drawn ones (same tree).
    aux: likewise.

  Returns:
    A state at step 0 whose running mean equals its parameters.
  """
  init_key, base_key = jax.random.split(jax.random.key(seed))
  drawn, own = jax.jit(init_fn)(init_key)
  # Copies, for the step donates the state: a buffer that the caller holds would
  # be lost to them, and none may be donated twice.
  params = drawn if params is None else jax.tree.map(jnp.array, params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema=jax.tree.map(jnp.array, params),
    opt_state=optimizer.init(params),
    aux=own if aux is None else jax.tree.map(jnp.array, aux),
    key=base_key,
  )
