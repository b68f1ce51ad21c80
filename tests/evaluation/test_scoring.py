"""The table of all figures, and the command that scores files."""

import json
import sys
import types

import numpy as np
import pytest

from sedd_jax.data.paired import pairs
from sedd_jax.evaluation import correction, overlap, scoring, text_metrics

ROWS = [
  scoring.Row(
    'a',
    'he go to the old mill',
    ('he goes to the old mill', 'he went to the old mill'),
    ('he went to old mill', 'he goes to the mill', 'he goes to the old mill'),
  ),
  scoring.Row('b', 'it rain', ('it rains',), ('it rain', 'it rains', '')),
]


def test_every_figure_is_that_of_its_function():
  found = scoring.table(ROWS)
  chosen = ['he goes to the old mill', 'it rain']
  texts = [row.source for row in ROWS], [row.references for row in ROWS], chosen
  bleu, rouge = (
    np.mean([f(row.references, x) for row, x in zip(ROWS, chosen)])
    for f in (overlap.sentence_bleu, overlap.rouge_l)
  )
  assert found == {
    'num_rows': 2,
    'num_hypotheses': [3, 3],
    'num_references': [1, 2],
    'choice': 'mbr',
    'bleu': bleu,
    'corpus_bleu': overlap.corpus_bleu(*texts[1:]),
    'rouge_l': rouge,
    'dist_1': 1,
    'exact_match': 0.5,
    'length': 4,
    'gleu': correction.gleu(*texts),
    **correction.edit_scores(*texts),
    'diversity_of': 3,
    'self_bleu': np.mean([overlap.self_bleu(row.hypotheses) for row in ROWS]),
    'div_4': np.mean([overlap.div_4(row.hypotheses) for row in ROWS]),
    'bert_score': None,
  }
  assert found['edit_f05'] != found['gleu'] != found['bleu']
  json.dumps(found, allow_nan=False)


def test_what_a_table_can_leave_out():
  first = scoring.table(ROWS, choice='first', diversity_of=2)
  assert first['exact_match'] == 0 and first['diversity_of'] == 2
  one = scoring.table([row._replace(hypotheses=('x',)) for row in ROWS])
  assert one['self_bleu'] is one['div_4'] is one['diversity_of'] is None
  free = scoring.table([ROWS[0], ROWS[1]._replace(source='')])
  assert free['gleu'] is free['edit_f05'] is None and free['bleu'] > 0
  told = scoring.table(ROWS, bert_score=lambda texts, refs: float(len(texts)))
  assert told['bert_score'] == 2


@pytest.mark.parametrize(
  ('rows', 'options', 'message'),
  [
    ([], {}, 'no row'),
    (ROWS, {'choice': 'best'}, "choice 'best'; known: mbr, first"),
    (ROWS, {'diversity_of': 1}, 'not 1'),
    ([ROWS[0]._replace(references=())], {}, "row 'a' has no references"),
    ([ROWS[0]._replace(hypotheses=())], {}, "row 'a' has no hypotheses"),
  ],
)
def test_faulty_rows_are_named(rows, options, message):
  with pytest.raises(ValueError, match=message):
    scoring.table(rows, **options)


def write(path, *values):
  path.write_text(''.join(json.dumps(value) + '\n' for value in values))
  return path


def outputs(path, **candidates):
  """A file of outputs: id to candidates."""
  rows = ({'id': key, 'hyps': texts} for key, texts in candidates.items())
  return write(path, *rows)


def test_files_are_joined_by_id_and_never_reordered(tmp_path):
  pair = [
    pairs.Pair('x', 'a b', ('a c',)),
    pairs.Pair('y', 'c d', ('c e', 'c f')),
  ]
  one = outputs(tmp_path / '1.jsonl', y=['y1', 'y2'], x='x1')
  two = outputs(tmp_path / '2.jsonl', x=['x2'], y=['y3'])
  assert scoring.read([one, two], pair) == [
    ('x', 'a b', ('a c',), ('x1', 'x2')),
    ('y', 'c d', ('c e', 'c f'), ('y1', 'y2', 'y3')),
  ]


def test_outputs_may_have_their_references(tmp_path):
  pair = pairs.Pair('t.tsv:4', 'a b', ('a c', 'a d'))
  lines = [
    scoring.output_row(pair, ['a', 'b'], seed=3),
    {'trg': 'y', 'hyps': 'z'},
  ]
  found = scoring.read([write(tmp_path / 'o.jsonl', *lines)])
  assert found == [
    ('t.tsv:4', 'a b', ('a c', 'a d'), ('a', 'b')),
    ('2', '', ('y',), ('z',)),
  ]


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ({'id': 'x'}, r"o\.jsonl:2: not an output; a line has 'hyps'"),
    ({'id': 'x', 'hyps': []}, r'o\.jsonl:2: not an output'),
    ({'id': 'x', 'hyps': ['a', None]}, r'o\.jsonl:2: not an output'),
    (['a'], r'o\.jsonl:2: not an output'),
    ({'id': 'a', 'hyps': 'b', 'trg': 'c'}, r"2: the id 'a' is that of .*:1"),
    ({'id': 'x', 'hyps': 'b'}, r'o\.jsonl:2: no references'),
    ({'id': 'x', 'hyps': 'b', 'refs': []}, r'o\.jsonl:2: no references'),
    ({'id': 'x', 'hyps': 'b', 'trg': 3}, r'o\.jsonl:2: no references'),
    ({'hyps': 'b', 'trg': 'c', 'refs': ['d']}, r'o\.jsonl:2: no references'),
  ],
)
def test_faulty_outputs_are_named_with_their_line(tmp_path, line, message):
  first = {'id': 'a', 'hyps': 'b', 'trg': 'c'}
  with pytest.raises(ValueError, match=message):
    scoring.read([write(tmp_path / 'o.jsonl', first, line)])


def test_ids_that_are_missing_or_unknown_are_named(tmp_path):
  pair = [pairs.Pair('x', 'a', ('b',))]
  both = outputs(tmp_path / 'both.jsonl', x='1', y='2')
  with pytest.raises(ValueError, match=r"both\.jsonl:2: the id 'y' is not"):
    scoring.read([both], pair)
  other = outputs(tmp_path / 'other.jsonl', y='2')
  with pytest.raises(ValueError, match=r"other\.jsonl: no output .* id 'x'"):
    scoring.read([other], pair)
  (tmp_path / 'none.jsonl').touch()
  with pytest.raises(ValueError, match=r'none\.jsonl: empty'):
    scoring.read([tmp_path / 'none.jsonl'], pair)
  for text in ('{', '[' * 100_000):
    (tmp_path / 'no.jsonl').write_text(text)
    with pytest.raises(ValueError, match=r'no\.jsonl:1: no JSON'):
      scoring.read([tmp_path / 'no.jsonl'], pair)


def test_the_command(tmp_path, capsys):
  test = tmp_path / 'test.tsv'
  test.write_text('he go home\the goes home\nit rain\tit rains\n')
  made = {'test.tsv:1': ['he goes home'], 'test.tsv:2': ['it rain']}
  path = outputs(tmp_path / 'o.jsonl', **made)
  scores = tmp_path / 'scores.json'
  pair = ['--pairs', str(test)]
  assert scoring.main([str(path), *pair, '--output', str(scores)]) == 0
  found = json.loads(scores.read_text())
  assert found['exact_match'] == 0.5 and found['edit_precision'] == 1
  assert scoring.main(['--copy', *pair]) == 0
  copied = json.loads(capsys.readouterr().out)
  assert copied['edit_recall'] == copied['exact_match'] == 0
  for arguments in ([], ['--copy'], ['--copy', *pair, str(path)]):
    assert scoring.main(arguments) == 1
    assert '--copy' in capsys.readouterr().err
  assert scoring.main([str(tmp_path / 'scores.jsn')]) == 1
  assert 'nearest: scores.json' in capsys.readouterr().err


def test_bert_score_is_the_librarys(monkeypatch):
  asked = {}

  def score(texts, references, **options):
    asked.update(texts=texts, references=references, **options)
    return None, None, np.array([0.25, 0.75])

  monkeypatch.setitem(
    sys.modules, 'bert_score', types.SimpleNamespace(score=score)
  )
  found = text_metrics.bert_score(['a', 'b'], [('c',), ('d', 'e')], 'net')
  assert found == 0.5
  assert asked == {
    'texts': ['a', 'b'],
    'references': [['c'], ['d', 'e']],
    'model_type': 'net',
  }


def test_bert_score_without_the_library(monkeypatch, tmp_path, capsys):
  monkeypatch.setitem(sys.modules, 'bert_score', None)
  # Told before any file is read.
  assert scoring.main(['gone.jsonl', '--bert-score', 'net']) == 1
  assert "pip install 'sedd_jax[bertscore]'" in capsys.readouterr().err
