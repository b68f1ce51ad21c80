"""Expressions as automata over bytes, against Python's own matching."""

import itertools
import json
import re
import sys

import numpy as np
import pytest

from sedd_jax.data import bpe_training, patterns, tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.evaluation import conditioning

# One character of each length in UTF-8 that is named, and one that is not.
CHARACTERS = 'aB\n\xe9\xe0\u20ac\u0800\ud7ff\U0001f605\U0010ffff'


def texts(longest=3):
  return [
    ''.join(characters)
    for length in range(longest + 1)
    for characters in itertools.product(CHARACTERS, repeat=length)
  ]


def test_characters_become_bytes():
  """(e-acute or euro sign, or an a before any other character)*."""
  moves = {0: {'x': 0, 'a': 1}, 1: {'a': 0, 'x': 0, '*': 0}}
  named = {'\xe9': 'x', '\u20ac': 'x', 'a': 'a'}
  found = patterns.of_characters(moves, 0, {0}, named, '*')
  expected = re.compile('(?:[\xe9\u20ac]|a.)*', re.DOTALL)
  for text in texts():
    assert found.accepted(text.encode()) == bool(expected.fullmatch(text)), text
  for invalid in (b'\xff', b'\xc3', b'\x80', b'\xed\xa0\x80', b'\xe0\x80\x80'):
    assert not found.accepted(b'a' + invalid)
  for invalid in (b'\xc1\x81', b'\xf4\x90\x80\x80', b'\xf0\x80\x80\x80'):
    assert not found.accepted(b'a' + invalid)


@pytest.mark.parametrize(
  'pattern',
  ['a|aB', '[^a]B', '\xe9+|[\xe0-\xfc]B', '.{1,2}', '(?i)ab?', '[^\xe9]*', ''],
)
def test_expressions_are_those_of_python(pattern):
  pytest.importorskip('interegular')
  found = patterns.regex(pattern)
  expected = re.compile(pattern)
  for text in texts():
    assert found.accepted(text.encode()) == bool(expected.fullmatch(text)), text


@pytest.mark.parametrize('pattern', ['^a', 'a\\b', '(a)\\1', '['])
def test_what_is_no_expression_of_an_automaton(pattern):
  pytest.importorskip('interegular')
  with pytest.raises(DataError) as told:
    patterns.regex(pattern)
  assert repr(pattern) in str(told.value) and '\n' not in str(told.value)


def test_an_expression_that_is_too_long(monkeypatch):
  """Counted before anything is made of it, nested repetitions multiplied."""
  library = pytest.importorskip('interegular')
  whole = {'a|bc': 3, '(ab?){3,}c': 7, '((a{0,50}b)*c){2,90}': 90 * 52, 'a*': 1}
  for pattern, places in whole.items():
    assert patterns._places(library.parse_pattern(pattern)) == places
  monkeypatch.setattr(library.patterns.Pattern, 'to_fsm', None)
  with pytest.raises(DataError, match='100,000 characters with its repet'):
    patterns.regex('.{0,100000}')


def test_tokens_spell_what_an_expression_matches():
  pytest.importorskip('interegular')
  found = patterns.over_tokens(patterns.regex('b+a?'), tokenizers.make('text8'))
  encode = tokenizers.make('text8').encode
  assert found.accepted(encode('bba')) and not found.accepted(encode('ab'))
  assert found.num_symbols == 27


def test_json():
  pytest.importorskip('interegular')
  pytest.importorskip('outlines_core')
  schema = {
    'type': 'object',
    'properties': {
      'name': {'type': 'string', 'maxLength': 3},
      'age': {'type': 'integer'},
    },
    'required': ['name', 'age'],
  }
  found = patterns.regex(patterns.json_schema(json.dumps(schema)))
  for text, valid in (
    ('{"name": "bo", "age": 12}', True),
    ('{"name":"\xe9","age":0}', True),
    ('{"name": "bobo", "age": 12}', False),
    ('{"name": "bo", "age": 1.5}', False),
    ('{"name": "bo"}', False),
  ):
    assert found.accepted(text.encode()) == valid, text
  for wrong in ('{"type', '{"type": "nonsense"}'):
    with pytest.raises(DataError, match='JSON schema: '):
      patterns.json_schema(wrong)


def test_without_the_libraries(monkeypatch):
  monkeypatch.setitem(sys.modules, 'interegular', None)
  monkeypatch.setitem(sys.modules, 'outlines_core', None)
  for use, name in (
    (patterns.regex, 'interegular'),
    (patterns.json_schema, 'outlines-core'),
  ):
    with pytest.raises(DataError, match=f'{name}: pip install'):
      use('{}')


def test_pieces_of_a_byte_level_tokenizer_file(tmp_path):
  """Of one that was trained here, too: its tokens spell bytes."""
  hub = pytest.importorskip('tokenizers')
  text = tmp_path / 'a.txt'
  text.write_text('a caf\xe9 {"b": 12} at the caf\xe9\n' * 50)
  path = bpe_training.train([text], tmp_path, 290)
  library = hub.Tokenizer.from_file(str(path))
  library.add_tokens(['of all'])
  library.save(str(path))
  tokenizer = tokenizers.make(str(path))
  pieces = tokenizer.pieces
  assert pieces is not None and len(pieces) == tokenizer.vocab_size
  assert pieces[tokenizer.separator] == b'' and pieces[-1] == b'of all'
  rng = np.random.default_rng(0)
  for _ in range(20):
    ids = rng.integers(1, len(pieces), 12)
    spelled = b''.join(pieces[i] for i in ids).decode('utf-8', 'replace')
    assert spelled == tokenizer.decode(ids)
  found = patterns.over_tokens(patterns.containing('af\xe9 {'), tokenizer)
  assert found.accepted(tokenizer.encode('a caf\xe9 {"b": 12}'))
  assert not found.accepted(tokenizer.encode('a caf\xe9 at'))
  # An end of text is one as it is written, and to an expression no text.
  of_end = {
    written: patterns.over_tokens(
      patterns.avoiding('text|>'), tokenizer, written=written
    )
    for written in (False, True)
  }
  ends = [*tokenizer.encode('a '), tokenizer.separator]
  assert 'text|>' in tokenizer.decode(ends)
  assert of_end[False].accepted(ends) and not of_end[True].accepted(ends)
  found = conditioning.condition(tokenizer, avoids='text|>', contains='a')
  assert not found.automaton.accepted(ends)
  found = conditioning.condition(tokenizer, contains='<|endoftext|>')
  assert found.automaton.accepted(ends)
  # What a token of others spells depends on its neighbours.
  library.decoder = hub.decoders.Metaspace()
  library.save(str(path))
  assert tokenizers.make(str(path)).pieces is None


def test_pieces_of_tokenizers(tmp_path):
  text8, of_bytes = tokenizers.make('text8'), tokenizers.make('bytes')
  for tokenizer, text in ((text8, 'a b z'), (of_bytes, '\xe9\n')):
    assert len(tokenizer.pieces) == tokenizer.vocab_size
    ids = tokenizer.encode(text)
    spelled = b''.join(tokenizer.pieces[i] for i in ids)
    assert spelled.decode() == text == tokenizer.decode(ids)
  (tmp_path / 'vocab.txt').write_text('[UNK]\na\n##b\n')
  words = tokenizers.make(str(tmp_path))
  assert words.pieces is None
  with pytest.raises(DataError, match='depends on its neighbours'):
    patterns.over_tokens(patterns.containing('a'), words)


def test_texts_are_found_however_they_are_cut():
  class Cut:
    pieces = [b'a', b'b', b'ab', b'ba', b'']

  has = patterns.over_tokens(patterns.containing('ab'), Cut)
  lacks = patterns.over_tokens(patterns.avoiding('ab'), Cut)
  for tokens in itertools.product(range(5), repeat=3):
    # A token that is no text stands between the two sides of a text.
    text = b''.join(Cut.pieces[i] or b'\xff' for i in tokens)
    assert has.accepted(tokens) == (b'ab' in text)
    assert lacks.accepted(tokens) == (b'ab' not in text)
