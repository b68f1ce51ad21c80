"""Published test sets, packed as the papers do; texts are of our own."""

import lzma
import zipfile

import numpy as np
import pytest

from sedd_jax.data import DataError, tokenizers
from sedd_jax.data.sets import evaluation_sets, set_packing

END = 99


def ids(*texts):
  return [np.array([int(c) for c in text]) for text in texts]


def test_packed_as_sedd():
  """Cut within a thousand examples, the rest of each thousand dropped."""
  packed = set_packing.packed_as_sedd(ids('123', '', '45'), 4, END)
  np.testing.assert_array_equal(packed, [1, 2, 3, END, END, 4, 5, END])
  packed = set_packing.packed_as_sedd(ids('123', '', '45'), 5, END)
  np.testing.assert_array_equal(packed, [1, 2, 3, END, END])
  many = ids(*1000 * ['1'], *1000 * ['2'])
  packed = set_packing.packed_as_sedd(many, 1200, END)
  np.testing.assert_array_equal(packed, [*600 * [1, END], *600 * [2, END]])
  assert not len(set_packing.packed_as_sedd([], 4, END))


def texts_of(rows):
  """Rows as text: a dot for padding, told tokens in brackets."""
  shown = []
  for tokens, valid, given in zip(*rows):
    marks = [
      '.' if not v else f'({t})' if g else str(t)
      for t, v, g in zip(tokens, valid, given)
    ]
    shown.append(''.join(marks))
  return shown


def test_packed_as_mdlm():
  """Two tokens around what SEDD's packing leaves at two tokens less."""
  found = set_packing.packed_as_mdlm(ids('123', '', '45'), 5, 8, 9)
  assert texts_of(found) == ['81239', '89949']
  assert found.counted().tolist() == [8, 1, 2, 3, 9, 8, 9, 9, 4, 9]
  assert not len(set_packing.packed_as_mdlm(ids('1'), 5, 8, 9).tokens)


def test_packed_apart():
  found = set_packing.packed_apart(ids('123', '', '45'), 4, 8, 9)
  assert texts_of(found) == ['8129', '89..', '8459']


@pytest.mark.parametrize(
  ('end', 'expected'),
  [(9, ['1239', '9459']), (None, ['1234', '5...'])],
)
def test_packed_whole(end, expected):
  found = set_packing.packed_whole(ids('123', '', '45'), 4, 8, end)
  assert texts_of(found) == expected


@pytest.mark.parametrize(
  ('stride', 'expected'),
  [
    (1, ['1234', '(2)(3)(4)5', '(3)(4)(5)6', '(4)(5)(6)7']),
    (2, ['1234', '(3)(4)56', '(5)(6)7.']),
    (3, ['1234', '(4)567']),
    (4, ['1234', '567.']),
  ],
)
def test_windows_count_every_token_once(stride, expected):
  found = set_packing.slid(ids('123', '4567'), 4, None, stride)
  assert texts_of(found) == expected
  assert found.counted().tolist() == [1, 2, 3, 4, 5, 6, 7]
  found = set_packing.slid(ids('12', '3'), 4, 9, stride)
  assert found.counted().tolist() == [1, 2, 9, 3, 9]


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


def test_another_text_than_the_published_one_is_told(tmp_path):
  """WikiText with <unk> has lower perplexities; PTB is published so."""
  tokenizer = tokenizers.make('bytes')

  def remarks():
    suite = 'sedd_zero_shot'
    return evaluation_sets.load(suite, str(tmp_path), tokenizer, 4).info.remarks

  written(tmp_path)
  (tmp_path / 'ptb-test.txt').write_text('the <unk> of it\n')
  assert not remarks()
  (tmp_path / 'wikitext2-test.txt').write_text(' \n the <unk> of it \n')
  assert list(remarks()) == ['wikitext2'] and '<unk>' in remarks()['wikitext2']


def test_batches_of_windows_and_of_rows(tmp_path):
  tokenizer = tokenizers.make('bytes')
  (tmp_path / 'ptb-test.txt').write_text('abcdef\n')
  suite = 'sedd_zero_shot'
  plain = evaluation_sets.load(suite, str(tmp_path), tokenizer, 4)
  assert 'given' not in plain.eval_batch('ptb', [0, 1], 2)
  dataset = evaluation_sets.load(suite, str(tmp_path), tokenizer, 4, 2)
  assert dataset.num_sequences('ptb') == 3
  assert dataset.info.num_tokens['ptb'] == 7
  batch = dataset.eval_batch('ptb', [1, 2, 3], 3)
  shown = [bytes(row).decode() for row in batch['tokens'].astype(np.uint8)]
  assert shown == ['cdef', 'ef\n\0', '\0\0\0\0']
  assert batch['valid'].sum(1).tolist() == [4, 3, 0]
  assert batch['given'].sum(1).tolist() == [2, 2, 0]
  with pytest.raises(DataError, match=r'eval.stride=5 is beyond the 4'):
    evaluation_sets.load(suite, str(tmp_path), tokenizer, 4, 5)


def test_the_sets_of_mdlm(tmp_path):
  """Validation splits, articles, and tokens around each piece."""
  (tmp_path / 'ptb-valid.txt').write_text(" it 's N \n")
  (tmp_path / 'arxiv-valid.jsonl').write_text(
    '{"article": "we ( as = = ) show , that\\n it holds .", "abstract": ""}\n'
  )
  tokenizer = tokenizers.make('bytes')
  dataset = evaluation_sets.load('mdlm_zero_shot', str(tmp_path), tokenizer, 6)
  assert set(dataset.info.num_tokens) == {'ptb_validation', 'arxiv'}
  tokens = dataset.tokens('ptb_validation').reshape(-1, 6)
  # What is left of the example, ' N' and its end, is dropped.
  assert [bytes(row) for row in tokens.astype(np.uint8)] == [b"\nit's\n"]
  path = evaluation_sets.located('arxiv', tmp_path)
  assert list(evaluation_sets.examples_of('arxiv', path)) == [
    'we (as ==) show, that\nit holds.'
  ]


def test_apart_with_berts_ends(tmp_path):
  """[CLS] and [SEP] around a sentence, which is cut, and padding behind."""
  pytest.importorskip('tokenizers')
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'cat', 'sat']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n')
  (tmp_path / 'lm1b-test.txt').write_text('A cat\na cat sat a cat\n')
  tokenizer = tokenizers.make(str(tmp_path))
  dataset = evaluation_sets.load('lm1b', str(tmp_path), tokenizer, 5)
  batch = dataset.eval_batch('lm1b', [0, 1], 2)
  assert batch['tokens'].tolist() == [[2, 5, 6, 3, 0], [2, 5, 6, 7, 3]]
  assert batch['valid'].sum(1).tolist() == [4, 5]
  assert dataset.info.num_tokens['lm1b'] == 9


def test_the_test_split_of_text8(tmp_path, monkeypatch):
  """Of the whole file its end, zipped or not; alone as it is."""
  monkeypatch.setattr(evaluation_sets, '_LARGE', 20)
  monkeypatch.setattr(evaluation_sets, '_LARGE_TEST', 6)
  text8, data = tokenizers.make('text8'), b'abcdefghijklmnopqrst'

  def loaded(suite='text8', tokenizer=text8):
    dataset = evaluation_sets.load(suite, str(tmp_path), tokenizer, 4)
    return tokenizer.decode(dataset.tokens(suite)), dataset

  (tmp_path / 'text8').write_bytes(data)
  text, dataset = loaded()
  assert text == 'opqrst' and dataset.num_sequences('text8') == 2
  (tmp_path / 'text8').write_bytes(data[:-1])
  with pytest.raises(DataError, match='19 bytes, where the published file has'):
    loaded()
  (tmp_path / 'text8').unlink()
  with zipfile.ZipFile(tmp_path / 'text8.zip', 'w') as archive:
    archive.writestr('text8', data)
  assert loaded()[0] == 'opqrst'
  with zipfile.ZipFile(tmp_path / 'text8.zip', 'w') as archive:
    archive.writestr('text8', data + b'u')
  with pytest.raises(DataError, match='more than 20 bytes'):
    loaded()
  (tmp_path / 'text8.zip').write_bytes(b'PK')
  with pytest.raises(DataError, match='text8.zip: File is not a zip file'):
    loaded()
  (tmp_path / 'text8.zip').unlink()
  (tmp_path / 'text8.test').write_bytes(b'abc')
  assert loaded()[0] == 'abc'
  (tmp_path / 'enwik8.test').write_bytes(b'\xc3a\xff')
  dataset = loaded('enwik8', tokenizers.make('bytes'))[1]
  assert dataset.tokens('enwik8').tolist() == [0xC3, 97, 0xFF]
  with pytest.raises(
    DataError, match="in bits a byte, and a token of .*'text8"
  ):
    loaded('enwik8')


def test_what_cannot_be_evaluated(tmp_path):
  tokenizer = tokenizers.make('bytes')

  def load(suite='sedd_zero_shot', seq_len=4, tokenizer=tokenizer):
    evaluation_sets.load(suite, str(tmp_path), tokenizer, seq_len)

  with pytest.raises(DataError, match='no file of suite .* lambada_test.jsonl'):
    load()
  with pytest.raises(DataError, match=r'text8 or text8.zip or text8.test \('):
    load('text8')
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
    assert suite.protocol in set_packing.PROTOCOLS
    assert set(suite.sets) <= set(evaluation_sets.SETS)
    assert suite.figure in ('perplexity', 'bits_per_character')
    for row in suite.published.values():
      assert set(row) <= set(suite.sets)
