"""The public face: its names, its signatures, and every call on its shapes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj

BATCH, LENGTH, VOCAB, WIDTH = 3, 4, 5, 6

# Name to its arguments in order and the defaults that are promised.
REQUIRED = inspect.Parameter.empty
SIGNATURES = {
  'noise_schedules.LogLinear': {'eps': 1e-3},
  'noise_schedules.Geometric': {'sigma_min': 1e-4, 'sigma_max': 20.0},
  'processes.Absorbing': {'vocab_size': REQUIRED},
  'processes.Uniform': {'vocab_size': REQUIRED},
  'posterior': dict.fromkeys(('process', 'x_t', 'x_0', 's', 't'), REQUIRED),
  'log_posterior': dict.fromkeys(
    ('process', 'x_t', 'log_x_0', 's', 't'), REQUIRED
  ),
  'losses.score_entropy': dict.fromkeys(
    ('log_score', 'x_t', 'x_0', 'sigma', 'process'), REQUIRED
  ),
  'losses.dwdse': {
    **dict.fromkeys(
      ('score_fn', 'key', 'x_0', 'process', 'schedule'), REQUIRED
    ),
    't': None,
    't_min': 1e-3,
  },
  'losses.score_entropy_exact': dict.fromkeys(
    ('log_score', 'ratio', 'weight'), REQUIRED
  ),
  'losses.implicit_score_entropy': dict.fromkeys(
    ('score_fn', 'x', 'sigma', 'process'), REQUIRED
  ),
  'losses.score_entropy_from_features': {
    **dict.fromkeys(
      ('h', 'kernel', 'bias', 'x_t', 'x_0', 'sigma', 'process'), REQUIRED
    ),
    'scale_by_sigma': True,
    'chunk': 1024,
  },
  'processes.rates.forward_rate': dict.fromkeys(('process', 'x'), REQUIRED),
  'processes.rates.reverse_rate': dict.fromkeys(
    ('process', 'x_t', 'score'), REQUIRED
  ),
  'processes.rates.staggered_score': dict.fromkeys(
    ('process', 'score', 'dsigma'), REQUIRED
  ),
  'samplers.euler.transition_probs': dict.fromkeys(
    ('process', 'x_t', 'log_score', 'rate_dt'), REQUIRED
  ),
  'samplers.tweedie.transition_probs': dict.fromkeys(
    ('process', 'x_t', 'log_score', 'sigma_t', 'sigma_s'), REQUIRED
  ),
  'samplers.tweedie.denoise_probs': dict.fromkeys(
    ('process', 'x_t', 'log_score', 'sigma_t'), REQUIRED
  ),
  'samplers.tweedie.decoder_probs': {
    **dict.fromkeys(('process', 'x_t', 'log_score', 'sigma_t'), REQUIRED),
    'delta': 1e-6,
  },
  'samplers.reverse_probs': {
    **dict.fromkeys(
      ('process', 'schedule', 'x_t', 'log_score', 't', 's'), REQUIRED
    ),
    'method': 'tweedie',
  },
  'samplers.jump_probs': {
    **dict.fromkeys(
      ('process', 'schedule', 'x_t', 'log_score', 't', 's'), REQUIRED
    ),
    'method': 'tweedie',
  },
  'losses.sample_noisy': dict.fromkeys(
    ('keys', 'x_0', 'sigma', 'process'), REQUIRED
  ),
  'samplers.sample': {
    **dict.fromkeys(
      ('score_fn', 'key', 'shape', 'process', 'schedule'), REQUIRED
    ),
    'steps': 64,
    'method': 'tweedie',
    'tokens': None,
    'given': None,
    't_min': 1e-3,
    'grid': 'uniform',
  },
  'noise_schedules.StepBetas': {
    'num_steps': 1000,
    'betas': 'cosine',
    'first': 0.02,
    'last': 1.0,
    'min_alpha': 0.001,
  },
  'losses.variational.step_nats': dict.fromkeys(
    ('log_x_hat', 'x_t', 'x_0', 's', 't', 'process'), REQUIRED
  ),
  'losses.variational.decoder_nats': dict.fromkeys(
    ('log_x_hat', 'x_0'), REQUIRED
  ),
  'samplers.ancestral.sample': {
    **dict.fromkeys(
      ('logits_fn', 'key', 'shape', 'process', 'schedule'), REQUIRED
    ),
    'steps': None,
    'tokens': None,
    'given': None,
    'decoder': 'posterior',
  },
  'load_run': {'workdir': REQUIRED},
}
# Arguments that are promised by keyword only.
KEYWORDS = {'process', 'schedule', 'scale_by_sigma', 'chunk', 't', 't_min'} | {
  *('steps', 'method', 'tokens', 'given', 'grid', 'decoder')
}
METHODS = {
  'noise_schedules.LogLinear': ('total', 'rate', 'alpha_bar'),
  'noise_schedules.Geometric': ('total', 'rate', 'alpha_bar'),
  'noise_schedules.StepBetas': ('level',),
  **dict.fromkeys(
    ('processes.Absorbing', 'processes.Uniform'),
    ('forward', 'backward', 'sample', 'sample_prior', 'prior_kl'),
  ),
}


def named(name):
  found = sj
  for part in name.split('.'):
    found = getattr(found, part)
  return found


@pytest.mark.parametrize('name', SIGNATURES)
def test_signature(name):
  promised = SIGNATURES[name]
  parameters = inspect.signature(named(name)).parameters
  # More arguments may follow, with defaults.
  kept = [key for key in parameters if key in promised]
  assert kept == list(promised)
  for key, parameter in parameters.items():
    assert parameter.default == promised.get(key, parameter.default), key
    assert key in promised or parameter.default is not REQUIRED, key
  kernels = ('losses.s', 'losses.d', 'losses.i')
  if name.startswith((*kernels, 'samplers.sample', 'samplers.ancestral')):
    keyword_only = {
      key
      for key in promised
      if parameters[key].kind == inspect.Parameter.KEYWORD_ONLY
    }
    assert keyword_only == KEYWORDS & set(promised)


@pytest.mark.parametrize('name', METHODS)
def test_methods(name):
  assert all(callable(getattr(named(name), each)) for each in METHODS[name])


def test_all_is_there():
  assert set(sj.__all__) <= {*dir(sj), 'load_run'}
  with pytest.raises(AttributeError, match='nothing'):
    sj.nothing  # noqa: B018


@pytest.fixture(params=['absorbing', 'uniform'])
def pair(request):
  """A process and the schedule that goes with it."""
  if request.param == 'absorbing':
    process = sj.processes.Absorbing(vocab_size=VOCAB)
    return process, sj.noise_schedules.LogLinear(eps=1e-3)
  process = sj.processes.Uniform(vocab_size=VOCAB)
  return process, sj.noise_schedules.Geometric(sigma_min=1e-4, sigma_max=20.0)


@pytest.fixture
def arrays(pair):
  """x_0, x_t, log_score, sigma_s, sigma_t of a batch."""
  process, schedule = pair
  keys = jax.random.split(jax.random.key(0), 3)
  x_0 = jax.random.randint(keys[0], (BATCH, LENGTH), 0, VOCAB)
  t = jnp.array([0.3, 0.6, 0.9])
  sigma_s, sigma_t = schedule.total(t / 2), schedule.total(t)
  x_t = process.sample(keys[1], x_0, 0.0, sigma_t[:, None])
  shape = (BATCH, LENGTH, process.num_states)
  log_score = jax.random.normal(keys[2], shape)
  return x_0, x_t, log_score, sigma_s, sigma_t


def alike(function, *args):
  """`function(*args)`: eager, jitted, mapped over a new axis; compiled once."""
  eager = function(*args)
  compiled = jax.jit(function)
  sizes = []
  for _ in range(2):
    np.testing.assert_allclose(compiled(*args), eager, rtol=2e-5, atol=2e-6)
    sizes.append(compiled._cache_size())
  assert sizes[0] == sizes[1]
  doubled = jax.tree.map(lambda x: jnp.stack([x, x]), args)
  mapped = jax.jit(jax.vmap(function))(*doubled)
  np.testing.assert_allclose(mapped[1], eager, rtol=2e-5, atol=2e-6)
  return eager


def score_fn_of(process):
  """A score that reads its noisy tokens and its noise."""
  table = jax.random.normal(jax.random.key(7), (process.num_states,) * 2)
  table = jnp.where(jnp.eye(process.num_states, dtype=bool), 0, table)

  def score_fn(x_t, sigma):
    assert x_t.shape[:1] == sigma.shape and x_t.ndim == 2
    return table[x_t] * jnp.tanh(sigma)[:, None, None]

  return score_fn


def test_schedule(pair):
  _, schedule = pair
  t = jnp.array([0.1, 0.5, 1.0])
  for method in (schedule.total, schedule.rate, schedule.alpha_bar):
    assert alike(method, t).shape == (BATCH,)
  slope = jax.vmap(jax.grad(schedule.total))(t)
  np.testing.assert_allclose(slope, schedule.rate(t), rtol=1e-4)


def test_they_pass_through_jit_and_compare_by_value(pair):
  process, schedule = pair

  @jax.jit
  def prior(process, schedule):
    return process.prior_kl(jnp.zeros(2, jnp.int32), schedule.total(1.0))

  first = prior(process, schedule)
  same = (type(process)(vocab_size=VOCAB), type(schedule)())
  np.testing.assert_array_equal(prior(*same), first)
  assert prior._cache_size() == 1 and same == pair


def test_process(pair, arrays):
  process, _ = pair
  x_0, _, _, sigma_s, sigma_t = arrays
  draw = alike(
    lambda x: process.sample(jax.random.key(1), x, 0.0, sigma_t[:, None]), x_0
  )
  assert draw.shape == (BATCH, LENGTH) and draw.dtype == jnp.int32
  prior = process.sample_prior(jax.random.key(2), (BATCH, LENGTH))
  assert prior.shape == (BATCH, LENGTH) and prior.dtype == jnp.int32
  for kernel in (process.forward, process.backward):
    rows = alike(kernel, x_0, sigma_s[:, None], sigma_t[:, None])
    assert rows.shape == (BATCH, LENGTH, process.num_states)
  assert process.prior_kl(x_0, sigma_t[:, None]).shape == (BATCH, LENGTH)
  with pytest.raises(ValueError, match='stop has shape'):
    process.sample(jax.random.key(1), x_0, 0.0, sigma_t)


def test_posterior(pair, arrays):
  process, _ = pair
  x_0, x_t, _, sigma_s, sigma_t = arrays
  levels = sigma_s[:, None], sigma_t[:, None]

  def post(*args):
    return sj.posterior(process, *args)

  rows = alike(post, x_t, x_0, *levels)
  assert rows.shape == (BATCH, LENGTH, process.num_states)
  np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
  soft = jax.nn.softmax(jnp.ones((BATCH, LENGTH, VOCAB)))
  mixed = alike(post, x_t, soft, *levels)
  logs = sj.log_posterior(process, x_t, jnp.log(soft), *levels)
  np.testing.assert_allclose(jnp.exp(logs), mixed, rtol=1e-4, atol=1e-6)


def test_score_entropy(pair, arrays):
  process, _ = pair
  x_0, x_t, log_score, _, sigma = arrays

  def loss(log_score, x_t, x_0, sigma):
    return sj.losses.score_entropy(
      log_score, x_t, x_0, sigma[:, None], process=process
    )

  nats = alike(loss, log_score, x_t, x_0, sigma)
  assert nats.shape == (BATCH, LENGTH) and bool(jnp.all(nats >= 0))
  slope = jax.grad(lambda *a: loss(*a).sum())(log_score, x_t, x_0, sigma)
  assert slope.shape == log_score.shape and bool(jnp.any(slope != 0))


def test_score_entropy_from_features(pair, arrays):
  process, _ = pair
  x_0, x_t, _, _, sigma = arrays
  scales = sj.processes.base.has_mask(process)
  keys = jax.random.split(jax.random.key(3), 3)
  h = jax.random.normal(keys[0], (BATCH, LENGTH, WIDTH))
  kernel = jax.random.normal(keys[1], (WIDTH, process.num_states))
  bias = jax.random.normal(keys[2], (process.num_states,))

  def loss(h, kernel, bias):
    return sj.losses.score_entropy_from_features(
      h,
      kernel,
      bias,
      x_t,
      x_0,
      sigma[:, None],
      process=process,
      scale_by_sigma=scales,
      chunk=5,
    )

  nats = alike(loss, h, kernel, bias)
  log_score = h @ kernel + bias[None, None]
  if scales:
    level = jnp.log(jnp.expm1(sigma)) + jnp.log(process.num_states - 1)
    log_score = log_score - level[:, None, None]
  plain = sj.losses.score_entropy(
    log_score, x_t, x_0, sigma[:, None], process=process
  )
  np.testing.assert_allclose(nats, plain, rtol=1e-4, atol=1e-5)
  every = (0, 1, 2)
  slopes = jax.grad(lambda *a: loss(*a).sum(), every)(h, kernel, bias)
  assert [s.shape for s in slopes] == [h.shape, kernel.shape, bias.shape]
  # Differentiated from outside what compiles, maps, repeats or recomputes it.
  wrapped = {
    'jit': jax.jit(loss),
    'checkpoint': jax.checkpoint(loss),
    'vmap': lambda *a: jax.vmap(loss)(*(x[None] for x in a))[0],
    'map': lambda *a: jax.lax.map(
      lambda row: loss(*row), tuple(x[None] for x in a)
    )[0],
  }
  for name, function in wrapped.items():
    got = jax.grad(lambda *a: function(*a).sum(), every)(h, kernel, bias)  # noqa: B023
    for ours, theirs in zip(got, slopes):
      np.testing.assert_allclose(
        ours, theirs, rtol=1e-4, atol=1e-5, err_msg=name
      )


def test_dwdse(pair, arrays):
  process, schedule = pair
  x_0 = arrays[0]

  def loss(x_0, t=None):
    return sj.losses.dwdse(
      score_fn_of(process),
      jax.random.key(4),
      x_0,
      process=process,
      schedule=schedule,
      t=t,
      t_min=1e-3,
    )

  drawn = alike(loss, x_0)
  assert drawn.shape == (BATCH,)
  given = alike(loss, x_0, jnp.array([0.2, 0.5, 0.8]))
  assert given.shape == (BATCH,) and bool(jnp.any(given != drawn))


def test_exact_and_implicit(pair, arrays):
  process, _ = pair
  x_0, x_t, log_score, _, sigma = arrays
  ratio = jnp.exp(log_score + 0.1)
  weight = jnp.where(jax.nn.one_hot(x_t, process.num_states) > 0, 0.0, 0.5)
  exact = alike(sj.losses.score_entropy_exact, log_score, ratio, weight)
  assert exact.shape == (BATCH, LENGTH)
  s, r = jnp.exp(log_score), ratio
  terms = weight * (s - r * log_score + r * (jnp.log(r) - 1))
  np.testing.assert_allclose(exact, terms.sum(-1), rtol=1e-3, atol=1e-5)

  def implicit(x, sigma):
    return sj.losses.implicit_score_entropy(
      score_fn_of(process), x, sigma, process=process
    )

  assert alike(implicit, x_t, sigma).shape == (BATCH,)


def test_rates(pair, arrays):
  process, _ = pair
  _, x_t, log_score, _, _ = arrays
  rates = sj.processes.rates
  out = alike(lambda x: rates.forward_rate(process, x), x_t)
  back = alike(
    lambda x, s: rates.reverse_rate(process, x, s), x_t, jnp.exp(log_score)
  )
  moved = alike(
    lambda s: rates.staggered_score(process, s, jnp.full((BATCH, 1), 0.1)),
    jnp.exp(log_score),
  )
  assert out.shape == back.shape == moved.shape == log_score.shape
  np.testing.assert_allclose(out.sum(-1), 0, atol=1e-5)
  np.testing.assert_allclose(back.sum(-1), 0, atol=1e-4)


def test_steps(pair, arrays):
  process, _ = pair
  _, x_t, log_score, sigma_s, sigma_t = arrays
  samplers = sj.samplers
  euler = alike(
    lambda *a: samplers.euler.transition_probs(process, *a),
    x_t,
    log_score,
    jnp.full((BATCH, 1), 0.05),
  )
  tweedie = alike(
    lambda *a: samplers.tweedie.transition_probs(process, *a),
    x_t,
    log_score,
    sigma_t[:, None],
    sigma_s[:, None],
  )
  last = alike(
    lambda *a: samplers.tweedie.denoise_probs(process, *a),
    x_t,
    log_score,
    sigma_t[:, None],
  )
  assert euler.shape == tweedie.shape == log_score.shape
  assert last.shape == (BATCH, LENGTH, VOCAB)
  np.testing.assert_allclose(euler.sum(-1), 1, rtol=1e-4, atol=1e-5)


def test_the_own_entry_is_not_read(pair, arrays):
  """A network need not know that log p_t(x_t) / p_t(x_t) is 0."""
  process, schedule = pair
  x_0, x_t, log_score, sigma_s, sigma_t = arrays
  own = jax.nn.one_hot(x_t, process.num_states, dtype=bool)
  functions = {
    'loss': lambda s: sj.losses.score_entropy(
      s, x_t, x_0, sigma_t[:, None], process=process
    ),
    'euler': lambda s: sj.samplers.euler.transition_probs(
      process, x_t, s, 0.05
    ),
    'tweedie': lambda s: sj.samplers.tweedie.transition_probs(
      process, x_t, s, sigma_t[:, None], sigma_s[:, None]
    ),
    'decoder': lambda s: sj.samplers.tweedie.decoder_probs(
      process, x_t, s, sigma_t[:, None]
    ),
    'jump': lambda s: sj.samplers.jump_probs(
      process, schedule, x_t, s, 1.0, 0.9
    ),
  }
  for name, function in functions.items():
    right = function(jnp.where(own, 0, log_score))
    for other in (-jnp.inf, 3.0):
      got = function(jnp.where(own, other, log_score))
      np.testing.assert_array_equal(got, right, err_msg=name)


def test_half_precision_is_computed_in_single(pair, arrays):
  process, schedule = pair
  x_0, x_t, log_score, sigma_s, sigma_t = arrays
  narrow = log_score.astype(jnp.bfloat16)
  wide = narrow.astype(jnp.float32)
  sigma = sigma_t[:, None]
  samplers, rates = sj.samplers, sj.processes.rates
  functions = {
    'loss': lambda s: sj.losses.score_entropy(
      s, x_t, x_0, sigma, process=process
    ),
    'exact': lambda s: sj.losses.score_entropy_exact(
      s, jnp.ones(s.shape), jnp.ones(s.shape)
    ),
    'implicit': lambda s: sj.losses.implicit_score_entropy(
      lambda x, sigma: s, x_t, sigma_t, process=process
    ),
    'dwdse': lambda s: sj.losses.dwdse(
      lambda x, sigma: s,
      jax.random.key(0),
      x_0,
      process=process,
      schedule=schedule,
    ),
    'euler': lambda s: samplers.euler.transition_probs(process, x_t, s, 0.05),
    'tweedie': lambda s: samplers.tweedie.transition_probs(
      process, x_t, s, sigma, sigma_s[:, None]
    ),
    'denoise': lambda s: samplers.tweedie.denoise_probs(process, x_t, s, sigma),
    'staggered': lambda s: rates.staggered_score(process, s, 0.5),
    'reverse': lambda s: rates.reverse_rate(process, x_t, s),
  }
  for name, function in functions.items():
    got = function(narrow)
    assert got.dtype == jnp.float32, name
    np.testing.assert_array_equal(got, function(wide), err_msg=name)


@pytest.mark.parametrize('shape', [(0, 3), (2, 0)])
def test_nothing_in_nothing_out(pair, shape):
  process, schedule = pair
  tokens = jnp.zeros(shape, jnp.int32)
  log_score = jnp.zeros((*shape, process.num_states))
  level = jnp.ones((shape[0], 1))
  losses = sj.losses
  fn = score_fn_of(process)

  @jax.jit
  def results():
    return {
      'posterior': sj.posterior(process, tokens, tokens, 0.1, 0.2),
      'loss': losses.score_entropy(
        log_score, tokens, tokens, level, process=process
      ),
      'chunked': losses.score_entropy_from_features(
        jnp.zeros((*shape, WIDTH)),
        jnp.zeros((WIDTH, process.num_states)),
        jnp.zeros(process.num_states),
        tokens,
        tokens,
        level,
        process=process,
      ),
      'drawn': losses.dwdse(
        fn, jax.random.key(0), tokens, process=process, schedule=schedule
      ),
      'implicit': losses.implicit_score_entropy(
        fn, tokens, jnp.ones(shape[0]), process=process
      ),
      'sampled': sj.samplers.sample(
        fn,
        jax.random.key(1),
        shape,
        process=process,
        schedule=schedule,
        steps=2,
      ),
    }

  assert {name: x.shape for name, x in results().items()} == {
    'posterior': log_score.shape,
    'loss': shape,
    'chunked': shape,
    'drawn': shape[:1],
    'implicit': shape[:1],
    'sampled': shape,
  }


def test_prompts_are_checked(pair):
  process, schedule = pair

  def sample(tokens, given):
    return sj.samplers.sample(
      score_fn_of(process),
      jax.random.key(0),
      (1, 3),
      process=process,
      schedule=schedule,
      steps=2,
      tokens=tokens,
      given=given,
    )

  assert sample([[1, 2, 3]], [[True, True, False]])[0, :2].tolist() == [1, 2]
  with pytest.raises(ValueError, match='tokens must be integer'):
    sample([[1.5, 2.0, 3.0]], [[True, True, False]])
  with pytest.raises(ValueError, match='given token 9 .* 5 data symbols'):
    sample([[1, 9, 9]], [[True, True, False]])
  with pytest.raises(ValueError, match='given must be boolean'):
    sample([[1, 2, 3]], [[1, 1, 0]])


@pytest.mark.parametrize('method', ['tweedie', 'euler'])
@pytest.mark.parametrize('grid', ['uniform', 'reference'])
def test_sample(pair, method, grid):
  process, schedule = pair
  tokens = jnp.ones((BATCH, LENGTH), jnp.int32)
  given = jnp.zeros((BATCH, LENGTH), bool).at[:, 1].set(True)

  @jax.jit
  def sample(key):
    return sj.samplers.sample(
      score_fn_of(process),
      key,
      (BATCH, LENGTH),
      process=process,
      schedule=schedule,
      steps=3,
      method=method,
      grid=grid,
      tokens=tokens,
      given=given,
    )

  drawn = sample(jax.random.key(5))
  assert drawn.shape == (BATCH, LENGTH) and drawn.dtype == jnp.int32
  assert int(drawn.max()) < VOCAB and bool(jnp.all(drawn[:, 1] == 1))
