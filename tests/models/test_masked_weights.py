"""Weights of MDLM and RADD, as SEDD's network and back, bit by bit."""

import json

import jax
import numpy as np
import pytest

from sedd_jax.models import (
  DiffusionTransformer,
  masked_weights,
  pretrained,
  tensor_files,
)
from tests import golden_numbers

STATES, SIZE, LAYERS, HEADS = 28, 16, 2, 2
Error = tensor_files.PretrainedError


def radd_tensors(seed=0):
  """Random tensors of a small RADD, by its names."""
  rng = np.random.default_rng(seed)

  def drawn(*shape):
    return rng.normal(0, 0.3, shape).astype(np.float32)

  found = {
    'vocab_embed.embedding': drawn(STATES, SIZE),
    'rotary_emb.inv_freq': (
      10_000.0 ** (-np.arange(SIZE // HEADS // 2) / (SIZE // HEADS // 2))
    ).astype(np.float32),
  }
  for i in range(LAYERS):
    shapes = {
      **dict.fromkeys(('norm1.weight', 'norm1.bias'), (SIZE,)),
      **dict.fromkeys(('norm2.weight', 'norm2.bias'), (SIZE,)),
      'attn_qkv.weight': (3 * SIZE, SIZE),
      'attn_out.weight': (SIZE, SIZE),
      'mlp.0.weight': (4 * SIZE, SIZE),
      'mlp.0.bias': (4 * SIZE,),
      'mlp.2.weight': (SIZE, 4 * SIZE),
      'mlp.2.bias': (SIZE,),
    }
    found |= {f'blocks.{i}.{k}': drawn(*shape) for k, shape in shapes.items()}
  found['output_layer.norm_final.weight'] = drawn(SIZE)
  found['output_layer.norm_final.bias'] = drawn(SIZE)
  found['output_layer.linear.weight'] = drawn(STATES, SIZE)
  found['output_layer.linear.bias'] = drawn(STATES)
  return found


def radd_logits(t, tokens):
  """RADD's network in float64, step by step."""
  t = {name: x.astype(np.float64) for name, x in t.items()}

  def normed(h, name):
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(
      h.var(-1, keepdims=True) + 1e-5
    )
    return h * t[f'{name}.weight'] + t[f'{name}.bias']

  def turned(x):
    angles = np.outer(np.arange(len(tokens)), t['rotary_emb.inv_freq'])
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

  h = t['vocab_embed.embedding'][tokens]
  for i in range(LAYERS):
    p = f'blocks.{i}.'
    qkv = normed(h, f'{p}norm1') @ t[f'{p}attn_qkv.weight'].T
    q, k, v = qkv.reshape(len(tokens), 3, HEADS, -1).transpose(1, 0, 2, 3)
    scores = np.einsum('qhd,khd->hqk', turned(q), turned(k))
    scores = np.exp(scores / np.sqrt(SIZE / HEADS))
    scores /= scores.sum(-1, keepdims=True)
    mixed = np.einsum('hqk,khd->qhd', scores, v).reshape(len(tokens), -1)
    h = h + mixed @ t[f'{p}attn_out.weight'].T
    u = normed(h, f'{p}norm2') @ t[f'{p}mlp.0.weight'].T + t[f'{p}mlp.0.bias']
    u = u / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
    h = h + u @ t[f'{p}mlp.2.weight'].T + t[f'{p}mlp.2.bias']
  h = normed(h, 'output_layer.norm_final')
  return h @ t['output_layer.linear.weight'].T + t['output_layer.linear.bias']


def logits_of(params, sizes, tokens, sigma=0.0):
  fields = ('num_states', 'hidden_size', 'num_layers', 'num_heads', 'cond_size')
  network = DiffusionTransformer(**{field: sizes[field] for field in fields})
  level = np.full(1, sigma, np.float32)
  return network.apply({'params': params}, tokens[None], level)[0]


def same_bits(found, expected):
  assert list(found) == list(expected) or set(found) == set(expected)
  for name, tensor in expected.items():
    assert found[name].dtype == tensor.dtype, name
    assert found[name].tobytes() == tensor.tobytes(), name


def test_radd_is_sedds_network_without_time():
  tensors, tokens = radd_tensors(), np.array([3, 27, 0, 27, 5], np.int32)
  params, sizes = pretrained.from_state_dict(tensors)
  assert sizes['layout'] == 'radd' and sizes['cond_size'] == 128
  np.testing.assert_allclose(
    logits_of(params, sizes, tokens), radd_logits(tensors, tokens), atol=2e-5
  )


@pytest.mark.parametrize('suffix', ['', '.npz'])
def test_radd_round_trip_is_exact(tmp_path, suffix):
  tensors = radd_tensors()
  tensors['blocks.0.norm1.bias'][0] = -0.0
  params, sizes = pretrained.from_state_dict(tensors)
  path = tmp_path / f'radd{suffix}'
  pretrained.save_sedd(path, params, sizes)
  if suffix:
    found = tensor_files.read_npz(path)
    config = json.loads(str(found.pop('config.json')))
  else:
    found = tensor_files.read_safetensors(path / 'model.safetensors')
    config = json.loads((path / 'config.json').read_text())
  same_bits(found, tensors)
  assert config['tokens'] == STATES - 1
  again, sizes_again = pretrained.load_sedd(path)
  assert sizes_again == sizes
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_modulation_that_was_trained_folds_into_radd(tmp_path):
  """A network that is told sigma = 0 alone is a RADD, whatever it learned."""
  tensors, tokens = radd_tensors(), np.array([27, 1, 2, 27], np.int32)
  params, sizes = pretrained.from_state_dict(tensors)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: x + rng.normal(0, 0.05, x.shape).astype(np.float32), params
  )
  pretrained.save_sedd(tmp_path, params, sizes)
  found = tensor_files.read_safetensors(tmp_path / 'model.safetensors')
  assert found.keys() == tensors.keys()
  np.testing.assert_allclose(
    radd_logits(found, tokens), logits_of(params, sizes, tokens), atol=2e-5
  )


def test_a_network_that_is_told_no_noise_is_told_none_by_the_released_code(
  tmp_path,
):
  """SEDD's code tells sigma, whatever a network was trained on."""
  params, sizes = pretrained.from_state_dict(radd_tensors())
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), params
  )
  tokens = np.array([27, 1, 2, 27], np.int32)
  wanted = logits_of(params, sizes, tokens)
  assert np.abs(logits_of(params, sizes, tokens, 0.5) - wanted).max() > 0.1
  sizes |= {'layout': 'sedd', 'process': 'absorbing', 'timed': False}
  pretrained.save_sedd(tmp_path, params, sizes)
  found, again = pretrained.load_sedd(tmp_path)
  for sigma in (0.0, 0.5, 7.0):
    told = logits_of(found, again, tokens, sigma)
    np.testing.assert_allclose(told, wanted, atol=2e-5)
  # What was written so is written again bit by bit.
  pretrained.save_sedd(tmp_path / 'again', found, again | {'timed': False})
  first, second = (
    (folder / 'model.safetensors').read_bytes()
    for folder in (tmp_path, tmp_path / 'again')
  )
  assert first == second


def test_mdlm_round_trip_is_exact(tmp_path):
  golden = golden_numbers.load('sedd_model_absorb')
  tensors = {
    name.replace('sd/', 'backbone.'): golden[name]
    for name in golden
    if name.startswith('sd/')
  }
  config = {
    'model_type': 'mdlm',
    'vocab_size': 28,
    'hidden_dim': 64,
    'cond_dim': 32,
    'n_blocks': 2,
    'n_heads': 4,
    'time_conditioning': False,
  }
  tensor_files.write_safetensors(tmp_path / 'model.safetensors', tensors)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  params, sizes = pretrained.load_sedd(tmp_path)
  assert sizes['layout'] == 'mdlm' and sizes['num_states'] == 28
  pretrained.save_sedd(tmp_path / 'again', params, sizes)
  found = tensor_files.read_safetensors(tmp_path / 'again/model.safetensors')
  # The frequencies are computed, not kept.
  frequencies = 'backbone.rotary_emb.inv_freq'
  np.testing.assert_allclose(
    found.pop(frequencies), tensors.pop(frequencies), rtol=1e-6
  )
  same_bits(found, tensors)
  written = json.loads((tmp_path / 'again/config.json').read_text())
  assert written == config


@pytest.mark.parametrize(
  ('change', 'config', 'told'),
  [
    ({'blocks.1.norm2.bias': None}, {}, "no tensor 'blocks.1.norm2.bias'"),
    ({'blocks.1.mlp.0.bias': None}, {}, "no tensor 'blocks.1.mlp.0.bias'"),
    ({'other': np.zeros(2)}, {}, "unknown tensor 'other'"),
    ({'backbone.x': np.zeros(2)}, {}, r'beside backbone\.\*'),
    (
      {'backbone.x': np.zeros(2)},
      {'time_conditioning': True},
      'only such a network is read|beside backbone',
    ),
  ],
)
def test_faulty_tensors(change, config, told):
  tensors = radd_tensors()
  for name, value in change.items():
    if value is None:
      del tensors[name]
    else:
      tensors[name] = value
  with pytest.raises(Error, match=told):
    pretrained.from_state_dict(tensors, config)


def test_an_mdlm_that_is_told_the_time():
  with pytest.raises(Error, match='time_conditioning is true'):
    masked_weights.mdlm_config({'time_conditioning': True})


def test_an_unknown_layout(tmp_path):
  params, sizes = pretrained.from_state_dict(radd_tensors())
  with pytest.raises(ValueError, match="unknown layout 'raddd'; nearest: radd"):
    pretrained.save_sedd(tmp_path / 'x', params, {**sizes, 'layout': 'raddd'})
  assert not (tmp_path / 'x').exists()
