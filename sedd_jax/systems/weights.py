"""Published weights that a system can begin from."""

import functools
import os
from collections.abc import Callable
from typing import Any

from sedd_jax.models import (
  Bert,
  DiffusionTransformer,
  bert_weights,
  pretrained,
)

# What of a config makes a size, where it is not its own name under `model`.
_FIELDS = {
  'num_states': 'data.tokenizer',
  'mlp_size': 'model.args.mlp_size',
  'max_positions': 'model.args.max_positions',
  'scale_by_sigma': 'process.name',
}
Loader = Callable[[str | os.PathLike], Any]


def bert_loader(
  network: Any, start: Callable[[], Any], masked: bool
) -> Loader | None:
  """What reads BERT's weights for a network, or None where it is no BERT.

  Args:
    network: of `models.MODELS`.
    start: `() -> params`, where what tells the time is taken from.
    masked: whether the network's last state is the mask.

  Returns:
    `System.load_pretrained`.
  """
  if not isinstance(network, Bert):
    return None
  return functools.partial(
    _load_bert, network=network, start=start, masked=masked
  )


def sedd_loader(network: Any, scale_by_sigma: bool) -> Loader | None:
  """What reads SEDD's weights, or None for another network.

  Args:
    network: of `models.MODELS`.
    scale_by_sigma: of the score.

  Returns:
    `System.load_pretrained`.
  """
  if not isinstance(network, DiffusionTransformer):
    return None
  return functools.partial(
    _load_sedd, network=network, scale_by_sigma=scale_by_sigma
  )


def _load_bert(
  path: str | os.PathLike,
  *,
  network: Bert,
  start: Callable[[], Any],
  masked: bool,
) -> Any:
  params, sizes = bert_weights.load_bert(path)
  if not masked:
    sizes['num_states'] -= 1
    params['embed']['embedding'] = params['embed']['embedding'][:-1]
    params['head']['bias'] = params['head']['bias'][:-1]
  wanted = {name: getattr(network, name) for name in sizes}
  wanted['mlp_size'] = network.mlp_size or 4 * network.hidden_size
  _require(path, sizes, wanted)
  if network.time == 'layer':
    params['blocks']['time'] = start()['blocks']['time']
  elif network.time == 'prefix':
    params['time_token'] = start()['time_token']
  return params


def _load_sedd(
  path: str | os.PathLike,
  *,
  network: DiffusionTransformer,
  scale_by_sigma: bool,
) -> Any:
  params, sizes = pretrained.load_sedd(path)
  fields = 'num_states hidden_size num_layers num_heads cond_size'.split()
  wanted = {name: getattr(network, name) for name in fields}
  _require(path, sizes, {**wanted, 'scale_by_sigma': scale_by_sigma})
  return params


def _require(
  path: str | os.PathLike, sizes: dict[str, Any], wanted: dict[str, Any]
) -> None:
  """Raises ValueError for weights of another size."""
  for name, value in wanted.items():
    if sizes[name] is not None and sizes[name] != value:
      field = _FIELDS.get(name, f'model.{name}')
      raise ValueError(
        f'{path} has {name} = {sizes[name]}, the config makes it {value}'
        f' ({field})'
      )
