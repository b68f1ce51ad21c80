"""Noise beyond uniform and absorbing, and what its matrices have to be.

Each case has a process, its schedule, and the matrices of its four steps, which
are written down here from the formulas, without the package.
"""

import numpy as np
import scipy.linalg

from sedd_jax import processes
from sedd_jax.noise_schedules import StepBetas, StepTable
from tests import enumerated_steps

BETAS = np.array([0.2, 0.5, 1.0, 2.0])
EXPONENTS = np.array([0.0, 0.3, 0.8, 1.5, np.inf])

# Angles in degrees: the nearest of 0 is 1, that of 1 is 0, that of 2 is 1.
ANGLES = np.radians([0, 10, 40])
EMBEDDINGS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
RATES = np.array([[-1.0, 1.0, 0.0], [1.0, -1.5, 0.5], [0.0, 0.5, -0.5]])

# Two symbols and a mask, of which some signal is left at the end.
MASKED = np.array([[0.6, 0.1, 0.3], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0]])


def _gaussian():
  steps = []
  for beta in BETAS:
    z = sum(np.exp(-4 * n**2 / (4 * beta)) for n in range(-2, 3))
    step = np.array(
      [
        [np.exp(-4 * (i - j) ** 2 / (4 * beta)) / z for j in range(3)]
        for i in range(3)
      ]
    )
    np.fill_diagonal(step, 0)
    steps.append(step + np.diag(1 - step.sum(1)))
  return np.array(steps)


def _neighbors():
  jumps = np.diff(EXPONENTS)[:-1]
  steps = [scipy.linalg.expm(jump * RATES) for jump in jumps]
  return np.array([*steps, np.full((3, 3), 1 / 3)])


def _mixed():
  betas = StepBetas(num_steps=4).betas_table()
  return enumerated_steps.relaxing(betas, np.array([0.3, 0.3, 0.4]))


EVEN, MASK = np.full(3, 1 / 3), np.array([0.0, 0.0, 1.0])
# Process, schedule, matrices, prior.
CASES = {
  'mixed': (
    processes.AbsorbingUniform(vocab_size=2, mask_share=0.4),
    StepBetas(num_steps=4),
    _mixed(),
    np.array([0.3, 0.3, 0.4]),
  ),
  'gaussian': (
    processes.OrdinalGaussian(vocab_size=3, betas=BETAS),
    StepTable.counted(4),
    _gaussian(),
    EVEN,
  ),
  'neighbors': (
    processes.NearestNeighbor(
      vocab_size=3, embeddings=EMBEDDINGS, k=1, finest=0.01
    ),
    StepTable(levels=EXPONENTS),
    _neighbors(),
    EVEN,
  ),
  'masked': (
    processes.Tabulated(vocab_size=2, matrices=[MASKED] * 4),
    StepTable.counted(4),
    np.array([MASKED] * 4),
    MASK,
  ),
}


def chain_of(name, seed=0, **how):
  """The enumerated chain of a case, of two tokens."""
  process, _, matrices, prior = CASES[name]
  jump = name == 'masked'
  return enumerated_steps.of_matrices(
    matrices, prior, process.vocab_size, 2, seed, jump, **how
  )
