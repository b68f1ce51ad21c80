"""Tokenizers with marks."""

import numpy as np
import pytest

from sedd_jax.data import DataError, tokenizers
from sedd_jax.data.files.documents import Document
from sedd_jax.data.paired import marked
from tests.data import toys


def word_pieces(folder, *words):
  """BERT's special tokens, then words."""
  lines = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]
  (folder / 'vocab.txt').write_text('\n'.join(lines) + '\n')
  return tokenizers.make(str(folder))


@pytest.mark.parametrize('name', ['text8', 'bytes'])
def test_marks_come_behind_a_tokenizer_that_lacks_them(name):
  plain = tokenizers.make(name)
  made = marked.Marked(plain)
  size = plain.vocab_size
  assert (made.cls, made.sep, made.pad) == (size, size + 1, size + 2)
  assert made.vocab_size == size + 3
  assert (made.name, made.unit) == (plain.name, plain.unit)
  assert len(made.pieces) == made.vocab_size
  ids = made.encode('a cat')
  np.testing.assert_array_equal(ids, plain.encode('a cat'))
  # What is no symbol of the data is a mask, marks are not.
  assert made.decode([*ids, made.vocab_size]) == 'a cat_'
  framed = [made.cls, *ids, made.sep, made.sep, made.pad]
  assert made.decode(framed) == '[CLS] a cat [SEP] [SEP] [PAD]'
  assert made.num_characters(np.array(framed)) == 5


def test_a_tokenizer_that_has_marks_keeps_them(tmp_path):
  plain = word_pieces(tmp_path, 'a', 'cat', '##s')
  made = marked.Marked(plain)
  assert (made.cls, made.sep, made.pad) == (2, 3, 0)
  assert made.vocab_size == plain.vocab_size == 8
  assert made.text([2, 5, 6, 7, 3, 0, 0]) == 'a cats'
  assert made.vocabulary == plain.vocabulary
  # Names of marks in a text are text, and here three unknown pieces.
  assert made.encode('[SEP]').tolist() == [1, 1, 1]


def test_byte_pairs(tmp_path):
  made = marked.Marked(tokenizers.make(str(toys.tiny_bpe(tmp_path))))
  assert made.vocab_size == 263
  assert made.vocabulary['[CLS]'] == made.cls == 260
  assert made.text([260, *made.encode('the cat'), 261]) == 'the cat'
  assert made.num_characters(np.array([260, 257, 261])) == 3
  assert made.separator == made.sep


def test_a_text_that_is_read_as_a_mark_is_refused(tmp_path):
  class Literal(tokenizers.Bytes):
    vocabulary = {'[SEP]': ord('|')}

  made = marked.Marked(Literal())
  assert made.sep == ord('|') and made.vocab_size == 258
  with pytest.raises(DataError, match=r'a\.tsv:3: its text holds \[SEP\]'):
    made.encode_documents(
      [Document('a.tsv:2', 0, b'ab'), Document('a.tsv:3', 0, b'a|b')]
    )
  with pytest.raises(DataError, match=r"'a\|'.* holds \[SEP\]"):
    made.encode('a|')


def test_text_is_cut_at_the_first_end_if_asked():
  made = marked.Marked(tokenizers.make('text8'))
  ids = np.array([27, 1, 0, 2, 28, 3, 28, 29])
  assert made.text(ids) == 'a bc'
  assert made.text(ids, cut=True) == 'a b'
  assert made.text([28, 27, 28, 1, 28, 2], cut=True) == 'a'
  assert made.text([27, 28, 29], cut=True) == made.text([]) == ''
