"""SEDD with absorbing noise in plain, eager PyTorch, in float32.

What benchmarks hold ours against, written for them; needs the extra `parity`.
The network takes our parameters in the layout of the released checkpoints.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EMA_DECAY, CLIP = 0.999, 1.0
# Of the log-linear schedule, and the earliest time.
EPS = T_MIN = 1e-3


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
  return x * (1 + scale) + shift


class Norm(nn.Module):
  """A layer norm with a weight and no bias."""

  def __init__(self, hidden: int):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(hidden))

  def forward(self, x: Tensor) -> Tensor:
    """Normalises the last axis."""
    return functional.layer_norm(x, [x.shape[-1]], self.weight)


class Block(nn.Module):
  """Attention and a two-layer network, each modulated and gated."""

  def __init__(self, sizes: Mapping[str, Any]):
    super().__init__()
    hidden, self.heads = sizes['hidden_size'], sizes['num_heads']
    self.norm1, self.norm2 = Norm(hidden), Norm(hidden)
    self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
    self.attn_out = nn.Linear(hidden, hidden, bias=False)
    self.mlp = nn.Sequential(
      nn.Linear(hidden, 4 * hidden),
      nn.GELU(approximate='tanh'),
      nn.Linear(4 * hidden, hidden),
    )
    self.adaLN_modulation = nn.Linear(sizes['cond_size'], 6 * hidden)

  def forward(
    self, h: Tensor, cond: Tensor, cos: Tensor, sin: Tensor
  ) -> Tensor:
    """The residual stream after the block."""
    batch, length, hidden = h.shape
    made = self.adaLN_modulation(cond)[:, None].chunk(6, dim=-1)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = made
    qkv = self.attn_qkv(_modulated(self.norm1(h), shift_1, scale_1))
    qkv = qkv.view(batch, length, 3, self.heads, hidden // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)

    def rotated(x):
      a, b = x.chunk(2, dim=-1)
      return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    u = functional.scaled_dot_product_attention(rotated(q), rotated(k), v)
    h = h + gate_1 * self.attn_out(u.transpose(1, 2).reshape(h.shape))
    u = self.mlp(_modulated(self.norm2(h), shift_2, scale_2))
    return h + gate_2 * u


class Network(nn.Module):
  """Tokens and total noise to logits."""

  def __init__(self, sizes: Mapping[str, Any]):
    super().__init__()
    hidden, states = sizes['hidden_size'], sizes['num_states']
    self.vocab_embed = nn.Embedding(states, hidden)
    self.sigma_map = nn.Sequential(
      nn.Linear(256, sizes['cond_size']),
      nn.SiLU(),
      nn.Linear(sizes['cond_size'], sizes['cond_size']),
    )
    self.blocks = nn.ModuleList(
      Block(sizes) for _ in range(sizes['num_layers'])
    )
    self.norm_final = Norm(hidden)
    self.linear = nn.Linear(hidden, states)
    self.adaLN_modulation = nn.Linear(sizes['cond_size'], 2 * hidden)
    f = 10_000.0 ** (-torch.arange(128) / 128)
    self.register_buffer('level_frequencies', f, persistent=False)
    half = hidden // sizes['num_heads'] // 2
    f = 10_000.0 ** (-torch.arange(half) / half)
    angles = torch.outer(torch.arange(sizes['length']), f)
    self.register_buffer('cos', angles.cos(), persistent=False)
    self.register_buffer('sin', angles.sin(), persistent=False)

  def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
    """Logits `[batch, length, states]`."""
    angle = sigma[:, None] * self.level_frequencies
    level = torch.cat([angle.cos(), angle.sin()], dim=-1)
    cond = functional.silu(self.sigma_map(level))
    h = self.vocab_embed(x_t)
    for block in self.blocks:
      h = block(h, cond, self.cos, self.sin)
    shift, scale = self.adaLN_modulation(cond)[:, None].chunk(2, dim=-1)
    return self.linear(_modulated(self.norm_final(h), shift, scale))


def network_of(
  sizes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> Network:
  """The network with our parameters.

  Args:
    sizes: hidden_size, num_layers, num_heads, cond_size, num_states, length.
    tensors: of `models.pretrained.to_state_dict`.
  """
  network = Network(sizes)
  ours = {
    'output_layer.': '',
    'vocab_embed.embedding': 'vocab_embed.weight',
    'sigma_map.mlp.': 'sigma_map.',
  }
  renamed = {}
  for name, tensor in tensors.items():
    if name.startswith('rotary_emb'):
      continue
    for old, new in ours.items():
      name = name.replace(old, new)
    renamed[name] = torch.from_numpy(np.array(tensor))
  network.load_state_dict(renamed)
  return network


def begin_anew(network: Network) -> None:
  """Parameters drawn by PyTorch, as SEDD begins."""
  for module in network.modules():
    if isinstance(module, nn.Linear):
      module.reset_parameters()
  nn.init.kaiming_uniform_(network.vocab_embed.weight, a=math.sqrt(5))
  for name, module in network.named_modules():
    if name == 'linear' or name.endswith('adaLN_modulation'):
      nn.init.zeros_(module.weight)
      nn.init.zeros_(module.bias)


def total_noise(t: Tensor) -> Tensor:
  """sigma(t) of the log-linear schedule."""
  return -torch.log1p(-(1 - EPS) * t)


def log_score(network: Network, x_t: Tensor, sigma: Tensor) -> Tensor:
  """The network's logits scaled by the noise, `[batch, length, states]`."""
  logits = network(x_t, sigma)
  level = torch.log(torch.expm1(sigma) * (logits.shape[-1] - 1))
  return logits - level[:, None, None]


def score_entropy(
  network: Network, x_t: Tensor, x_0: Tensor, t: Tensor
) -> Tensor:
  """The absorbing loss, nats a token; its mean over the batch."""
  mask = network.linear.out_features - 1
  sigma, rate = total_noise(t), (1 - EPS) / (1 - (1 - EPS) * t)
  scores = log_score(network, x_t, sigma)
  ratio = (1 / torch.expm1(sigma))[:, None]
  seen = scores.gather(-1, x_0[..., None])[..., 0]
  entropy = scores[..., :mask].exp().sum(-1) - ratio * seen
  entropy = entropy + ratio * (torch.log(ratio) - 1)
  return (rate[:, None] * entropy * (x_t == mask)).mean()


def loss_of(network: Network, x_0: Tensor) -> Tensor:
  """`score_entropy` of one draw of time and noise a row."""
  mask = network.linear.out_features - 1
  t = T_MIN + (1 - T_MIN) * torch.rand(len(x_0))
  sigma = total_noise(t)
  masked = torch.rand(x_0.shape) < -torch.expm1(-sigma)[:, None]
  return score_entropy(network, torch.where(masked, mask, x_0), x_0, t)
