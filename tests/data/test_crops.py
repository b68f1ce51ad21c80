import numpy as np
import pytest
from scipy import stats

from sedd_jax.data import crops

# The known answers that Random123 publishes for philox4x32-10.
KNOWN = (
  (
    (0, 0, 0, 0),
    (0, 0),
    (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
  ),
  (
    (0xFFFFFFFF,) * 4,
    (0xFFFFFFFF,) * 2,
    (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
  ),
  (
    (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
    (0xA4093822, 0x299F31D0),
    (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
  ),
)


@pytest.mark.parametrize('counter, key, answer', KNOWN)
def test_philox_gives_the_published_words(counter, key, answer):
  counters = np.array([counter, counter], np.uint64).T
  np.testing.assert_array_equal(
    crops.philox(counters, key), np.array([answer, answer]).T
  )


def test_a_start_depends_on_its_own_index_only():
  alone = [crops.starts(3, 11, [i], 10**9)[0] for i in range(64)]
  order = np.random.default_rng(0).permutation(64)
  np.testing.assert_array_equal(
    crops.starts(3, 11, order, 10**9), np.array(alone)[order]
  )


@pytest.mark.parametrize(
  'seed, step', [(1, 0), (2**32, 0), (0, 1), (0, 2**32), (2**64 - 1, 2**64 - 1)]
)
def test_every_bit_of_seed_and_step_counts(seed, step):
  index = np.arange(1000)
  base = crops.starts(0, 0, index, 10**9)
  other = crops.starts(seed, step, index, 10**9)
  assert np.mean(base == other) < 0.01


def test_seed_step_and_index_do_not_stand_for_each_other():
  draws = {
    crops.starts(seed, step, [index], 2**62)[0].item()
    for seed in range(8)
    for step in range(8)
    for index in range(8)
  }
  assert len(draws) == 512


@pytest.mark.parametrize('num_starts', [7, 1000])
def test_starts_are_uniform(num_starts):
  drawn = np.concatenate(
    [crops.starts(5, step, np.arange(500), num_starts) for step in range(200)]
  )
  counts = np.bincount(drawn, minlength=num_starts)
  assert len(counts) == num_starts
  assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_steps_are_independent():
  first = crops.starts(0, 0, np.arange(4000), 4)
  second = crops.starts(0, 1, np.arange(4000), 4)
  table = np.zeros((4, 4))
  np.add.at(table, (first, second), 1)
  assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize(
  'arguments, text',
  [
    ((-1, 0, [0], 5), 'seed is -1'),
    ((0, 2**64, [0], 5), 'step is 18446744073709551616'),
    ((0, 0, [-1], 5), 'below 0'),
    ((0, 0, [2**32], 5), '2\\*\\*32'),
    ((0, 0, 0, 5), 'shape'),
  ],
)
def test_numbers_out_of_range_are_named(arguments, text):
  with pytest.raises(ValueError, match=text):
    crops.starts(*arguments)
