"""Pairs whose targets are tagged: what batches say of their words."""

import numpy as np
import pytest

from sedd_jax.data import DataError, tokenizers
from sedd_jax.data.files import labels
from sedd_jax.data.pipeline import load
from tests import toy_tagger

TEXTS = (
  *('the cat sees a dog .', 'a dog is the cat', 'the dog sees', 'cat .'),
  *('a cat is a cat .', 'the cat sees the very very old dog .'),
)
TOY = 'tests.toy_tagger:tagger'


def opened(folder, texts=TEXTS, **options):
  path = folder / 'pairs.jsonl'
  lines = [f'{{"src": "x", "trg": "{text}"}}' for text in texts]
  path.write_text('\n'.join(lines) + '\n')
  counts = tokenizers.word_counts(TEXTS)
  (folder / 'words.txt').write_text(tokenizers.words_file(counts, 0))
  known = {
    'tokenizer': str(folder),
    'label': labels.SPANS,
    'tagger': TOY,
    'pairs': {'layout': 'target'},
    **options,
  }
  return load(
    source='seq2seq',
    path=str(path),
    seq_len=9,
    validation_fraction=0.34,
    **known,
  )


def facts(data, batch, row):
  """Tags, true phrases and what was drawn of a row, by their names."""
  named = data.info.labels
  found = [
    (int(i), int(j), named[k]) for i, j, k in batch['label'][row] if k >= 0
  ]
  tags = [fact for fact in found if fact[2].startswith('pos')]
  phrases = [fact for fact in found if fact[2].startswith('span')]
  count = (len(phrases) + 1) // 2
  return tags, phrases[:count], phrases[count:]


def said(data, tokens):
  text = data.info.tokenizer.text(tokens)
  return text, next(iter(toy_tagger.tagger([text.split(' ')])))


def test_every_word_and_phrase_and_as_many_drawn_places(tmp_path):
  data = opened(tmp_path)
  assert data.info.labels == (
    *('pos[.]', 'pos[DT]', 'pos[NN]', 'pos[VBZ]'),
    *('span[NP]', 'span[VP]', 'span[]'),
  )
  batch = data.train_batch(0, 3, np.arange(400), 400)
  # 7 words (the longest text is cut), 5 phrases at most.
  assert batch['label'].shape == (400, 7 + 2 * 5, 3)
  drawn_of = {}
  for row, tokens in enumerate(batch['tokens']):
    text, own = said(data, tokens)
    tags, phrases, drawn = facts(data, batch, row)
    # A word is the token behind [CLS] and those before it.
    assert tags == [
      (i + 1, i + 2, f'pos[{tag}]') for i, tag in enumerate(own.tags)
    ]
    true = {(i + 1, j + 1): f'span[{name}]' for i, j, name in own.phrases}
    assert {(i, j): name for i, j, name in phrases} == true
    assert len(drawn) == len(phrases)
    for i, j, name in drawn:
      assert 1 <= i < j <= len(own.tags) + 1
      assert name == true.get((i, j), 'span[]')
    drawn_of.setdefault(text, []).extend((i, j) for i, j, _ in drawn)
  # Evenly from all places of a text, and other ones at each.
  text = 'the dog sees'
  places, counts = np.unique(drawn_of[text], axis=0, return_counts=True)
  assert len(places) == 6 and counts.sum() > 120
  np.testing.assert_allclose(counts / counts.sum(), 1 / 6, atol=0.1)


def test_what_is_drawn_depends_on_seed_step_and_index_alone(tmp_path):
  data = opened(tmp_path)
  whole = data.train_batch(1, 5, np.arange(30), 30)['label']
  again = data.train_batch(1, 5, [17, 4], 30)['label']
  np.testing.assert_array_equal(again, whole[[17, 4]])
  for seed, step in ((2, 5), (1, 6)):
    other = data.train_batch(seed, step, np.arange(30), 30)['label']
    assert not np.array_equal(other, whole)
  plain = opened(tmp_path, label='').train_batch(1, 5, np.arange(30), 30)
  batch = data.train_batch(1, 5, np.arange(30), 30)
  assert set(batch) == {*plain, 'label'}
  np.testing.assert_array_equal(batch['tokens'], plain['tokens'])


def test_evaluation_reads_rows_in_order(tmp_path):
  data = opened(tmp_path)
  batch = data.eval_batch('validation', [0, 1, 2, 7], 2)
  np.testing.assert_array_equal(
    batch['label'][[1]], data.eval_batch('validation', [1], 2)['label']
  )
  for row in (0, 1):
    _, own = said(data, batch['tokens'][row])
    assert len(facts(data, batch, row)[0]) == len(own.tags)
  assert np.all(batch['label'][2:, :, 2] == labels.NONE)


def test_labels_of_a_run_keep_their_numbers(tmp_path):
  known = ('span[]', 'pos[NN]', 'pos[DT]', 'pos[.]', 'pos[VBZ]', 'span[NP]')
  data = opened(tmp_path, known=(*known, 'span[VP]', 'span[PP]'))
  assert data.info.labels == (*known, 'span[VP]', 'span[PP]')
  batch = data.eval_batch('train', [0], 1)
  assert facts(data, batch, 0)[0][:2] == [(1, 2, 'pos[DT]'), (2, 3, 'pos[NN]')]
  with pytest.raises(DataError, match=r"label 'span\[VP\]' of this text"):
    opened(tmp_path, known=known)


@pytest.mark.parametrize(
  'options, told',
  [
    ({'tokenizer': 'text8'}, 'must be a folder with words.txt'),
    ({'pairs': {'layout': 'split'}}, "data.layout='target', not 'split'"),
    ({'label': '@span'}, 'or @spans, the tags and phrases'),
    ({'tagger': 'gone'}, "unknown tagger 'gone'"),
    (
      {'tagger': 'tests.toy_tagger:short'},
      r'pairs\.jsonl:1: the tagger says 5 tags of 6 words',
    ),
  ],
)
def test_mistakes(tmp_path, options, told):
  with pytest.raises(ValueError, match=told):
    opened(tmp_path, **options)
