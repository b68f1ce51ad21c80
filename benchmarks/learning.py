"""What plain PyTorch learns by a recipe of ours, seed by seed.

  pip install -e '.[parity]'
  python benchmarks/learning.py --config=text8_absorb_small --steps=250 \\
    --seeds=0,1,2 --output=benchmarks/results/learning.json

The other side is `torch_sedd.py`: the same network, loss, clip and AdamW.  With
--draws=own it draws crops, times and masks itself; with --draws=ours it gets
those of our run of that seed, batch by batch, and has to learn the same.  With
--begin=ours it begins at our run's parameters, else at PyTorch's.  Bits a
character are those of the training loss, means over `--window` steps.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import against_pytorch
import common
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_sedd

from sedd_jax import experiments, losses
from sedd_jax.core import keys as keys_lib
from sedd_jax.core import times
from sedd_jax.models import pretrained
from sedd_jax.systems.common import parts
from sedd_jax.training import optimizer, state

Loss = Callable[[torch_sedd.Network], torch.Tensor]


def own_draws(config: Any, tokens: np.ndarray, seed: int) -> Iterator[Loss]:
  """The loss of each step, all of it drawn by numpy and PyTorch."""
  rng = np.random.default_rng(seed)
  length = config.data.seq_len
  while True:
    starts = rng.integers(len(tokens) - length, size=config.training.batch_size)
    rows = np.stack([tokens[start : start + length] for start in starts])
    x_0 = torch.from_numpy(rows.astype(np.int64))
    yield functools.partial(torch_sedd.loss_of, x_0=x_0)


def our_draws(
  experiment: experiments.Experiment, key: jax.Array, seed: int
) -> Iterator[Loss]:
  """The loss of each step, on what our run of the seed draws there."""
  config = experiment.config
  process = parts.make_process(config, common.vocab_size(config))
  draw_times = times.TIMES[config.training.time_sampling]
  size, t_min = config.training.batch_size, config.training.t_min
  indices = np.arange(size)

  @jax.jit
  def noisy(step, x_0):
    step_key = jax.random.fold_in(key, step)
    index = jnp.asarray(indices)
    t = t_min + (1 - t_min) * draw_times(step_key, index, size)
    keys = keys_lib.folded(keys_lib.example_keys(step_key, index), 0)
    sigma = -jnp.log1p(-(1 - config.schedule.eps) * t)
    return t, losses.sample_noisy(keys, x_0, sigma, process=process)

  step = 0
  while True:
    batch = experiment.dataset.train_batch(seed, step, indices, size)
    drawn = [np.array(x) for x in noisy(step, jnp.asarray(batch['tokens']))]
    t, x_t, x_0 = map(torch.from_numpy, (*drawn, np.array(batch['tokens'])))
    yield functools.partial(
      torch_sedd.score_entropy, x_t=x_t.long(), x_0=x_0.long(), t=t
    )
    step += 1


def learned(config: Any, seed: int, own: argparse.Namespace) -> list[float]:
  """The loss of every step, in bits a token."""
  config.seed = seed
  torch.manual_seed(seed)
  experiment = experiments.Experiment(config)
  updates = optimizer.make(**config.optimizer)
  started = jax.jit(
    lambda: state.create(experiment.system.init, updates, seed)
  )()
  sizes = against_pytorch.sizes_of(config)
  tensors = pretrained.to_state_dict(started.params, sizes['num_heads'])
  network = torch_sedd.network_of(sizes, tensors)
  if own.begin == 'pytorch':
    torch_sedd.begin_anew(network)
  if own.draws == 'ours':
    draws = our_draws(experiment, started.key, seed)
  else:
    tokens = np.asarray(experiment.dataset.tokens('train'))
    draws = own_draws(config, tokens, seed)
  rate, warmup = config.optimizer.learning_rate, config.optimizer.warmup_steps
  adam = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0)
  bits = []
  for step, loss_of in zip(range(1, own.steps + 1), draws):
    for group in adam.param_groups:
      group['lr'] = rate * min(step / max(warmup, 1), 1)
    adam.zero_grad()
    loss = loss_of(network)
    (loss * config.data.seq_len).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), torch_sedd.CLIP)
    adam.step()
    bits.append(loss.item() / np.log(2))
  return bits


def main() -> None:
  """Trains, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--seeds', type=common.integers, default=[0])
  parser.add_argument('--steps', type=int, default=250)
  parser.add_argument('--window', type=int, default=50)
  parser.add_argument('--draws', choices=['own', 'ours'], default='own')
  parser.add_argument('--begin', choices=['ours', 'pytorch'], default='ours')
  own, command = common.parse(parser)
  rows = []
  for seed in own.seeds:
    bits = learned(command.config, seed, own)
    row = {'seed': seed, 'draws': own.draws, 'begin': own.begin}
    for end in range(own.window, own.steps + 1, own.window):
      row[str(end)] = statistics.mean(bits[end - own.window : end])
    rows.append(row)
    print(row, flush=True)
  print(common.table(list(rows[0]), rows))
  common.write(
    own.output,
    {
      'benchmark': 'learning',
      **common.machine(),
      'torch': torch.__version__,
      'note': own.note,
      'config': common.told(command.config),
      'window': own.window,
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
