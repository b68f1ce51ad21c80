"""Counts of tokens: counted in pieces, written, read, and what is refused."""

import numpy as np
import pytest

from sedd_jax.data import DataError
from sedd_jax.data.prepared import statistics


def test_counts_do_not_depend_on_the_pieces(monkeypatch):
  tokens = np.random.default_rng(0).integers(7, size=1000).astype(np.uint16)
  whole = statistics.count(tokens, 9)
  np.testing.assert_array_equal(whole, np.bincount(tokens, minlength=9))
  monkeypatch.setattr(statistics, '_CHUNK', 64)
  np.testing.assert_array_equal(statistics.count(tokens, 9), whole)


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / statistics.FILE
  statistics.write(path, np.array([3, 0, 12]))
  np.testing.assert_array_equal(statistics.read(path, 3), [3, 0, 12])
  assert [file.name for file in tmp_path.iterdir()] == [statistics.FILE]


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    (None, 'no token counts at .*data.statistics names'),
    ('{', 'holds no token counts'),
    ('{"counts": [1]}', 'holds no token counts'),
    ('{"token_counts": [1, 2]}', 'the vocabulary has 3 tokens'),
    ('{"token_counts": [1, 2, -1]}', 'the vocabulary has 3 tokens'),
  ],
)
def test_a_file_that_does_not_fit(tmp_path, text, told):
  path = tmp_path / 'counts.json'
  if text is not None:
    path.write_text(text)
  with pytest.raises(DataError, match=told):
    statistics.read(path, 3)
