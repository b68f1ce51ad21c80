"""Meaning representations as labels of pairs."""

import numpy as np
import pytest

from sedd_jax.data import DataError
from sedd_jax.data.files import labels
from sedd_jax.data.labelling import meanings
from sedd_jax.data.pipeline import PAIR_FIELDS, describe, load

ROWS = (
  ('name[Aromi], food[Thai], area[riverside]', 'Aromi is thai'),
  ('name[Aromi], area[city centre]', 'Aromi is there'),
  ('name[Zizzi], food[Thai]', 'Zizzi is thai too'),
  ('name[Zizzi]', 'Zizzi is'),
)


def write(folder, rows=ROWS, name='e2e.csv'):
  lines = ['mr,ref', *(f'"{mr}","{ref}"' for mr, ref in rows)]
  path = folder / name
  path.write_text('\n'.join(lines) + '\n')
  return path


def opened(path, label, **options):
  known = {'validation_fraction': 0.25, 'layout': 'target'} | options
  shared = {
    name: known.pop(name) for name in PAIR_FIELDS if name in tuple(known)
  }
  return load(
    source='seq2seq',
    path=str(path),
    tokenizer='text8',
    seq_len=24,
    label=label,
    pairs=shared,
    **known,
  )


def test_facts_keep_their_order_and_signs():
  found = meanings.facts(
    'customer rating[3 out of 5], near[A, B], priceRange[£20-25]', 'x'
  )
  assert list(found.items()) == [
    ('customer rating', '3 out of 5'),
    ('near', 'A, B'),
    ('priceRange', '£20-25'),
  ]
  label = meanings.label_of('near', 'A, B')
  assert label == 'near[A, B]' and meanings.field_of(label) == 'near'
  assert meanings.field_of('near[]') == 'near'
  assert meanings.field_of('prose') == meanings.field_of('[x]') == ''


@pytest.mark.parametrize(
  'text', ['', 'a cat', 'name[]', 'name[x] food[y]', 'name[x], name[y]', 'a[b']
)
def test_other_texts_are_told(text):
  with pytest.raises(DataError, match='here: no meaning representation'):
    meanings.facts(text, 'here')


def test_one_field(tmp_path):
  data = opened(write(tmp_path), 'food')
  assert data.info.labels == ('food[Thai]', 'food[]')
  batch = data.eval_batch('train', [0, 1, 2, 3], 3)
  assert batch['label'].dtype == np.int32
  assert batch['label'].tolist() == [0, 1, 0, labels.NONE]
  plain = opened(write(tmp_path), '')
  drawn, own = (d.train_batch(3, 5, [7, 1], 8) for d in (data, plain))
  assert set(drawn) == {*own, 'label'}
  for name, array in own.items():
    np.testing.assert_array_equal(drawn[name], array)
  # The label is that of the row's own meaning.
  decode = data.info.tokenizer.text
  for _ in range(2):
    batch = data.train_batch(3, 5, np.arange(40), 40)
    thai = ['thai' in decode(row) for row in batch['tokens']]
    np.testing.assert_array_equal(batch['label'] == 0, thai)


def test_all_fields_are_drawn_evenly_and_by_index_alone(tmp_path):
  data = opened(write(tmp_path), labels.MEANING)
  named = data.info.labels
  assert named == (
    *('area[]', 'area[city centre]', 'area[riverside]'),
    *('food[Thai]', 'food[]', 'name[Aromi]', 'name[Zizzi]'),
  )
  batch = data.train_batch(0, 2, np.arange(3000), 3000)
  again = data.train_batch(0, 2, [17], 3000)
  assert again['label'][0] == batch['label'][17]
  decode = data.info.tokenizer.text
  rows = np.array([decode(row) for row in batch['tokens']])
  first = batch['label'][rows == 'aromi is thai']
  # Each of its three fields a third of the time.
  for row, present in (
    (first, ['area[riverside]', 'food[Thai]', 'name[Aromi]']),
    (
      batch['label'][rows == 'zizzi is thai too'],
      ['area[]', 'food[Thai]', 'name[Zizzi]'],
    ),
  ):
    shares = np.bincount(row, minlength=7) / len(row)
    expected = [(name in present) / 3 for name in named]
    np.testing.assert_allclose(shares, expected, atol=0.06)
  other = data.train_batch(0, 3, np.arange(3000), 3000)
  assert not np.array_equal(other['label'], batch['label'])


def test_labels_of_a_run_keep_their_numbers(tmp_path):
  known = ('name[Zizzi]', 'food[Thai]', 'name[Aromi]', 'name[Ask]')
  data = opened(write(tmp_path), 'name', known=known)
  assert data.info.labels == known
  assert data.eval_batch('train', [0, 2], 2)['label'].tolist() == [2, 0]
  info = describe(source='seq2seq', tokenizer='text8', known=known)
  assert info.labels == known
  with pytest.raises(DataError, match=r"label 'name\[Aromi\]' of this text"):
    opened(write(tmp_path), 'name', known=('name[Zizzi]',))


@pytest.mark.parametrize(
  'label, told',
  [
    ('foot', "data.label='foot': no meaning has that field; nearest: food"),
    ('@file', 'of pairs it is a field of the meanings'),
    ('@meanings', 'or @meaning for all'),
  ],
)
def test_labels_that_there_are_not(tmp_path, label, told):
  with pytest.raises(DataError, match=told):
    opened(write(tmp_path), label)


def test_a_source_without_fields_is_named(tmp_path):
  path = write(tmp_path, [*ROWS, ('a cat', 'x')])
  with pytest.raises(DataError, match=r'e2e\.csv:6: no meaning representation'):
    opened(path, 'food')


def test_documents_have_no_meanings():
  with pytest.raises(DataError, match="unknown label '@meaning'"):
    load(source='text_file', path='x', seq_len=4, label=labels.MEANING)
