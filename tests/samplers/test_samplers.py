"""Samplers by their law and order, and the released code's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from tests import enumerated, golden_numbers, oracles

GOLDEN = [
  (graph, vocab_size)
  for graph in ('uniform', 'absorb')
  for vocab_size in (6, 27)
]
SCHEDULES = {
  'loglinear': sj.noise_schedules.LogLinear(),
  'geometric': sj.noise_schedules.Geometric(),
}
# Nearly all noise at t = 1 and nearly none at t_min, so that what is left is
# the error of the steps.
CLEAN = sj.noise_schedules.LogLinear(eps=1e-6)


@pytest.mark.parametrize('graph, vocab_size', GOLDEN)
@pytest.mark.parametrize('noise', SCHEDULES)
def test_golden_steps(graph, vocab_size, noise, x64):
  golden = golden_numbers.load('sedd_steps')
  prefix = f'{graph}_v{vocab_size}_'
  process, schedule = (
    golden_numbers.process(graph, vocab_size),
    SCHEDULES[noise],
  )
  x_t, log_score = golden[prefix + 'xt'], golden[prefix + 'log_score']
  t = golden['t'][:, None]

  def close(got, name):
    np.testing.assert_allclose(
      got, golden[f'{prefix}{noise}_{name}'], rtol=1e-9, atol=1e-14
    )

  for name, dt in (('euler', golden['dt']), ('euler_big', golden['big_dt'])):
    rate_dt = schedule.rate(t) * float(dt)
    close(
      sj.samplers.euler.transition_probs(process, x_t, log_score, rate_dt),
      name,
    )
  sigma, earlier = schedule.total(t), schedule.total(t - float(golden['dt']))
  tweedie = sj.samplers.tweedie
  close(
    tweedie.transition_probs(process, x_t, log_score, sigma, earlier),
    'analytic',
  )
  close(tweedie.denoise_probs(process, x_t, log_score, sigma), 'denoise_at_t')
  last = schedule.total(float(golden['denoise_t']))
  close(tweedie.denoise_probs(process, x_t, log_score, last), 'denoise')


def test_golden_race(x64):
  """The draw that replays the trajectories of tests/systems/test_sedd.py."""
  golden = golden_numbers.load('sedd_catsample')
  np.testing.assert_array_equal(
    golden_numbers.race(golden['probs'], golden['uniform']), golden['index']
  )


def table_score_fn(space, ts):
  """A score_fn that looks the exact scores of a space up, by sigma and x."""
  sigmas = jnp.asarray([space.sigma(float(t)) for t in ts])
  tables = jnp.asarray(np.stack([space.log_score(float(t)) for t in ts]))
  weights = jnp.asarray(space.num_states ** np.arange(space.length)[::-1])

  def score_fn(x_t, sigma):
    time = jnp.argmin(jnp.abs(sigmas - sigma[0]))
    place = jnp.sum(x_t * weights[None], axis=-1)
    return tables[time][place]

  return score_fn


def empirical(space, tokens):
  places = oracles.index_of(np.asarray(tokens), space.vocab_size)
  return np.bincount(places, minlength=space.vocab_size**space.length)


@pytest.mark.parametrize('name', ['absorbing', 'uniform'])
@pytest.mark.parametrize('method', ['euler', 'tweedie'])
@pytest.mark.parametrize('wrong', [0.0, 0.7])
def test_the_loop_follows_its_law(name, method, wrong):
  """Draws of the shipped loop against the law of its steps, multiplied out."""
  schedule = sj.noise_schedules.LogLinear(eps=0.1)
  space = enumerated.Space(name, 2, 2, schedule, wrong=wrong)
  steps, t_min = 4, 0.1
  ts = np.asarray(sj.samplers.time_grids.uniform(steps, t_min))
  with jax.enable_x64(True):
    law = space.sampler_law(steps, method, t_min, 1e-3)
  tokens = sj.samplers.sample(
    table_score_fn(space, ts),
    jax.random.key(0),
    (40_000, 2),
    process=space.process,
    schedule=schedule,
    steps=steps,
    method=method,
    t_min=t_min,
    delta=1e-3,
  )
  assert oracles.chi_square_pvalue(empirical(space, tokens), law) > 1e-4


@pytest.mark.parametrize('name', ['absorbing', 'uniform'])
@pytest.mark.parametrize('method', ['euler', 'tweedie'])
def test_order_of_convergence_at_the_true_score(name, method, x64):
  space = enumerated.Space(name, 3, 2, CLEAN)
  steps = np.array([32, 64, 128])
  errors = [
    np.abs(space.sampler_law(k, method, 1e-5, 0.0) - space.data_law).sum()
    for k in steps
  ]
  slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
  assert slope == pytest.approx(-1, abs=0.15)


@pytest.mark.parametrize('name', ['absorbing', 'uniform'])
@pytest.mark.parametrize('steps', [1, 2, 7])
def test_tweedie_is_exact_for_one_position(name, steps, x64):
  schedule = sj.noise_schedules.LogLinear(eps=1e-3)
  space = enumerated.Space(name, 4, 1, schedule)
  law = space.sampler_law(steps, 'tweedie', 1e-3, 0.0)
  # Uniform noise is not all gone at t = 1; absorbing noise jumps instead.
  gap = 0 if name == 'absorbing' else 2e-3
  np.testing.assert_allclose(law, space.data_law, atol=max(gap, 1e-12))


def test_correlated_pair():
  """x_1 = x_2 over 4 symbols: few steps break it, one step wholly."""
  space = enumerated.Space('absorbing', 4, 2, CLEAN)
  pair = np.eye(4).reshape(-1) / 4
  space.__dict__['data_law'] = pair
  with jax.enable_x64(True):
    for steps, nats in ((8, 1.485), (1, 2.773)):
      law = space.sampler_law(steps, 'tweedie', 1e-4, 0.0)
      assert -pair @ np.log(np.where(pair > 0, law, 1)) == pytest.approx(
        nats, abs=2e-3
      )


ABSORBING = sj.processes.Absorbing(vocab_size=5)
LOG_LINEAR = sj.noise_schedules.LogLinear()


def flat(x_t, sigma):
  em = jnp.expm1(sigma)[:, None, None]
  return jnp.broadcast_to(-jnp.log(5 * em), (*x_t.shape, 6))


draw = functools.partial(
  sj.samplers.sample, flat, process=ABSORBING, schedule=LOG_LINEAR
)


class TestLoop:
  def test_given_tokens_are_kept_and_the_rest_is_data(self):
    tokens = jnp.tile(jnp.array([[3, 0, 1, 0]]), (2, 1))
    given = jnp.tile(jnp.array([[True, False, True, False]]), (2, 1))
    path = draw(
      jax.random.key(0),
      (2, 4),
      steps=5,
      tokens=tokens,
      given=given,
      return_path=True,
    )
    assert path.shape == (7, 2, 4) and path.dtype == jnp.int32
    assert np.all(path[:, :, 0] == 3) and np.all(path[:, :, 2] == 1)
    assert np.all(path[-1] < 5)
    # A token once revealed stays.
    shown = np.asarray(path) != 5
    assert np.all(shown[1:] | ~shown[:-1])
    same = np.asarray(path)[1:] == np.asarray(path)[:-1]
    assert np.all(same | ~shown[:-1])

  def test_path_ends_in_the_result(self):
    path = draw(jax.random.key(1), (3, 4), steps=3, return_path=True)
    result = draw(jax.random.key(1), (3, 4), steps=3)
    np.testing.assert_array_equal(path[-1], result)

  def test_a_row_is_the_same_alone(self):
    keys = jax.random.split(jax.random.key(0), 3)
    together = draw(jax.random.clone(keys), (3, 6), steps=4)
    for i in range(3):
      alone = draw(jax.random.clone(keys)[i : i + 1], (1, 6), steps=4)
      np.testing.assert_array_equal(together[i], alone[0])

  def test_one_key_is_fold_in_of_the_row(self):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      jax.random.key(2), jnp.arange(3)
    )
    np.testing.assert_array_equal(
      draw(jax.random.key(2), (3, 6), steps=4), draw(keys, (3, 6), steps=4)
    )

  def test_steps_plus_one_calls_at_the_grid(self):
    sigmas = []

    def spy(x_t, sigma):
      jax.debug.callback(lambda s: sigmas.append(float(s[0])), sigma)
      return flat(x_t, sigma)

    jax.jit(
      lambda key: sj.samplers.sample(
        spy, key, (2, 3), process=ABSORBING, schedule=LOG_LINEAR, steps=4
      )
    )(jax.random.key(0)).block_until_ready()
    jax.effects_barrier()
    ts = np.linspace(1, 1e-3, 5)
    np.testing.assert_allclose(
      sorted(sigmas), np.sort(LOG_LINEAR.total(ts)), rtol=1e-5
    )

  def test_start_is_not_clamped(self):
    start = jnp.full((1, 4), 5).at[0, 0].set(2)
    path = draw(
      jax.random.key(0), (1, 4), steps=3, start=start, return_path=True
    )
    np.testing.assert_array_equal(path[0], start)
    assert np.all(path[-1] < 5)

  def test_one_compilation_under_jit(self):
    traces = []

    @functools.partial(jax.jit, static_argnames='shape')
    def sample(key, process, schedule, shape):
      traces.append(1)
      return sj.samplers.sample(
        flat, key, shape, process=process, schedule=schedule, steps=2
      )

    sample(jax.random.key(0), ABSORBING, LOG_LINEAR, (2, 3))
    sample(
      jax.random.key(1),
      sj.processes.Absorbing(vocab_size=5),
      sj.noise_schedules.LogLinear(),
      (2, 3),
    )
    assert len(traces) == 1

  @pytest.mark.parametrize(
    'changes, message',
    [
      ({'method': 'eular'}, "unknown method 'eular': use tweedie, euler"),
      ({'grid': 'log'}, "unknown grid 'log': use uniform, reference"),
      ({'steps': 0}, 'steps must be at least 1'),
      ({'t_min': 0.0}, 't_min must be in'),
      ({'tokens': jnp.zeros((2, 3), jnp.int32)}, 'go together'),
      (
        {
          'tokens': jnp.zeros((2, 4), jnp.int32),
          'given': jnp.zeros((2, 4), bool),
        },
        r'tokens has shape \(2, 4\)',
      ),
    ],
  )
  def test_errors(self, changes, message):
    with pytest.raises(ValueError, match=message):
      draw(jax.random.key(0), (2, 3), **changes)


class TestDecoder:
  def test_negative_probabilities_are_clipped_and_mixed(self):
    process = sj.processes.Uniform(vocab_size=3)
    log_score = jnp.log(jnp.array([[1.0, 1e-9, 1e-9]]))
    raw = sj.samplers.tweedie.denoise_probs(
      process, jnp.array([0]), log_score, 0.5
    )
    assert raw.min() < 0
    probs = sj.samplers.tweedie.decoder_probs(
      process, jnp.array([0]), log_score, 0.5, delta=0.3
    )
    np.testing.assert_allclose(probs, [[0.8, 0.1, 0.1]], rtol=1e-6)

  def test_visible_tokens_are_copied(self):
    probs = sj.samplers.tweedie.decoder_probs(
      ABSORBING, jnp.array([2, 5]), jnp.zeros((2, 6)), 0.5, delta=0.5
    )
    np.testing.assert_array_equal(probs[0], np.eye(5)[2])
    np.testing.assert_allclose(probs[1], 0.2, rtol=1e-6)
