"""SEDD put together: trajectories, likelihoods, samples."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import systems
from sedd_jax.models import DiffusionTransformer, heads, pretrained
from sedd_jax.systems.bounds import score_bound, time_proposal
from tests import enumerated, golden_numbers
from tests.systems import small


@functools.cache
def made(**fields):
  return small.made(small.config_of(**fields))


@functools.cache
def params_of(**fields):
  return small.started(made(**fields))[0]


UNIFORM = {'process__name': 'uniform', 'schedule__name': 'geometric'}
NOISES = [pytest.param({}, id='absorb'), pytest.param(UNIFORM, id='uniform')]
X0 = {**UNIFORM, 'system__args__parametrization': 'x0'}


@pytest.mark.parametrize('graph', ['absorb', 'uniform'])
@pytest.mark.parametrize('run', ['analytic', 'euler', 'analytic_proj'])
def test_golden_trajectory(graph, run):
  """The released sampler's tokens at every step, its uniforms given."""
  golden = golden_numbers.load('sedd_trajectory')
  tensors = golden_numbers.load(f'sedd_model_{graph}')
  params, sizes = pretrained.from_state_dict(
    {k[3:]: v for k, v in tensors.items() if k.startswith('sd/')}
  )
  fields = ('num_states', 'hidden_size', 'num_layers', 'num_heads', 'cond_size')
  network = DiffusionTransformer(**{name: sizes[name] for name in fields})
  absorb = graph == 'absorb'
  vocab_size = sizes['num_states'] - absorb
  process = (sj.processes.Absorbing if absorb else sj.processes.Uniform)(
    vocab_size=vocab_size
  )
  schedule = (
    sj.noise_schedules.LogLinear() if absorb else sj.noise_schedules.Geometric()
  )
  prefix = f'{graph}_{run}_'
  of = {
    key.removeprefix(prefix): value
    for key, value in golden.items()
    if key.startswith(prefix)
    and not key.removeprefix(prefix).startswith('proj_')
  }
  steps = int(of['u'].shape[0])
  tokens = given = None
  if run == 'analytic_proj':
    places = of['locs']
    tokens = np.zeros(of['x_init'].shape, np.int32)
    given = np.zeros(of['x_init'].shape, bool)
    tokens[:, places], given[:, places] = of['ids'], True
  last = np.ones((*of['u'].shape[1:],), of['u'].dtype)
  last[..., : of['u_denoise'].shape[-1]] = of['u_denoise']
  uniforms = jnp.asarray(np.concatenate([of['u'], last[None]]))

  def draw(keys, weights, x_t, step):
    return golden_numbers.race(weights, uniforms[step])

  def score_fn(x_t, sigma):
    logits = network.apply({'params': params}, x_t, sigma)
    return heads.log_score(logits, x_t, sigma, absorb)

  path = sj.samplers.sample(
    score_fn,
    jax.random.key(0),
    of['x_init'].shape,
    process=process,
    schedule=schedule,
    steps=steps,
    method='euler' if run == 'euler' else 'tweedie',
    tokens=tokens,
    given=given,
    start=jnp.asarray(of['x_init']),
    grid='reference',
    return_path=True,
    draw_fn=draw,
  )
  np.testing.assert_array_equal(path[:-1], of['model_x'])
  final = of['final']
  if given is not None:
    # The released code does not clamp its last result; we do.
    final = np.where(given, tokens, final)
  np.testing.assert_array_equal(path[-1], final)


@pytest.mark.parametrize('noise', [*NOISES, pytest.param(X0, id='x0')])
def test_chunked_and_plain_loss_agree(noise):
  chunked, plain = (
    made(**noise, training__loss_chunk=chunk) for chunk in (4, 0)
  )
  params, batch = params_of(**noise), small.batch_of(3)

  def value(system):
    def mean(params):
      return jnp.mean(system.loss(params, (), jax.random.key(1), batch).nats)

    return jax.jit(jax.value_and_grad(mean))(params)

  (loss, gradient), (want, want_gradient) = value(chunked), value(plain)
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
    gradient,
    want_gradient,
  )


@pytest.mark.parametrize('protocol', ['bound', 'sedd'])
@pytest.mark.parametrize('noise', [*NOISES, pytest.param(X0, id='x0')])
def test_chunked_and_plain_bound_agree(noise, protocol):
  chunked, plain = (
    made(**noise, training__loss_chunk=chunk, eval__protocol=protocol)
    for chunk in (4, 0)
  )
  params, batch = params_of(**noise), small.batch_of(3)
  given = np.arange(small.LENGTH) < 2
  batch = batch | {'kept': np.broadcast_to(given, batch['tokens'].shape)}
  aux = chunked.init(jax.random.key(0))[1]

  def told(system):
    return jax.jit(system.bound)(params, aux, jax.random.key(1), batch)

  ours, theirs = told(chunked), told(plain)
  assert np.all(theirs.nats > 0)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
    (ours.nats, ours.weight, ours.terms),
    (theirs.nats, theirs.weight, theirs.terms),
  )


def test_loss_is_dwdse_of_the_network():
  """The system's draws are those its keys say, and the formula is dwdse's."""
  system = made(training__time_sampling='low_discrepancy')
  params, batch = params_of(), small.batch_of(4)
  loss = jax.jit(system.loss)(params, (), jax.random.key(5), batch)
  score_fn = system.score_fn(params, ())
  process = sj.processes.Absorbing(vocab_size=small.VOCAB)
  schedule = sj.noise_schedules.LogLinear()
  u = sj.core.times.low_discrepancy(
    jax.random.key(5), jnp.asarray(batch['index']), 4
  )
  t = 1e-3 + (1 - 1e-3) * u
  sigma = schedule.total(t)

  @jax.jit
  def nats_of(i, x_0):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), i), 0)
    x_t = process.sample(key, x_0, 0.0, sigma[i])[None]
    nats = sj.losses.score_entropy(
      score_fn(x_t, sigma[i][None]), x_t, x_0[None], sigma[i], process=process
    )
    return schedule.rate(t[i]) * nats.sum()

  for i in range(4):
    want = float(nats_of(i, batch['tokens'][i]))
    assert float(loss.nats[i]) == pytest.approx(want, rel=1e-4)
  np.testing.assert_array_equal(loss.weight, small.LENGTH)


@pytest.mark.slow
def test_without_valid_every_token_is():
  system, params, batch = made(), params_of(), small.batch_of(3)
  whole = {k: x for k, x in batch.items() if k != 'valid'}
  for of in (jax.jit(system.loss), jax.jit(system.bound)):
    got = of(params, (), jax.random.key(0), whole)
    want = of(params, (), jax.random.key(0), batch)
    np.testing.assert_allclose(got.nats, want.nats, rtol=1e-5)
    np.testing.assert_array_equal(got.weight, want.weight)


def test_fresh_absorbing_network_scores_log_v_per_token():
  """At zero output absorbing SEDD predicts the uniform law, in nats ln V.

  Uniform noise is not scaled to start there.
  """
  system = made()
  params, aux = jax.jit(system.init)(jax.random.key(0))
  batch = small.batch_of(2000)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(0), batch)
  mean = float(bound.nats.sum() / bound.weight.sum())
  assert mean == pytest.approx(math.log(small.VOCAB), rel=0.01)
  np.testing.assert_allclose(sum(bound.terms.values()), bound.nats, rtol=1e-5)


def test_training_sees_the_integrand_of_the_bound():
  changes = {**UNIFORM, 'eval__points': 1, 'training__time_sampling': 'iid'}
  system, params = made(**changes), params_of(**UNIFORM)
  batch, key = small.batch_of(20_000), jax.random.key(0)
  empty = time_proposal.empty()
  loss = jax.jit(system.loss)(params, empty, key, batch)
  bound = jax.jit(system.bound)(params, empty, key, batch)
  trained, evaluated = (
    np.asarray(time_proposal.density(system.update_aux(empty, of.stats)))
    for of in (loss, bound)
  )
  assert evaluated.max() > 2 * evaluated.min()
  np.testing.assert_allclose(trained, evaluated, rtol=0.2, atol=0.05)


# Seen of an integrand that grows, so that weights are far from 1.
SKEWED = time_proposal.updated(
  time_proposal.empty(), jnp.linspace(0, 0.99, 200), jnp.linspace(0, 9, 200)
)


@pytest.mark.parametrize(
  'name, wrong, times_by',
  [
    ('absorbing', 0.0, 'stratified'),
    ('uniform', 1.0, 'importance'),
    ('absorbing', 1.0, 'quadrature'),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (
        ('uniform', 0.0, 'stratified'),
        ('absorbing', 1.0, 'importance'),
        ('uniform', 1.0, 'quadrature'),
      )
    ),
  ],
)
def test_the_estimate_is_unbiased(name, wrong, times_by):
  """The Monte Carlo bound against its exact expectation, for every x_0."""
  schedule = sj.noise_schedules.LogLinear(eps=0.05)
  space = enumerated.Space(name, 2, 2, schedule, wrong=wrong)
  with jax.enable_x64(True):
    exact = space.bound(1e-2, 1e-6)
  score_fn = enumerated.score_fn(space)
  repeats = 4000
  x_0 = jnp.tile(jnp.asarray(space.data, jnp.int32), (repeats, 1))

  @jax.jit
  def estimate(key, x_0):
    return score_bound.bound(
      score_bound.whole(score_fn),
      key,
      x_0,
      process=space.process,
      schedule=schedule,
      points=6 if times_by == 'quadrature' else 4,
      times_by=times_by,
      proposal=SKEWED,
      t_min=1e-2,
    ).nats

  nats = np.asarray(estimate(jax.random.key(0), x_0), np.float64)
  nats = nats.reshape(repeats, -1)
  error = nats.std(0) / np.sqrt(repeats)
  assert np.all(np.abs(nats.mean(0) - exact) < 4.5 * error + 1e-4)
  assert np.all(error < 0.05 * exact)


def absorbing_nats(p_hat_fn, sample_fn, length, vocab_size):
  """Mean bound of absorbing noise for a network given as p̂(x_0 | x_t)."""
  process = sj.processes.Absorbing(vocab_size=vocab_size)
  schedule = sj.noise_schedules.LogLinear()

  def score_fn(x_t, sigma):
    p_hat = jnp.maximum(p_hat_fn(x_t), 1e-30)
    em = sj.core.numerics.log_expm1(sigma)[:, None, None]
    return jnp.pad(jnp.log(p_hat) - em, [(0, 0), (0, 0), (0, 1)])

  result = jax.jit(
    functools.partial(
      score_bound.bound,
      score_bound.whole(score_fn),
      process=process,
      schedule=schedule,
      points=16,
    )
  )(jax.random.key(0), sample_fn(4000, length))
  nats = np.asarray(result.nats, np.float64)
  return nats.mean(), nats.std() / np.sqrt(len(nats))


def test_an_independent_source_scores_its_entropy():
  probs = np.random.default_rng(3).dirichlet(np.ones(27))
  entropy = -(probs * np.log(probs)).sum()

  def sample_fn(rows, length):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.choice(27, size=(rows, length), p=probs))

  def p_hat_fn(x_t):
    return jnp.broadcast_to(jnp.asarray(probs), (*x_t.shape, 27))

  mean, error = absorbing_nats(p_hat_fn, sample_fn, 4, 27)
  assert error < 0.02 * 4 * entropy
  assert abs(mean - 4 * entropy) < 4 * error


def test_a_correlated_pair_scores_its_entropy_and_not_half():
  """x_1 = x_2 uniform over 27 symbols: 4.755 bits."""

  def sample_fn(rows, length):
    x = np.random.default_rng(0).integers(27, size=(rows, 1))
    return jnp.asarray(np.tile(x, (1, length)))

  def p_hat_fn(x_t):
    other = x_t[:, ::-1]
    known = jax.nn.one_hot(other, 27)
    return jnp.where((other == 27)[..., None], 1 / 27, known)

  mean, error = absorbing_nats(p_hat_fn, sample_fn, 2, 27)
  bits, error = mean / math.log(2), error / math.log(2)
  assert error < 0.05
  assert abs(bits - 4.755) < 4 * error + 0.002


@pytest.mark.parametrize('noise', ['Absorbing', 'Uniform'])
def test_given_tokens_are_told_and_not_counted(noise):
  """Of a pair whose first is given the other costs nothing, or ln 3."""
  process = getattr(sj.processes, noise)(vocab_size=3)
  schedule = (
    sj.noise_schedules.LogLinear()
    if noise == 'Absorbing'
    else sj.noise_schedules.Geometric()
  )
  x_0 = jnp.tile(jnp.arange(3)[:, None], (100, 2))
  kept = jnp.broadcast_to(jnp.array([True, False]), x_0.shape)

  def nats_of(told):
    def score_fn(x_t, sigma):
      first = x_t[:, :1]
      p_hat = jax.nn.one_hot(jnp.tile(first, (1, 2)), 3) if told else 1 / 3
      p_hat = jnp.broadcast_to(p_hat, (*x_t.shape, 3))
      em = jnp.expm1(sigma)[:, None, None]
      if noise == 'Absorbing':
        score = jnp.pad(p_hat / em, [(0, 0), (0, 0), (0, 1)])
      else:
        level = 1 + 3 / em * p_hat
        score = level / jnp.take_along_axis(level, x_t[..., None], axis=-1)
      # What is given has no noise.
      given = jnp.all(first == x_0[:, :1])
      return jnp.where(given, jnp.log(jnp.maximum(score, 1e-30)), jnp.nan)

    return score_bound.bound(
      score_bound.whole(score_fn),
      jax.random.key(0),
      x_0,
      kept=kept,
      process=process,
      schedule=schedule,
      points=8,
    )

  sure, open_ = nats_of(True), nats_of(False)
  assert sure.weight.tolist() == [1.0] * 300
  np.testing.assert_allclose(sure.nats, 0, atol=2e-3)
  error = np.std(open_.nats) / np.sqrt(300)
  assert abs(np.mean(open_.nats) - np.log(3)) < 4 * error + 2e-3


def test_a_prompt_with_blanks_is_kept():
  system, params = made(), params_of()
  tokens = np.tile(np.arange(small.LENGTH, dtype=np.int32), (3, 1))
  given = np.tile(np.arange(small.LENGTH) % 2 == 0, (3, 1))
  request = systems.Request(
    length=small.LENGTH, seeds=range(3), steps=4, tokens=tokens, given=given
  )
  drawn = system.sample(params, (), request)
  np.testing.assert_array_equal(drawn.tokens[given], tokens[given])
  with pytest.raises(ValueError, match=r"'tweedy': use tweedie, euler"):
    system.sample(params, (), dataclasses.replace(request, method='tweedy'))
  with pytest.raises(ValueError, match=r"option 'temp': .* takes grid"):
    system.sample(params, (), dataclasses.replace(request, options={'temp': 1}))


@pytest.mark.parametrize('noise', NOISES)
def test_weights_in_the_released_layout(noise, tmp_path):
  """Fine-tuning starts from them, and a wrong size is told by name."""
  system, params = made(**noise), params_of(**noise)
  sizes = {'num_heads': 2, 'scale_by_sigma': not noise, 'process': None}
  pretrained.save_sedd(tmp_path / 'weights', params, sizes)
  loaded = system.load_pretrained(tmp_path / 'weights')
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  other = made(**noise, model__hidden_size=32)
  with pytest.raises(ValueError, match=r'hidden_size = 16, .* 32'):
    other.load_pretrained(tmp_path / 'weights')


def test_a_process_without_scores_is_refused():
  config = small.config_of(process__name='tests.systems.other:Other')
  with pytest.raises(ValueError, match='has no scores'):
    small.made(config)


def untimed(**changes):
  return small.made(small.config_of(system__args__timed=False, **changes))


def test_a_network_that_is_not_told_the_noise():
  """Its scores at two levels differ by the known factor alone."""
  system = untimed()
  params, aux = small.started(system)
  score_fn = system.score_fn(params, aux)
  x_t = jnp.asarray([[0, small.VOCAB, 3, small.VOCAB, 1, 2]], jnp.int32)
  low, high = (score_fn(x_t, jnp.full(1, sigma)) for sigma in (0.2, 3.0))
  factor = np.log(np.expm1(3.0) / np.expm1(0.2))
  masked = np.asarray(x_t)[0] == small.VOCAB
  np.testing.assert_allclose(
    (low - high)[0, masked, : small.VOCAB], factor, rtol=1e-5
  )
  told = small.made(small.config_of())
  score_fn = told.score_fn(params, aux)
  low, high = (score_fn(x_t, jnp.full(1, sigma)) for sigma in (0.2, 3.0))
  assert np.ptp((low - high)[0, masked, : small.VOCAB]) > 1e-2


def test_cached_calls():
  """The same text for one row, with fewer calls than steps."""
  system = untimed()
  params, aux = small.started(system)
  plain = systems.Request(length=6, seeds=[0, 1], steps=40, batch_size=1)
  cached = dataclasses.replace(plain, options={'cached': True})
  ours, theirs = (system.sample(params, aux, r) for r in (cached, plain))
  np.testing.assert_array_equal(ours.tokens, theirs.tokens)
  # Six tokens are revealed at six steps at most; the first call sees masks.
  assert theirs.calls == 41 and 2 <= ours.calls <= 7
  for other, told in (
    (small.made(small.config_of()), 'the network is told the time'),
    (
      small.made(small.config_of(process__name='uniform')),
      'scores under uniform noise depend on its level',
    ),
  ):
    with pytest.raises(ValueError, match=f'sampling.cached: {told}'):
      other.check_request(cached)
  with pytest.raises(ValueError, match="unknown sampling option 'cached'"):
    system.check_request(dataclasses.replace(cached, method='first_hitting'))


def test_correctors_are_calls():
  system = untimed()
  params, aux = small.started(system)
  request = systems.Request(
    length=6, seeds=[0], steps=3, options={'corrector_steps': 2}
  )
  assert system.sample(params, aux, request).calls == 10
  wrong = dataclasses.replace(request, options={'corrector_steps': -1})
  with pytest.raises(ValueError, match='corrector_steps'):
    system.check_request(wrong)


def test_uniform_noise_must_be_told():
  with pytest.raises(ValueError, match='system.args.timed must be True'):
    untimed(process__name='uniform')


def test_x0_is_for_uniform_noise():
  with pytest.raises(ValueError, match='system.name=masked_diffusion'):
    small.made(small.config_of(system__args__parametrization='x0'))
  with pytest.raises(ValueError, match="unknown .*'x_0'; nearest: x0"):
    small.made(small.config_of(system__args__parametrization='x_0'))


def test_x0_has_no_released_layout():
  """Its logits are no scores, and their files do not say so."""
  system = made(**X0)
  assert system.load_pretrained is None and not system.tasks
