"""Diffusion-LM: the system whole, its bound, and the steps it trains on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.core import keys as keys_lib
from sedd_jax.losses import embedding, variational
from sedd_jax.models import EmbeddingBert
from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian
from sedd_jax.systems.bounds import (
  embedding_bound,
  loss_window,
  step_history,
  time_proposal,
)
from sedd_jax.systems.chains import embedding_chain
from tests import golden_numbers
from tests.linear_denoiser import Linear
from tests.systems import small


def config_of(**changes):
  fields = {'system.name': 'diffusion_lm', **embedding_chain.EXAMPLE}
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  return small.example_of({**fields, **changes})


NETWORK = EmbeddingBert(
  num_states=small.VOCAB,
  hidden_size=16,
  num_layers=1,
  num_heads=2,
  embedding_size=4,
  cond_size=8,
)
PROCESS = Gaussian.of(GaussianSteps(num_steps=6))


@pytest.mark.parametrize(
  'parametrization, loss_on',
  [('x0', 'target'), pytest.param('eps', 'all', marks=pytest.mark.slow)],
)
def test_the_loss_is_the_three_terms_of_its_draws(parametrization, loss_on):
  config = config_of()
  system = embedding_chain.make(
    config, small.INFO, parametrization=parametrization, loss_on=loss_on
  )
  params, aux = small.started(system)
  batch = small.batch_of(3)
  given = np.zeros((3, small.LENGTH), bool)
  given[:, :2] = True
  key = jax.random.key(5)
  found = jax.jit(system.loss)(params, aux, key, {**batch, 'given': given})

  def apply(*args, method=None):
    return NETWORK.apply({'params': params}, *args, method=method)

  keys = keys_lib.example_keys(key, batch['index'])
  u = jax.vmap(lambda k: jax.random.uniform(k))(jax.random.clone(keys))
  step = 1 + np.floor(np.asarray(u) * 6).astype(int)
  clean = apply(batch['tokens'], method='embedded')

  def normal(place):
    return jnp.stack(
      [jax.random.normal(k, (6, 4)) for k in keys_lib.folded(keys, place)]
    )

  noise = normal(2)
  x_0 = clean + PROCESS.tables['std'][1] * normal(0)
  x_t = PROCESS.noised(x_0, step, noise)
  x_t = np.where(given[..., None], x_0, x_t)
  output = apply(x_t, jnp.asarray((step - 1) * 1000 / 6, 'float32'))
  if parametrization == 'x0':
    squares = embedding.denoising(output, x_0, clean, step)
  else:
    squares = embedding.denoising_noise(
      output, noise, x_t, clean, step, process=PROCESS
    )
  each = {
    'squares': squares,
    'remaining': embedding.remaining(x_0, process=PROCESS),
    'rounding': variational.decoder_nats(
      apply(x_0, method='rounding'), batch['tokens']
    ),
  }
  counted = np.ones_like(given) if loss_on == 'all' else ~given
  np.testing.assert_allclose(
    found.nats, (sum(each.values()) * counted).sum(-1), rtol=1e-4
  )
  for name, nats in each.items():
    sums, weight = found.terms[name]
    np.testing.assert_allclose(
      sums, (nats * counted).sum(-1), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(weight, counted.sum(-1))
  np.testing.assert_array_equal(found.weight, counted.sum(-1))


def test_golden_importance_of_steps(x64):
  golden = golden_numbers.load('diffusion_lm')
  window = loss_window.LossWindow(
    jnp.asarray(golden['lsm_history']), jnp.full(6, 10)
  )
  p = loss_window.probs(window)
  np.testing.assert_allclose(p, golden['lsm_weights'], rtol=1e-9)
  u = (np.cumsum(p) - p / 2) / np.sum(p)
  step, weight = step_history.drawn(p, u)
  np.testing.assert_array_equal(step, np.arange(1, 7))
  np.testing.assert_allclose(
    weight / 6, golden['lsm_importance_weights'], rtol=1e-9
  )
  after = loss_window.updated(
    window, jnp.array([3, 6, 3]), jnp.array([9.0, 7.0, 8.0])
  )
  np.testing.assert_allclose(
    after.losses, golden['lsm_history_after'], rtol=1e-9
  )


def test_steps_are_alike_until_each_has_its_losses():
  window = loss_window.empty(2)
  for _ in range(9):
    window = loss_window.updated(
      window, jnp.array([1, 2]), jnp.array([3.0, 1.0])
    )
  np.testing.assert_array_equal(window.counts, 9)
  np.testing.assert_allclose(loss_window.probs(window), 0.5)
  np.testing.assert_array_equal(window.losses[0], [3.0] * 9 + [0.0])
  window = loss_window.updated(window, jnp.array([1, 2]), jnp.array([3.0, 1.0]))
  expected = np.array([0.75, 0.25]) * 0.999 + 0.0005
  np.testing.assert_allclose(loss_window.probs(window), expected, rtol=1e-5)


@pytest.mark.slow
def test_importance_leaves_the_mean_loss_as_it_is():
  system = small.made(config_of(system__args__importance=True))
  params, aux = small.started(system)
  batch = small.batch_of(4000)
  loss = jax.jit(system.loss)
  plain = loss(params, aux, jax.random.key(1), batch)
  np.testing.assert_allclose(aux['history'].counts, 0)
  skewed = loss_window.LossWindow(
    jnp.linspace(1, 4, 6)[:, None] * jnp.ones((6, 10)), jnp.full(6, 10)
  )
  aux = dict(aux, history=skewed)
  drawn = loss(params, aux, jax.random.key(2), batch)
  gap = np.asarray(drawn.nats - plain.nats, np.float64)
  assert abs(gap.mean()) < 4.5 * gap.std() / np.sqrt(len(gap))
  assert gap.std() / np.sqrt(len(gap)) < 0.05 * float(plain.nats.mean())
  shares = np.bincount(drawn.stats['step'], minlength=7)[1:] / 4000
  np.testing.assert_allclose(shares, loss_window.probs(skewed), atol=0.03)
  after = system.update_aux(aux, jax.tree.map(lambda x: x[:3], drawn.stats))
  assert not np.array_equal(after['history'].losses, skewed.losses)


@pytest.mark.parametrize(
  'variance', ['small', pytest.param('large', marks=pytest.mark.slow)]
)
def test_the_bound_is_the_exact_one_and_above_the_nll(variance):
  """Two tokens of a linear denoiser: twice the bound of one."""
  model = Linear(4, variance, seed=3)
  slope, offset = jnp.asarray(model.slope), jnp.asarray(model.offset)
  words, bias = model.words[None, None], model.bias[None, None]

  def predict(x_t, step):
    return slope[step][:, None, None] * x_t + offset[step][:, None, None]

  rows = 6000
  tokens = np.tile([[0, 2]], (rows, 1))
  clean = jnp.asarray(model.words)[tokens][..., None]

  @jax.jit
  def estimate(key):
    return embedding_bound.bound(
      predict,
      lambda x: x * words + bias,
      clean,
      key,
      x_0=jnp.asarray(tokens),
      index=jnp.arange(rows),
      counted=None,
      kept=None,
      points=3,
      times_by='stratified',
      process=model.process,
      proposal=time_proposal.empty(),
      variance=variance,
      released=False,
    )

  found = estimate(jax.random.key(0))
  nats = np.asarray(found.nats, np.float64)
  expected = model.bound(0) + model.bound(2)
  error = nats.std() / np.sqrt(rows)
  assert abs(nats.mean() - expected) < 4 * error
  assert error < 0.03 * expected
  nll = model.nll()
  assert nats.mean() - 4 * error > nll[0] + nll[2]


def request_of(config, **changes):
  fields = {
    'length': small.LENGTH,
    'seeds': [3, 4],
    'method': config.sampling.method,
    'steps': 4,
  }
  return systems.Request(**{**fields, **changes})


class Noise(EmbeddingBert):
  """The noise that x_t would have if x_0 were what the network predicts."""

  def __call__(self, x_t, time, *rest):
    x_0 = super().__call__(x_t, time, *rest)
    step = jnp.round(PROCESS.num_steps * time / 1000).astype(jnp.int32) + 1
    signal, std = (PROCESS.at(name, step, x_t) for name in ('signal', 'std'))
    return (x_t - signal * x_0) / std


@pytest.mark.parametrize(
  'method', ['ddim', pytest.param('ancestral', marks=pytest.mark.slow)]
)
def test_a_predicted_noise_is_a_predicted_x_0(method):
  """Both parametrisations give the same bound and the same samples."""
  config = config_of(schedule__num_steps=PROCESS.num_steps)
  config.sampling.method = method
  params, aux = small.started(small.made(config))
  config.system.args.parametrization = 'eps'
  blind = small.made(config)
  config.model.name = f'{Noise.__module__}:{Noise.__name__}'
  told = small.made(config)
  config.system.args.parametrization = 'x0'
  config.model.name = 'embedding_bert'
  plain = small.made(config)

  bounds, paths = [], []
  for system in (plain, told, blind):
    found = jax.jit(system.bound)(
      params, aux, jax.random.key(7), small.batch_of(3)
    )
    bounds.append(np.asarray(found.nats))
    request = request_of(config, steps=PROCESS.num_steps, record_path=True)
    paths.append(np.asarray(system.sample(params, aux, request).path))
  np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-4)
  np.testing.assert_array_equal(paths[0], paths[1])
  # The same outputs, read as the noise, are something else.
  assert np.all(np.abs(bounds[0] - bounds[2]) > 0.1 * bounds[0])


def test_options_reach_the_sampler_and_prompts_are_kept():
  config = config_of()
  system = small.made(config)
  params, aux = small.started(system)
  tokens = np.full((2, small.LENGTH), 5, np.int32)
  given = np.arange(small.LENGTH)[None].repeat(2, 0) % 2 == 0
  plain = request_of(config, tokens=tokens, given=given, batch_size=2)
  drawn = {}
  for options in ({}, {'clamp': 6, 'noise_limit': 0.01, 'variance': 'large'}):
    request = dataclasses.replace(plain, options=options)
    found = system.sample(params, aux, request).tokens
    assert np.all(found[given] == 5)
    drawn[str(options)] = found.tobytes()
  assert len(set(drawn.values())) == 2
  again = system.sample(params, aux, plain).tokens
  assert again.tobytes() == drawn['{}']


@pytest.mark.slow
def test_guides_control_what_is_free():
  config = config_of()
  system = small.made(config)
  params, aux = small.started(system)
  table = params['embedding'].at[3].mul(3.0)
  params = {**params, 'embedding': table}

  def near_three(x, step):
    assert x.shape == (2, small.LENGTH, 4) and step.shape == (2,)
    return -jnp.sum(jnp.square(x - table[3][None, None]), axis=(1, 2))

  tokens = np.full((2, small.LENGTH), 5, np.int32)
  given = np.arange(small.LENGTH)[None].repeat(2, 0) == 2
  request = request_of(
    config,
    tokens=tokens,
    given=given,
    guides=(near_three,),
    guidance_scale=10.0,
    batch_size=2,
    options={'control_steps': 60, 'control_rate': 0.2, 'control_until': 0},
  )
  found = system.sample(params, aux, request).tokens
  np.testing.assert_array_equal(found, np.where(given, 5, 3))


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'options': {'fluency': 0.1}}, "option 'fluency' is for guides"),
    (
      {'options': {'control_rate': 0.0}, 'guides': (lambda x, t: 0,)},
      'learning_rate above 0',
    ),
    ({'steps': 7}, 'from 1 to the 6 of the chain, not 7'),
    ({'start': np.zeros((2, 6), np.int32)}, 'a request has no start'),
    ({'options': {'eta': 2.0}}, 'eta must be from 0 to 1'),
    ({'options': {'variance': 'none'}}, 'use small, large'),
    ({'options': {'grid': 'reference'}}, 'must be uniform'),
    ({'options': {'top_p': 0.9}}, "unknown sampling option 'top_p'"),
    ({'conditions': [None, None]}, 'takes no conditions, but prompts'),
    ({'label': np.zeros(2, np.int32)}, 'takes no label'),
  ],
)
def test_requests_that_are_refused(changes, told):
  config = config_of()
  system = small.made(config)
  with pytest.raises(ValueError, match=told):
    system.check_request(request_of(config, **changes))


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'schedule__name': 'step_betas'}, 'diffusion_lm: use gaussian'),
    ({'schedule__args__law': 'sqr'}, "unknown law 'sqr'"),
    ({'schedule__args__law': 'linear'}, 'linear of 6 steps has betas up to'),
    ({'model__name': 'bert'}, 'diffusion_lm: use embedding_bert'),
    ({'sampling__method': 'euler'}, 'diffusion_lm: use ancestral, ddim'),
    ({'sampling__steps': 7}, 'sampling: steps must be from 1 to the 6'),
    ({'sampling__grid': 'reference'}, 'sampling: these steps are even'),
    ({'eval__protocol': 'sedd'}, 'use bound, diffusion_lm'),
    ({'eval__time_sampling': 'quadrature'}, 'takes stratified or importance'),
    ({'system__args__parametrization': 'v'}, "'v': use x0, eps"),
    ({'model__args__max_positions': 5}, 'data.seq_len 6 is more than the 5'),
  ],
)
def test_mistakes(changes, told):
  config = config_of(**changes)
  if changes.get('model__name') == 'bert':
    del config.model.args['embedding_size']
  with pytest.raises(ValueError, match=told):
    small.made(config)


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'model__name': 'embedding_bert'}, 'sedd: use bert, transformer'),
    ({'schedule__name': 'gaussian'}, 'sedd: use log_linear, geometric'),
  ],
)
def test_other_systems_take_no_vectors(changes, told):
  with pytest.raises(ValueError, match=told):
    small.made(small.config_of(**changes))


def test_other_loss_positions_are_refused():
  with pytest.raises(ValueError, match="loss_on 'source': use target, all"):
    embedding_chain.make(config_of(), small.INFO, loss_on='source')
