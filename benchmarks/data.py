"""Tokens a second that the reader gives, from mapped token files.

  python benchmarks/data.py --output benchmarks/results/data.json

Writes random tokens to a temporary folder, reads them as training and
evaluation do, prints a table and writes JSON.  The file is in the page cache:
what is measured is the reader, not the disk.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import tempfile
import time

import numpy as np

from sedd_jax.data import pipeline
from sedd_jax.data.prepared import shards

# Batch, length and bytes a token: OpenWebText, a large batch of it, text8.
SHAPES = ((32, 1024, 2), (512, 1024, 2), (512, 256, 1))


def opened(
  folder: str, num_tokens: int, width: int, seq_len: int, num_files: int
):
  """A dataset over a file of random tokens.

  Args:
    folder: where the file is made, once for each width.
    num_tokens: in the file.
    width: bytes a token.
    seq_len: tokens a sequence.
    num_files: that the tokens are read from, as from shards.
  """
  path = pathlib.Path(folder, f'{width}.bin')
  dtype = np.dtype(f'<u{width}')
  vocab_size = {1: 256, 2: 50257}[width]
  if not path.exists():
    rng = np.random.default_rng(0)
    rng.integers(vocab_size, size=num_tokens, dtype=dtype).tofile(path)
  info = pipeline.DataInfo(
    name='random',
    vocab_size=vocab_size,
    tokenizer=None,
    num_tokens={'train': num_tokens},
    num_characters={'train': num_tokens},
    unit='token',
    files=(),
  )
  parts = np.array_split(np.memmap(path, dtype, 'r'), num_files)
  return pipeline.Dataset(info, {'train': shards.joined(parts)}, seq_len)


def seconds(call, repeats: int) -> list[float]:
  """Wall seconds of calls with 0, 1, 2, ..."""
  times = []
  for number in range(repeats):
    begin = time.perf_counter()
    call(number)
    times.append(time.perf_counter() - begin)
  return times


def measured(dataset: pipeline.Dataset, batch: int, repeats: int) -> dict:
  """Median and best tokens a second of both kinds of batch."""
  indices = np.arange(batch)
  chunks = dataset.num_sequences('train')
  calls = {
    'train': lambda n: dataset.train_batch(0, n, indices, batch),
    'evaluation': lambda n: dataset.eval_batch(
      'train', (indices + n * batch) % chunks, chunks
    ),
  }
  result = {}
  for name, call in calls.items():
    seconds(call, 2)
    times = seconds(call, repeats)
    result[name] = {
      'median': batch * dataset.seq_len / float(np.median(times)),
      'best': batch * dataset.seq_len / min(times),
    }
  return result


def main():
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--tokens', type=int, default=100_000_000)
  parser.add_argument('--repeats', type=int, default=50)
  parser.add_argument('--files', default='1,20', help='several by commas')
  parser.add_argument('--output', help='JSON file to write')
  arguments = parser.parse_args()
  rows = []
  print('million tokens a second, median (best)')
  print(
    f'{"files":>6} {"batch":>6} {"length":>6} {"bytes":>6} {"train":>15} '
    f'{"eval":>15}'
  )
  with tempfile.TemporaryDirectory() as folder:
    files = map(int, arguments.files.split(','))
    for num_files, shape in itertools.product(files, SHAPES):
      batch, seq_len, width = shape
      dataset = opened(folder, arguments.tokens, width, seq_len, num_files)
      rates = measured(dataset, batch, arguments.repeats)
      shown = [
        f'{rate["median"] / 1e6:.0f} ({rate["best"] / 1e6:.0f})'
        for rate in rates.values()
      ]
      print(
        f'{num_files:>6} {batch:>6} {seq_len:>6} {width:>6} {shown[0]:>15} '
        f'{shown[1]:>15}'
      )
      rows.append(
        {
          'files': num_files,
          'batch': batch,
          'length': seq_len,
          'bytes': width,
        }
        | {f'{name}_tokens_per_second': rate for name, rate in rates.items()}
      )
  result = {
    'benchmark': 'data',
    'tokens': arguments.tokens,
    'repeats': arguments.repeats,
    'rows': rows,
    'machine': platform.machine(),
    'cores': os.cpu_count(),
    'load': os.getloadavg()[0],
    'python': platform.python_version(),
    'numpy': np.__version__,
  }
  if arguments.output:
    path = pathlib.Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
  main()
