"""Dataclasses with tables, as pytrees that compare by value."""

import dataclasses
from typing import Any

import jax
import numpy as np


def register(cls: type) -> type:
  """Makes a pytree of a dataclass whose constructor does not take its fields.

  Fields with `static` in their metadata are part of the structure, the others
  are leaves.
  """
  fields = dataclasses.fields(cls)
  static = [f.name for f in fields if f.metadata.get('static')]
  leaves = [f.name for f in fields if not f.metadata.get('static')]

  def flatten(process):
    values = [getattr(process, name) for name in static]
    return [getattr(process, name) for name in leaves], tuple(values)

  def unflatten(values, children):
    process: Any = object.__new__(cls)
    for name, value in [*zip(static, values), *zip(leaves, children)]:
      object.__setattr__(process, name, value)
    return process

  jax.tree_util.register_pytree_node(cls, flatten, unflatten)
  return cls


def same(a: object, b: object) -> bool:
  """Whether two pytrees are of one kind and their leaves equal, as `__eq__`."""
  if type(a) is not type(b):
    return NotImplemented
  mine, kind = jax.tree.flatten(a)
  yours, other_kind = jax.tree.flatten(b)
  same_kind: Any = kind == other_kind  # type: ignore[operator]
  return bool(same_kind) and all(map(np.array_equal, mine, yours))
