"""Masked diffusion: its bound is SEDD's, its sampler's law is enumerated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import systems
from sedd_jax.losses import masked
from sedd_jax.models import heads
from sedd_jax.systems.bounds import masked_bound, score_bound
from tests import enumerated_steps, oracles
from tests.samplers import test_unmasking
from tests.systems import small


def system_of(**changes):
  fields = {'system__name': 'masked_diffusion', 'sampling__method': 'ancestral'}
  return small.made(small.config_of(**{**fields, **changes}))


def test_first_hitting_has_the_law_of_all_orders():
  """Of a network that is not told the time, read through its scores."""
  info = type('Info', (), {'vocab_size': 2})
  system = systems.make(
    small.config_of(
      system__name='masked_diffusion',
      sampling__method='first_hitting',
      data__seq_len=3,
    ),
    info,
  )
  params, aux = small.started(system)
  states = jnp.asarray(oracles.states(3, 3), jnp.int32)
  score = system.score_fn(params, aux)(states, jnp.ones(len(states)))
  table = jax.nn.softmax(score[..., :2])
  for steps, sizes in ((9, (1, 1, 1)), (2, (2, 1))):
    request = systems.Request(
      length=3, seeds=range(20_000), method='first_hitting', steps=steps
    )
    samples = system.sample(params, aux, request)
    assert samples.calls == min(steps, 3)
    test_unmasking.require_law(
      samples.tokens,
      test_unmasking.law_of(np.asarray(table, float), sizes),
      np.full(8, 1 / 8),
    )


@pytest.mark.parametrize('name', ['masked_diffusion', 'sedd'])
@pytest.mark.parametrize(
  'changes',
  [
    {'steps': small.LENGTH},
    {'steps': 4, 'options': {'top_p': 0.9}},
    {'steps': 4, 'options': {'prompt_scale': 2.0}},
  ],
)
def test_the_head_reads_what_is_revealed_alone(name, changes, monkeypatch):
  """And all of it where guidance combines its outputs; the draws are one."""
  widths = []
  logits = heads.logits

  def recorded(features, kernel, bias):
    widths.append(features.shape[1])
    return logits(features, kernel, bias)

  monkeypatch.setattr(heads, 'logits', recorded)
  given = np.arange(small.LENGTH) < 2
  request = systems.Request(
    length=small.LENGTH,
    seeds=range(5),
    method='first_hitting',
    tokens=np.ones((5, small.LENGTH), np.int32),
    given=np.tile(given, (5, 1)),
    **changes,
  )
  drawn = {}
  for chunk in (64, 0):
    system = system_of(
      system__name=name,
      sampling__method='first_hitting',
      training__loss_chunk=chunk,
    )
    params, aux = small.started(system)
    widths.clear()
    drawn[chunk] = system.sample(params, aux, request).tokens
    most = -(-small.LENGTH // changes['steps'])
    alone = chunk and 'prompt_scale' not in changes.get('options', {})
    assert set(widths) == {most if alone else small.LENGTH}
  np.testing.assert_array_equal(drawn[64], drawn[0])


@pytest.mark.parametrize(
  'schedule, timed',
  [('log_linear', False), ('cosine', True), ('polynomial', False)],
)
def test_the_bound_is_that_of_sedd_for_the_scores(schedule, timed):
  """The equivalence itself, term by term, on the same noise."""
  system = system_of(
    schedule__name=schedule, system__args__timed=timed, eval__points=3
  )
  params, aux = small.started(system)
  batch = small.batch_of(16)
  ours = jax.jit(system.bound)(params, aux, jax.random.key(0), batch)
  score_fn = system.score_fn(params, aux)
  theirs = jax.jit(
    lambda key, x_0: score_bound.bound(
      score_bound.whole(score_fn),
      key,
      x_0,
      process=sj.processes.Absorbing(vocab_size=small.VOCAB),
      schedule=sj.noise_schedules.SCHEDULES[schedule](),
      index=jnp.arange(16),
      points=3,
      delta=0.0,
    )
  )(jax.random.key(0), jnp.asarray(batch['tokens']))
  np.testing.assert_allclose(ours.nats, theirs.nats, rtol=1e-5)
  for name, nats in theirs.terms.items():
    np.testing.assert_allclose(
      ours.terms[name], nats, rtol=2e-5, atol=1e-5, err_msg=name
    )


def test_the_loss_is_unbiased_for_the_integral():
  system = system_of(
    training__time_sampling='iid', eval__points=4, training__loss_chunk=64
  )
  params, aux = small.started(system)
  batch = small.batch_of(4000)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(1), batch)
  # 1 / t is heavy at both ends of a few draws; the spread is told by them.
  gap = np.asarray(0.999 * loss.nats - bound.terms['diffusion'], np.float64)
  error = gap.std() / np.sqrt(len(gap))
  assert abs(gap.mean()) < 4.5 * error
  assert error < 0.05 * float(bound.nats.mean())


def test_the_papers_protocol_is_the_integral_alone():
  batch = small.batch_of(8)
  system = system_of()
  params, aux = small.started(system)
  whole = jax.jit(system.bound)(params, aux, jax.random.key(0), batch)
  short = jax.jit(system_of(eval__protocol='mdlm').bound)(
    params, aux, jax.random.key(0), batch
  )
  np.testing.assert_allclose(
    0.999 * short.nats, whole.terms['diffusion'], rtol=1e-6
  )


@pytest.mark.parametrize(
  'schedule',
  [pytest.param('log_linear', marks=pytest.mark.slow), 'polynomial'],
)
def test_draws_have_the_law_of_the_chain(schedule):
  """Of a network on two tokens of two symbols, by enumeration."""
  info = type('Info', (), {'vocab_size': 2})
  config = small.config_of(
    system__name='masked_diffusion',
    sampling__method='ancestral',
    schedule__name=schedule,
    system__args__timed=True,
    data__seq_len=2,
  )
  system = systems.make(config, info)
  params, aux = small.started(system)
  steps, count = 3, 20_000
  request = systems.Request(
    length=2, seeds=range(count), method='ancestral', steps=steps
  )
  tokens = system.sample(params, aux, request).tokens
  table = sj.noise_schedules.SCHEDULES[schedule]()
  levels = np.asarray(table.total(np.linspace(0, 1, steps + 1)), float)
  betas = -np.expm1(-np.diff(levels))
  matrices = enumerated_steps.relaxing(betas, np.eye(3)[2])
  chain = enumerated_steps.of_matrices(matrices, np.eye(3)[2], 2, 2, jump=True)
  # What the system's own network predicts, as the table of the chain.
  score_fn = system.score_fn(params, aux)
  for step in range(1, steps + 1):
    sigma = jnp.full(9, levels[step], jnp.float32)
    score = score_fn(jnp.asarray(chain.states), sigma)
    chain.x_hat[step] = np.exp(masked.log_probs(score, sigma))
    # Scores say nothing of positions that are not masked; nor are they read.
  law = chain.law()
  counts = np.bincount(oracles.index_of(tokens, 2), minlength=4)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  assert oracles.chi_square_pvalue(counts, 0.9 * law + 0.1 * law[::-1]) < 1e-4


def test_in_steps_it_is_a_chain_of_absorbing_noise():
  """Levels at t = 0, 1/T, ..., 1, and the bound of such a chain."""
  system = system_of(
    system__args__num_steps=4, sampling__steps=2, eval__points=3
  )
  params, aux = small.started(system)
  batch = small.batch_of(3000)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(1), batch)
  expected = bound.terms['diffusion'] + bound.terms['reconstruction']
  gap = np.asarray(loss.nats - expected, np.float64)
  error = gap.std() / np.sqrt(len(gap))
  assert abs(gap.mean()) < 4.5 * error
  assert error < 0.05 * float(expected.mean())
  request = systems.Request(
    length=6, seeds=range(2), method='ancestral', steps=2
  )
  assert system.sample(params, aux, request).calls == 3


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    (dict(process__name='uniform'), 'masked_diffusion: use absorbing'),
    (dict(schedule__name='geometric'), 'has noise 0.0001 at t = 0'),
    (dict(schedule__name='step_betas'), 'masked_diffusion: use log_linear'),
    (dict(sampling__method='euler'), 'masked_diffusion: use ancestral'),
    (dict(eval__protocol='sedd'), 'masked_diffusion: use bound, mdlm'),
    (dict(sampling__grid='reference'), 'must be uniform'),
    (dict(system__args__num_steps=1), 'must be 0 or at least 2, not 1'),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(ValueError, match=told):
    system_of(**changes)


def test_one_step_draws_all_at_once():
  system = system_of(sampling__steps=1, schedule__name='polynomial')
  params, aux = small.started(system)
  request = systems.Request(
    length=6, seeds=range(2), method='ancestral', steps=1
  )
  samples = system.sample(params, aux, request)
  assert samples.calls == 2 and samples.tokens.max() < small.VOCAB


def test_protocols_have_names():
  with pytest.raises(ValueError, match="'elbo': use bound, mdlm"):
    masked_bound.bound(
      lambda x_t, x_0, t: jnp.zeros(x_t.shape),
      jax.random.key(0),
      jnp.zeros((1, 2), jnp.int32),
      process=sj.processes.Absorbing(vocab_size=2),
      schedule=sj.noise_schedules.LogLinear(),
      index=jnp.arange(1),
      protocol='elbo',
    )


def test_given_tokens_are_told_and_not_counted():
  """Of a pair whose first is given the other costs nothing, or ln 3."""
  process = sj.processes.Absorbing(vocab_size=3)
  x_0 = jnp.tile(jnp.arange(3)[:, None], (100, 2))
  kept = jnp.broadcast_to(jnp.array([True, False]), x_0.shape)

  def nats_of(told):
    def nats_fn(x_t, x_0, t):
      del t
      known = jnp.where(x_t[:, :1] == x_0[:, 1:], 0.0, jnp.inf)
      nats = jnp.tile(known if told else jnp.full_like(known, jnp.log(3)), 2)
      given = jnp.all(x_t[:, 0] == x_0[:, 0])
      return jnp.where(given, jnp.where(x_t == 3, nats, 0), jnp.nan)

    return masked_bound.bound(
      nats_fn,
      jax.random.key(0),
      x_0,
      kept=kept,
      process=process,
      schedule=sj.noise_schedules.LogLinear(),
      index=jnp.arange(300),
      points=8,
    )

  sure, open_ = nats_of(True), nats_of(False)
  assert sure.weight.tolist() == [1.0] * 300
  np.testing.assert_array_equal(sure.nats, 0)
  error = np.std(open_.nats) / np.sqrt(300)
  assert abs(np.mean(open_.nats) - np.log(3)) < 4 * error
