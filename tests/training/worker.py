"""Trains the toy system in a process of its own; started by the tests.

  python -m tests.training.worker WORKDIR OPTIONS

with OPTIONS a JSON object: fields of the group `training`, and `devices`,
`pause` (seconds a step), `processes`, `rank`, `port`.
"""

import dataclasses
import json
import pathlib
import sys
import time

import jax
import numpy as np

from sedd_jax.training import loop
from tests.training import toys


class Slow(toys.Dataset):
  """Takes its time for a batch, so that a kill can come at any moment."""

  def __init__(self, pause):
    self._pause = pause

  def train_batch(self, seed, step, indices, count):
    time.sleep(self._pause)
    return super().train_batch(seed, step, indices, count)


def main():
  workdir, options = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', options.pop('devices', 2))
  pause = options.pop('pause', 0.0)
  processes, rank = options.pop('processes', 1), options.pop('rank', 0)
  port = options.pop('port', 0)
  if processes > 1:
    jax.distributed.initialize(f'localhost:{port}', processes, rank)
  system = toys.SYSTEM
  if options.get('refresh_every'):
    # What each process makes differs, and that of the first is taken.
    system = dataclasses.replace(
      toys.remembering(8),
      refresh=lambda params, aux: aux + 1 + jax.process_index(),
      update_aux=lambda aux, stats: aux,
    )
  state = loop.train(
    system,
    Slow(pause),
    workdir=workdir,
    seed=0,
    training=toys.training(**options),
    optimizer=toys.SGD,
  )
  # Of all processes, as the array may be.
  print('sum', float(state.params['head'].sum()))
  if options.get('refresh_every'):
    print('aux', np.asarray(state.aux.addressable_shards[0].data).max())


if __name__ == '__main__':
  main()
