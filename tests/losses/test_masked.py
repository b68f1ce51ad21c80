"""Masked diffusion: cross entropy, its weight, and the scores that it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.losses import masked

PROCESS = sj.processes.Absorbing(vocab_size=5)
SCHEDULES = [
  sj.noise_schedules.LogLinear(),
  sj.noise_schedules.Cosine(),
  sj.noise_schedules.Polynomial(power=3.0),
]


def batch():
  rng = np.random.default_rng(0)
  x_0 = rng.integers(5, size=(4, 6))
  x_t = np.where(rng.random((4, 6)) < 0.5, 5, x_0)
  logits = rng.normal(size=(4, 6, 6)).astype('float32')
  return jnp.asarray(logits), jnp.asarray(x_t), jnp.asarray(x_0)


def test_cross_entropy_is_of_the_masks_alone():
  logits, x_t, x_0 = batch()
  nats = masked.cross_entropy(logits, x_t, x_0, process=PROCESS)
  logs = jax.nn.log_softmax(logits[..., :5])
  for i, j in np.ndindex(4, 6):
    wanted = -logs[i, j, x_0[i, j]] if x_t[i, j] == 5 else 0
    np.testing.assert_allclose(nats[i, j], wanted, rtol=1e-6)
  # What is predicted of the mask, and where nothing is masked, has no effect.
  slope = jax.grad(
    lambda x: masked.cross_entropy(x, x_t, x_0, process=PROCESS).sum()
  )(logits)
  assert np.all(slope[..., 5] == 0) and np.all(slope[x_t != 5] == 0)


@pytest.mark.parametrize('chunk', [5, 24, 1000])
def test_in_chunks_it_is_the_same(chunk):
  _, x_t, x_0 = batch()
  rng = np.random.default_rng(1)
  h = jnp.asarray(rng.normal(size=(4, 6, 3)), jnp.float32)
  kernel, bias = (
    jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((3, 6), (6,))
  )

  def plain(h, kernel, bias):
    logits = h @ kernel + bias[None, None]
    return masked.cross_entropy(logits, x_t, x_0, process=PROCESS)

  def chunked(h, kernel, bias):
    return masked.cross_entropy_from_features(
      h, kernel, bias, x_t, x_0, process=PROCESS, chunk=chunk
    )

  np.testing.assert_allclose(
    chunked(h, kernel, bias), plain(h, kernel, bias), rtol=1e-5, atol=1e-6
  )
  slopes = [
    jax.grad(lambda *a, fn=fn: (fn(*a) ** 2).sum(), (0, 1, 2))(h, kernel, bias)
    for fn in (plain, chunked)
  ]
  for ours, theirs in zip(*slopes):
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_the_weight_is_the_rate_of_revealing(schedule, x64):
  t = jnp.array([0.01, 0.2, 0.5, 0.99])
  slope = jax.vmap(jax.grad(schedule.alpha_bar))(t)
  np.testing.assert_allclose(
    masked.weight(schedule, t), -slope / (1 - schedule.alpha_bar(t)), rtol=1e-9
  )


def test_the_weights_of_the_papers(x64):
  t = jnp.array([0.1, 0.5, 0.9])
  linear, cosine, cubic = (masked.weight(s, t) for s in SCHEDULES)
  np.testing.assert_allclose(linear, 1 / t, rtol=1e-12)
  # MD4 writes tan(pi/2 (1 - t)) pi/2.
  np.testing.assert_allclose(
    cosine, np.pi / 2 * np.tan(np.pi / 2 * (1 - t)), rtol=1e-9
  )
  np.testing.assert_allclose(cubic, 3 / t, rtol=1e-12)


def test_scores_and_predictions_are_one():
  logits, x_t, x_0 = batch()
  sigma = jnp.array([1e-3, 0.1, 2.0, 7.0])
  score = masked.log_score(logits[..., :5], x_t, sigma)
  np.testing.assert_array_equal(
    jnp.take_along_axis(score, x_t[..., None], -1)[..., 0], 0
  )
  back = masked.log_probs(score, sigma)
  hidden = np.asarray(x_t == 5)
  np.testing.assert_allclose(
    back[hidden], jax.nn.log_softmax(logits[..., :5])[hidden], atol=2e-6
  )
  # The ratios of the truth: p(x_0 = y) / (e^sigma - 1).
  np.testing.assert_allclose(
    jnp.exp(score[..., :5]).sum(-1)[hidden],
    np.broadcast_to(1 / np.expm1(sigma)[:, None], (4, 6))[hidden],
    rtol=1e-5,
  )
  # Score entropy is then the cross entropy by the same ratio.
  entropy = sj.losses.score_entropy(
    score, x_t, x_0, sigma[:, None], process=PROCESS
  )
  nats = masked.cross_entropy(logits, x_t, x_0, process=PROCESS)
  np.testing.assert_allclose(
    entropy * jnp.expm1(sigma)[:, None], nats, rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_the_objective_is_dwdse_of_the_scores(schedule):
  logits, _, x_0 = batch()

  def logits_fn(x_t, t):
    return logits[..., :5] * t[:, None, None]

  def score_fn(x_t, sigma):
    t = sj.noise_schedules.time_of(schedule, sigma)
    return masked.log_score(logits_fn(x_t, t), x_t, sigma)

  how = dict(process=PROCESS, schedule=schedule)
  ours = masked.masked_diffusion(logits_fn, jax.random.key(0), x_0, **how)
  theirs = sj.losses.dwdse(score_fn, jax.random.key(0), x_0, **how)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_mistakes():
  logits, x_t, x_0 = batch()
  with pytest.raises(ValueError, match='last axis must have 5 or 6'):
    masked.cross_entropy(logits[..., :4], x_t, x_0, process=PROCESS)
  with pytest.raises(ValueError, match='do not fit'):
    masked.cross_entropy(logits, x_t[:2], x_0, process=PROCESS)
  with pytest.raises(ValueError, match='t_min must be in'):
    masked.masked_diffusion(
      lambda x_t, t: logits,
      jax.random.key(0),
      x_0,
      process=PROCESS,
      schedule=SCHEDULES[0],
      t_min=0.0,
    )
