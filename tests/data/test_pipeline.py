import hashlib
import sys

import numpy as np
import pytest
from scipy import stats

from sedd_jax.data import DataError, Dataset, load, tokenizers
from sedd_jax.data.pipeline import DataInfo
from sedd_jax.data.prepared import writer


def dataset(num_tokens=1000, seq_len=16, **splits):
  """Tokens that say where they are."""
  tokens = {'train': np.arange(num_tokens, dtype=np.uint16)} | splits
  info = DataInfo(
    name='places',
    vocab_size=num_tokens,
    tokenizer=tokenizers.make('bytes'),
    num_tokens={split: len(array) for split, array in tokens.items()},
    num_characters={},
    unit='token',
    files=(),
  )
  return Dataset(info, tokens, seq_len)


def test_a_token_beyond_the_vocabulary_goes_no_further():
  data = dataset(num_tokens=40, validation=np.full(20, 40, np.uint16))
  assert data.train_batch(0, 0, [0], 1)['tokens'].shape == (1, 16)
  with pytest.raises(DataError, match='validation split has a token 40'):
    data.eval_batch('validation', [0], 1)


def text_file(path, text='', **kwargs):
  data = text if isinstance(text, bytes) else text.encode()
  if data:
    path.write_bytes(data)
  return load(source='text_file', path=str(path), **{'seq_len': 4} | kwargs)


def prepared(folder, source='text_file', division='position', **splits):
  tokenizer = tokenizers.make('text8')
  with writer.Writer(
    folder, source=source, division=division, tokenizer=tokenizer
  ) as written:
    for split, text in splits.items():
      written.append(split, tokenizer.encode(text), len(text))
    written.sources.append({'name': 'raw.txt', 'sha256': 'abc'})


def test_the_form_of_a_batch():
  data = dataset()
  form = {
    'tokens': (np.int32, (2, 16)),
    'index': (np.int32, (2,)),
    'count': (np.int32, ()),
  }
  padded = {**form, 'valid': (np.bool_, (2, 16))}
  for batch, want in (
    (data.train_batch(0, 3, [2, 5], 8), form),
    (data.eval_batch('train', [2, 5], 8), padded),
  ):
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == want
    assert batch['index'].tolist() == [2, 5]
    assert batch['count'] == 8


def test_train_rows_are_crops():
  tokens = dataset().train_batch(1, 2, np.arange(50), 50)['tokens']
  np.testing.assert_array_equal(np.diff(tokens), 1)


def test_a_train_row_depends_on_seed_step_and_its_index_only():
  data = dataset()
  rng = np.random.default_rng(0)
  for step in range(5):
    whole = data.train_batch(7, step, np.arange(64), 64)['tokens']
    some = rng.permutation(64)[:9]
    part = data.train_batch(7, step, some, 64)['tokens']
    np.testing.assert_array_equal(part, whole[some])
  assert not np.array_equal(
    data.train_batch(7, 0, [1], 64)['tokens'],
    data.train_batch(8, 0, [1], 64)['tokens'],
  )


def test_steps_differ_and_crops_are_uniform_to_both_ends():
  data = dataset(num_tokens=40, seq_len=16)
  firsts = np.stack(
    [
      data.train_batch(0, step, np.arange(20), 20)['tokens'][:, 0]
      for step in range(500)
    ]
  )
  assert len(np.unique(firsts, axis=0)) == 500
  counts = np.bincount(firsts.ravel())
  assert len(counts) == 40 - 16 + 1
  assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_a_corpus_of_one_sequence_has_one_crop():
  batch = dataset(num_tokens=16, seq_len=16).train_batch(0, 0, [0, 9], 10)
  np.testing.assert_array_equal(batch['tokens'], [np.arange(16)] * 2)


@pytest.mark.parametrize('num_tokens', [16, 17, 31, 32, 33, 1000])
@pytest.mark.parametrize('batch_size', [1, 3, 7])
def test_evaluation_reads_every_token_exactly_once(num_tokens, batch_size):
  data = dataset(num_tokens=num_tokens, seq_len=16)
  count = data.num_sequences('train')
  assert count == -(-num_tokens // 16)
  read = []
  # Beyond the end, as a last batch of a fixed size is.
  for begin in range(0, count + batch_size, batch_size):
    indices = np.arange(begin, begin + batch_size)
    batch = data.eval_batch('train', indices, count)
    assert not batch['valid'][indices >= count].any()
    assert not batch['tokens'][~batch['valid']].any()
    read.append(batch['tokens'][batch['valid']])
  np.testing.assert_array_equal(np.concatenate(read), np.arange(num_tokens))


def test_a_split_shorter_than_a_sequence_is_padded():
  data = dataset(validation=np.array([4, 5, 6], np.uint16))
  batch = data.eval_batch('validation', [1, 0], 1)
  assert data.num_sequences('validation') == 1
  assert batch['tokens'][1, :4].tolist() == [4, 5, 6, 0]
  assert batch['valid'].sum(1).tolist() == [0, 3]


def test_evaluation_in_any_order():
  data = dataset()
  whole = data.eval_batch('train', np.arange(63), 63)
  order = np.random.default_rng(0).permutation(63)
  part = data.eval_batch('train', order, 63)
  np.testing.assert_array_equal(part['tokens'], whole['tokens'][order])
  np.testing.assert_array_equal(part['valid'], whole['valid'][order])
  with pytest.raises(ValueError, match='-2'):
    data.eval_batch('train', [0, -2], 63)


def test_an_unknown_split_is_named():
  with pytest.raises(DataError, match="no split 'valid'.*known: train"):
    dataset().tokens('valid')


def test_too_short_and_empty_corpora_are_named(tmp_path):
  with pytest.raises(DataError, match='15 tokens, fewer than one sequence'):
    dataset(num_tokens=15, seq_len=16)
  with pytest.raises(DataError, match='validation split is empty'):
    text_file(tmp_path / 'a.txt', 'abcdefgh')
  (tmp_path / 'empty.txt').touch()
  with pytest.raises(DataError, match=r'empty\.txt.* has no text'):
    text_file(tmp_path / 'empty.txt')
  with pytest.raises(DataError, match='seq_len is 0'):
    dataset(seq_len=0)


def test_unknown_names_get_alternatives():
  with pytest.raises(DataError, match="source 'tex8'; nearest: text8"):
    load(source='tex8', seq_len=4)
  with pytest.raises(DataError, match="tokenizer 'txt8'; nearest: text8"):
    load(source='pydoc', tokenizer='txt8', seq_len=4)
  with pytest.raises(DataError, match='nearest: corpus.txt'):
    load(source='text_file', path='dir/corpus.txt,dir/corps.txt', seq_len=4)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
  """A working folder with one file, and without the checkout's data."""
  (tmp_path / 'dir').mkdir()
  (tmp_path / 'dir' / 'corpus.txt').write_text('x')
  monkeypatch.chdir(tmp_path)


def test_text_file_holds_out_its_end(tmp_path):
  text = 'The 2 Cats!' * 10
  data = text_file(tmp_path / 'a.txt', text, validation_fraction=0.25)
  wanted = tokenizers.normalise(text)
  decode = data.info.tokenizer.decode
  parts = decode(data.tokens('train')), decode(data.tokens('validation'))
  assert ''.join(parts) == wanted
  assert len(parts[1]) == round(len(wanted) / 4)
  assert data.info.num_tokens == dict(
    zip(('train', 'validation'), map(len, parts))
  )
  assert data.info.num_characters == data.info.num_tokens
  assert data.info.unit == 'character'
  digest = hashlib.sha256(text.encode()).hexdigest()
  assert data.info.files == ({'name': 'a.txt', 'sha256': digest},)


def test_text_file_with_a_test_split(tmp_path):
  text = 'abcdefghij' * 10
  shares = {'validation_fraction': 0.05, 'test_fraction': 0.05, 'seq_len': 1}
  prepared(tmp_path / 'p', train=text[:60], validation=text[60:])
  for place in ('a.txt', 'p'):
    data = text_file(
      tmp_path / place, *([text] if place == 'a.txt' else []), **shares
    )
    parts = [
      data.info.tokenizer.decode(data.tokens(split))
      for split in ('train', 'validation', 'test')
    ]
    assert parts == [text[:90], text[90:95], text[95:]]
  with pytest.raises(DataError, match=r'0\.96 and .* leave nothing'):
    text_file(tmp_path / 'a.txt', text, seq_len=1, test_fraction=0.96)


def test_several_files_meet_in_one_separator(tmp_path):
  (tmp_path / 'a.txt').write_text('One. ')
  (tmp_path / 'b.txt').write_text(' Two')
  (tmp_path / 'c.txt').write_text('three\n')

  def text(names, tokenizer):
    data = load(
      source='text_file',
      path=','.join(str(tmp_path / f'{name}.txt') for name in names),
      tokenizer=tokenizer,
      seq_len=2,
    )
    parts = [data.tokens(split) for split in ('train', 'validation')]
    return data.info.tokenizer.decode(np.concatenate(parts))

  assert text('abc', 'text8') == 'one two three '
  assert text('cab', 'text8') == 'three one two'
  assert text('abc', 'bytes') == 'One. \n Two\nthree\n'
  assert text('cba', 'bytes') == 'three\n Two\nOne. '


def test_bytes_take_what_is_no_utf8_and_text8_names_it(tmp_path):
  faulty = b'abc \xff def ' * 20
  data = text_file(tmp_path / 'a.txt', faulty, tokenizer='bytes')
  assert data.tokens('train')[4] == 255
  assert data.info.unit == 'byte'
  with pytest.raises(DataError, match=r'a\.txt: invalid UTF-8.*offset 4;'):
    text_file(tmp_path / 'a.txt', tokenizer='text8')


@pytest.mark.parametrize('limit', [1, 40, 99, 100, 1000])
def test_limit_is_the_beginning_split_anew(tmp_path, limit):
  text = 'abcdefghij' * 10
  kept = min(limit, 100)
  arguments = {'limit': limit, 'validation_fraction': 0.2, 'seq_len': 1}
  if limit == 1:
    with pytest.raises(DataError, match='data.limit too small'):
      text_file(tmp_path / 'a.txt', text, **arguments)
    return
  data = text_file(tmp_path / 'a.txt', text, **arguments)
  decode = data.info.tokenizer.decode
  assert (
    decode(data.tokens('validation')) == (text[kept - round(kept / 5) : kept])
  )
  assert decode(data.tokens('train')) == text[: kept - round(kept / 5)]
  # The same from prepared data, whose files were split otherwise.
  prepared(
    tmp_path / 'p', train=text[:70], validation=text[70:90], test=text[90:]
  )
  again = text_file(tmp_path / 'p', **arguments)
  for split in ('train', 'validation'):
    np.testing.assert_array_equal(again.tokens(split), data.tokens(split))
  assert again.info.num_characters == data.info.num_characters
  assert again.info.files == ({'name': 'raw.txt', 'sha256': 'abc'},)


def test_prepared_splits_stay_mapped(tmp_path):
  text = 'abcdefghij' * 10
  prepared(tmp_path / 'p', train=text[:95], validation=text[95:])
  data = text_file(tmp_path / 'p')
  assert all(
    isinstance(data.tokens(split), np.memmap)
    for split in ('train', 'validation')
  )
  assert data.info.num_tokens == {'train': 95, 'validation': 5}


def test_a_limit_on_documents_is_in_proportion(tmp_path):
  prepared(
    tmp_path / 'p',
    source='openwebtext',
    division='document',
    train='ab' * 40,
    validation='cd' * 10,
  )
  arguments = {'source': 'openwebtext', 'path': str(tmp_path / 'p')}
  data = load(**arguments, seq_len=4, limit=50)
  assert data.info.num_tokens == {'train': 40, 'validation': 10}
  assert set(data.tokens('validation')) == {3, 4}
  assert load(**arguments, seq_len=4).info.num_tokens['train'] == 80


def test_prepared_data_of_another_kind_is_refused(tmp_path):
  prepared(tmp_path / 'p', train='ab' * 40, validation='cd')
  arguments = {'path': str(tmp_path / 'p'), 'seq_len': 4}
  with pytest.raises(DataError, match="data.source='text_file', not 'pydoc'"):
    load(source='pydoc', **arguments)
  with pytest.raises(DataError, match="data.tokenizer='text8', not 'bytes'"):
    load(source='text_file', tokenizer='bytes', **arguments)


def test_many_files_are_named_by_the_token_files(tmp_path):
  with writer.Writer(
    tmp_path / 'q',
    source='text_file',
    division='position',
    tokenizer=tokenizers.make('text8'),
  ) as written:
    written.append('train', np.ones(100, int), 100)
    written.sources += [{'name': str(i), 'sha256': ''} for i in range(100)]
  files = text_file(tmp_path / 'q').info.files
  assert [entry['name'] for entry in files] == ['train-00000.bin']


def test_pydoc():
  data = load(source='pydoc', seq_len=128)
  train, held = data.tokens('train'), data.tokens('validation')
  total = len(train) + len(held)
  assert total > 200_000
  assert len(held) == round(total * 0.05)
  text = data.info.tokenizer.decode(np.concatenate([train, held]))
  assert tokenizers.normalise(text) == text
  digest = hashlib.sha256(text.encode()).hexdigest()
  assert data.info.files == ({'name': 'pydoc_data.topics', 'sha256': digest},)
  assert data.info.vocab_size == 27
  again = load(source='pydoc', seq_len=128)
  np.testing.assert_array_equal(again.tokens('train'), train)


def test_a_python_without_the_topics_says_so(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pydoc_data.topics', None)
  with pytest.raises(DataError, match='lacks.*--config.data.source=text_file'):
    load(source='pydoc', seq_len=8)


def test_pydoc_takes_no_path():
  with pytest.raises(DataError, match='takes no data.path'):
    load(source='pydoc', path='a.txt', seq_len=8)


@pytest.mark.parametrize('source', ['openwebtext', 'text8', 'enwik8'])
def test_missing_data_says_what_prepares_it(source):
  # Before the tokenizer, whose files a fresh machine lacks as well.
  with pytest.raises(DataError) as raised:
    load(source=source, tokenizer='gpt2', seq_len=8)
  message = str(raised.value)
  assert f"no data at 'data_cache/{source}'" in message
  assert f'python -m sedd_jax.data.prepare {source} ' in message
  assert f'--output data_cache/{source}' in message
  assert '--config=configs/quickstart.py' in message
  assert '\n' not in message


def test_text_file_without_a_path():
  with pytest.raises(DataError, match='needs data.path'):
    load(source='text_file', seq_len=8)
