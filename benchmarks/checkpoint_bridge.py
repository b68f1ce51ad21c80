"""Seconds and memory of each command on weights in SEDD's released layout.

  python benchmarks/checkpoint_bridge.py --tokenizer=FOLDER --output=FILE.json

Writes a checkpoint with random weights, by default of the size of SEDD-small
(169,627,218 parameters), and runs on it what one does with the published one:
sample, evaluate, train a step, export.  FOLDER holds GPT-2's encoder.json and
vocab.bpe; or say text8 or bytes.  Each command is a process of its own, and
compiles.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import common
import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.models import DiffusionTransformer, pretrained, tensor_files

SIZES = {
  'small': {'hidden_size': 768, 'num_layers': 12, 'num_heads': 12},
  'medium': {'hidden_size': 1024, 'num_layers': 24, 'num_heads': 16},
  'tiny': {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2},
}
COND_SIZE = 128


def write_checkpoint(folder: pathlib.Path, size: str, num_states: int) -> int:
  """Random weights, absorbing noise, as the hub has them; their number.

  Args:
    folder: to be made.
    size: of `SIZES`.
    num_states: the mask's included.
  """
  sizes = {**SIZES[size], 'cond_size': COND_SIZE, 'num_states': num_states}
  network = DiffusionTransformer(**sizes)
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32), jnp.ones(1)
  )['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), shapes
  )
  described = {'process': 'absorbing', 'scale_by_sigma': True}
  pretrained.save_sedd(folder, params, {**sizes, **described})
  return sum(x.size for x in jax.tree.leaves(params))


def run(arguments: list[str]) -> tuple[float, float]:
  """Seconds, and the most GiB resident, of a command of `sedd_jax.main`.

  Raises:
    RuntimeError: it failed.
  """
  begin = time.perf_counter()
  command = [sys.executable, '-m', 'sedd_jax.main', *arguments]
  process = os.posix_spawn(sys.executable, command, os.environ)
  _, status, usage = os.wait4(process, 0)
  if status:
    raise RuntimeError(f'{" ".join(arguments)} ended with status {status}')
  return time.perf_counter() - begin, usage.ru_maxrss / 2**20


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--size', choices=SIZES, default='small')
  parser.add_argument('--tokenizer', default='gpt2')
  parser.add_argument('--seq-len', type=int, default=1024)
  parser.add_argument('--output', type=pathlib.Path)
  parser.add_argument('--commands', default='sample,evaluate,train,export')
  args = parser.parse_args()
  rows = []
  with tempfile.TemporaryDirectory() as place:
    hub, out = pathlib.Path(place, 'hub'), pathlib.Path(place, 'out')
    size = common.VOCAB_SIZES.get(args.tokenizer, common.VOCAB_SIZES['gpt2'])
    parameters = write_checkpoint(hub, args.size, size + 1)
    sizes = {**SIZES[args.size], 'cond_size': COND_SIZE}
    fields = {
      **{f'model.{name}': value for name, value in sizes.items()},
      'model.dtype': 'float32',
      'init_from': hub,
      'data.source': 'pydoc',
      'data.tokenizer': args.tokenizer,
      'data.seq_len': args.seq_len,
      'training.num_steps': 1,
      'training.batch_size': 1,
      'training.eval_every': 0,
      'training.sample_every': 0,
      'training.keep_best': 'false',
      'eval.max_sequences': 1,
      'eval.batch_size': 1,
      'eval.points': 1,
      'sampling.num_samples': 1,
      'sampling.batch_size': 1,
      'sampling.steps': 2,
      'task.path': out,
    }
    shared = ['--config=owt_absorb']
    shared += [f'--config.{name}={value}' for name, value in fields.items()]
    for mode in args.commands.split(','):
      # Apart, so that each begins from the weights.
      workdir = f'--workdir={place}/{mode}'
      seconds, memory = run([*shared, workdir, f'--mode={mode}'])
      rows.append({'command': mode, 'seconds': seconds, 'GiB': memory})
      print(common.table(['command', 'seconds', 'GiB'], rows), flush=True)
    same = None
    if out.is_dir():
      before, after = (
        tensor_files.read_safetensors(folder / 'model.safetensors')
        for folder in (hub, out)
      )
      same = before.keys() == after.keys() and all(
        before[name].tobytes() == after[name].tobytes() for name in before
      )
      print(f'{len(before)} tensors, exported bit by bit: {same}')
  result = {
    'parameters': parameters,
    'seq_len': args.seq_len,
    'rows': rows,
    'exported_bit_by_bit': same,
    'machine': common.machine(),
  }
  print(json.dumps(result['machine']))
  common.write(args.output, result)


if __name__ == '__main__':
  main()
