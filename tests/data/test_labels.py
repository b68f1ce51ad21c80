"""Labels of documents: read, prepared, and given to every token."""

import json
import os
import pathlib

import numpy as np
import pytest

from sedd_jax.data import DataError, load, prepare, streaming, tokenizers
from sedd_jax.data.files import documents, labels
from sedd_jax.data.prepared import packing, writer

# Documents of three labels, some empty for the tokenizer, some that begin or
# end with the separator.
TEXTS = [
  *('a poem of rome', 'news', ' more verse ', '...', 'the end', ' a', ' '),
  *('some words on end', 'x', 'y y y y', 'prose and prose', 'last words of it'),
]
GENRES = ['verse', 'news', 'verse', 'news', 7, True, 'verse']
GENRES += ['news', 'verse', 'news', 'news', 'verse']


@pytest.fixture
def jsonl(tmp_path):
  path = tmp_path / 'in' / 'some.jsonl'
  path.parent.mkdir()
  rows = [{'text': text, 'genre': g} for text, g in zip(TEXTS, GENRES)]
  path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
  return path


def opened(path, **how):
  how = {'seq_len': 5, 'tokenizer': 'bytes', 'label': 'genre'} | how
  return load(source='text_file', path=str(path), **how)


def prepared(path, output, *how):
  arguments = ['text_file', '--input', str(path), '--output', str(output)]
  arguments += ['--tokenizer', 'bytes', '--label', 'genre', '--workers', '1']
  assert prepare.main([*arguments, *how]) == 0
  return output


def split_of(dataset, split):
  """Tokens and labels of a split, by its chunks."""
  count = dataset.num_sequences(split)
  batch = dataset.eval_batch(split, np.arange(count + 1), count)
  assert np.all(batch['label'][~batch['valid']] == labels.NONE)
  return batch['tokens'][batch['valid']], batch['label'][batch['valid']]


def expected(tokens, names):
  """The labels, document by document: the separator ends the one before."""
  texts = bytes(tokens.tolist()).split(b'\n')
  genres = [x if isinstance(x, str) else json.dumps(x) for x in GENRES]
  known = {text: names.index(name) for text, name in zip(TEXTS, genres)}
  found = [np.full(len(text) + 1, known[text.decode()]) for text in texts]
  return np.concatenate(found)[: len(tokens)]


def test_every_token_has_the_label_of_its_document(jsonl):
  dataset = opened(jsonl)
  assert dataset.info.labels == ('7', 'news', 'true', 'verse')
  parts = [split_of(dataset, split) for split in ('train', 'validation')]
  tokens, found = map(np.concatenate, zip(*parts))
  np.testing.assert_array_equal(found, expected(tokens, dataset.info.labels))
  # Crops are those of the same text without labels, and are labelled alike.
  plain = opened(jsonl, label='')
  for step in range(3):
    batch = dataset.train_batch(1, step, [4, 0, 9], 10)
    same = plain.train_batch(1, step, [4, 0, 9], 10)
    np.testing.assert_array_equal(batch['tokens'], same['tokens'])
    assert 'label' not in same and batch['label'].dtype == np.int32
    whole = split_of(dataset, 'train')
    windows = np.lib.stride_tricks.sliding_window_view(
      np.stack(whole), 5, axis=1
    )
    for row in np.stack([batch['tokens'], batch['label']], axis=1):
      assert np.any(np.all(windows.swapaxes(0, 1) == row, axis=(1, 2)))


@pytest.mark.parametrize('tokenizer', ['bytes', 'text8'])
@pytest.mark.parametrize('size', [1, 2**20])
def test_prepared_or_not_they_are_the_same(
  jsonl, tmp_path, monkeypatch, tokenizer, size
):
  monkeypatch.setattr(streaming, 'BATCH_BYTES', size)
  how = ('--tokenizer', tokenizer, '--shard-bytes', '32')
  folder = prepared(jsonl, tmp_path / 'out', *how)
  read = opened(folder, tokenizer=tokenizer, validation_fraction=0.3)
  at_once = opened(jsonl, tokenizer=tokenizer, validation_fraction=0.3)
  assert read.info.labels == at_once.info.labels
  for split in ('train', 'validation'):
    for ours, theirs in zip(split_of(read, split), split_of(at_once, split)):
      np.testing.assert_array_equal(ours, theirs)
  # By the numbers of a run that knows more of them.
  known = ['verse', 'other', 'news', 'true', '7']
  other = opened(
    folder, tokenizer=tokenizer, validation_fraction=0.3, known=known
  )
  assert other.info.labels == tuple(known)
  names_of = [
    np.array(dataset.info.labels)[split_of(dataset, 'train')[1]]
    for dataset in (read, other)
  ]
  np.testing.assert_array_equal(*names_of)


def test_what_is_written(jsonl, tmp_path, capsys):
  folder = prepared(jsonl, tmp_path / 'out', '--validation-fraction', '0.4')
  manifest = packing.read_manifest(folder)
  told = manifest.labels
  assert told['from'] == 'genre'
  # In order of appearance.
  assert told['names'] == ['verse', 'news', '7', 'true']
  counts = np.sum(list(told['documents'].values()), axis=0)
  assert counts.tolist() == [5, 5, 1, 1]
  assert 'documents: 3 verse' in capsys.readouterr().out
  packing.verify(folder)
  path = folder / packing.labels_name('train')
  path.write_bytes(path.read_bytes()[::-1])
  with pytest.raises(DataError, match='train-labels.bin: wrong checksum'):
    packing.verify(folder)
  path.write_bytes(b'')
  with pytest.raises(DataError, match='train-labels.bin: truncated'):
    opened(folder)
  # Labels that are there need not be used.
  assert 'label' not in opened(folder, label='').train_batch(0, 0, [0], 1)


@pytest.mark.parametrize('split_by', ['document', 'name'])
def test_splits_of_their_own(tmp_path, split_by):
  for folder in ('verse', 'news'):
    for name in ('train', 'valid'):
      path = tmp_path / 'in' / folder / f'{name}.txt'
      path.parent.mkdir(parents=True, exist_ok=True)
      texts = [f'{folder} {name} {i}' for i in range(20)]
      path.write_text('\n<|endoftext|>\n'.join(texts))
  how = ('--label', '@folder', '--split-by', split_by)
  if split_by == 'document':
    how += ('--validation-fraction', '0.3')
  folder = prepared(tmp_path / 'in', tmp_path / 'out', *how)
  dataset = opened(folder, label='@folder')
  assert dataset.info.labels == ('news', 'verse')
  for split in ('train', 'validation'):
    tokens, found = split_of(dataset, split)
    text = bytes(tokens.tolist()).decode()
    lines = text.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines[:-1])])
    for line, start in zip(lines, starts):
      (number,) = set(found[start : start + len(line)])
      assert line.startswith(dataset.info.labels[number])


def test_names_of_files(tmp_path):
  (tmp_path / 'verse.txt').write_text('a poem' * 9)
  (tmp_path / 'news.txt').write_text('some news' * 9)
  dataset = opened(tmp_path, label='@file')
  assert dataset.info.labels == ('news', 'verse')
  assert split_of(dataset, 'train')[1][0] == 0
  dataset = opened(tmp_path / 'verse.txt', label='@folder')
  assert dataset.info.labels == (tmp_path.name,)


def test_columns_of_parquet(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  rows = {'genre': ['b', 'a', 'a'], 'text': ['one', '', 'two']}
  path = tmp_path / 'a.parquet'
  parquet.write_table(pyarrow.table(rows), path)
  found = documents.read_documents([path], label='genre')
  assert [(d.data, d.label) for d in found] == [(b'one', 'b'), (b'two', 'a')]
  with pytest.raises(DataError, match="no column 'kind'.*genre"):
    list(documents.read_documents([path], label='kind'))


@pytest.mark.parametrize(
  'line, told',
  [
    ({'text': 'a'}, "some.jsonl:2: no label: .* no field 'genre'.*known: text"),
    ('a', 'some.jsonl:2: no label'),
    ({'text': 'a', 'genre': None}, "'genre' is no label: .* but null"),
    ({'text': 'a', 'genre': ''}, "'genre' is no label"),
  ],
)
def test_a_document_without_a_label(tmp_path, line, told):
  path = tmp_path / 'some.jsonl'
  lines = [{'text': 'a', 'genre': 'b'}, line]
  path.write_text('\n'.join(map(json.dumps, lines)))
  with pytest.raises(DataError, match=told):
    opened(path)


def test_too_many_labels(tmp_path, jsonl, monkeypatch, capsys):
  monkeypatch.setattr(labels, 'MAX_LABELS', 3)
  with pytest.raises(DataError, match='more than 3 labels .*is this a field'):
    opened(jsonl)
  arguments = ['text_file', '--input', str(jsonl), '--label', 'genre']
  arguments += ['--output', str(tmp_path / 'out')]
  assert prepare.main(arguments) == 1
  assert 'more than 3 labels' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_numbers_that_no_label_has(tmp_path, jsonl):
  folder = prepared(jsonl, tmp_path / 'out')
  path = pathlib.Path(folder, 'train-labels.bin')
  stored = np.fromfile(path, labels.STORED)
  stored[-1] = 900
  stored.tofile(path)
  with pytest.raises(DataError, match='train-labels.bin: label number 900'):
    opened(folder)


def test_what_does_not_fit(tmp_path, jsonl):
  (tmp_path / 'a.txt').write_text('some text')
  with pytest.raises(DataError, match="plain text has no field 'genre'"):
    opened(tmp_path / 'a.txt')
  with pytest.raises(DataError, match="unknown label '@name'"):
    opened(jsonl, label='@name')
  with pytest.raises(DataError, match="'pydoc' have no labels"):
    load(source='pydoc', seq_len=4, label='genre')
  folder = prepared(jsonl, tmp_path / 'out')
  with pytest.raises(DataError, match='prepared with --label genre'):
    opened(folder, label='@file')
  with pytest.raises(DataError, match="label 'verse' of this text is none"):
    opened(folder, known=('news', '7', 'true'))
  plain = tmp_path / 'plain'
  tokenizer = tokenizers.make('bytes')
  with writer.Writer(
    plain, source='text_file', division='position', tokenizer=tokenizer
  ) as written:
    written.append('train', np.zeros(9, np.uint8), 9, np.zeros(1))
  with pytest.raises(DataError, match='without labels.*--label genre'):
    opened(plain)


@pytest.mark.parametrize(
  'arguments, told',
  [
    (['text8', '--label', 'a'], 'no --label'),
    (['ptb', '--label', 'a'], 'no --label'),
    (
      ['text_file', '--label', '@file', '--split-by', 'name'],
      '--label @folder',
    ),
    (['text_file', '--label', '@nobody'], "unknown label '@nobody'"),
  ],
)
def test_what_prepare_does_not_take(tmp_path, capsys, arguments, told):
  assert prepare.main([*arguments, '--output', str(tmp_path / 'out')]) == 1
  assert told in capsys.readouterr().err


def test_a_kill_leaves_the_labels_of_a_run(tmp_path, monkeypatch):
  """A run that goes on writes what is there already."""

  class Killed(BaseException):
    pass

  def killed(*args):
    raise Killed

  labels.write_run(tmp_path, ('news', 'verse'))
  monkeypatch.setattr(os, 'replace', killed)
  with pytest.raises(Killed):
    labels.write_run(tmp_path, ('news', 'verse'))
  assert labels.read_run(tmp_path) == ('news', 'verse')
  monkeypatch.undo()
  labels.write_run(tmp_path, ('a',))
  assert labels.read_run(tmp_path) == ('a',)
  assert [path.name for path in tmp_path.iterdir()] == [labels.RUN_FILE]


def test_labels_of_a_run(tmp_path):
  assert labels.read_run(tmp_path) is None
  labels.write_run(tmp_path, ('ä', 'b'))
  assert labels.read_run(tmp_path) == ('ä', 'b')
  pathlib.Path(tmp_path, labels.RUN_FILE).write_text('{}')
  with pytest.raises(DataError, match='not a list of labels'):
    labels.read_run(tmp_path)
