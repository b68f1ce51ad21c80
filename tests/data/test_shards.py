import numpy as np
import pytest

from sedd_jax.data import pipeline, tokenizers
from sedd_jax.data.prepared import shards


def cut_up(rng, whole):
  cuts = np.sort(rng.integers(len(whole) + 1, size=rng.integers(1, 6)))
  return shards.joined(np.split(whole, cuts))


def test_joined_arrays_are_one():
  rng = np.random.default_rng(0)
  for _ in range(100):
    whole = rng.integers(100, size=rng.integers(1, 40)).astype(np.uint16)
    tokens = cut_up(rng, whole)
    assert (len(tokens), tokens.dtype) == (len(whole), np.uint16)
    np.testing.assert_array_equal(np.asarray(tokens), whole)
    begin, end = rng.integers(-len(whole) - 2, len(whole) + 2, size=2)
    np.testing.assert_array_equal(tokens[begin:end], whole[begin:end])
    place = rng.integers(-len(whole), len(whole))
    assert tokens[place] == whole[place]
    length = rng.integers(1, len(whole) + 1)
    starts = rng.integers(len(whole) - length + 1, size=7)
    rows = shards.windows(tokens, starts, length)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows, shards.windows(whole, starts, length))


def test_what_lies_in_one_part_is_no_copy():
  parts = [np.arange(5), np.arange(5, 9)]
  tokens = shards.joined([*parts, np.zeros(0, int)])
  assert np.shares_memory(tokens[1:4], parts[0])
  assert shards.joined([parts[0], np.zeros(0, int)]) is parts[0]
  assert [len(piece) for piece in shards.between(tokens, 3, 7)] == [2, 2]
  assert len(shards.joined([np.zeros(0, int)])) == 0


def test_faulty_places_are_errors():
  tokens = shards.joined([np.arange(5), np.arange(4)])
  with pytest.raises(IndexError, match='9 of 9'):
    tokens[9]
  with pytest.raises(IndexError, match='step 1, not 2'):
    tokens[::2]
  with pytest.raises(ValueError, match='without a copy'):
    np.asarray(tokens, copy=False)


def test_batches_do_not_depend_on_the_shards():
  rng = np.random.default_rng(0)
  whole = np.arange(1000, dtype=np.uint16)

  def dataset(tokens):
    info = pipeline.DataInfo(
      name='places',
      vocab_size=1000,
      tokenizer=tokenizers.make('bytes'),
      num_tokens={},
      num_characters={},
      unit='token',
      files=(),
    )
    return pipeline.Dataset(info, {'train': tokens}, 16)

  one, many = dataset(whole), dataset(cut_up(rng, whole))
  assert isinstance(many.tokens('train'), shards.Joined)
  for step in range(20):
    for name, array in one.train_batch(3, step, np.arange(9), 9).items():
      again = many.train_batch(3, step, np.arange(9), 9)[name]
      np.testing.assert_array_equal(again, array)
  for begin in range(0, 66, 7):
    indices = np.arange(begin, begin + 7)
    for name, array in one.eval_batch('train', indices, 63).items():
      again = many.eval_batch('train', indices, 63)[name]
      np.testing.assert_array_equal(again, array)
