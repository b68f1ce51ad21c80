"""Layouts of pairs against DiffuSeq's arrays and its loop."""

import itertools

import numpy as np
import pytest

from sedd_jax.data.paired import pair_layouts
from tests import golden_numbers

MARKS = pair_layouts.Marks(cls=1, sep=2, pad=0)


def test_joint_is_diffuseqs():
  golden = golden_numbers.load_json('diffuseq_layout')
  rows = zip(*golden.values(), strict=True)
  for source, target, ids, mask in rows:
    assert (source[0], source[-1]) == (1, 2)
    tokens, given, used = pair_layouts.joint(
      np.array(source[1:-1]), np.array(target[1:-1]), 14, MARKS
    )
    assert tokens.tolist() == ids
    assert (~given).astype(int).tolist() == mask
    assert not tokens[used:].any() and tokens[used - 1] == 2
    assert tokens.dtype == np.int32


def popped(source, target, length):
  """The loop of the released code, [CLS] counted and the last [SEP] aside."""
  a, b = source + 1, target + 1
  while a + b > length - 3:
    longer, as_long = a > b, a == b
    a -= longer or as_long
    b -= not longer
  return a - 1, b - 1


@pytest.mark.parametrize('length', [7, 8, 13, 14])
def test_what_is_kept_is_what_the_loop_leaves(length):
  for source, target in itertools.product(range(1, 20), repeat=2):
    kept = pair_layouts.kept_of_pair(source, target, length)
    assert kept == popped(source, target, length)
    assert min(kept) >= 1


def test_framed():
  tokens, used = pair_layouts.framed(np.array([5, 6]), 6, MARKS)
  assert tokens.tolist() == [1, 5, 6, 2, 0, 0] and used == 4
  tokens, used = pair_layouts.framed(np.array([5, 6, 7]), 4, MARKS)
  assert tokens.tolist() == [1, 5, 6, 2] and used == 4
