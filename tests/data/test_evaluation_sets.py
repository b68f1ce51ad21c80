"""Published test sets, packed as the papers do; texts are of our own."""

import lzma

import numpy as np
import pytest

from sedd_jax.data import DataError, evaluation_sets, tokenizers

END = 99


def ids(*texts):
  return [np.array([int(c) for c in text]) for text in texts]


def test_packed_as_sedd():
  """Cut within a thousand examples, the rest of each thousand dropped."""
  packed = evaluation_sets.packed_as_sedd(ids('123', '', '45'), 4, END)
  np.testing.assert_array_equal(packed, [1, 2, 3, END, END, 4, 5, END])
  packed = evaluation_sets.packed_as_sedd(ids('123', '', '45'), 5, END)
  np.testing.assert_array_equal(packed, [1, 2, 3, END, END])
  many = ids(*1000 * ['1'], *1000 * ['2'])
  packed = evaluation_sets.packed_as_sedd(many, 1200, END)
  np.testing.assert_array_equal(packed, [*600 * [1, END], *600 * [2, END]])
  assert not len(evaluation_sets.packed_as_sedd([], 4, END))


def written(folder, name='wikitext2-test.txt'):
  (folder / name).write_text(' \n = One = \n \n a b , c \n')
  (folder / 'ptb-test.txt').write_text(" it 's N N \n so\n")
  with lzma.open(folder / 'lambada_test.jsonl.xz', 'wt') as file:
    file.write('{"context": " He said", "continuation": "no"}\n\n')
    file.write('{"text": "All of it"}\n')
  return folder


def test_examples(tmp_path):
  written(tmp_path)

  def of(name):
    path = evaluation_sets.located(name, tmp_path)
    return list(evaluation_sets.examples_of(name, path))

  # A line without a word is an example without one.
  assert of('wikitext2') == ['', ' = One =\n', '', ' a b, c\n']
  assert of('ptb') == ["it's 1 N", 'so']
  assert of('lambada') == ['\nHe said no', '\nAll of it']


def test_the_sets_that_are_there(tmp_path):
  tokenizer = tokenizers.make('bytes')
  dataset = evaluation_sets.load(
    'sedd_zero_shot', str(written(tmp_path)), tokenizer, 4
  )
  text = b"it's 1 N\nso\n"
  assert set(dataset.info.num_tokens) == {'lambada', 'wikitext2', 'ptb'}
  np.testing.assert_array_equal(dataset.tokens('ptb'), list(text))
  assert dataset.num_sequences('ptb') == 3
  assert dataset.info.num_characters['ptb'] == 12
  names = {file['name'] for file in dataset.info.files}
  assert names == {
    'lambada_test.jsonl.xz',
    'wikitext2-test.txt',
    'ptb-test.txt',
  }


def test_what_cannot_be_evaluated(tmp_path):
  tokenizer = tokenizers.make('bytes')

  def load(suite='sedd_zero_shot', seq_len=4, tokenizer=tokenizer):
    evaluation_sets.load(suite, str(tmp_path), tokenizer, seq_len)

  with pytest.raises(DataError, match='no file of suite .* lambada_test.jsonl'):
    load()
  written(tmp_path)
  with pytest.raises(DataError, match="'sedd_zero'; nearest: sedd_zero_shot"):
    load('sedd_zero')
  with pytest.raises(DataError, match='fewer than one sequence of 500'):
    load(seq_len=500)
  endless = tokenizers.make('bytes')
  endless.separator = None
  with pytest.raises(DataError, match='no token that ends a document'):
    load(tokenizer=endless)
  for line in ('["b"]', '{"text": 5}', '{"context": "b"}', 'b'):
    text = '{"text": "a"}\n' + line + '\n'
    (tmp_path / 'lambada_test.jsonl').write_text(text)
    with pytest.raises(DataError, match='lambada_test.jsonl: line 2'):
      load()
  (tmp_path / 'lambada_test.jsonl').write_bytes(b'\xff\n')
  with pytest.raises(DataError, match='lambada_test.jsonl: .*invalid'):
    load()


def test_every_suite_is_whole():
  for suite in evaluation_sets.SUITES.values():
    assert suite.protocol in evaluation_sets.PROTOCOLS
    assert set(suite.sets) <= set(evaluation_sets.SETS)
    for row in suite.published.values():
      assert set(row) <= set(suite.sets)
