"""Figures of samples against values worked out by hand."""

import math
import sys
import types

import numpy as np
import pytest

from sedd_jax.evaluation import text_metrics


def tokens(*texts):
  return [np.array(list(map(ord, text))) for text in texts]


def test_unigram_entropy():
  # Shares 1/2, 1/4, 1/4; then one token alone.
  expected = (1.5 * math.log(2) + 0) / 2
  found = text_metrics.unigram_entropy(tokens('aabc', 'zzzzzz'))
  assert found == pytest.approx(expected)


@pytest.mark.parametrize(
  ('n', 'expected'),
  [
    # a b c d of 9; ab bc ca, dd of 7 (ab bc ca ab | dd dd dd is 4 + 3).
    (1, 4 / 9),
    (2, 4 / 7),
    # abc bca cab | ddd ddd.
    (3, 4 / 5),
    # abca bcab | dddd.
    (4, 3 / 3),
    (5, 1.0),
    (6, None),
  ],
)
def test_distinct(n, expected):
  assert text_metrics.distinct(tokens('abcab', 'dddd'), n) == expected


@pytest.mark.parametrize(
  ('texts', 'n', 'expected'),
  [
    # 6 of 4 tokens: abab baba abab baba abab baba.
    (['ababababa'], 4, 4 / 6),
    # Within a sample only: what another has does not count.
    (['abcd', 'abcd'], 4, 0.0),
    (['aaaaa', 'abcde'], 4, 0.25),
    # Too short for one is left out.
    (['aaaaa', 'abc'], 4, 0.5),
    (['abc'], 4, None),
  ],
)
def test_repetition(texts, n, expected):
  found = text_metrics.repetition(tokens(*texts), n)
  assert found == pytest.approx(expected)


def test_diversity_is_never_one_number():
  found = text_metrics.diversity(tokens('abcab', 'dddd'))
  assert list(found) == [
    'unigram_entropy',
    *(f'distinct_{n}' for n in (1, 2, 3, 4)),
    'repetition_4',
  ]


def test_mauve_is_the_librarys(monkeypatch):
  asked = {}

  def compute_mauve(**options):
    asked.update(options)
    return types.SimpleNamespace(mauve=0.25)

  library = types.SimpleNamespace(compute_mauve=compute_mauve)
  monkeypatch.setitem(sys.modules, 'mauve', library)
  assert text_metrics.mauve(['x'], ['y'], 'folder', 12) == 0.25
  # p is people's text, as the library has it.
  assert asked['p_text'] == ['y'] and asked['q_text'] == ['x']
  assert asked['featurize_model_name'] == 'folder'
  assert asked['max_text_length'] == 12


def test_mauve_that_fails_is_told(monkeypatch):
  def missing(**options):
    raise OSError('no such\nmodel')

  def empty(**options):
    return types.SimpleNamespace(mauve=float('nan'))

  for compute, told in (
    (missing, "eval.mauve 'gpt': OSError: no such model"),
    (empty, "eval.mauve 'gpt': it is nan of 1 samples"),
  ):
    library = types.SimpleNamespace(compute_mauve=compute)
    monkeypatch.setitem(sys.modules, 'mauve', library)
    with pytest.raises(ValueError, match=told):
      text_metrics.mauve(['x'], ['y'], 'gpt', 12)


def test_mauve_without_the_library(monkeypatch):
  monkeypatch.setitem(sys.modules, 'mauve', None)
  with pytest.raises(ValueError, match=r"pip install 'sedd_jax\[mauve\]'"):
    text_metrics.mauve(['x'], ['y'], 'folder', 12)
