"""What a system is told of pairs: sources in order, nothing of the targets."""

import json

import numpy as np
import pytest

from sedd_jax.data import DataError, load
from sedd_jax.data.paired import questions

PAIRS = [
  {'src': 'one two', 'trg': 'a  b', 'id': 'z'},
  {'src': 'three', 'refs': ['c', 'd e', 'f']},
  {'src': 'four five six seven', 'trg': 'ghijkl mnopqr', 'id': 'a'},
  {'src': 'eight', 'trg': 'i'},
]


@pytest.fixture
def path(tmp_path):
  file = tmp_path / 'pairs.jsonl'
  file.write_text(''.join(json.dumps(pair) + '\n' for pair in PAIRS))
  return str(file)


def opened(path, tokenizer='bytes', **shared):
  shared = {'layout': 'joint', **shared}
  return load(
    source='seq2seq',
    path=path,
    seq_len=24,
    tokenizer=tokenizer,
    validation_fraction=0.25,
    pairs=shared,
  )


@pytest.mark.parametrize('layout', ['joint', 'split'])
def test_a_question_is_a_row_of_training_without_its_target(path, layout):
  data = opened(path, layout=layout, source_len=12)
  found = questions.of_split(data, 'train')
  # One a pair, in the order of the file, whatever the ids are.
  assert [pair.id for pair in found.pairs] == ['z', 'pairs.jsonl:2', 'a']
  assert [len(pair.targets) for pair in found.pairs] == [1, 3, 1]
  assert found.pairs[1].targets == ('c', 'd e', 'f')
  batch = data.eval_batch('train', [0, 1, 4], 3)
  assert found.cut.tolist() == [False, False, True]
  if layout == 'split':
    assert found.tokens is None and found.given is None
    valid = batch['source_valid']
    np.testing.assert_array_equal(found.source >= 0, valid)
    np.testing.assert_array_equal(found.source[valid], batch['source'][valid])
    told = found.source
  else:
    assert found.source is None
    np.testing.assert_array_equal(found.given, batch['given'])
    given = batch['given']
    np.testing.assert_array_equal(found.tokens[given], batch['tokens'][given])
    assert not found.tokens[~given].any()
    told = found.tokens
  assert told.dtype == np.int32
  some = found.at(np.array([2, 2]))
  np.testing.assert_array_equal(
    some['source' if layout == 'split' else 'tokens'], told[[2, 2]]
  )
  assert questions.of_split(data, 'train', 2).pairs == found.pairs[:2]
  assert data.was_cut('train').sum() == data.info.cut['train']


def test_files_give_what_their_split_gives(path):
  data = opened(path, validation_path=path)
  split = questions.of_split(data, 'validation')
  files = questions.of_files(
    path, data.info, seq_len=24, layout='joint', source_len=0
  )
  assert files.pairs == split.pairs and len(files) == len(split) == 4
  for name in ('tokens', 'given', 'cut'):
    np.testing.assert_array_equal(getattr(files, name), getattr(split, name))
  first = questions.of_files(
    path, data.info, seq_len=24, layout='joint', source_len=0, limit=1
  )
  assert first.pairs == files.pairs[:1]


def test_texts_are_as_the_tokenizer_spells_them(tmp_path):
  file = tmp_path / 'pairs.jsonl'
  file.write_text('{"src": "One, two!", "trg": "IV: 4"}\n' * 4)
  found = questions.of_split(opened(str(file), 'text8'), 'train')
  assert found.pairs[0].source == 'one two'
  assert found.pairs[0].targets == ('iv four',)
  plain = questions.of_split(opened(str(file)), 'train')
  assert plain.pairs[0].targets == ('IV: 4',)


def test_what_cannot_be_asked(path, tmp_path):
  with pytest.raises(DataError, match="'target' has no sources"):
    questions.of_split(opened(path, layout='target'), 'train')
  with pytest.raises(DataError, match="no split 'test'"):
    questions.of_split(opened(path), 'test')
  (tmp_path / 'none.jsonl').write_text('')
  how = {'seq_len': 24, 'layout': 'joint', 'source_len': 0}
  info = opened(path).info
  with pytest.raises(DataError, match='there are no pairs'):
    questions.of_files(str(tmp_path / 'none.jsonl'), info, **how)
  with pytest.raises(DataError, match='no file of pairs by its suffix'):
    (tmp_path / 'pairs.txt').write_text('a')
    questions.of_files(str(tmp_path / 'pairs.txt'), info, **how)
