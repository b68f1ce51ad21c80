"""The mean bound over a split: sums, standard error, padding, units."""

import json
import math

import jax
import numpy as np
import pytest

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import times
from sedd_jax.data import pipeline, tokenizers
from sedd_jax.data.sets import evaluation_sets
from sedd_jax.evaluation import likelihood, report
from sedd_jax.systems.base import Bound
from sedd_jax.training import parallel

LENGTH = 4
# Nine whole sequences and one of three tokens.
NUM_TOKENS = 39


@pytest.fixture(scope='module')
def dataset():
  tokens = np.arange(NUM_TOKENS, dtype=np.uint8) % 27
  splits = {'train': tokens, 'validation': tokens}
  info = pipeline.DataInfo(
    name='toy',
    vocab_size=27,
    tokenizer=tokenizers.make('text8'),
    num_tokens={name: len(x) for name, x in splits.items()},
    num_characters={name: 2 * len(x) for name, x in splits.items()},
    unit='character',
    files=(),
  )
  return pipeline.Dataset(info, splits, LENGTH)


def bound_fn(params, aux, key, batch):
  """Two terms: of the tokens, and of noise that hangs on the place alone."""
  del aux
  keys = keys_lib.example_keys(key, batch['index'])
  noise = jax.vmap(jax.random.uniform)(keys)
  weight = batch['valid'].sum(axis=1).astype(np.float32)
  of_tokens = params * (batch['tokens'] * batch['valid']).sum(axis=1)
  terms = {'tokens': of_tokens, 'noise': noise * weight}
  return Bound(of_tokens + noise * weight, weight, terms)


def evaluated(dataset, bound_fn=bound_fn, aux=(), **options):
  options = {'split': 'validation', 'batch_size': 32, **options}
  params = np.float32(0.5)
  return likelihood.evaluate(bound_fn, params, aux, dataset, **options)


def nearly(result, expected):
  assert result.keys() == expected.keys()
  for name, value in expected.items():
    assert result[name] == pytest.approx(value), name


@pytest.mark.parametrize('batch_size', [1, 3, 4, 10])
def test_figures_do_not_depend_on_the_batch_size(dataset, batch_size):
  nearly(evaluated(dataset, batch_size=batch_size), evaluated(dataset))


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_figures_do_not_depend_on_the_devices(dataset, devices):
  """Ten sequences over eight devices: the last rows are padding."""
  layout = parallel.make('pmap', jax.local_devices()[:devices])
  rows = layout.compile_rows(bound_fn)

  def on_devices(params, aux, key, batch):
    return rows(layout.place(params), aux, key, batch)

  result = evaluated(dataset, on_devices, batch_size=4, multiple_of=devices)
  nearly(result, evaluated(dataset))


def test_every_token_counts_once(dataset):
  result = evaluated(dataset)
  assert result['num_sequences'] == 10
  assert result['num_tokens'] == NUM_TOKENS
  tokens = dataset.tokens('validation').astype(float)
  assert result['terms']['tokens'] == pytest.approx(0.5 * tokens.mean())


def test_the_noise_is_that_of_the_place_and_the_seed(dataset):
  terms = evaluated(dataset, seed=3)['terms']
  key = jax.random.fold_in(jax.random.key(3), 0)
  noise = jax.vmap(jax.random.uniform)(
    keys_lib.example_keys(key, np.arange(10))
  )
  weight = np.append(np.full(9, LENGTH), NUM_TOKENS - 9 * LENGTH)
  expected = (np.asarray(noise) * weight).sum() / NUM_TOKENS
  assert terms['noise'] == pytest.approx(expected, rel=1e-6)
  assert evaluated(dataset, seed=4)['terms']['noise'] != terms['noise']


def test_terms_sum_to_nats(dataset):
  result = evaluated(dataset)
  assert sum(result['terms'].values()) == pytest.approx(
    result['nats_per_token'], rel=1e-6
  )


def test_units(dataset):
  result = evaluated(dataset)
  nats = result['nats_per_token']
  assert result['perplexity'] == pytest.approx(math.exp(nats))
  # Two characters a token.
  assert result['bits_per_character'] == pytest.approx(nats / math.log(2) / 2)


def test_some_of_the_sequences(dataset):
  seen = []

  def watched(params, aux, key, batch):
    seen.extend(batch['index'][np.any(batch['valid'], axis=1)].tolist())
    assert batch['count'] == 10
    return bound_fn(params, aux, key, batch)

  result = evaluated(dataset, watched, max_sequences=4, batch_size=3)
  assert seen == [0, 2, 5, 7]
  assert result['num_sequences'] == 4
  assert result['num_tokens'] == 16
  assert result['split_sequences'] == 10
  text = likelihood.describe({**result, 'protocol': 'bound'}, 'token')
  assert 'bound on validation, 4 of 10 sequences: ' in text
  whole = likelihood.describe({**evaluated(dataset), 'protocol': 'b'}, 'token')
  assert 'b on validation, 10 sequences: ' in whole


def test_a_suite_table_tells_what_was_left_out():
  of_set = {'perplexity': 2.0, 'standard_error': None, 'nats_per_token': 0.7}
  of_set |= {'step': 3, 'protocol': 'sedd', 'points': 4, 'terms': {'prior': 0}}
  counts = ({'num_sequences': 9, 'split_sequences': 1234}, {'num_sequences': 5})

  def table_of(size=50257, length=1024, **changes):
    of_sets = zip(('lambada', 'ptb'), counts)
    return report.suite_table(
      evaluation_sets.SUITES['sedd_zero_shot'],
      'mine',
      {name: of_set | changes | n for name, n in of_sets},
      packing='sedd',
      unit='token',
      tokenizer='here/mine.json',
      vocab_size=size,
      seq_len=length,
    )

  assert 'sequences: lambada 9 of 1,234, ptb 5.' in table_of()
  bounded = 'step 3, at most (eval.protocol sedd, 4 times a sequence), 50,257 '
  assert bounded in table_of()
  exact = table_of(terms={'nll': 0.7})
  assert 'step 3, exact, 50,257 tokens (mine.json), sequences of 1024,' in exact
  assert 'The others are of' not in exact
  other = table_of(size=257, length=32)
  assert 'of 257 is not to be compared' in other and 'of 1024, not 32' in other
  assert 'exact' in exact and 'at most' not in exact
  assert '(*)' not in exact
  marked = table_of(remark='not that text')
  assert '| 2.00 (*) |' in marked and '(*) ptb: not that text.' in marked


def test_a_single_sequence_has_no_standard_error(dataset):
  result = evaluated(dataset, max_sequences=1)
  assert result['standard_error'] is None
  json.dumps(result, allow_nan=False)
  told = likelihood.describe(result | {'protocol': 'bound'}, 'character')
  assert '±' not in told
  assert f'{result["nats_per_token"]:.4f} nats per token' in told


def test_bits_per_dimension_are_told(dataset):
  told = {**evaluated(dataset), 'protocol': 'bound', 'bits_per_dimension': 2}
  assert ', 2.0000 bits per dimension' in likelihood.describe(told, 'token')


def test_an_enormous_bound_has_no_perplexity(dataset):
  def worse(params, aux, key, batch):
    return bound_fn(1000 * params, aux, key, batch)

  result = evaluated(dataset, worse)
  assert result['perplexity'] is None
  json.dumps(result, allow_nan=False)
  told = likelihood.describe(result | {'protocol': 'bound'}, 'byte')
  assert 'perplexity' not in told
  assert told.endswith('bits per byte')


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_bound_that_is_not_finite_is_an_error(dataset, value):
  def broken(params, aux, key, batch):
    bound = bound_fn(params, aux, key, batch)
    nats = np.where(batch['index'] == 7, value, bound.nats)
    return bound._replace(nats=nats)

  with pytest.raises(likelihood.BoundError, match='sequence 7 .*validation'):
    evaluated(dataset, broken)


def test_padding_may_be_anything(dataset):
  """Rows that count nothing have no say, not even as NaN."""

  def nan_in_padding(params, aux, key, batch):
    bound = bound_fn(params, aux, key, batch)
    nats = np.where(batch['index'] >= 10, np.nan, bound.nats)
    return bound._replace(nats=nats)

  nearly(evaluated(dataset, nan_in_padding, batch_size=8), evaluated(dataset))


def test_progress_sees_every_batch(dataset):
  seen = []

  def progress(batches, total):
    assert total == 3
    for batch in batches:
      seen.append(batch)
      yield batch

  evaluated(dataset, batch_size=4, progress=progress)
  assert len(seen) == 3


def test_no_split_and_no_sequence(dataset):
  with pytest.raises(ValueError, match="no split 'test'"):
    evaluated(dataset, split='test')

  class Empty:
    def num_sequences(self, split):
      return 0

  with pytest.raises(ValueError, match="'validation' has no sequence"):
    evaluated(Empty())


@pytest.mark.parametrize(
  ('num_sequences', 'max_sequences', 'expected'),
  [
    (5, 0, [0, 1, 2, 3, 4]),
    (5, 9, [0, 1, 2, 3, 4]),
    (5, 5, [0, 1, 2, 3, 4]),
    (10, 4, [0, 2, 5, 7]),
    (10, 1, [0]),
    (0, 3, []),
  ],
)
def test_evaluated_indices(num_sequences, max_sequences, expected):
  indices = likelihood.evaluated_indices(num_sequences, max_sequences)
  assert indices.tolist() == expected
  assert indices.dtype == np.int32


def test_evaluated_indices_of_a_large_split():
  """Products of places and sizes beyond 32 bits."""
  indices = likelihood.evaluated_indices(8_000_000, 100_000)
  assert len(np.unique(indices)) == 100_000
  assert (np.diff(indices) == 80).all()


def test_standard_error_of_equal_weights_is_that_of_a_mean():
  nats = np.random.default_rng(0).normal(50, 4, 30)
  ratio, error = likelihood.ratio_and_error(nats, np.full(30, 16.0))
  assert ratio == pytest.approx(nats.mean() / 16)
  assert error == pytest.approx(nats.std(ddof=1) / 30**0.5 / 16)


def test_standard_error_is_the_spread_of_the_ratio():
  """Against 4000 redrawn splits of uneven sequences."""
  rng = np.random.default_rng(0)
  shape = (4000, 100)
  weight = rng.integers(1, 20, shape).astype(float)
  nats = weight * rng.normal(2.0, 0.5, shape) + rng.normal(3.0, 2.0, shape)
  found = [likelihood.ratio_and_error(*pair) for pair in zip(nats, weight)]
  ratios, errors = np.array(found).T
  # The spread of 4000 values is known to 1.1 %; linearisation adds O(1 / n).
  assert errors.mean() == pytest.approx(ratios.std(), rel=0.04)


@pytest.mark.parametrize('width', [0.02, 0.2, None])
def test_standard_error_of_times_spread_over_sequences(width):
  """Against 4000 redrawn evaluations; a peak of a width, or no say of time."""
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 0.3, (4000, 200))
  place = np.stack([times.spread(draws) for draws in rng.random((4000, 200))])
  height = 0.0 if width is None else np.exp(-(((place - 0.4) / width) ** 2))
  nats, weight = 5 * height + noise + 9, np.full(200, 16.0)
  found = [
    likelihood.ratio_and_error(row, weight, within)
    for row, within in zip(nats, place)
  ]
  ratios, errors = np.array(found).T
  assert errors.mean() > 0.97 * ratios.std()
  assert errors.mean() < (1.2 if width == 0.02 else 1.05) * ratios.std()
  if width is not None:
    # What an independent time a sequence would leave.
    free = likelihood.ratio_and_error(nats[0], weight)[1]
    assert free > (1.5 if width == 0.02 else 4) * ratios.std()


def test_times_are_spread_over_the_sequences(dataset):
  """Whatever the batches, and apart from those of the fit."""

  def places(**options):
    seen = []

    def bound(params, aux, key, batch):
      if 'within' in batch:
        seen.append(batch['within'])
      return bound_fn(params, aux, key, batch)

    evaluated(dataset, bound, **options)
    return np.concatenate(seen) if seen else None

  first = places(batch_size=5)
  np.testing.assert_array_equal(np.floor(np.sort(first) * 10), range(10))
  np.testing.assert_array_equal(places(batch_size=3)[:10], first)
  assert abs(places(batch_size=5, seed=1)[0] - first[0]) > 1e-3
  assert places(batch_size=5, spread=False) is None


@pytest.mark.parametrize('spreads', [True, False])
def test_only_bounds_that_draw_times_have_errors_by_time(dataset, spreads):
  """The others have that of a mean, whatever the order."""

  def told(params, aux, key, batch):
    bound = bound_fn(params, aux, key, batch)
    u = batch['within'] if spreads else np.full(len(batch['within']), 0.5)
    stats = {'u': np.asarray(u)[:, None]}
    return bound._replace(stats=stats)

  error = evaluated(dataset, told)['standard_error']
  plain = evaluated(dataset, spread=False)['standard_error']
  assert (error == pytest.approx(plain, rel=1e-6)) == (not spreads)


def test_fitting_comes_before_and_counts_nowhere(dataset):
  """aux is fitted on draws of their own, then frozen; padding is not seen."""
  keys, seen = [], []

  def of_aux(params, aux, key, batch):
    keys.append(jax.random.key_data(key).tolist())
    weight = np.asarray(batch['valid'].sum(1), np.float64)
    # What was fitted shows in the figures.
    return Bound(weight * aux, weight, {}, {'index': batch['index']})

  def update_aux(aux, stats):
    seen.extend(stats['index'].tolist())
    return aux + 1

  result = evaluated(
    dataset,
    of_aux,
    aux=0,
    batch_size=4,
    fit_batches=2,
    update_aux=update_aux,
  )
  assert len(seen) == 8 and max(seen) < dataset.num_sequences('validation')
  assert result['nats_per_token'] == 2
  assert keys[0] == keys[1] != keys[2] == keys[-1]
