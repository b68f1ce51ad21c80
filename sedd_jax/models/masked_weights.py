"""Layouts of masked diffusion's released weights, as SEDD's.

MDLM (arXiv 2406.07524, repository kuleshov-group/mdlm) has SEDD's network under
the prefix `backbone.`, and tells it no time: sigma is 0.  RADD (arXiv
2406.03736, repository ML-GSAI/RADD) has it without anything that tells a time,
and with biases in its norms.  That is SEDD's network whose modulation does not
depend on sigma: the biases are its shifts, the scales are 0 and the gates 1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sedd_jax.models import state_dicts
from sedd_jax.models.tensor_files import PretrainedError

LAYOUTS = ('sedd', 'mdlm', 'radd')
PREFIX = 'backbone.'
# RADD's own configs say so, without having such a layer.
COND_SIZE = 128
_SINUSOIDS = 256
# Cosines of 0, then sines of it.
_ANGLES_OF_0 = np.repeat([1.0, 0.0], _SINUSOIDS // 2)
_HEAD = 'output_layer.'


def layout_of(tensors: Mapping[str, np.ndarray]) -> str:
  """The layout, of `LAYOUTS`, that names of tensors belong to."""
  if any(name.startswith(PREFIX) for name in tensors):
    return 'mdlm'
  # A SEDD that lost its sigma_map is a faulty SEDD.
  if f'{_HEAD}norm_final.bias' in tensors:
    return 'radd'
  return 'sedd'


def mdlm_config(config: Mapping[str, Any]) -> dict[str, Any]:
  """SEDD's config of MDLM's, which is flat.

  Raises:
    PretrainedError: a network that is told the time, as no system here tells
      it.
  """
  if config.get('time_conditioning'):
    raise PretrainedError(
      'config.json: time_conditioning is true; the published MDLM is not told '
      'the time, and only such a network is read'
    )
  fields = {
    'hidden_size': 'hidden_dim',
    'cond_dim': 'cond_dim',
    'n_blocks': 'n_blocks',
    'n_heads': 'n_heads',
  }
  model = {ours: config[its] for ours, its in fields.items() if its in config}
  return {'model': model}


def of_mdlm(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """SEDD's names of MDLM's tensors.

  Raises:
    PretrainedError: for a tensor outside of the network.
  """
  for name in tensors:
    if not name.startswith(PREFIX):
      raise PretrainedError(f'unknown tensor {name!r} beside {PREFIX}*')
  return {name.removeprefix(PREFIX): x for name, x in tensors.items()}


def of_radd(
  tensors: Mapping[str, np.ndarray], cond_size: int = COND_SIZE
) -> dict[str, np.ndarray]:
  """SEDD's tensors of RADD's.

  What tells the time is zero, and stays so in training: its gradients are.

  Args:
    tensors: RADD's.
    cond_size: width of the conditioning, which nothing depends on.

  Returns:
    SEDD's, in which only shifts, scales and gates are not RADD's own.

  Raises:
    PretrainedError: for a bias that is missing.
  """
  found = {k: x for k, x in tensors.items() if not _is_norm_bias(k)}
  for place, norms in _norms(tensors).items():
    parts = []
    for norm, gated in norms:
      shift = state_dicts.require(tensors, f'{norm}.bias')
      parts += [shift, np.zeros_like(shift)]
      parts += [np.ones_like(shift)] if gated else []
    bias = np.concatenate(parts)
    found[f'{place}adaLN_modulation.bias'] = bias
    found[f'{place}adaLN_modulation.weight'] = np.zeros(
      (len(bias), cond_size), bias.dtype
    )
  for layer, inputs in ((0, _SINUSOIDS), (2, cond_size)):
    found[f'sigma_map.mlp.{layer}.weight'] = np.zeros(
      (cond_size, inputs), np.float32
    )
    found[f'sigma_map.mlp.{layer}.bias'] = np.zeros(cond_size, np.float32)
  return found


def to_radd(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """RADD's tensors of SEDD's, of a network that is told sigma = 0 alone.

  Its modulation is then a constant: shifts become biases of the norms, scales
  go into their weights, gates into the layer before.  Tensors of `of_radd`
  come back bit by bit.

  Args:
    tensors: in SEDD's layout.

  Returns:
    RADD's, the same function of the tokens but for rounding.
  """
  cond = _conditioning(tensors)
  skipped = ('sigma_map.', 'adaLN_modulation')
  found = {
    name: np.array(tensor, np.float32)
    for name, tensor in tensors.items()
    if not any(part in name for part in skipped)
  }
  for place, norms in _norms(tensors).items():
    weight = tensors[f'{place}adaLN_modulation.weight'].astype(np.float64)
    constant = tensors[f'{place}adaLN_modulation.bias'].astype(np.float64)
    if weight.any():
      constant = constant + weight @ cond
    pieces = iter(np.split(constant, sum(2 + gated for _, gated in norms)))
    for (norm, gated), branch in zip(norms, ('attn_out', 'mlp.2')):
      shift, scale = next(pieces), next(pieces)
      _scale(found, f'{norm}.weight', 1 + scale)
      found[f'{norm}.bias'] = shift.astype(np.float32)
      if gated:
        gate = next(pieces)
        _scale(found, f'{place}{branch}.weight', gate[:, None])
        if branch == 'mlp.2':
          _scale(found, f'{place}{branch}.bias', gate)
  return found


def told_zero(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """SEDD's tensors that say at any sigma what these say at sigma = 0.

  What the sinusoids of 0 add goes into the bias behind them, and their weights
  become zero.  Such tensors come back bit by bit.

  Args:
    tensors: in SEDD's layout.
  """
  weight, bias = (f'sigma_map.mlp.0.{part}' for part in ('weight', 'bias'))
  constant = tensors[weight].astype(np.float64) @ _ANGLES_OF_0
  return {
    **tensors,
    weight: np.zeros_like(tensors[weight]),
    bias: (tensors[bias] + constant).astype(np.float32),
  }


def _scale(
  tensors: dict[str, np.ndarray], name: str, factor: np.ndarray
) -> None:
  tensors[name] = (tensors[name] * factor).astype(np.float32)


def _is_norm_bias(name: str) -> bool:
  return name.endswith(('norm1.bias', 'norm2.bias', 'norm_final.bias'))


def _norms(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, list[tuple[str, bool]]]:
  """Block or head to its norms, and whether a gate follows."""
  count = state_dicts.count_layers(tensors, 'blocks.')
  places = {
    f'blocks.{i}.': [(f'blocks.{i}.norm{k}', True) for k in (1, 2)]
    for i in range(count)
  }
  return {**places, _HEAD: [(f'{_HEAD}norm_final', False)]}


def _conditioning(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
  """What the modulation sees at sigma = 0, `[cond_size]` float64."""

  def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))

  def layer(number: int, x: np.ndarray) -> np.ndarray:
    weight, bias = (
      tensors[f'sigma_map.mlp.{number}.{part}'].astype(np.float64)
      for part in ('weight', 'bias')
    )
    return weight @ x + bias

  return silu(layer(2, silu(layer(0, _ANGLES_OF_0))))
