"""Candidates of each pair, in order, whatever the batches."""

import json

import numpy as np
import pytest

from sedd_jax.data import load
from sedd_jax.data.paired import questions
from sedd_jax.evaluation import answers, scoring
from sedd_jax.systems import Request, Samples


@pytest.fixture
def data(tmp_path):
  lines = [
    {'src': f'source {i}', 'trg': f'text number {i} of all'} for i in range(10)
  ]
  path = tmp_path / 'pairs.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return load(
    source='seq2seq',
    path=str(path),
    seq_len=48,
    tokenizer='bytes',
    validation_fraction=0.5,
    pairs={'layout': 'joint'},
  )


def writes(data):
  """A system that writes its source's last letter and its seed."""
  marks = data.info.tokenizer

  def draw(request):
    tokens = np.full((len(request.seeds), request.length), marks.pad, np.int32)
    for row, (own, given, seed) in enumerate(
      zip(request.tokens, request.given, request.seeds)
    ):
      first = int(given.sum())
      tokens[row, :first] = own[:first]
      text = f'{chr(own[first - 3])} says {seed}'
      ids = [marks.cls, *text.encode(), marks.sep]
      tokens[row, first : first + len(ids)] = ids
      tokens[row, first + len(ids) + 1] = ord('!')
    lengths = np.full(len(tokens), request.length, np.int32)
    return Samples(tokens, lengths)

  return draw


def rows_of(data, batch_size, candidates=3, cut=False, **changes):
  asked = questions.of_split(data, 'validation', **changes)
  template = Request(length=48, seeds=(0,), batch_size=batch_size)
  requests = answers.requests(asked, template, candidates=candidates, seed=40)
  assert all(len(one.seeds) <= batch_size for one in requests)
  return list(
    answers.answered(
      writes(data),
      requests,
      asked,
      data.info.tokenizer,
      candidates=candidates,
      cut=cut,
      record={'steps': 7},
    )
  )


def test_every_pair_has_its_candidates_in_order(data):
  rows = rows_of(data, 4)
  assert [row['id'] for row in rows] == [
    f'pairs.jsonl:{i + 1}' for i in range(5, 10)
  ]
  assert rows[1] == {
    'id': 'pairs.jsonl:7',
    'src': 'source 6',
    'refs': ['text number 6 of all'],
    'hyps': [f'6 says {seed}!' for seed in (43, 44, 45)],
    'text': '6 says 43!',
    'cut': False,
    'steps': 7,
  }
  assert rows == rows_of(data, 100) == rows_of(data, 1)
  # What follows a pair does not change it.
  assert rows_of(data, 4, limit=2) == rows[:2]
  assert rows_of(data, 4, cut=True)[0]['hyps'][0] == '5 says 40'


def test_the_rows_are_what_scoring_reads(data, tmp_path, capsys):
  rows = rows_of(data, 4)
  path = tmp_path / 'answers.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  read = scoring.read([path])
  assert [row.id for row in read] == [row['id'] for row in rows]
  assert scoring.main([str(path)]) == 0
  assert json.loads(capsys.readouterr().out) == answers.scores(rows)


def test_the_text_is_the_candidate_of_least_risk(data):
  asked = questions.of_split(data, 'validation', 1)
  marks = data.info.tokenizer
  texts = ['a far cry', 'by the old mill', 'by the old mill']

  def draw(request):
    tokens = np.full((3, 48), marks.pad, np.int32)
    for row, text in zip(tokens, texts):
      row[20 : 20 + len(text)] = list(text.encode())
    return Samples(tokens, np.full(3, 48))

  template = Request(length=48, seeds=(0,), batch_size=3)
  (row,) = answers.answered(
    draw,
    answers.requests(asked, template, candidates=3, seed=0),
    asked,
    marks,
    candidates=3,
    cut=False,
    record={},
  )
  assert row['hyps'] == texts and row['text'] == 'by the old mill'


def test_a_preview_is_one_batch_of_the_first(data):
  asked = questions.of_split(data, 'validation')
  template = Request(length=48, seeds=(0,), batch_size=3, record_path=True)
  request = answers.preview(asked, template, seed=2**32 - 1)
  assert request.seeds == (2**32 - 1, 0, 1) and request.record_path
  np.testing.assert_array_equal(request.tokens, asked.tokens[:3])
  np.testing.assert_array_equal(request.given, asked.given[:3])
  assert request.source is None
