"""Every system: what training, evaluation and sampling rely on."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.training import loop
from tests.systems import small

EXAMPLES = [
  pytest.param((name, fields), id=f'{name}-{i}')
  for name, make in systems.SYSTEMS.items()
  for i, fields in enumerate(inspect.getmodule(make).examples())
]


@pytest.fixture(scope='module', params=EXAMPLES)
def case(request):
  """A system, its config, and parameters that are all random."""
  name, fields = request.param
  config = small.example_of({'system.name': name, **fields})
  system = small.made(config)
  return system, config, *small.started(system)


def batch_of(config, rows=4, **changes):
  given = np.zeros((rows, small.LENGTH), bool)
  batch = small.batch_of(rows, given=given, **changes)
  if config.data.label:
    batch['label'] = small.label_of(config, rows)
  return batch


def require_samples(system):
  if system.sample is None:
    pytest.skip('draws no samples')


def test_loss_and_bound(case):
  system, config, params, aux = case
  on_all = config.system.args.get('loss_on') == 'all'
  # A classifier counts its labels, one a text, all others tokens.
  classifies = system.log_label is not None
  loss, bound = jax.jit(system.loss), system.bound and jax.jit(system.bound)

  def both(batch):
    if system.prepare is not None:
      batch = loop.prepared(system.prepare, 3, 0, batch)
    drawn = loss(params, aux, jax.random.key(1), batch)
    assert drawn.nats.shape == (4,)
    if bound is None:
      return [np.asarray(x) for x in drawn[:2]]
    told = bound(params, aux, jax.random.key(2), batch)
    np.testing.assert_allclose(
      sum(told.terms.values()), told.nats, rtol=1e-5, atol=1e-5
    )
    assert told.nats.shape == (4,)
    return [np.asarray(x) for x in (*drawn[:2], *told[:2])]

  batch = batch_of(config)
  whole = both(batch)
  assert len(whole) == 2 + 2 * (bound is not None)
  for nats, weight in zip(whole[::2], whole[1::2]):
    assert np.isfinite(nats).all() and np.all(
      weight == (1 if classifies else small.LENGTH)
    )
  assert np.all(whole[-2] > 0)

  # An example is itself, wherever it stands in the batch.
  order = np.array([2, 0, 3, 1])
  rows = {'tokens', 'valid', 'given', 'index', 'label'}
  moved = {k: v[order] if k in rows else v for k, v in batch.items()}
  for found, expected in zip(both(moved), whole):
    np.testing.assert_allclose(found, expected[order], rtol=1e-4, atol=1e-4)

  # Padding stands at the end, is not counted, and what it holds is nothing.
  batch['valid'][:, 4:] = False
  padded = both(batch)
  batch['tokens'] = np.where(batch['valid'], batch['tokens'], 0)
  for found, expected in zip(both(batch), padded):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  expected = 1 if classifies else 4
  assert np.all(padded[1] == expected) and np.all(padded[-1] == expected)

  # What is given is not counted either, unless the loss says so.
  batch['given'][:, :1] = True
  left = (1, 1) if classifies else (4 if on_all else 3, 3)
  for weight, expected in zip(both(batch)[1::2], left):
    assert np.all(weight == expected)


def test_samples(case):
  system, config, params, aux = case
  require_samples(system)
  tokens = np.full((3, small.LENGTH), 5, np.int32)
  given = np.zeros((3, small.LENGTH), bool)
  given[:, :2] = True
  request = systems.Request(
    length=small.LENGTH,
    seeds=[3, 4, 5],
    tokens=tokens,
    given=given,
    method=config.sampling.method,
    steps=config.sampling.steps,
    batch_size=2,
    record_path=True,
  )
  together = system.sample(params, aux, request)
  assert together.tokens.shape == (3, small.LENGTH)
  assert together.tokens.min() >= 0 and together.tokens.max() < small.VOCAB
  assert np.all(together.tokens[:, :2] == 5)
  if together.history is None:
    assert together.path.shape == (together.calls + 1, 2, small.LENGTH)
    np.testing.assert_array_equal(together.path[-1], together.tokens[:2])
  else:
    assert together.path is None and len(together.history) == 2
    for row, length, revisions in zip(
      together.tokens, together.lengths, together.history
    ):
      np.testing.assert_array_equal(row[:length], revisions[-1].result)
  # A sample depends on its own seed alone.
  alone = system.sample(
    params,
    aux,
    dataclasses.replace(request, seeds=[5], tokens=tokens[:1], given=given[:1]),
  )
  np.testing.assert_array_equal(together.tokens[2], alone.tokens[0])


def test_a_request_for_what_there_is_not(case):
  system, config, params, aux = case
  require_samples(system)
  plain = systems.Request(
    length=6, seeds=[0], method=config.sampling.method, steps=4
  )
  for changes, told in (
    ({'method': 'dance'}, "unknown sampling method 'dance'"),
    ({'options': {'colour': 2}}, "option 'colour'"),
    ({'source': tokens_of_a_source()}, 'takes no source'),
  ):
    with pytest.raises(ValueError, match=told):
      system.sample(params, aux, dataclasses.replace(plain, **changes))


def tokens_of_a_source():
  return np.zeros((1, 3), np.int32)
