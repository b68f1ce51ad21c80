"""The terms of the variational bound: the originals' numbers, exact truth."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax.losses import variational
from sedd_jax.noise_schedules import StepBetas
from tests import golden_numbers

step_nats = jax.jit(variational.step_nats)


@pytest.fixture(scope='module')
def multinomial():
  """The reference's arrays with symbols last: T = 10, B = 3, L = 6, K = 5."""
  golden = dict(golden_numbers.load('multinomial'))
  for name in ('model_logits', 'q_posterior', 'p_pred', 'q_pred'):
    golden[name] = golden[name].transpose(0, 1, 3, 2)
  return golden


@pytest.fixture
def chain(x64):
  """Process and levels 0, ..., T of that run."""
  schedule = StepBetas(num_steps=10, min_alpha=0.001**0.5)
  return sj.processes.Uniform(vocab_size=5), schedule.level(np.arange(11))


def test_golden_steps_of_multinomial_diffusion(multinomial, chain):
  process, level = chain
  x_0 = multinomial['x0']
  for t in range(10):
    x_t, logits = multinomial['xt'][t], multinomial['model_logits'][t]
    marginal = jnp.log(process.forward(x_0, 0.0, level[t + 1]))
    np.testing.assert_allclose(marginal, multinomial['q_pred'][t], atol=1e-4)
    truth = np.log(
      np.maximum(sj.posterior(process, x_t, x_0, level[t], level[t + 1]), 1e-30)
    )
    seen = multinomial['q_posterior'][t] > -60
    np.testing.assert_allclose(
      truth[seen], multinomial['q_posterior'][t][seen], atol=1e-4
    )
    model = sj.log_posterior(process, x_t, logits, level[t], level[t + 1])
    np.testing.assert_allclose(model, multinomial['p_pred'][t], atol=1e-4)
    nats = step_nats(logits, x_t, x_0, level[t], level[t + 1], process=process)
    np.testing.assert_allclose(
      nats.sum(-1), multinomial['Lt'][t], atol=1e-5, rtol=1e-5
    )


def test_golden_bound_of_multinomial_diffusion(multinomial, chain):
  """The whole bound, exactly in expectation over x_t, and the prior."""
  process, level = chain
  x_0 = jnp.asarray(multinomial['x0'])
  prior = process.prior_kl(x_0, level[10])
  np.testing.assert_allclose(
    prior.sum(-1), multinomial['kl_prior_f64'], rtol=1e-9
  )
  logits_of = multinomial['W'].astype(np.float64), multinomial['U']
  total = prior.sum(-1)
  for t in range(10):
    expected = 0.0
    weights = process.forward(x_0, 0.0, level[t + 1])
    for symbol in range(5):
      x_t = jnp.full_like(x_0, symbol)
      logits = logits_of[0][t, :, symbol] + logits_of[1]
      nats = step_nats(
        jnp.broadcast_to(logits, (*x_0.shape, 5)),
        x_t,
        x_0,
        level[t],
        level[t + 1],
        process=process,
      )
      expected += jnp.sum(weights[..., symbol] * nats, axis=-1)
    np.testing.assert_allclose(
      expected, multinomial['Lt_expected'][t], rtol=1e-6
    )
    total = total + expected
  np.testing.assert_allclose(total, multinomial['nll_expected'], rtol=1e-6)


def test_golden_decoder_of_the_paper(multinomial, x64):
  nats = variational.decoder_nats(
    multinomial['model_logits'][0], jnp.asarray(multinomial['x0'])
  )
  np.testing.assert_allclose(
    nats.sum(-1), multinomial['decoder_nll_paper'], rtol=1e-5
  )


def noise_of_d3pm(noise, golden):
  """The process and the levels after 0, ..., 10 steps."""
  if noise == 'uniform':
    schedule = StepBetas(num_steps=10)
    return sj.processes.Uniform(vocab_size=8), schedule.level(np.arange(11))
  if noise == 'absorbing':
    schedule = StepBetas(num_steps=10, betas='reciprocal', min_alpha=0.0)
    return sj.processes.Absorbing(vocab_size=7), schedule.level(np.arange(11))
  if noise == 'nn':
    # The reference's powers of the first exponent.
    finest = golden['mi_exponents'][0]
    process = sj.processes.NearestNeighbor(
      vocab_size=8, embeddings=golden['embeddings'], k=3, finest=finest
    )
    return process, finest * golden['mi_powers']
  if noise == 'gaussian':
    process = sj.processes.OrdinalGaussian(
      vocab_size=8, betas=golden['betas_gauss']
    )
    return process, np.arange(11.0)
  process = sj.processes.Band(
    vocab_size=8, betas=golden['betas_cosine_T10'], width=2
  )
  return process, np.arange(11.0)


@pytest.mark.parametrize(
  'noise', ['uniform', 'absorbing', 'gaussian', 'band', 'nn']
)
def test_golden_steps_of_d3pm(noise, x64):
  golden = golden_numbers.load('d3pm')
  process, level = noise_of_d3pm(noise, golden)
  states = jnp.arange(process.num_states)
  x_0 = jnp.asarray(golden['x0'])
  same = dict(rtol=1e-9, atol=1e-12)
  for t in range(1, 11):
    np.testing.assert_allclose(
      process.forward(states, level[t - 1], level[t]),
      golden[f'Q_{noise}'][t - 1],
      **same,
    )
    np.testing.assert_allclose(
      process.forward(states, 0.0, level[t]),
      golden[f'Qbar_{noise}'][t - 1],
      **same,
    )
    x_t = golden[f'{noise}_xt'][t - 1]
    logits = golden['x0_logits'][t - 1][:, : process.vocab_size]
    np.testing.assert_allclose(
      sj.posterior(process, x_t, x_0, level[t - 1], level[t]),
      golden[f'{noise}_posterior'][t - 1],
      **same,
    )
    model = jnp.exp(
      sj.log_posterior(process, x_t, logits, level[t - 1], level[t])
    )
    name = '_t1_times_likelihood' if t == 1 else ''
    expected = golden[f'{noise}_p_theta{name}']
    np.testing.assert_allclose(
      model, expected if t == 1 else expected[t - 1], **same
    )
    nats = step_nats(logits, x_t, x_0, level[t - 1], level[t], process=process)
    decoder = variational.decoder_nats(logits, x_0)
    np.testing.assert_allclose(
      decoder if t == 1 else nats, golden[f'{noise}_vb_nats'][t - 1], **same
    )
    np.testing.assert_allclose(
      decoder, golden[f'{noise}_ce_nats'][t - 1], **same
    )
    if noise == 'absorbing' and t == 1:
      np.testing.assert_allclose(nats, [5.139909, 0, 0, 0, 0, 0], atol=1e-6)
  if noise != 'absorbing':
    np.testing.assert_allclose(
      process.prior_kl(x_0, level[10]), golden[f'{noise}_prior_kl_nats'], **same
    )
  # Two steps at once.
  x_t = golden[f'{noise}_xt'][9]
  logits = golden['x0_logits'][9][:, : process.vocab_size]
  np.testing.assert_allclose(
    sj.posterior(process, x_t, x_0, level[8], level[10]),
    golden[f'{noise}_skip2_posterior'],
    **same,
  )
  np.testing.assert_allclose(
    jnp.exp(sj.log_posterior(process, x_t, logits, level[8], level[10])),
    golden[f'{noise}_skip2_p_theta'],
    **same,
  )


@pytest.mark.parametrize(
  'process', [sj.processes.Uniform(3), sj.processes.Absorbing(2)]
)
def test_the_best_network_costs_the_entropy_of_one_token(process, x64):
  """It predicts the law of x_0 itself, whatever x_t is.

  theta_post(x_t, x̂_0) weighs q(x_t | x_s) by x̂_0's law at s, and the true
  reverse step by that of the data; p(x_0 | x_t) in its place costs more.
  """
  law = np.array([0.5, 0.3, 0.2])[: process.vocab_size]
  law /= law.sum()
  schedule = StepBetas(num_steps=6, betas='reciprocal', min_alpha=0.0)
  level = schedule.level(np.arange(7))
  total = 0.0
  for t in range(1, 7):
    rows = np.asarray(
      process.forward(jnp.arange(process.vocab_size), 0.0, level[t])
    )
    joint = law[:, None] * rows
    for x_0, x_t in itertools.product(
      range(process.vocab_size), range(process.num_states)
    ):
      if joint[x_0, x_t] == 0:
        continue
      nats = step_nats(
        jnp.log(law)[None],
        jnp.array([x_t]),
        jnp.array([x_0]),
        level[t - 1],
        level[t],
        process=process,
      )
      total += joint[x_0, x_t] * float(nats[0])
  entropy = -np.sum(law * np.log(law))
  np.testing.assert_allclose(total, entropy, rtol=1e-9)


@pytest.mark.parametrize(
  'process', [sj.processes.Uniform(4), sj.processes.Absorbing(4)]
)
@pytest.mark.parametrize('t', [0.7, np.inf])
def test_gradients_are_finite_where_the_network_excludes_symbols(process, t):
  logits = jnp.array([[0.3, -jnp.inf, 1.0, -1.0]])
  x_0 = jnp.array([0])

  def nats(finite, x_t):
    masked = jnp.where(jnp.isneginf(logits), -jnp.inf, finite)
    return step_nats(masked, x_t, x_0, 0.2, t, process=process).sum()

  for symbol in (0, 2, process.num_states - 1):
    x_t = jnp.array([symbol])
    if np.asarray(process.forward(x_0, 0.0, t))[0, symbol] == 0:
      continue
    gradient = jax.grad(nats)(jnp.where(jnp.isneginf(logits), 0, logits), x_t)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_float32_follows_float64_over_a_thousand_steps():
  rng = np.random.default_rng(0)
  process = sj.processes.Uniform(vocab_size=27)
  schedule = StepBetas(num_steps=1000, min_alpha=0.001**0.5)
  logits = rng.normal(0, 3, (1000, 4, 27))
  x_0 = rng.integers(27, size=(1000, 4))

  def total(dtype):
    level = schedule.level(np.arange(1001))
    x_t = process.sample(
      jax.random.key(0), jnp.asarray(x_0, 'int32'), 0.0, level[1:, None]
    )
    return step_nats(
      jnp.asarray(logits, dtype),
      jnp.asarray(drawn, 'int32') if drawn is not None else x_t,
      jnp.asarray(x_0, 'int32'),
      level[:-1, None],
      level[1:, None],
      process=process,
    ), x_t

  drawn = None
  single, x_t = total('float32')
  drawn, single = np.asarray(x_t), np.asarray(single)
  with jax.enable_x64(True):
    exact = np.asarray(total('float64')[0])
  np.testing.assert_allclose(np.sum(single), np.sum(exact), rtol=1e-4)
  np.testing.assert_allclose(single, exact, rtol=2e-3, atol=1e-6)
