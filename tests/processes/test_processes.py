"""Every process: kernels, posterior and draws against exact truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import processes
from tests import golden_numbers, oracles

NAMED = [
  pytest.param(name, example, id=f'{name}-{i}')
  for name, process in processes.PROCESSES.items()
  for i, example in enumerate(process.examples())
]
EXAMPLES = [pytest.param(p.values[1], id=p.id) for p in NAMED]
RELAXING = [p for p in NAMED if isinstance(p.values[1], processes.Relaxing)]
LEVELS = [(0.0, 0.3), (0.2, 1.5), (0.7, 0.7), (1.0, np.inf), (np.inf, np.inf)]


def all_tokens(process):
  return jnp.arange(process.num_states)


def at(process, *levels):
  """Levels of a process: of a tabulated chain the steps that follow them."""
  if isinstance(process, processes.Tabulated):
    last = process.num_steps
    levels = [
      np.where(np.isinf(x), x, np.minimum(np.ceil(np.multiply(4, x)), last))
      for x in levels
    ]
    levels = [float(x) if x.ndim == 0 else x for x in levels]
  return levels if len(levels) > 1 else levels[0]


@jax.jit
def forward(process, x, start, stop):
  return process.forward(x, start, stop)


posterior = jax.jit(sj.posterior)
log_posterior = jax.jit(sj.log_posterior)


def dense(process, start, stop):
  # Compiled once a process, and not operation by operation.
  levels = map(jnp.asarray, at(process, start, stop))
  return np.array(forward(process, all_tokens(process), *levels))


@pytest.mark.parametrize('process', EXAMPLES)
class TestContract:
  @pytest.mark.parametrize('start, stop', LEVELS)
  def test_rows_sum_to_one(self, process, start, stop):
    np.testing.assert_allclose(dense(process, start, stop).sum(1), 1, rtol=1e-6)

  @pytest.mark.parametrize('level', [0.0, 0.4, np.inf])
  def test_no_step_is_the_identity(self, process, level):
    np.testing.assert_array_equal(
      dense(process, level, level), np.eye(process.num_states)
    )

  @pytest.mark.parametrize('start, stop', LEVELS)
  def test_backward_is_the_transpose(self, process, start, stop):
    backward = process.backward(all_tokens(process), *at(process, start, stop))
    np.testing.assert_allclose(
      np.array(backward).T, dense(process, start, stop), rtol=1e-6
    )

  def test_chapman_kolmogorov(self, process, x64):
    np.testing.assert_allclose(
      dense(process, 0.1, 0.5) @ dense(process, 0.5, 2.0),
      dense(process, 0.1, 2.0),
      rtol=1e-12,
    )

  def test_forward_mixes_for_a_distribution(self, process):
    weights = np.random.default_rng(0).dirichlet(
      np.ones(process.num_states), size=3
    )
    mixed = process.forward(
      jnp.asarray(weights, jnp.float32), 0.0, at(process, 0.5)
    )
    np.testing.assert_allclose(
      mixed, weights @ dense(process, 0.0, 0.5), rtol=1e-5, atol=1e-7
    )

  def test_distribution_over_data_symbols_alone(self, process):
    weights = jnp.ones((1, process.vocab_size)) / process.vocab_size
    rows = dense(process, 0.0, 0.5)[: process.vocab_size]
    np.testing.assert_allclose(
      process.forward(weights, 0.0, at(process, 0.5))[0],
      rows.mean(0),
      rtol=1e-6,
    )

  @pytest.mark.parametrize('s, t', [(0.0, 0.5), (0.2, 1.0), (0.5, np.inf)])
  def test_posterior_is_bayes(self, process, s, t, x64):
    n = process.num_states
    to_s, to_t = dense(process, 0.0, s), dense(process, s, t)
    x_0, x_t = np.meshgrid(np.arange(n), np.arange(n), indexing='ij')
    joint = to_s[x_0] * to_t[:, x_t].transpose(1, 2, 0)
    total = joint.sum(-1, keepdims=True)
    bayes = np.where(total > 0, joint / np.where(total > 0, total, 1), 0)
    got = posterior(
      process, jnp.asarray(x_t), jnp.asarray(x_0), *at(process, s, t)
    )
    np.testing.assert_allclose(got, bayes, rtol=1e-10, atol=1e-15)
    assert not np.any(np.isnan(got))

  def test_posterior_of_a_distribution(self, process, x64):
    n = process.num_states
    x_hat = np.random.default_rng(1).dirichlet(np.ones(process.vocab_size), n)
    x_t = np.arange(n)
    padded = np.pad(x_hat, [(0, 0), (0, n - process.vocab_size)])
    joint = padded @ dense(process, 0.0, 0.3)
    joint = joint * dense(process, 0.3, 0.9)[:, x_t].T
    joint = joint / joint.sum(-1, keepdims=True)
    got = posterior(
      process, jnp.asarray(x_t), jnp.asarray(x_hat), *at(process, 0.3, 0.9)
    )
    np.testing.assert_allclose(got, joint, rtol=1e-10)
    logits = jnp.log(x_hat) + 3.0
    log_got = log_posterior(
      process, jnp.asarray(x_t), logits, *at(process, 0.3, 0.9)
    )
    np.testing.assert_allclose(np.exp(log_got), joint, rtol=1e-10)

  def test_prior_is_the_limit(self, process):
    rows = dense(process, 0.0, np.inf)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape))
    draws = process.sample_prior(jax.random.key(0), (4000,))
    counts = np.bincount(draws, minlength=process.num_states)
    assert oracles.chi_square_pvalue(counts, rows[0]) > 1e-4

  @pytest.mark.parametrize('level', [0.01, 0.7, 5.0])
  def test_prior_kl(self, process, level, x64):
    rows = dense(process, 0.0, level)[: process.vocab_size]
    prior = dense(process, 0.0, np.inf)[0]
    with np.errstate(divide='ignore', invalid='ignore'):
      terms = np.where(rows > 0, rows * np.log(rows / prior), 0)
    x_0 = jnp.arange(process.vocab_size)
    np.testing.assert_allclose(
      process.prior_kl(x_0, at(process, level)), terms.sum(1), rtol=1e-9
    )
    one_hot = jnp.eye(process.vocab_size)
    np.testing.assert_allclose(
      process.prior_kl(one_hot, at(process, level)), terms.sum(1), rtol=1e-9
    )

  def test_samples_follow_the_law(self, process):
    draws = 20_000
    for symbol in range(process.num_states):
      x = jnp.full((draws,), symbol)
      key = jax.random.fold_in(jax.random.key(3), symbol)
      got = np.bincount(
        process.sample(key, x, *at(process, 0.2, 0.9)),
        minlength=process.num_states,
      )
      want = dense(process, 0.2, 0.9)[symbol]
      assert oracles.chi_square_pvalue(got, want) > 1e-4

  def test_level_per_token(self, process):
    x = jnp.zeros((2, 3), jnp.int32)
    levels = jnp.asarray(at(process, np.arange(6.0).reshape(2, 3)))
    rows = process.forward(x, 0.0, levels)
    for i, j in np.ndindex(2, 3):
      np.testing.assert_allclose(
        rows[i, j],
        process.forward(x, 0.0, float(levels[i, j]))[i, j],
        rtol=1e-6,
      )

  def test_level_of_lower_rank_is_an_error(self, process):
    x = jnp.zeros((2, 3), jnp.int32)
    with pytest.raises(ValueError, match=r'\[:, None\]'):
      process.forward(x, 0.0, jnp.ones(2))
    with pytest.raises(ValueError, match='does not broadcast'):
      process.sample(jax.random.key(0), x, 0.0, jnp.ones((2, 2)))

  def test_decreasing_levels_are_an_error(self, process):
    with pytest.raises(ValueError, match='must not decrease'):
      process.forward(jnp.zeros(1, jnp.int32), 2.0, 1.0)

  def test_floating_tokens_are_an_error(self, process):
    with pytest.raises(ValueError, match='integer'):
      process.backward(jnp.zeros(1), 0.0, 1.0)
    with pytest.raises(ValueError, match='last axis'):
      process.forward(jnp.zeros((1, 99)), 0.0, 1.0)

  def test_jit_vmap_and_eager_agree(self, process):
    x = jnp.zeros((2, 3), jnp.int32)
    sigma = jnp.asarray(at(process, np.array([[0.1], [0.9]])))
    eager = process.forward(x, 0.0, sigma)
    np.testing.assert_allclose(
      jax.jit(lambda p, x, s: p.forward(x, 0.0, s))(process, x, sigma),
      eager,
      rtol=1e-6,
    )
    mapped = jax.vmap(lambda x, s: process.forward(x, 0.0, s))(x, sigma)
    np.testing.assert_allclose(mapped, eager, rtol=1e-6)

  def test_tokens_are_int32(self, process):
    x = jnp.zeros((2, 3), jnp.int32)
    key = jax.random.key(0)
    assert process.sample(key, x, 0.0, 1.0).dtype == jnp.int32
    prior_key = jax.random.key(1)
    assert process.sample_prior(prior_key, (2,)).dtype == jnp.int32


@pytest.mark.parametrize('name, process', RELAXING)
class TestContinuousTime:
  @pytest.mark.parametrize('sigma', [1e-4, 0.3, 5.0])
  def test_kernel_is_the_matrix_exponential(self, name, process, sigma, x64):
    np.testing.assert_allclose(
      dense(process, 0.0, sigma),
      oracles.kernel(name, process.num_states, sigma),
      rtol=1e-11,
      atol=1e-15,
    )

  def test_rates(self, name, process):
    matrix = oracles.rate_matrix(name, process.num_states)
    tokens = all_tokens(process)
    np.testing.assert_allclose(
      processes.rates.forward_rate(process, tokens), matrix, atol=1e-7
    )
    np.testing.assert_allclose(
      processes.rates.backward_rate(process, tokens), matrix.T, atol=1e-7
    )


def test_uniform_prior_kl_in_float32_at_the_end_of_the_schedule():
  process = processes.Uniform(vocab_size=27)
  got = float(process.prior_kl(jnp.zeros((1,), jnp.int32), 20.0)[0])
  a = np.exp(-20.0)
  assert got == pytest.approx(a * a * 26 / 2, rel=1e-4)


def test_log_posterior_in_float32_at_tiny_steps():
  process = processes.Uniform(vocab_size=5)
  x_t = jnp.array([0])
  logits = jnp.array([[-40.0, 3.0, 1.0, 0.0, -2.0]])
  s, t = 1e-6, 2e-6
  got = sj.log_posterior(process, x_t, logits, s, t)
  with jax.enable_x64(True):
    want = sj.log_posterior(process, x_t, np.asarray(logits, float), s, t)
  np.testing.assert_allclose(got, want, rtol=2e-4)


@pytest.mark.parametrize('process', EXAMPLES)
def test_gradient_of_log_posterior_where_x_t_is_impossible(process):
  """A row of -inf that the caller masks out leaves no NaN in the others."""
  x_t = jnp.array([[0, 0]])

  def total(logits):
    start, stop = at(process, 0.5, 1.0)
    levels = jnp.array([[np.inf, stop]])
    logs = sj.log_posterior(process, x_t, logits, start, levels)
    wanted = jnp.isfinite(logs).at[:, 0].set(False)
    return jnp.sum(jnp.where(wanted, logs, 0))

  slope = jax.jit(jax.grad(total))(jnp.zeros((1, 2, process.vocab_size)))
  assert np.all(np.isfinite(slope))


@pytest.mark.parametrize('level', [80.0, 103.0, 1e4])
def test_absorbing_prior_kl_is_infinite_below_infinity(level):
  process = processes.Absorbing(vocab_size=3)
  x_0 = jnp.zeros((2,), jnp.int32)
  assert np.all(process.prior_kl(x_0, level) == np.inf)
  assert np.all(process.prior_kl(x_0, np.inf) == 0)


def test_staggered_score_in_float32_of_long_steps():
  """Of flat scores, which a step leaves as they are, however long it is."""
  flat = jnp.ones((1, 4))
  uniform = processes.Uniform(vocab_size=4)
  for dsigma in (5.0, 17.0, 20.0):
    got = processes.rates.staggered_score(uniform, flat, dsigma)
    np.testing.assert_allclose(got, flat, rtol=1e-6)
  # Of absorbing noise, nearly all reveal: what stays is a small remainder.
  absorbing = processes.Absorbing(vocab_size=4)
  sigma = 6.9078
  score = np.append(np.full(4, np.exp(-sigma) / 4 / -np.expm1(-sigma)), 1.0)
  for dsigma in (1.0, sigma - 1e-3):
    got = processes.rates.staggered_score(
      absorbing, jnp.asarray(score[None], jnp.float32), dsigma
    )[0, -1]
    want = np.expm1(-(sigma - dsigma)) / np.expm1(-sigma)
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_a_process_that_lacks_a_method_is_an_error():
  class Half(processes.TokenProcess):
    vocab_size = 2
    num_states = 2

    def forward(self, x, start, stop):
      return x

  with pytest.raises(TypeError, match='abstract'):
    Half()


def test_rates_need_a_relaxing_process():
  class Other:
    num_states = 2

  with pytest.raises(TypeError, match='Other has no rates'):
    processes.rates.forward_rate(Other(), jnp.zeros(1, jnp.int32))


def test_vocabularies_too_small():
  with pytest.raises(ValueError, match='vocab_size'):
    processes.Uniform(vocab_size=1)
  with pytest.raises(ValueError, match='vocab_size'):
    processes.Absorbing(vocab_size=0)


GOLDEN = [
  ('uniform', 6),
  ('uniform', 27),
  ('absorb', 6),
  ('absorb', 27),
]


@pytest.mark.parametrize('graph, vocab_size', GOLDEN)
def test_golden_graph(graph, vocab_size, x64):
  golden = golden_numbers.load('sedd_graph')
  process = golden_numbers.process(graph, vocab_size)
  prefix = f'{graph}_v{vocab_size}_'
  tokens = all_tokens(process)

  def close(got, name):
    return np.testing.assert_allclose(
      got, golden[prefix + name], rtol=1e-9, atol=1e-15
    )

  close(processes.rates.forward_rate(process, tokens), 'rate')
  close(processes.rates.backward_rate(process, tokens), 'transp_rate')
  x_t = jnp.asarray(golden[prefix + 'xt'])
  score = jnp.exp(golden[prefix + 'log_score'])
  close(processes.rates.reverse_rate(process, x_t, score), 'reverse_rate')
  sigmas = golden['sigmas'].tolist()

  def stacked(of):
    return np.stack([of(sigma) for sigma in sigmas])

  close(
    stacked(lambda s: process.backward(tokens, 0.0, s)), 'transp_transition'
  )
  close(stacked(lambda s: dense(process, 0.0, s)), 'transition_expm')
  if graph == 'uniform':
    close(stacked(lambda s: dense(process, 0.0, s)), 'transition')
  close(
    stacked(lambda s: processes.rates.staggered_score(process, score, s)),
    'staggered_score',
  )
