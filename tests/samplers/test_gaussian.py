"""Reverse steps of Gaussian noise: the reference's numbers, and exact laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian, partial
from sedd_jax.samplers import clamps, gaussian
from tests import golden_numbers

GOLDEN = golden_numbers.load('diffusion_lm')
STEP = jnp.asarray(GOLDEN['t'] + 1)
PROCESS = Gaussian.of(GaussianSteps(num_steps=20))


def close(found, expected, rtol=1e-5, atol=1e-5):
  np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def stepped(x_hat, x_t, step, noise, **how):
  mean, std = gaussian.step_law(x_hat, x_t, step, process=PROCESS, **how)
  return mean + std * noise


def golden_step(x_hat=GOLDEN['pred_xstart'], **how):
  return stepped(x_hat, GOLDEN['x_t'], STEP, GOLDEN['noise_sample'], **how)


def test_golden_steps():
  close(golden_step(), GOLDEN['p_sample'])
  close(golden_step(variance='large'), GOLDEN['p_sample_fixedlarge'])
  for eta in (0, 1):
    found = golden_step(method='ddim', eta=float(eta))
    close(found, GOLDEN[f'ddim_eta{eta}'])
  # What eta = 1 is.
  close(golden_step(method='ddim', eta=1.0), golden_step())


def test_golden_clamps():
  x_hat, table = GOLDEN['pred_xstart'], GOLDEN['embedding']
  close(
    -jnp.sqrt(clamps.squared_distances(x_hat, table)), GOLDEN['logits_mode2']
  )
  np.testing.assert_array_equal(
    clamps.nearest(x_hat, table), GOLDEN['clamp_ids']
  )
  close(clamps.clamped(x_hat, table), GOLDEN['clamped_xstart'])
  close(golden_step(clamps.clamped(x_hat, table)), GOLDEN['p_sample_clamp'])


def test_golden_anchored_steps():
  golden = golden_numbers.load('diffuseq')
  clean = golden['embedding'][golden['input_ids']]
  keep = golden['input_mask'] == 0

  def step(x_hat=golden['model_output'], **how):
    x = stepped(
      x_hat,
      golden['z_t_masked'],
      golden['t'] + 1,
      golden['noise_sample'],
      **how,
    )
    return partial.kept(clean, x, keep)

  close(step(variance='large'), golden['p_sample_anchored'])
  nearest = clamps.clamped(golden['model_output'], golden['embedding'])
  close(step(nearest, variance='large'), golden['p_sample_anchored_clamped'])
  close(step(method='ddim'), golden['ddim_onestep_anchored'])
  found = np.asarray(step(variance='large'))
  np.testing.assert_array_equal(found[keep], clean[keep])


@pytest.mark.parametrize('method', ['ancestral', 'ddim'])
def test_golden_start_and_a_chain_whose_source_never_moves(method):
  golden = golden_numbers.load('diffuseq')
  clean = golden['embedding'][golden['input_ids']]
  keep = golden['input_mask'] == 0

  def predict(x, step):
    inner = x @ golden['model_A'].T + golden['model_c'][None, None]
    return jnp.tanh(inner + step[:, None, None] / 20)

  path = np.asarray(
    gaussian.sample(
      predict,
      jax.random.key(0),
      clean.shape,
      process=PROCESS,
      steps=7,
      method=method,
      variance='large',
      clamp_fn=lambda x: clamps.clamped(x, golden['embedding']),
      vectors=clean,
      keep=keep,
      start=golden['noise_sample'],
      return_path=True,
    )
  )
  np.testing.assert_array_equal(path[0], golden['z_T_init'])
  assert len(path) == 8
  for state in path:
    np.testing.assert_array_equal(state[keep], clean[keep])
  assert np.all(np.any(path[1:] != path[:-1], -1)[:, ~keep])


def test_golden_ddim_over_four_steps():
  golden = golden_numbers.load('diffuseq')
  clean = golden['embedding'][golden['input_ids']]
  chain = PROCESS.respaced([16, 20])
  mean, _ = gaussian.step_law(
    golden['model_output'],
    golden['z_t_masked'],
    2,
    process=chain,
    method='ddim',
  )
  found = partial.kept(clean, mean, golden['input_mask'] == 0)
  close(found, golden['ddim_gap4_correct_t_last'])


# x̂_0 = .6 x + .3: every state is Gaussian, of a mean and variance known.
def linear(x, step):
  del step
  return 0.6 * x + 0.3


@pytest.mark.parametrize(
  'method, eta, variance, steps',
  [
    ('ancestral', 0.0, 'small', 20),
    ('ancestral', 0.0, 'small', 5),
    ('ancestral', 0.0, 'large', 5),
    ('ddim', 0.0, 'small', 7),
    ('ddim', 0.6, 'small', 20),
  ],
)
def test_draws_have_their_exact_law(method, eta, variance, steps):
  count, size = 4000, 5
  chain = PROCESS.respaced(np.rint(np.linspace(1, 20, steps)).astype(int))
  mean, spread = 0.0, 1.0
  table = chain.tables
  for t in reversed(range(1, steps + 1)):
    if method == 'ancestral':
      of_hat, of_x = table['of_x_0'][t], table['of_x_t'][t]
      kind = {'small': 'posterior', 'large': 'large'}[variance]
      drawn = np.exp(table[f'{kind}_log_variance'][t])
    else:
      drawn = eta**2 * table['posterior_variance'][t]
      of_x = np.sqrt(table['std'][t - 1] ** 2 - drawn) / table['std'][t]
      of_hat = table['signal'][t - 1] - of_x * table['signal'][t]
    slope = of_hat * 0.6 + of_x
    mean = slope * mean + of_hat * 0.3
    spread = slope**2 * spread + (drawn if t > 1 else 0)
  x = gaussian.sample(
    linear,
    jax.random.key(0),
    (count, 1, size),
    process=PROCESS,
    steps=steps,
    method=method,
    eta=eta,
    variance=variance,
  )
  x = np.asarray(x, np.float64).ravel()
  n = len(x)
  assert abs(x.mean() - mean) < 4 * np.sqrt(spread / n)
  assert abs(x.var() / spread - 1) < 4 * np.sqrt(2 / n)


def test_rows_depend_on_their_own_keys():
  keys = jax.vmap(jax.random.key)(jnp.array([3, 8, 5]))
  how = {'process': PROCESS, 'steps': 4, 'return_path': True}
  together = gaussian.sample(linear, keys, (3, 2, 4), **how)
  alone = gaussian.sample(linear, keys[1:2], (1, 2, 4), **how)
  assert together.shape == (5, 3, 2, 4)
  np.testing.assert_array_equal(together[:, 1], alone[:, 0])


def test_what_is_kept_stands_at_every_step():
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(2, 3, 4)).astype(np.float32)
  keep = np.array([[True, False, True], [False, False, True]])
  path = gaussian.sample(
    linear,
    jax.random.key(0),
    (2, 3, 4),
    process=PROCESS,
    steps=3,
    vectors=vectors,
    keep=keep,
    return_path=True,
  )
  for state in np.asarray(path):
    np.testing.assert_array_equal(state[keep], vectors[keep])


def test_clamps_from_a_step_noise_within_limits_and_adjustments():
  seen = []

  def predict(x, step):
    jax.debug.callback(lambda s: seen.append(int(s[0])), step, ordered=True)
    return jnp.full_like(x, 0.2)

  table = jnp.array([[0.0], [1.0]])
  path = gaussian.sample(
    predict,
    jax.random.key(1),
    (2, 50, 1),
    process=PROCESS,
    steps=3,
    clamp_fn=lambda x: clamps.clamped(x, table),
    clamp_from=11,
    noise_limit=0.1,
    adjust_fn=lambda x, mean, std, step: jnp.where(
      step[0] == 1, mean + 0.05 * std, x
    ),
    return_path=True,
  )
  jax.effects_barrier()
  assert seen == [20, 11, 1]
  chain = PROCESS.respaced([1, 11, 20])
  # At 20 the prediction is as it is, and the noise small.
  mean, std = gaussian.step_law(
    jnp.full((2, 50, 1), 0.2), path[0], 3, process=chain
  )
  off = np.asarray(jnp.abs(path[1] - mean) / std)
  assert off.max() <= 0.1 + 1e-5 and off.std() > 0.01
  # At 11 it is 0 and the draw adjusted, at 1 it is the result.
  mean, std = gaussian.step_law(
    jnp.zeros((2, 50, 1)), path[1], 2, process=chain
  )
  close(path[2], mean + 0.05 * std)
  np.testing.assert_array_equal(path[3], 0)


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'method': 'tweedie'}, "'tweedie': use ancestral, ddim"),
    ({'eta': 1.5}, 'eta must be from 0 to 1, not 1.5'),
    ({'variance': 'medium'}, 'use small, large'),
    ({'noise_limit': 0.0}, 'noise_limit must be above 0'),
    ({'steps': 21}, 'from 1 to the 20 of the chain, not 21'),
    ({'keep': np.ones((1, 2), bool)}, 'vectors and keep go together'),
    ({'start': np.zeros((2, 3))}, r'start has shape \(2, 3\)'),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(ValueError, match=told):
    gaussian.sample(
      linear, jax.random.key(0), (1, 2, 3), process=PROCESS, **changes
    )
