"""Pairs of corrupted and whole texts, as files."""

import collections
import json

import numpy as np
import pytest

from sedd_jax import corrupting
from sedd_jax.data.paired import pairs
from tests import oracles

TEXTS = ['a b , a .', 'é 日 🙂 <::::> a b', 'b']
KEPT = {'keep': 1.0, 'replace': 0.0, 'delete': 0.0, 'insert': 0.0}


@pytest.fixture
def source(tmp_path):
  path = tmp_path / 'texts.jsonl'
  path.write_text(''.join(f'{json.dumps(text)}\n' for text in TEXTS))
  return path


def command(source, output, **options):
  flags = [f'--{k.replace("_", "-")}={v}' for k, v in options.items()]
  return corrupting.main([f'--input={source}', f'--output={output}', *flags])


def test_pairs_are_read_again_and_depend_on_the_seed(source, tmp_path, capsys):
  files = [tmp_path / f'{name}.jsonl' for name in 'abc']
  more = {'split_at': '<::::>', 'copies': 3, 'keep': 0.4, 'replace': 0.56}
  for file, seed in zip(files, (5, 5, 6)):
    assert command(source, file, seed=seed, **more) == 0
  assert '12 pairs of 4 texts' in capsys.readouterr().out
  first, second, third = (file.read_text() for file in files)
  assert first == second != third
  read = pairs.read(files[:1])
  wanted = ['a b , a .', 'é 日 🙂', 'a b', 'b']
  assert [p.targets[0] for p in read] == [t for t in wanted for _ in range(3)]
  assert [p.id for p in read[2:5]] == [
    *('texts.jsonl:1/3', 'texts.jsonl:2#1/1', 'texts.jsonl:2#1/2')
  ]
  known = {word for text in wanted for word in text.split()}
  assert {word for p in read for word in p.source.split()} <= known
  assert any(p.source != p.targets[0] for p in read)


def test_the_law_of_words_that_come_in_and_of_steps():
  """All is replaced at once: by the words of the texts, as often as there."""
  texts = [corrupting.Text('', tuple('aab')), corrupting.Text('', ('c',))]
  rates = {**KEPT, 'keep': 0.0, 'replace': 1.0}
  for distractors, law in (('corpus', (2, 1, 1)), ('uniform', (1, 1, 1))):
    lines = corrupting.corrupted(
      texts, steps=3, copies=400, distractors=distractors, **rates
    )
    rows = [row for row, _ in lines]
    found = collections.Counter(w for row in rows for w in row['src'].split())
    counts = np.array([found[word] for word in 'abc'])
    assert oracles.chi_square_pvalue(counts, np.array(law)) > 1e-4
    other = np.array((1, 2, 1))
    assert oracles.chi_square_pvalue(counts, other) < 1e-4
    steps = np.bincount([row['steps'] for row in rows], minlength=4)
    assert not steps[0]
    assert oracles.chi_square_pvalue(steps[1:], np.ones(3)) > 1e-4


def test_what_is_kept_is_whole_and_what_is_gone_is_drawn_again():
  texts = [corrupting.Text('x', ('a', 'b'))]
  [(row, again)] = corrupting.corrupted(texts, steps=4, **KEPT)
  assert row['src'] == row['trg'] == 'a b' and not again
  rates = {**KEPT, 'keep': 0.2, 'delete': 0.8}
  found = list(corrupting.corrupted(texts, steps=1, copies=50, **rates))
  assert all(row['src'] for row, _ in found)
  assert sum(again for _, again in found) > 20


def test_mistakes_are_told(source, tmp_path, capsys):
  output = tmp_path / 'out.jsonl'
  bad = tmp_path / 'bad.jsonl'
  bad.write_text('"a"\n{"src"\n')
  empty = tmp_path / 'empty.jsonl'
  empty.write_text('"a"\n""\n')
  for told, begin, options in (
    ('bad.jsonl:2: no JSON', bad, {}),
    ('empty.jsonl:2: the target is empty', empty, {}),
    ("texts.jsonl:2: an empty text beside 'b'", source, {'split_at': 'b'}),
    ('sum to 1', source, {'keep': 0.5}),
    ('--steps 0', source, {'steps': 0}),
    ('no text is left', source, {**KEPT, 'keep': 0.0, 'delete': 1.0}),
  ):
    assert command(begin, output, **options) == 1
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob('out*'))
  assert command(source, tmp_path / 'out.txt') == 1
  assert 'a .jsonl' in capsys.readouterr().err
  output.write_text('mine')
  assert command(source, output) == 1
  assert '--overwrite' in capsys.readouterr().err
  assert output.read_text() == 'mine'
  assert (
    corrupting.main([f'--input={source}', f'--output={output}', '--overwrite'])
    == 0
  )
  assert len(output.read_text().splitlines()) == 3
