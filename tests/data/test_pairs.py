"""Files of pairs: each format, and each fault with its line."""

import gzip
import json
import lzma

import pytest

from sedd_jax.data import DataError
from sedd_jax.data.paired import pairs

A, B = {'src': 'a cat', 'trg': 'the cat'}, {'src': 'x', 'refs': ['y', 'z']}


def read(path):
  return pairs.read(pairs.find(str(path)))


def write(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def lines(*values):
  return ''.join(json.dumps(value) + '\n' for value in values)


def test_json_lines(tmp_path):
  path = write(tmp_path / 'q.jsonl', lines(A, B, {**A, 'id': 7}))
  assert read(path) == [
    ('q.jsonl:1', 'a cat', ('the cat',)),
    ('q.jsonl:2', 'x', ('y', 'z')),
    ('7', 'a cat', ('the cat',)),
  ]


def test_stories_have_no_source(tmp_path):
  path = write(tmp_path / 'roc.json', lines(['Once. Twice.'], 'Thrice.'))
  assert read(path) == [
    ('roc.json:1', '', ('Once. Twice.',)),
    ('roc.json:2', '', ('Thrice.',)),
  ]


def test_tab_separated(tmp_path):
  # No other sign than a line feed ends a line.
  path = write(tmp_path / 's.tsv', 'a b .\ta . <::::> b .\r\nc\u2028d\te')
  assert [pair[1:] for pair in read(path)] == [
    ('a b .', ('a . <::::> b .',)),
    ('c\u2028d', ('e',)),
  ]


def test_meanings(tmp_path):
  text = (
    '\ufeffmr,ref\n"name[A], eatType[pub]","A is a pub, ""cheap""."\n'
    'name[B],"B is\nin two lines."\nname[C],C.\n'
  )
  assert read(write(tmp_path / 'e.csv', text)) == [
    ('e.csv:2', 'name[A], eatType[pub]', ('A is a pub, "cheap".',)),
    ('e.csv:3', 'name[B]', ('B is\nin two lines.',)),
    ('e.csv:5', 'name[C]', ('C.',)),
  ]


def test_files_side_by_side(tmp_path):
  path = write(tmp_path / 'dev.src', 'he go . \nshe go . \n')
  write(tmp_path / 'dev.ref0', 'he goes . \nshe goes . \n')
  write(tmp_path / 'dev.ref1', 'he went . \nshe went . \n')
  write(tmp_path / 'dev.ref3', 'not read\n')
  assert read(path) == [
    ('dev.src:1', 'he go .', ('he goes .', 'he went .')),
    ('dev.src:2', 'she go .', ('she goes .', 'she went .')),
  ]
  found = pairs.with_references(pairs.find(str(path)))
  assert [file.name for file in found] == ['dev.src', 'dev.ref0', 'dev.ref1']
  write(tmp_path / 'one.src.gz', gzip.compress(b'a\n'))
  write(tmp_path / 'one.trg.gz', gzip.compress(b'b\n'))
  assert read(tmp_path / 'one.src.gz')[0].targets == ('b',)


def test_compressed_and_several_files_keep_their_order(tmp_path):
  (tmp_path / 'more').mkdir()
  first = write(tmp_path / 'q.jsonl.xz', lzma.compress(lines(A).encode()))
  second = write(tmp_path / 'more' / 'q.jsonl.xz', first.read_bytes())
  third = write(tmp_path / 's.tsv', 'a\tb\n')
  found = read(f'{third},{first},{second}')
  assert [pair.id for pair in found] == [
    's.tsv:1',
    'q.jsonl.xz:1',
    'q.jsonl.xz(2):1',
  ]


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('q.jsonl', lines(A) + '{"src": "a"', r'q\.jsonl:2: no JSON'),
    ('q.jsonl', lines(A) + '\n' + lines(A), r'q\.jsonl:2: no JSON'),
    ('q.jsonl', '[' * 100_000, r'q\.jsonl:1: (no JSON|JSON in JSON)'),
    ('q.jsonl', lines(A, {'src': 'a'}), r":2: not a pair; .*'trg'"),
    ('q.jsonl', lines({**A, 'refs': ['b']}), ':1: not a pair'),
    ('q.jsonl', lines({'src': 'a', 'refs': []}), ':1: not a pair'),
    ('q.jsonl', lines({'src': 'a', 'trg': None}), ':1: not a pair'),
    ('q.jsonl', lines({'trg': 'a'}), ':1: not a pair'),
    ('q.jsonl', lines(['a', 'b']), ':1: not a pair'),
    ('q.jsonl', lines(A, {**A, 'src': ' '}), ':2: the source is empty'),
    ('q.jsonl', lines({**B, 'refs': ['y', '']}), ':1: the target is empty'),
    ('q.jsonl', lines(['']), ':1: the target is empty'),
    ('q.jsonl', lines({**A, 'trg': '\ud800'}), ':1: .* lone surrogate'),
    ('q.jsonl', b'"a"\n"\xff"\n', r'q\.jsonl:2: invalid UTF-8 \(byte 0xff\)'),
    (
      'q.jsonl',
      lines({**A, 'id': 'i'}, A, {**A, 'id': 'i'}),
      r"jsonl:3: the id 'i' is that of .*jsonl:1 already",
    ),
    ('s.tsv', 'a\tb\nc\n', r's\.tsv:2: 1 columns'),
    ('s.tsv', 'a\tb\tc\n', r's\.tsv:1: 3 columns'),
    ('s.tsv', 'a\t\n', r's\.tsv:1: the target is empty'),
    ('e.csv', 'a,b\n1,2\n', r"e\.csv:1: a header with 'mr' and 'ref'.* a, b"),
    ('e.csv', '', r'e\.csv:1: a header .* nothing'),
    ('e.csv', 'mr,ref\n"1\n1",2\n3\n', r'e\.csv:4: 1 columns'),
    ('e.csv', 'mr,ref\na,b\n\nc,d\n', r'e\.csv:3: 0 columns'),
    ('e.csv', 'mr,ref\n"a"b,c\n', r'e\.csv:2: no CSV'),
    ('d.src', 'a\n', r'd\.src: neither d\.trg nor d\.ref0'),
    ('s.txt', 'a\tb\n', r"s\.txt: .* suffix '\.txt'.*known: \.csv"),
  ],
)
def test_faults_are_named_with_their_line(tmp_path, name, text, message):
  with pytest.raises(DataError, match=message):
    read(write(tmp_path / name, text))


def test_sides_of_unequal_length_are_named(tmp_path):
  write(tmp_path / 'd.src', 'a\nb\n')
  write(tmp_path / 'd.ref0', 'a\nb\n')
  write(tmp_path / 'd.ref1', 'a\n')
  with pytest.raises(DataError, match=r'd\.ref1: 1 lines, where d\.src has 2'):
    read(tmp_path / 'd.src')


def test_a_missing_file_has_its_nearest(tmp_path):
  write(tmp_path / 'test.jsonl', lines(A))
  with pytest.raises(DataError, match='nearest: test.jsonl'):
    read(tmp_path / 'tset.jsonl')
