"""The ancestral sampler against the law of its chain, enumerated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.noise_schedules import StepBetas
from sedd_jax.samplers import ancestral, time_grids
from tests import enumerated_steps, oracles, tabulated_noise

COUNT = 20_000
PROCESSES = {
  'uniform': sj.processes.Uniform(vocab_size=3),
  'absorbing': sj.processes.Absorbing(vocab_size=2),
}


def chain_of(noise, schedule, seed=0, **how):
  if noise in tabulated_noise.CASES:
    return tabulated_noise.chain_of(noise, seed, **how)
  process = PROCESSES[noise]
  jump = ancestral.jumps_from_the_prior(process, schedule)
  return enumerated_steps.of(
    noise, schedule.betas_table(), process.vocab_size, 2, seed, jump, **how
  )


def drawn(table, key, process, schedule, shape, steps=None, **how):
  # The tables of a chain are arguments of the program, as in the systems.
  jump = ancestral.jumps_from_the_prior(process, schedule)

  @jax.jit
  def compiled(table, process, key):
    def logits_fn(x_t, step):
      place = x_t[:, 0] * process.num_states + x_t[:, 1]
      return jnp.log(table[step, place])

    return ancestral.sample(
      logits_fn,
      key,
      shape,
      process=process,
      schedule=schedule,
      steps=steps,
      jump=jump,
      **how,
    )

  return compiled(table, jax.tree.map(jnp.asarray, process), key)


OPEN_END = StepBetas(num_steps=4, min_alpha=0.2)
LAWS = {
  'cosine': (StepBetas(num_steps=4), None, {}),
  'open end': (OPEN_END, None, {}),
  'reciprocal': (
    StepBetas(num_steps=4, betas='reciprocal', min_alpha=0.0),
    None,
    {},
  ),
  'strided': (
    StepBetas(num_steps=7, betas='linear', min_alpha=0.05),
    3,
    {},
  ),
  'x0': (OPEN_END, None, {'decoder': 'x0'}),
  'direct': (OPEN_END, None, {'direct': True}),
}


def case_of(noise, case):
  """Process, schedule, steps, and further arguments."""
  if noise in tabulated_noise.CASES:
    steps = {'all': None, 'some': 3}[case]
    return *tabulated_noise.CASES[noise][:2], steps, {}
  return PROCESSES[noise], *LAWS[case]


@pytest.mark.parametrize(
  'noise, case',
  [
    *(
      (n, c)
      for n in PROCESSES
      for c in LAWS
      if (n, c) != ('absorbing', 'direct')
    ),
    *((n, 'all') for n in tabulated_noise.CASES),
    ('gaussian', 'some'),
    ('masked', 'some'),
  ],
)
def test_draws_have_the_law_of_the_chain(noise, case):
  """Also where alpha_bar_T is far from 0, and the mask's chain needs a jump."""
  process, schedule, steps, how = case_of(noise, case)
  chain = chain_of(noise, schedule, **how)
  grid = time_grids.strided(schedule.num_steps, steps or schedule.num_steps)
  law = chain.law(grid.tolist())
  assert law.sum() == pytest.approx(1)
  tokens = drawn(
    jnp.asarray(chain.x_hat, 'float32'),
    jax.random.key(1),
    process,
    schedule,
    (COUNT, 2),
    steps,
    **how,
  )
  places = oracles.index_of(np.asarray(tokens), chain.vocab_size)
  counts = np.bincount(places, minlength=len(law))
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  # The test would see a chain that is a little off.
  wrong = chain_of(noise, schedule, seed=1, **how).law(grid.tolist())
  assert oracles.chi_square_pvalue(counts, 0.85 * law + 0.15 * wrong) < 1e-4


def test_mistakes():
  def ask(**how):
    ancestral.sample(
      lambda x_t, step: jnp.zeros((1, 2, 3)),
      jax.random.key(0),
      (1, 2),
      process=PROCESSES['uniform'],
      schedule=OPEN_END,
      **how,
    )

  with pytest.raises(ValueError, match="decoder 'x1': use posterior, x0"):
    ask(decoder='x1')
  with pytest.raises(ValueError, match='one by one, not 3'):
    ask(direct=True, steps=3)


@pytest.mark.parametrize('noise', PROCESSES)
def test_path_and_prompt(noise):
  schedule = StepBetas(num_steps=5)
  process = PROCESSES[noise]
  chain = chain_of(noise, schedule)
  given = jnp.array([[True, False]] * 4)
  path = drawn(
    jnp.asarray(chain.x_hat, 'float32'),
    jax.random.key(0),
    process,
    schedule,
    (4, 2),
    return_path=True,
    tokens=jnp.ones((4, 2), jnp.int32),
    given=given,
  )
  assert path.shape == (5 + (noise == 'absorbing') + 1, 4, 2)
  assert np.all(path[:, :, 0] == 1)
  assert np.all(path[-1] < process.vocab_size)
  if noise == 'absorbing':
    assert np.all(path[0, :, 1] == process.mask)


def test_a_start_is_where_it_begins():
  start = jnp.array([[2, 1]])
  path = ancestral.sample(
    lambda x_t, step: jnp.zeros((1, 2, 3)),
    jax.random.key(0),
    (1, 2),
    process=PROCESSES['uniform'],
    schedule=OPEN_END,
    start=start,
    return_path=True,
  )
  np.testing.assert_array_equal(path[0], start)


def test_strided_grids():
  assert time_grids.strided(4, 4).tolist() == [4, 3, 2, 1, 0]
  grid = time_grids.strided(1000, 64)
  assert grid[0] == 1000 and grid[-1] == 0 and np.all(np.diff(grid) < 0)
  for steps in (0, 5):
    with pytest.raises(
      ValueError, match=f'1 to the 4 of the chain, not {steps}'
    ):
      time_grids.strided(4, steps)
