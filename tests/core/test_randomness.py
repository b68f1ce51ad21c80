"""Draws: their law at low probability, and what they depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sedd_jax.core import categorical, keys, times
from tests import oracles

RARE = 1 / 4096

# Of these many draws the time goes into drawing, not into compiling.
optimised = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 3,
    'xla_llvm_disable_expensive_passes': False,
  },
)
VOCABULARIES = [256, 50_257]


def weights_over(vocab_size):
  """Probabilities as uneven as a language model's."""
  rng = np.random.default_rng(vocab_size)
  return rng.dirichlet(np.full(vocab_size, 0.3)).astype(np.float32)


def binned(vocab_size, probs, bins=64):
  """Symbols to bins of about equal probability, for a chi-square."""
  order = np.argsort(probs)
  cumulative = np.cumsum(probs[order].astype(np.float64))
  place = np.empty(vocab_size, np.int64)
  place[order] = np.minimum(cumulative * bins, bins - 1).astype(np.int64)
  return place


def reveal_row(vocab_size):
  """A stay class of 1 - 1/4096 after the reveals of a vocabulary."""
  probs = weights_over(vocab_size)
  return np.append(probs * RARE, 1 - RARE).astype(np.float32)


@pytest.mark.parametrize('vocab_size', VOCABULARIES)
def test_whether_to_jump(vocab_size):
  leave, away = categorical.split_off_stay(
    jnp.asarray(reveal_row(vocab_size))[None], jnp.array([vocab_size])
  )
  assert leave[0] == pytest.approx(RARE, rel=1e-5)
  assert away[0, vocab_size] == 0
  count, calls = 2**22, 32

  @optimised
  def jumps(key, leave):
    drawn = categorical.bernoulli(key, leave, (count,))
    return jnp.sum(drawn, dtype=jnp.int32)

  got = sum(
    int(jumps(jax.random.fold_in(jax.random.key(0), i), leave))
    for i in range(calls)
  )
  assert abs(got / (calls * count * RARE) - 1) < 0.01
  assert scipy.stats.binomtest(got, calls * count, RARE).pvalue > 1e-3


@pytest.mark.parametrize(
  'vocab_size, draws', [(256, 100_000), (50_257, 20_000)]
)
def test_where_to_jump(vocab_size, draws):
  row = jnp.asarray(reveal_row(vocab_size)).at[vocab_size].set(0)
  rows = 1000

  @optimised
  def where(key):
    x = jnp.full((rows,), vocab_size)
    weights = jnp.broadcast_to(row, (rows, vocab_size + 1))
    return categorical.transition(key, weights, x)

  drawn = np.concatenate(
    [
      where(jax.random.fold_in(jax.random.key(2), i))
      for i in range(draws // rows)
    ]
  )
  assert drawn.max() < vocab_size
  probs = np.asarray(row[:vocab_size], np.float64)
  place = binned(vocab_size, probs / probs.sum())
  got = np.bincount(place[drawn], minlength=64)
  want = np.bincount(place, weights=probs, minlength=64)
  assert oracles.chi_square_pvalue(got, want) > 1e-3


def test_whole_draw_jumps_at_the_nominal_rate():
  rows, calls = 2**14, 60
  row = jnp.asarray(reveal_row(256))

  @optimised
  def jumps(key):
    x = jnp.full((rows,), 256)
    weights = jnp.broadcast_to(row, (rows, 257))
    return jnp.sum(categorical.transition(key, weights, x) != 256)

  jumped = sum(
    int(jumps(jax.random.fold_in(jax.random.key(1), i))) for i in range(calls)
  )
  assert scipy.stats.binomtest(jumped, rows * calls, RARE).pvalue > 1e-3


@pytest.mark.parametrize('n', [1, 2, 255, 256, 257, 1000])
def test_zero_weights_are_never_drawn(n):
  weights = np.random.default_rng(n).random((50, n)).astype(np.float32)
  weights[:, ::2] = 0
  if n == 1:
    weights[:] = 1
  for i in range(20):
    key = jax.random.fold_in(jax.random.key(5), i)
    index = np.asarray(categorical.categorical(key, jnp.asarray(weights)))
    assert np.all(index < n)
    assert np.all(np.take_along_axis(weights, index[:, None], 1) > 0)


def test_single_positive_weight_among_tiny_and_huge():
  weights = jnp.zeros((4, 600)).at[:, 599].set(1e-30)
  key = jax.random.key(0)
  np.testing.assert_array_equal(categorical.categorical(key, weights), 599)


def test_bernoulli_is_exact_at_the_ends():
  key = jax.random.key
  assert not categorical.bernoulli(key(0), jnp.float32(0), (10_000,)).any()
  assert categorical.bernoulli(key(1), jnp.float32(1), (10_000,)).all()


def test_transition_stays_or_must_leave():
  x = jnp.array([0, 1])
  weights = jnp.array([[1.0, 0, 0], [0.5, 0, 0.5]])
  draw = jax.jit(categorical.transition)
  for i in range(50):
    key = jax.random.fold_in(jax.random.key(2), i)
    got = draw(key, weights, x)
    assert got[0] == 0 and got[1] != 1


def test_a_row_depends_on_its_own_key_alone():
  weights = jnp.asarray(np.random.default_rng(0).random((3, 5, 300)))
  x = jnp.zeros((3, 5), jnp.int32)
  row_keys = keys.row_keys(jax.random.key(0), 3)
  together = categorical.transition(jax.random.clone(row_keys), weights, x)
  alone = categorical.transition(
    jax.random.clone(row_keys)[1], weights[1], x[1]
  )
  np.testing.assert_array_equal(together[1], alone)


def test_row_keys_errors():
  with pytest.raises(ValueError, match='typed keys'):
    keys.row_keys(jax.random.PRNGKey(0), 2)
  with pytest.raises(ValueError, match='one key or one a row'):
    keys.row_keys(jax.random.split(jax.random.key(0), 3), 2)


@pytest.mark.parametrize('name', times.TIMES)
def test_times_do_not_depend_on_the_split(name):
  draw = times.TIMES[name]
  whole = draw(jax.random.key(0), jnp.arange(8), 8)
  parts = [
    draw(jax.random.key(0), jnp.arange(i, i + 2), 8) for i in range(0, 8, 2)
  ]
  np.testing.assert_array_equal(whole, np.concatenate(parts))
  assert np.all((whole >= 0) & (whole < 1))


@pytest.mark.parametrize('name', times.TIMES)
def test_times_are_uniform_in_law(name):
  draw = times.TIMES[name]
  first = jax.vmap(lambda k: draw(k, jnp.arange(4), 4))(
    jax.random.split(jax.random.key(1), 2000)
  )
  for column in np.asarray(first).T:
    assert scipy.stats.kstest(column, 'uniform').pvalue > 1e-4


def test_low_discrepancy_is_evenly_spaced():
  t = times.low_discrepancy(jax.random.key(0), jnp.arange(8), 8)
  np.testing.assert_allclose(np.diff(np.sort(t)), 1 / 8, atol=1e-6)


def test_stratified_times():
  keys = jax.random.split(jax.random.key(0), 2000)
  t = np.asarray(times.stratified(keys, 4))
  np.testing.assert_array_equal(
    np.floor(t * 4), np.tile(np.arange(4), (2000, 1))
  )
  # One draw a sequence, uniform within the intervals.
  within = t * 4 - np.arange(4)
  np.testing.assert_allclose(within, within[:, :1].repeat(4, 1), atol=1e-6)
  assert scipy.stats.kstest(within[:, 0], 'uniform').pvalue > 1e-4
  given = times.stratified(None, 4, jnp.array([0.0, 0.25, 0.5]))
  np.testing.assert_allclose(given[:, 0], [0, 0.0625, 0.125])


@pytest.mark.parametrize('count', [1, 2, 6, 89, 300])
def test_spread_times(count):
  """One in each interval; over all starts each place is in every one."""
  draws = np.random.default_rng(0).random(count)
  for start in range(0, count, 7):
    t = times.spread(draws, start)
    np.testing.assert_array_equal(np.floor(np.sort(t) * count), range(count))
    assert np.floor(t[0] * count) == start
  last = [times.spread(draws, start)[-1] for start in range(count)]
  np.testing.assert_array_equal(np.floor(np.sort(last) * count), range(count))
  apart = np.abs(np.diff(times.spread(draws)))
  assert count < 20 or apart.min() > 0.3
  assert not len(times.spread(np.zeros(0)))
