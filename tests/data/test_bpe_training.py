import pathlib

import pytest

from sedd_jax.data import load, prepare, tokenizers
from sedd_jax.data.files import documents

pytest.importorskip('tokenizers')
TEXT = 'the quick brown fox, naïve \U0001f600, jumps over the lazy dog.\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  text = TEXT * 20 + '<|endoftext|>\n' + 'And another document of it.\n' * 5
  pathlib.Path('a.txt').write_text(text)


def train(*options, size='280', output='t'):
  arguments = ['train-tokenizer', '--input', 'a.txt', '--output', output]
  return prepare.main([*arguments, '--vocab-size', size, *options])


def test_from_text_to_tokenizer_to_batches(capsys):
  assert train() == 0
  assert '280 tokens' in capsys.readouterr().out
  tokenizer = tokenizers.make('t')
  assert (tokenizer.vocab_size, tokenizer.separator) == (280, 0)
  # Any text has ids, and comes back as it was.
  for text in (TEXT, ' \x00\r\n two  spaces', 'Ünseen \u4e2d'):
    assert tokenizer.decode(tokenizer.encode(text)) == text
  assert len(tokenizer.encode(TEXT)) < len(TEXT.encode())
  arguments = ['text_file', '--input', 'a.txt', '--tokenizer', 't']
  assert prepare.main([*arguments, '--output', 'd', '--workers', '1']) == 0
  for name in ('t', 't/tokenizer.json', 'd/tokenizer.json', 'd'):
    data = load(source='text_file', path='d', tokenizer=name, seq_len=4)
    assert data.info.vocab_size == 280
  parts = [data.tokens(split).tolist() for split in ('train', 'validation')]
  assert (parts[0] + parts[1]).count(0) == 1


def test_names_of_special_tokens_in_a_document_are_text():
  assert train() == 0
  tokenizer = tokenizers.make('t')
  text = 'the name <|endoftext|> in a line'
  [ids] = tokenizer.encode_documents(
    [documents.Document('a', 0, text.encode())]
  )
  assert 0 not in ids and tokenizer.decode(ids) == text
  assert tokenizer.num_characters(ids) == len(text)
  # A prompt may hold an end of a text.
  assert list(tokenizer.encode(text)).count(0) == 1


def test_it_is_the_same_again():
  assert train() == 0
  assert train(output='u') == 0
  file = pathlib.Path('t/tokenizer.json')
  assert file.read_bytes() == pathlib.Path('u/tokenizer.json').read_bytes()


def test_pairs_are_read_on_both_sides(capsys):
  pair = '{"src": "zqzqzqzq", "trg": "xwxwxwxw"}\n'
  pathlib.Path('p.jsonl').write_text(pair * 9)
  arguments = ['train-tokenizer', '--input', 'p.jsonl', '--output', 'p']
  arguments += ['--vocab-size', '280']
  assert prepare.main(arguments) == 1
  assert 'not a document' in capsys.readouterr().err
  assert prepare.main([*arguments, '--pairs']) == 0
  tokenizer = tokenizers.make('p')
  assert len(tokenizer.encode('zqzqzqzq')) == len(tokenizer.encode('xwxw'))
  assert tokenizer.decode(tokenizer.encode('xwxw')) == 'xwxw'
  pathlib.Path('p.jsonl').write_text('')
  assert prepare.main([*arguments, '--pairs', '--overwrite']) == 1
  assert 'the files hold no pairs' in capsys.readouterr().err


def test_mistakes_are_told(capsys, monkeypatch):
  assert train(size='256') == 1
  assert 'the bytes and <|endoftext|> alone are 257' in capsys.readouterr().err
  assert train(size='9999999999') == 1
  assert 'is 9999999999: at most 1,048,576' in capsys.readouterr().err
  assert train(size='257') == 0
  assert train() == 1
  assert '--overwrite' in capsys.readouterr().err
  assert train('--overwrite') == 0
  assert prepare.main(['train-tokenizer', '--vocab-size', '300']) == 1
  assert '--input is missing' in capsys.readouterr().err
  assert prepare.main(['train-tokenizer', '--input', 'a.txt']) == 1
  assert '--vocab-size is missing' in capsys.readouterr().err
  pathlib.Path('a.txt').write_bytes(b'a\xff')
  assert train('--overwrite') == 1
  assert 'invalid UTF-8' in capsys.readouterr().err
  pathlib.Path('a.txt').write_bytes(b'')
  assert train('--overwrite') == 1
  assert 'no text' in capsys.readouterr().err
  monkeypatch.setitem(__import__('sys').modules, 'tokenizers', None)
  assert train('--overwrite') == 1
  assert "pip install 'sedd_jax[tokenizers]'" in capsys.readouterr().err
