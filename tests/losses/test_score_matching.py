"""Score entropy against the originals' numbers, float64 and enumeration."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

import sedd_jax as sj
from tests import golden_numbers

GOLDEN = [
  (graph, vocab_size, schedule)
  for graph in ('uniform', 'absorb')
  for vocab_size in (6, 27)
  for schedule in ('loglinear', 'geometric')
]


@pytest.mark.parametrize('graph, vocab_size, schedule', GOLDEN)
def test_golden_loss_and_gradient(graph, vocab_size, schedule, x64):
  golden = golden_numbers.load('sedd_loss')
  prefix = f'{graph}_v{vocab_size}_'
  process = golden_numbers.process(graph, vocab_size)
  sigma, dsigma = golden[f'{schedule}_sigma'], golden[f'{schedule}_dsigma']
  x_t, x_0 = golden[prefix + 'xt'], golden[prefix + 'x0']

  def loss(log_score):
    nats = sj.losses.score_entropy(
      log_score, x_t, x_0, sigma[:, None], process=process
    )
    return dsigma * jnp.sum(nats, axis=-1)

  log_score = jnp.asarray(golden[prefix + 'log_score'])
  np.testing.assert_allclose(
    loss(log_score), golden[f'{prefix}{schedule}_loss'], rtol=1e-7
  )
  gradient = jax.grad(lambda ls: jnp.mean(loss(ls)))(log_score)
  np.testing.assert_allclose(
    gradient,
    golden[f'{prefix}{schedule}_dloss_dlogscore'],
    rtol=1e-7,
    atol=1e-12,
  )


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
@pytest.mark.parametrize('vocab_size', [6, 27])
def test_golden_score_entropy(graph, vocab_size, x64):
  golden = golden_numbers.load('sedd_graph')
  prefix = f'{graph}_v{vocab_size}_'
  got = [
    sj.losses.score_entropy(
      golden[prefix + 'log_score'],
      golden[prefix + 'xt'],
      golden[prefix + 'x0'],
      float(sigma),
      process=golden_numbers.process(graph, vocab_size),
    )
    for sigma in golden['sigmas']
  ]
  np.testing.assert_allclose(
    np.stack(got), golden[prefix + 'score_entropy'], rtol=1e-7, atol=1e-12
  )


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
@pytest.mark.parametrize('sigma', [39.0, 41.0, 88.0, 95.0, np.inf])
def test_far_noise_in_float32(graph, sigma):
  """e^sigma overflows; the loss goes to its limit, its gradient to s - r."""
  process = golden_numbers.process(graph, 4)
  rng = np.random.default_rng(3)
  log_score = rng.normal(size=(2, process.num_states)).astype(np.float32)
  x_0 = np.array([0, 2])
  x_t = np.array([4, 4]) if graph == 'absorb' else np.array([1, 3])

  @jax.jit
  def total(log_score, sigma):
    return jnp.sum(
      sj.losses.score_entropy(log_score, x_t, x_0, sigma, process=process)
    )

  value, slope = jax.value_and_grad(total)(jnp.asarray(log_score), sigma)
  scores = np.exp(log_score.astype(np.float64))
  if graph == 'absorb':
    want, want_slope = scores[:, :4].sum(), scores * [1, 1, 1, 1, 0]
  else:
    # All ratios are 1.
    away = np.arange(4) != np.asarray(x_t)[:, None]
    want = (away * (scores - log_score - 1)).sum() / 4
    want_slope = away * (scores - 1) / 4
  np.testing.assert_allclose(value, want, rtol=1e-5)
  np.testing.assert_allclose(slope, want_slope, rtol=1e-5, atol=1e-6)
  by_sigma = jax.grad(total, argnums=1)(jnp.asarray(log_score), sigma)
  assert abs(float(by_sigma)) < 1e-5


def test_features_at_infinite_noise():
  """The scaled head says that all scores are 0, which costs nothing."""
  process = golden_numbers.process('absorb', 4)
  keys = jax.random.split(jax.random.key(0), 2)
  h = jax.random.normal(keys[0], (2, 3))
  kernel = jax.random.normal(keys[1], (3, 5))

  @jax.jit
  def total(kernel, sigma):
    return sj.losses.score_entropy_from_features(
      h,
      kernel,
      jnp.zeros(5),
      jnp.array([4, 4]),
      jnp.array([0, 1]),
      sigma,
      process=process,
    ).sum()

  for sigma in (95.0, np.inf):
    value, slope = jax.value_and_grad(total)(kernel, sigma)
    assert abs(float(value)) < 1e-15
    np.testing.assert_allclose(slope, 0, atol=1e-15)


def true_ratios(graph, num_states, x_t, x_0, sigma):
  """q(y | x_0) / q(x_t | x_0) and Q[y, x_t], float64 `[tokens, states]`."""
  rows = np.arange(len(x_t))
  em = np.expm1(sigma)
  if graph == 'absorb':
    ratio = np.zeros((len(x_t), num_states))
    ratio[rows, x_0] = 1 / em
    weight = np.where(x_t == num_states - 1, 1.0, 0.0)[:, None]
    weight = np.broadcast_to(weight, ratio.shape).copy()
  else:
    step = 1 + num_states / em
    ratio = np.where((x_t == x_0)[:, None], 1 / step, np.ones(num_states))
    ratio[rows, x_0] = np.where(x_t == x_0, 1.0, step)
    weight = np.full(ratio.shape, 1 / num_states)
  weight[rows, x_t] = 0
  return ratio, weight


def exact_terms(log_score, ratio, weight):
  """w (s - r log s + r (log r - 1)) entry by entry, stable in float64."""
  with np.errstate(divide='ignore', invalid='ignore'):
    u = log_score - np.log(ratio)
    excess = np.where(
      np.abs(u) < 1e-3, u * u / 2 * (1 + u / 3 + u * u / 12), np.expm1(u) - u
    )
    term = np.where(ratio > 0, ratio * excess, np.exp(log_score))
  return np.where(weight > 0, weight * term, 0)


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
@pytest.mark.parametrize('vocab_size', [27, 50_257, 65_536])
@pytest.mark.parametrize('spread', [0.0, 1e-3, 0.1, 2.0])
def test_float32_is_close_to_float64(graph, vocab_size, spread):
  """Within 1e-4 + 1e-6 and what two ulps of log_score do, never negative."""
  process = golden_numbers.process(graph, vocab_size)
  num_states = process.num_states
  rng = np.random.default_rng(7)
  sigmas = np.geomspace(1e-4, 20, 9).astype(np.float32)
  x_0 = rng.integers(vocab_size, size=(9, 2))
  x_t = x_0.copy()
  x_t[:, 1] = vocab_size if graph == 'absorb' else (x_0[:, 1] + 1) % vocab_size

  @jax.jit
  def loss_and_gradient(log_score, x_t, x_0, sigma):
    def total(log_score):
      loss = sj.losses.score_entropy(
        log_score, x_t, x_0, sigma, process=process
      )
      return jnp.sum(loss), loss

    gradient, loss = jax.grad(total, has_aux=True)(log_score)
    return loss, gradient

  for sigma, clean, noisy in zip(sigmas, x_0, x_t):
    ratio, weight = true_ratios(
      graph, num_states, noisy, clean, np.float64(sigma)
    )
    log_score = np.log(np.where(ratio > 0, ratio, 1e-6 / num_states))
    log_score = log_score + spread * rng.standard_normal(ratio.shape)
    log_score[np.arange(2), noisy] = 0
    log_score = log_score.astype(np.float32)
    loss, gradient = loss_and_gradient(log_score, noisy, clean, sigma)

    wide = log_score.astype(np.float64)
    two_ulps = 2 * np.spacing(np.abs(log_score)).astype(np.float64)
    terms = exact_terms(wide, ratio, weight)
    moved = np.maximum(
      exact_terms(wide + two_ulps, ratio, weight),
      exact_terms(wide - two_ulps, ratio, weight),
    )
    exact = terms.sum(-1)
    slack = (moved - terms).clip(0).sum(-1)
    error = np.abs(np.asarray(loss, np.float64) - exact)
    assert np.all(np.asarray(loss) >= 0)
    assert np.all(error <= 1e-4 * exact + 1e-6 + slack), (sigma, error, exact)

    exact_gradient = weight * (np.exp(wide) - ratio)
    slack = weight * np.exp(wide) * np.expm1(two_ulps)
    error = np.abs(np.asarray(gradient, np.float64) - exact_gradient)
    allowed = 1e-4 * np.abs(exact_gradient) + 1e-6 + slack
    assert np.all(error <= allowed), (sigma, (error - allowed).max())


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
def test_score_entropy_is_the_exact_form_at_the_conditional_ratios(graph, x64):
  process = golden_numbers.process(graph, 5)
  rng = np.random.default_rng(0)
  x_0 = rng.integers(5, size=12)
  x_t = rng.integers(process.num_states, size=12)
  if graph == 'absorb':
    x_t = np.where(x_t == 5, 5, x_0)
  log_score = rng.standard_normal((12, process.num_states))
  ratio, weight = true_ratios(graph, process.num_states, x_t, x_0, 0.7)
  np.testing.assert_allclose(
    sj.losses.score_entropy(log_score, x_t, x_0, 0.7, process=process),
    sj.losses.score_entropy_exact(log_score, ratio, weight),
    rtol=1e-10,
    atol=1e-14,
  )


def test_exact_form_is_the_printed_formula(x64):
  rng = np.random.default_rng(0)
  log_score = rng.standard_normal((3, 4))
  ratio, weight = rng.random((3, 4)) + 0.1, rng.random((3, 4))
  score = np.exp(log_score)
  formula = weight * (
    score - ratio * np.log(score) + ratio * (np.log(ratio) - 1)
  )
  np.testing.assert_allclose(
    sj.losses.score_entropy_exact(log_score, ratio, weight),
    formula.sum(-1),
    rtol=1e-12,
  )


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
@pytest.mark.parametrize('scale', [True, False])
@pytest.mark.parametrize('chunk', [1, 4, 7, 1000])
def test_chunked_head_is_the_plain_loss(graph, scale, chunk, x64):
  process = golden_numbers.process(graph, 11)
  n = process.num_states
  rng = np.random.default_rng(0)
  h = rng.standard_normal((2, 5, 3))
  kernel, bias = rng.standard_normal((3, n)), rng.standard_normal(n)
  x_0 = rng.integers(11, size=(2, 5))
  x_t = np.where(rng.random((2, 5)) < 0.5, n - 1, x_0)
  sigma = np.array([[0.2], [3.0]])

  def plain(h, kernel, bias):
    logits = h @ kernel + bias[None, None]
    if scale:
      logits = logits - (np.log(np.expm1(sigma)) + np.log(n - 1))[..., None]
    return sj.losses.score_entropy(logits, x_t, x_0, sigma, process=process)

  def chunked(h, kernel, bias):
    return sj.losses.score_entropy_from_features(
      h,
      kernel,
      bias,
      x_t,
      x_0,
      sigma,
      process=process,
      scale_by_sigma=scale,
      chunk=chunk,
    )

  chunked, plain = jax.jit(chunked), jax.jit(plain)
  args = tuple(map(jnp.asarray, (h, kernel, bias)))
  np.testing.assert_allclose(chunked(*args), plain(*args), rtol=1e-9)
  weights = rng.random((2, 5))

  def gradient(of):
    def total(*args):
      return jnp.sum(weights * of(*args))

    return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*args)

  for got, want in zip(gradient(chunked), gradient(plain)):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_loss_memory_at_the_papers_size(graph, dtype):
  """Value and gradient at 32 x 1024 tokens, V = 50,257: at most 1 GB."""
  process = golden_numbers.process(graph, 50_257)
  n = process.num_states
  abstract = jax.ShapeDtypeStruct

  def total(h, kernel, bias, x_t, x_0, sigma):
    return jnp.sum(
      sj.losses.score_entropy_from_features(
        h,
        kernel,
        bias,
        x_t,
        x_0,
        sigma,
        process=process,
        scale_by_sigma=graph == 'absorb',
      )
    )

  compiled = (
    jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    .lower(
      abstract((32, 1024, 768), dtype),
      abstract((768, n), jnp.float32),
      abstract((n,), jnp.float32),
      abstract((32, 1024), jnp.int32),
      abstract((32, 1024), jnp.int32),
      abstract((32, 1), jnp.float32),
    )
    .compile()
  )
  assert compiled.memory_analysis().temp_size_in_bytes <= 1e9


def test_dwdse_is_rate_times_the_sum():
  process = sj.processes.Absorbing(vocab_size=5)
  schedule = sj.noise_schedules.LogLinear()
  x_0 = jnp.asarray(np.random.default_rng(0).integers(5, size=(3, 4)))
  seen = {}

  def score_fn(x_t, sigma):
    seen['x_t'], seen['sigma'] = x_t, sigma
    return jnp.zeros((3, 4, 6))

  t = jnp.array([0.2, 0.5, 0.9])
  loss = sj.losses.dwdse(
    score_fn, jax.random.key(0), x_0, process=process, schedule=schedule, t=t
  )
  np.testing.assert_allclose(seen['sigma'], schedule.total(t))
  for i in range(3):
    key = jax.random.fold_in(jax.random.key(0), i)
    x_t = process.sample(key, x_0[i], 0.0, seen['sigma'][i])
    np.testing.assert_array_equal(seen['x_t'][i], x_t)
  nats = sj.losses.score_entropy(
    jnp.zeros((3, 4, 6)),
    seen['x_t'],
    x_0,
    seen['sigma'][:, None],
    process=process,
  )
  np.testing.assert_allclose(loss, schedule.rate(t) * nats.sum(-1), rtol=1e-6)


@pytest.mark.slow
def test_dwdse_draws_low_discrepancy_times_above_t_min():
  process = sj.processes.Uniform(vocab_size=5)
  schedule = sj.noise_schedules.Geometric()
  seen = {}

  def score_fn(x_t, sigma):
    seen['sigma'] = sigma
    return jnp.zeros((*x_t.shape, 5))

  sj.losses.dwdse(
    score_fn,
    jax.random.key(4),
    jnp.zeros((8, 2), jnp.int32),
    process=process,
    schedule=schedule,
    t_min=0.25,
  )
  t = np.sort(np.log(seen['sigma'] / 1e-4) / np.log(20 / 1e-4))
  assert t[0] >= 0.25 - 1e-6 and t[-1] <= 1
  np.testing.assert_allclose(np.diff(t), 0.75 / 8, atol=1e-4)


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
def test_dwdse_jit_vmap_grad_and_one_compilation(graph):
  process = golden_numbers.process(graph, 5)
  schedule = sj.noise_schedules.LogLinear()
  x_0 = jnp.zeros((2, 3), jnp.int32)
  traces = []

  @jax.jit
  def loss(scale, process, schedule, key):
    traces.append(1)

    def score_fn(x_t, sigma):
      return jnp.zeros((2, 3, process.num_states)) + scale

    return jnp.mean(
      sj.losses.dwdse(score_fn, key, x_0, process=process, schedule=schedule)
    )

  key = jax.random.key
  eager = loss.__wrapped__(0.5, process, schedule, key(0))
  traces.clear()
  np.testing.assert_allclose(
    loss(0.5, process, schedule, key(0)), eager, rtol=1e-5
  )
  loss(
    0.7,
    golden_numbers.process(graph, 5),
    sj.noise_schedules.LogLinear(),
    key(1),
  )
  assert len(traces) == 1
  mapped = jax.vmap(lambda k: loss(0.5, process, schedule, k))(
    jax.random.split(key(0), 4)
  )
  assert mapped.shape == (4,)
  assert np.isfinite(jax.grad(loss)(0.5, process, schedule, key(0)))


@pytest.mark.parametrize('graph', ['uniform', 'absorb'])
def test_derivatives_are_those_of_finite_differences(graph, x64):
  process = golden_numbers.process(graph, 4)
  rng = np.random.default_rng(0)
  x_0 = rng.integers(4, size=(2, 3))
  x_t = np.where(rng.random((2, 3)) < 0.5, process.num_states - 1, x_0)

  @jax.jit
  def total(log_score, sigma):
    return sj.losses.score_entropy(
      log_score, x_t, x_0, sigma, process=process
    ).sum()

  log_score = jnp.asarray(rng.standard_normal((2, 3, process.num_states)))
  jax.test_util.check_grads(
    total, (log_score, jnp.array([[0.3], [2.0]])), order=1, rtol=1e-6
  )


def test_gradient_is_finite_where_tokens_are_clean():
  process = sj.processes.Absorbing(vocab_size=3)
  x = jnp.array([[0, 1]])

  @jax.jit
  def total(log_score):
    return sj.losses.score_entropy(
      log_score, x, x, jnp.zeros((1, 1)), process=process
    ).sum()

  gradient = jax.grad(total)(jnp.full((1, 2, 4), 3.0))
  np.testing.assert_array_equal(gradient, 0)


class TestErrors:
  process = sj.processes.Absorbing(vocab_size=3)
  x = jnp.zeros((2, 4), jnp.int32)

  def call(self, **changes):
    args = {
      'log_score': jnp.zeros((2, 4, 4)),
      'x_t': self.x,
      'x_0': self.x,
      'sigma': 1.0,
      'process': self.process,
      **changes,
    }
    return sj.losses.score_entropy(**args)

  def test_sigma_of_lower_rank(self):
    with pytest.raises(ValueError, match=r'sigma\[:, None\]'):
      self.call(sigma=jnp.ones(2))

  def test_wrong_number_of_states(self):
    with pytest.raises(ValueError, match='log_score .* 4 entries'):
      self.call(log_score=jnp.zeros((2, 4, 3)))

  def test_other_tokens(self):
    with pytest.raises(ValueError, match='same tokens'):
      self.call(x_0=jnp.zeros((2, 5), jnp.int32))

  def test_process_without_weights(self):
    class Other(sj.processes.Relaxing):
      vocab_size, num_states = 3, 4
      sample = sample_prior = prior_kl = None

    with pytest.raises(TypeError, match='Other.*Absorbing, Uniform'):
      self.call(process=Other())

  def test_features_of_another_size(self):
    with pytest.raises(ValueError, match='kernel'):
      sj.losses.score_entropy_from_features(
        jnp.zeros((2, 4, 8)),
        jnp.zeros((7, 4)),
        jnp.zeros(4),
        self.x,
        self.x,
        1.0,
        process=self.process,
      )

  def test_two_ways_from_logits_to_scores(self):
    with pytest.raises(ValueError, match='scale_by_sigma must be False'):
      sj.losses.score_entropy_from_features(
        jnp.zeros((2, 4, 8)),
        jnp.zeros((8, self.process.num_states)),
        jnp.zeros(self.process.num_states),
        self.x,
        self.x,
        1.0,
        process=self.process,
        log_score_of=lambda logits, x_t, sigma: logits,
      )


def test_chunked_head_under_vmap_scan_and_jit():
  process = sj.processes.Absorbing(vocab_size=3)
  rng = np.random.default_rng(0)
  h = jnp.asarray(rng.standard_normal((3, 2, 4, 5)), jnp.float32)
  kernel = jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
  x_0 = jnp.zeros((3, 2, 4), jnp.int32)
  x_t = jnp.where(rng.random((3, 2, 4)) < 0.5, 3, x_0)
  sigma = jnp.full((3, 2, 1), 0.7)

  def total(kernel, h, x_t, x_0, sigma):
    return sj.losses.score_entropy_from_features(
      h, kernel, jnp.zeros(4), x_t, x_0, sigma, process=process, chunk=3
    ).sum()

  gradient = jax.grad(total)
  one_by_one = np.stack(
    [gradient(kernel, h[i], x_t[i], x_0[i], sigma[i]) for i in range(3)]
  )
  mapped = jax.jit(jax.vmap(gradient, (None, 0, 0, 0, 0)))
  np.testing.assert_allclose(
    mapped(kernel, h, x_t, x_0, sigma), one_by_one, rtol=1e-5, atol=1e-6
  )

  def add(sum_, inputs):
    return sum_ + gradient(kernel, *inputs), None

  summed, _ = jax.lax.scan(add, jnp.zeros_like(kernel), (h, x_t, x_0, sigma))
  np.testing.assert_allclose(summed, one_by_one.sum(0), rtol=1e-5, atol=1e-6)
  with pytest.raises(TypeError, match='does not differentiate sigma'):
    jax.grad(total, argnums=4)(kernel, h[0], x_t[0], x_0[0], sigma[0])
