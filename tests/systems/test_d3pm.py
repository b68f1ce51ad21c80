"""D3PM: the loss that is trained on, and every kind of noise it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import processes, systems
from sedd_jax.processes import mutual_information
from tests.systems import small


def system_of(**changes):
  return small.made(small.in_steps('d3pm', 6, **changes))


GAUSSIAN = dict(
  process__name='ordinal_gaussian',
  data__ordered=True,
  schedule__betas='linear',
  schedule__args__first=0.3,
)
NEIGHBORS = dict(
  process__name='nearest_neighbor',
  process__args__k=2,
  schedule__name='mutual_information',
)
BAND = dict(
  process__name='band',
  process__args__width=3,
  data__ordered=True,
  schedule__betas='linear',
  schedule__args__first=0.9,
)
TABULATED = dict(
  process__name='tabulated', process__args__matrices=[[[1 / 7] * 7] * 7] * 6
)
ABSORBING = dict(process__name='absorbing')
RECIPROCAL = dict(ABSORBING, schedule__betas='reciprocal')


def test_the_loss_is_unbiased_for_the_bound_without_its_prior():
  system = system_of(**RECIPROCAL)
  params, aux = small.started(system)
  batch = small.batch_of(2000)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(1), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(2), batch)
  assert np.isfinite(bound.nats).all()
  expected = bound.terms['diffusion'] + bound.terms['reconstruction']
  gap = np.asarray(loss.nats - expected, np.float64)
  error = gap.std() / np.sqrt(len(gap))
  assert abs(gap.mean()) < 4.5 * error
  assert error < 0.05 * float(expected.mean())


@pytest.mark.slow
def test_hybrid_adds_a_share_of_cross_entropy():
  params, aux = small.started(system_of(**ABSORBING))
  batch = small.batch_of(16)
  plain, some, more = (
    jax.jit(system_of(**ABSORBING, system__args__hybrid=share).loss)(
      params, aux, jax.random.key(1), batch
    )
    for share in (0.0, 0.01, 0.02)
  )
  assert plain.terms == {}
  np.testing.assert_allclose(some.terms['bound'][0], plain.nats, rtol=1e-5)
  added = np.asarray(some.nats - plain.nats)
  assert np.all(added > 0)
  np.testing.assert_allclose(more.nats - plain.nats, 2 * added, rtol=1e-2)


@pytest.mark.slow
# Further noises are in the contract tests.
@pytest.mark.parametrize(
  'noise',
  [RECIPROCAL, GAUSSIAN, BAND, dict(process__name='absorbing_uniform')],
)
def test_samples_are_data(noise):
  system = system_of(**noise)
  params, aux = small.started(system)
  request = systems.Request(
    length=6, seeds=[1, 2, 3], method='ancestral', steps=3, batch_size=2
  )
  samples = system.sample(params, aux, request)
  assert samples.tokens.shape == (3, 6)
  assert samples.tokens.min() >= 0 and samples.tokens.max() < small.VOCAB
  # The clipped cosine leaves some signal: the mask's chain starts beyond it.
  assert samples.calls == 3 + (noise['process__name'] == 'absorbing')
  batch = small.batch_of(4)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(2), batch)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(3), batch)
  assert np.isfinite(bound.nats).all() and np.isfinite(loss.nats).all()


@pytest.mark.slow
def test_the_bound_of_fewer_steps():
  """In one step all is told by the reconstruction."""
  system = system_of(process__name='uniform', eval__chain_steps=1)
  params, aux = small.started(system)
  batch = small.batch_of(4)
  terms = jax.jit(system.bound)(params, aux, jax.random.key(0), batch).terms
  assert np.all(terms['diffusion'] == 0)
  # Each of the six tokens is near its prior, 1/7.
  assert np.all(terms['reconstruction'] > 0.5 * small.LENGTH * np.log(7))


def test_neighbors_are_those_of_the_embeddings():
  system = system_of(**NEIGHBORS, training__refresh_every=5)
  params, aux = small.started(system)
  learned = system.refresh(params, aux)
  rows = np.asarray(params['embed']['embedding'])
  expected = processes.nearest_neighbor.connected(small.VOCAB, rows, k=2)
  np.testing.assert_allclose(
    learned['noise']['powers'], expected.powers, rtol=1e-6
  )
  shares = [
    mutual_information.removed(
      expected.forward(jnp.arange(small.VOCAB), 0.0, float(level)),
      small.INFO.token_counts(),
    )
    for level in learned['noise']['levels']
  ]
  np.testing.assert_allclose(shares, np.arange(7) / 6, atol=1e-4)
  # The loss, the bound and the sampler see the new noise.
  batch = small.batch_of(4)
  loss, bound = jax.jit(system.loss), jax.jit(system.bound)
  request = systems.Request(
    length=6, seeds=range(8), method='ancestral', steps=6
  )
  for of in (
    lambda aux: loss(params, aux, jax.random.key(0), batch).nats,
    lambda aux: bound(params, aux, jax.random.key(0), batch).nats,
    lambda aux: system.sample(params, aux, request).tokens,
  ):
    assert np.any(of(aux) != of(learned))
  assert jax.tree.structure(aux) == jax.tree.structure(learned)


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    (dict(system__args__hybrid=-1.0), 'hybrid must be at least 0, not -1'),
    (dict(schedule__name='log_linear'), 'd3pm: use step_betas'),
    (dict(GAUSSIAN, data__ordered=False), 'data.ordered is False'),
    (dict(NEIGHBORS, process__args__k=7), 'k must be from 1 to 6'),
    (
      dict(NEIGHBORS, process__args__embeddings='absent.npy'),
      'embeddings: absent.npy: ',
    ),
    (dict(NEIGHBORS, process__args__max_gib=1e-6), 'above max_gib=1e-06; use'),
    (
      dict(NEIGHBORS, process__args__furthest=0.1),
      'largest level takes 0.[0-9]* of the information, and the last step but',
    ),
    (
      dict(process__name='uniform', eval__chain_steps=7),
      'eval.chain_steps=7: .* from 1 to the 6 of the chain, not 7',
    ),
    (
      dict(
        system__name='sedd',
        schedule__name='log_linear',
        sampling__method='tweedie',
        eval__chain_steps=2,
      ),
      'eval.chain_steps=2: the bound of system sedd has no steps to choose',
    ),
    (dict(GAUSSIAN, process__args__max_gib=1e-6), '10 matrices of 7 x 7 take'),
    (
      dict(process__name='uniform', training__refresh_every=5),
      'noise that is learned is nearest_neighbor',
    ),
    (
      dict(NEIGHBORS, schedule__name='step_betas', training__refresh_every=5),
      "needs schedule.name=mutual_information, .* not 'step_betas'",
    ),
    (
      dict(TABULATED, schedule__name='mutual_information'),
      'has all its noise in process.args.matrices: .* use schedule.name=step_',
    ),
    (dict(TABULATED, schedule__betas='linear'), 'leave schedule.betas and'),
    (dict(TABULATED, schedule__args__min_alpha=0.1), 'leave schedule.betas'),
    (
      dict(process__name='uniform', schedule__args__min_alpha=0.7),
      'nats a token from the law that samples start from, above 0.1',
    ),
    (
      dict(GAUSSIAN, schedule__name='mutual_information'),
      'is built from betas: use schedule.name=step_betas',
    ),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(ValueError, match=told):
    system_of(**changes)
