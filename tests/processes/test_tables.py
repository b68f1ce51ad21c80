"""What tables take of memory; mutual information has at least two steps."""

import logging
import tracemalloc

import numpy as np
import pytest

from sedd_jax import processes
from sedd_jax.processes import mutual_information, tabulated


def test_what_tables_take_is_said_before_they_are_made(caplog):
  """Large ones to everybody, small ones to who asks."""
  caplog.set_level(logging.INFO)
  tabulated.require_memory('Some', 18, 1000, 4.0, 'use less')
  tabulated.require_memory('Some', 2, 27, 4.0, 'use less')
  large, small = caplog.records
  assert large.levelno == logging.WARNING
  assert large.getMessage() == 'Some: 18 matrices of 1000 x 1000 take 0.13 GiB'
  assert small.levelno == logging.INFO
  caplog.clear()
  processes.Tabulated(vocab_size=2, matrices=[np.eye(2)] * 4)
  (made,) = caplog.records
  assert made.getMessage().startswith('Tabulated: 7 matrices of 2 x 2 take')


def test_a_file_that_does_not_fit_is_not_read(tmp_path):
  path = tmp_path / 'matrices.npy'
  np.lib.format.open_memmap(path, 'w+', np.float32, (4, 2000, 2000)).flush()
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match='7 matrices of 2000 x 2000 take 0.2'):
      processes.Tabulated(vocab_size=2000, matrices=str(path), max_gib=0.1)
    _, most = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  # One matrix alone is 16 MB.
  assert most < 2e6


def test_matrices_of_a_file(tmp_path):
  step = np.array([[0.75, 0.25], [0.25, 0.75]])
  np.save(tmp_path / 'steps.npy', [step] * 3)
  found = processes.Tabulated(2, str(tmp_path / 'steps.npy'))
  assert found == processes.Tabulated(2, [step] * 3)


def test_mutual_information_has_nothing_to_share_in_one_step():
  process = processes.Uniform(vocab_size=3)
  for steps in (0, 1):
    with pytest.raises(ValueError, match=f'at least 2 steps, not {steps}'):
      mutual_information.levels(process, [5, 3, 2], steps)
  assert len(mutual_information.levels(process, [5, 3, 2], 2)) == 3
