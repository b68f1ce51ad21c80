"""Training step and sampling beside a plain PyTorch model, on the same cores.

  pip install -e '.[parity]'
  python benchmarks/against_pytorch.py --config=text8_absorb_small \\
    --output=benchmarks/results/against_pytorch.json
  python benchmarks/against_pytorch.py --config=text8_absorb_small \\
    --only=sample --config.data.tokenizer=gpt2 --config.model.hidden_size=64

The other side is written here, eager, in float32: SEDD's network with the same
parameters (the two logits are compared before anything is timed), the absorbing
loss, clipped AdamW in its fused form and a running mean; samples by Tweedie
steps whose draws are Gumbel races in float32, as released samplers have them.
Each side is a process of its own that sleeps while the other works; they take
turns, and a row has the median of the ratios of neighbouring turns.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import common
import numpy as np

MAX_LOGIT_ERROR = 1e-4


def sizes_of(config: Any) -> dict[str, Any]:
  """What both sides need to know, as plain numbers.

  Raises:
    ValueError: for a config that the other side does not have.
  """
  model = config.model
  wanted = {
    'process.name': ('absorbing', config.process.name),
    'schedule.name': ('log_linear', config.schedule.name),
    'model.dtype': ('float32', model.dtype),
    'model.dropout': (0.0, model.dropout),
  }
  for field, (value, found) in wanted.items():
    if found != value:
      raise ValueError(
        f'{field} = {found!r}: the comparison is written for {value!r}'
      )
  return {
    'hidden_size': model.hidden_size,
    'num_layers': model.num_layers,
    'num_heads': model.num_heads,
    'cond_size': model.cond_size,
    'num_states': common.vocab_size(config) + 1,
    'length': config.data.seq_len,
    'batch': config.training.batch_size,
    'learning_rate': config.optimizer.learning_rate,
  }


def jax_side(
  pipe: connection.Connection, config: Any, own: argparse.Namespace
) -> None:
  """Serves turns of our side; see `serve`."""
  import jax
  import train_throughput

  from sedd_jax import main, systems
  from sedd_jax.models import pretrained
  from sedd_jax.systems.common import parts

  main.keep_freed_memory()
  system = common.system_of(config)
  params, aux = jax.jit(system.init)(jax.random.key(config.seed))
  # At the start all logits are 0, which would compare nothing.
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  noisy = [x + 0.02 * rng.standard_normal(x.shape, 'float32') for x in leaves]
  params = jax.tree.unflatten(tree, noisy)
  sizes = sizes_of(config)
  pipe.send(pretrained.to_state_dict(params, sizes['num_heads']))
  x_t, sigma = pipe.recv()
  network = parts.make_network(config, sizes['num_states'])
  logits = jax.jit(network.apply)({'params': params}, x_t, sigma)
  pipe.send(np.asarray(logits))

  def samples(steps: int, batch: int) -> Callable[[], float]:
    request = systems.Request(
      length=sizes['length'],
      seeds=range(batch),
      method='tweedie',
      steps=steps,
      batch_size=batch,
      options={'grid': config.sampling.grid},
    )

    def turn() -> float:
      begin = time.perf_counter()
      system.sample(params, aux, request)
      return time.perf_counter() - begin

    return turn

  def training() -> Callable[[], float]:
    trainer = train_throughput.Trainer(config, system, sizes['batch'])
    return lambda: statistics.median(trainer.seconds(own.steps).tolist())

  serve(pipe, training, samples)


def torch_side(
  pipe: connection.Connection, config: Any, own: argparse.Namespace
) -> None:
  """Serves turns of the other side; see `serve`."""
  del config
  import torch
  import torch_sedd
  from torch import nn

  torch.manual_seed(0)
  sizes, tensors = pipe.recv()
  mask = sizes['num_states'] - 1
  network = torch_sedd.network_of(sizes, tensors)
  x_t, sigma = pipe.recv()
  with torch.no_grad():
    logits = network(torch.from_numpy(x_t).long(), torch.from_numpy(sigma))
  count = sum(p.numel() for p in network.parameters())
  pipe.send((logits.numpy(), count, torch.__version__))

  def training() -> Callable[[], float]:
    updates = torch.optim.AdamW(
      network.parameters(), lr=sizes['learning_rate'], fused=True
    )
    means = [p.detach().clone() for p in network.parameters()]
    shape = sizes['batch'], sizes['length']
    x_0 = torch.randint(mask, shape)

    def one() -> float:
      begin = time.perf_counter()
      updates.zero_grad()
      torch_sedd.loss_of(network, x_0).backward()
      nn.utils.clip_grad_norm_(network.parameters(), torch_sedd.CLIP)
      updates.step()
      with torch.no_grad():
        torch._foreach_lerp_(
          means, list(network.parameters()), 1 - torch_sedd.EMA_DECAY
        )
      return time.perf_counter() - begin

    return lambda: statistics.median(one() for _ in range(own.steps))

  def drawn(probs):
    race = 1e-10 - torch.log(torch.rand_like(probs) + 1e-10)
    return (probs / race).argmax(-1)

  def tweedie(x, t, s):
    """Probabilities of the next states, weights of a posterior at s."""
    total = torch_sedd.total_noise
    sigma = total(t)
    drop = sigma - (total(s) if s is not None else 0.0)
    level = sigma.expand(len(x))
    score = torch_sedd.log_score(network, x, level).exp()
    score = score.scatter(-1, x[..., None], 1.0)
    stay = (1 - drop.exp()) * score.sum(-1)
    score = score * drop.exp()
    score[..., mask] += stay
    kernel = torch.zeros_like(score).scatter(
      -1, x[..., None], float((-drop).exp())
    )
    hidden_now = (x == mask)[..., None]
    kernel = kernel + torch.where(hidden_now, -torch.expm1(-drop), 0.0)
    return score * kernel

  def samples(steps: int, batch: int) -> Callable[[], float]:
    def turn() -> float:
      begin = time.perf_counter()
      with torch.no_grad():
        times = torch.linspace(1, torch_sedd.T_MIN, steps + 1)
        x = torch.full((batch, sizes['length']), mask)
        for t, s in zip(times[:-1], times[1:]):
          x = drawn(tweedie(x, t, s))
        drawn(tweedie(x, times[-1], None)[..., :mask])
      return time.perf_counter() - begin

    return turn

  serve(pipe, training, samples)


def serve(
  pipe: connection.Connection,
  training: Callable[[], Callable[[], float]],
  samples: Callable[[int, int], Callable[[], float]],
) -> None:
  """Answers ('train',), ('sample', steps, batch) and ('turn',) by seconds."""
  turn = None
  while True:
    kind, *arguments = pipe.recv()
    if kind == 'end':
      return
    if kind == 'turn':
      pipe.send(turn())
    else:
      turn = training() if kind == 'train' else samples(*arguments)
      # The first compiles, the second is warm.
      turn()
      turn()
      pipe.send(None)


def told(pipe: connection.Connection, *message: Any) -> Any:
  """The answer to a message."""
  pipe.send(message)
  return pipe.recv()


def row_of(name: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
  """A row of the table, from the turns of one workload."""
  ratios = [a / b for a, b in zip(ours, theirs)]
  return {
    'workload': name,
    'seconds': statistics.median(ours),
    'pytorch_seconds': statistics.median(theirs),
    'ratio': statistics.median(ratios),
    'least_ratio': min(ratios),
    'greatest_ratio': max(ratios),
  }


def main() -> None:
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', choices=['train', 'sample'])
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument(
    '--steps', type=int, default=10, help='a turn of training'
  )
  parser.add_argument('--sampling-steps', type=int, default=64)
  parser.add_argument('--batches', type=common.integers, default=[1, 16])
  own, command = common.parse(parser)
  sizes = sizes_of(command.config)
  spawn = multiprocessing.get_context('spawn')
  pipes, workers = [], []
  for side in (jax_side, torch_side):
    here, there = spawn.Pipe()
    worker = spawn.Process(
      target=side, args=(there, command.config, own), daemon=True
    )
    worker.start()
    there.close()
    pipes.append(here)
    workers.append(worker)
  ours, theirs = pipes
  tensors = ours.recv()
  theirs.send((sizes, tensors))
  rng = np.random.default_rng(0)
  shape = 2, sizes['length']
  probe = (
    rng.integers(sizes['num_states'], size=shape).astype(np.int32),
    np.array([0.5, 3.0], np.float32),
  )
  ours.send(probe)
  theirs.send(probe)
  logits = ours.recv()
  others, count, version = theirs.recv()
  error = float(np.abs(logits - others).max())
  if error > MAX_LOGIT_ERROR * np.abs(logits).max():
    raise SystemExit(f'the two networks differ: logits by {error:.2g}')
  parameters = sum(x.size for x in tensors.values())
  parameters -= tensors['rotary_emb.inv_freq'].size
  assert count == parameters, (count, parameters)
  print(
    f'{count:,} parameters, {sizes["num_states"]} states, logits within '
    f'{error:.1g} of {np.abs(logits).max():.2g}'
  )

  work: list[tuple[str, tuple[Any, ...]]] = []
  if own.only != 'sample':
    work.append((f'training step, batch {sizes["batch"]}', ('train',)))
  if own.only != 'train':
    for batch in own.batches:
      name = f'{own.sampling_steps} Tweedie steps and denoise, batch {batch}'
      work.append((name, ('sample', own.sampling_steps, batch)))
  rows = []
  for name, message in work:
    for pipe in pipes:
      told(pipe, *message)
    turns = [
      (told(ours, 'turn'), told(theirs, 'turn')) for _ in range(own.rounds)
    ]
    rows.append(row_of(name, *map(list, zip(*turns))))
  for pipe, worker in zip(pipes, workers):
    pipe.send(('end',))
    worker.join()
  columns = ['workload', 'seconds', 'pytorch_seconds', 'ratio']
  print(common.table(columns, rows))
  common.write(
    own.output,
    {
      'benchmark': 'against_pytorch',
      **common.machine(),
      'torch': version,
      'note': own.note,
      'config': common.told(command.config),
      'parameters': count,
      'logit_error': error,
      'rounds': own.rounds,
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
