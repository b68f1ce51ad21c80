"""The likelihood bound against enumeration: exact at the true score."""

import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.systems.bounds import score_bound
from tests import enumerated

T_MIN = 1e-3
LOG_LINEAR = sj.noise_schedules.LogLinear(eps=1e-2)
GEOMETRIC = sj.noise_schedules.Geometric(sigma_min=1e-3, sigma_max=5.0)
CASES = [
  pytest.param('absorbing', LOG_LINEAR, 3, 2, id='absorbing-log_linear-3x2'),
  pytest.param('absorbing', LOG_LINEAR, 2, 3, id='absorbing-log_linear-2x3'),
  pytest.param('absorbing', GEOMETRIC, 3, 2, id='absorbing-geometric-3x2'),
  pytest.param('uniform', LOG_LINEAR, 3, 2, id='uniform-log_linear-3x2'),
  pytest.param('uniform', GEOMETRIC, 2, 3, id='uniform-geometric-2x3'),
  pytest.param('uniform', GEOMETRIC, 4, 1, id='uniform-geometric-4x1'),
]


@pytest.mark.parametrize('name, schedule, vocab_size, length', CASES)
class TestTrueScore:
  def test_the_terms_sum_to_minus_log_p(
    self, name, schedule, vocab_size, length, x64
  ):
    space = enumerated.Space(name, vocab_size, length, schedule)
    last = space.noising(space.sigma(1.0))
    marginal = space.data_law @ last
    with np.errstate(divide='ignore', invalid='ignore'):
      kl = np.where(last > 0, last * np.log(last / marginal), 0).sum(-1)
    total = space.diffusion(T_MIN) + kl + space.joint_reconstruction(T_MIN)
    np.testing.assert_allclose(total, -np.log(space.data_law), rtol=1e-6)

  def test_the_shipped_decoder_is_above_by_t_min_squared(
    self, name, schedule, vocab_size, length, x64
  ):
    space = enumerated.Space(name, vocab_size, length, schedule)
    times = np.array([0.02, 0.01, 0.005])
    # A decoder's mean cost is lowest for the true posterior.
    gaps = np.array(
      [
        space.data_law
        @ (space.reconstruction(t, 0.0) - space.joint_reconstruction(t))
        for t in times
      ]
    )
    if length == 1:
      np.testing.assert_allclose(gaps, 0, atol=1e-12)
      return
    assert np.all(gaps > 0)
    sigmas = np.array([space.sigma(t) for t in times])
    slope = np.polyfit(np.log(sigmas), np.log(gaps), 1)[0]
    assert slope == pytest.approx(2, abs=0.15)

  def test_delta_costs_what_is_stated(
    self, name, schedule, vocab_size, length, x64
  ):
    space = enumerated.Space(name, vocab_size, length, schedule)
    extra = space.reconstruction(T_MIN, 1e-6) - space.reconstruction(T_MIN, 0.0)
    assert np.all(extra <= 1.01e-6 * length)
    assert np.any(extra > 0)


@pytest.mark.parametrize('name, schedule, vocab_size, length', CASES)
def test_true_scores_meet_the_continuous_time_law(
  name, schedule, vocab_size, length, x64
):
  """All terms of the shipped bound at once: any that is off shows here.

  What is left is that the decoder takes the tokens at t_min one by one.
  """
  space = enumerated.Space(name, vocab_size, length, schedule)
  law = space.generative_law(T_MIN, 1e-6)
  slack = space.bound(T_MIN, 1e-6) + np.log(law)
  np.testing.assert_allclose(slack, 0, atol=1e-4)


@pytest.mark.parametrize('schedule', [LOG_LINEAR, GEOMETRIC])
def test_prior_of_absorbing_noise(schedule, x64):
  """-alpha_bar(1) log p_hat(x_0 | all masked), by hand."""
  process = sj.processes.Absorbing(vocab_size=3)
  probs = np.array([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])
  alpha_bar = float(np.exp(-schedule.total(1.0)))
  score = probs * alpha_bar / (1 - alpha_bar)
  log_score = np.log(np.concatenate([score, np.ones((2, 1))], -1))
  nats = score_bound.prior_nats(
    process, schedule, np.array([[2, 1]]), log_score[None]
  )
  np.testing.assert_allclose(nats, -alpha_bar * np.log([[0.3, 0.8]]), rtol=1e-9)


@pytest.mark.parametrize('schedule', [LOG_LINEAR, GEOMETRIC])
def test_prior_of_uniform_noise(schedule, x64):
  """KL(q(x_1 | x_0) || uniform), by hand."""
  process = sj.processes.Uniform(vocab_size=3)
  alpha_bar = float(np.exp(-schedule.total(1.0)))
  row = np.full(3, (1 - alpha_bar) / 3) + alpha_bar * np.eye(3)[1]
  nats = score_bound.prior_nats(process, schedule, np.array([[1]]))
  np.testing.assert_allclose(nats, [[np.sum(row * np.log(3 * row))]], rtol=1e-9)


@pytest.mark.parametrize('wrong', [0.3, 1.5])
@pytest.mark.parametrize('name, schedule, vocab_size, length', CASES)
def test_wrong_scores_bound_the_continuous_time_law(
  name, schedule, vocab_size, length, wrong, x64
):
  space = enumerated.Space(name, vocab_size, length, schedule, wrong=wrong)
  law = space.generative_law(T_MIN, 1e-6)
  np.testing.assert_allclose(law.sum(), 1, rtol=1e-9)
  slack = space.bound(T_MIN, 1e-6) + np.log(law)
  assert np.all(slack > -1e-6)
  # It is a bound and no equality: wrong scores pay for their error.
  assert np.max(slack) > 1e-3


@pytest.mark.parametrize('method', ['euler', 'tweedie'])
@pytest.mark.parametrize(
  'name, schedule', [('absorbing', LOG_LINEAR), ('uniform', LOG_LINEAR)]
)
def test_samplers_converge_to_the_law_that_is_bounded(
  name, schedule, method, x64
):
  space = enumerated.Space(name, 2, 2, schedule, wrong=0.5)
  t_min = 0.02
  limit = space.generative_law(t_min, 1e-6)
  steps = np.array([64, 128, 256])
  errors = [
    np.abs(space.sampler_law(k, method, t_min, 1e-6) - limit).sum()
    for k in steps
  ]
  slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
  # Of order 1 at least; Tweedie's first errors fall faster.
  assert -1.5 < slope < -0.85
  assert errors[-1] < 0.02
