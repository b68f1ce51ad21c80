"""Prompts as tokens, requests, and samples as rows."""

import numpy as np
import pytest

from sedd_jax.data import tokenizers
from sedd_jax.data.paired import marked
from sedd_jax.evaluation import generate
from sedd_jax.systems.base import Samples

TEXT8 = tokenizers.make('text8')
BYTES = tokenizers.make('bytes')


def shown(prompt, suffix='', length=12, tokenizer=TEXT8):
  """What a prompt gives, with a dot for every free token."""
  placed = generate.parse_prompt(tokenizer, prompt, suffix, length)
  assert placed.tokens.dtype == np.int32 and placed.given.dtype == bool
  assert placed.tokens.shape == placed.given.shape == (length,)
  assert not placed.tokens[~placed.given].any()
  text = tokenizer.decode(placed.tokens)
  return ''.join(c if g else '.' for c, g in zip(text, placed.given))


@pytest.mark.parametrize(
  ('prompt', 'suffix', 'expected'),
  [
    ('', '', '............'),
    ('the ', '', 'the ........'),
    ('', ' end', '........ end'),
    ('a', 'b', 'a..........b'),
    ('the {blank:3} of', '', 'the ... of..'),
    ('{blank:2}it', '', '..it........'),
    ('{blank:1}a{blank:2}{blank:1}b', '', '.a...b......'),
    ('a', 'b{blank:2}', 'a........b..'),
    ('{blank:12}', '', '............'),
    ('exactly', 'twelv', 'exactlytwelv'),
  ],
)
def test_where_the_text_goes(prompt, suffix, expected):
  assert shown(prompt, suffix) == expected


def test_texts_between_marks():
  """As in training: [CLS] first, and [SEP] behind the end of a text."""
  tokenizer = marked.Marked(TEXT8)
  cls, sep = tokenizer.cls, tokenizer.sep
  a, b = TEXT8.encode('ab')
  for prompt, suffix, expected in (
    ('a', '', [cls, a, -1, -1, -1]),
    ('a', 'b', [cls, a, -1, b, sep]),
    ('', 'b', [cls, -1, -1, b, sep]),
    ('a{blank:2}b', '', [cls, a, -1, -1, b]),
  ):
    placed = generate.parse_prompt(tokenizer, prompt, suffix, 5)
    found = np.where(placed.given, placed.tokens, -1)
    assert found.tolist() == expected
  with pytest.raises(ValueError, match='take 6 tokens, but the samples have 5'):
    generate.parse_prompt(tokenizer, 'aab', 'b', 5)


def test_bytes_beyond_ascii():
  placed = generate.parse_prompt(BYTES, 'é{blank:1}', '', 4)
  assert placed.given.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
  ('prompt', 'suffix', 'told'),
  [
    ('a' * 13, '', 'take 13 tokens, but the samples have 12: set sampling.len'),
    ('abcdefgh', 'ijklm', 'take 13 tokens'),
    ('{blank:13}', '', 'longer than the samples, which have 12 tokens'),
    ('{blank:9}', '{blank:4}', 'take 13 tokens'),
    ('{blank:0}a', '', '{blank:0} in the prompt is no blank: it has no tokens'),
    ('a', '{blank:00}', '{blank:00} in the suffix is no blank'),
    ('{BLANK:2}', '', 'is no blank'),
    ('the {blank}', '', "'{blank}' in the prompt is no blank"),
    ('the {blank:}', '', 'is no blank: write {blank:12} for 12 free tokens'),
    ('{blank:-1}', '', 'is no blank'),
    ('{blank:a few}', '', "'{blank:a few}' in the prompt"),
    ('{blank:3', '', 'is no blank'),
    ('', '{blank 3}', "'{blank 3}' in the suffix is no blank"),
    ('{blank:2} of Rome', '', "' of Rome' in the prompt: character 'R' at"),
    ('', 'café', "'café' in the suffix: character 'é' at offset 3"),
  ],
)
def test_mistakes(prompt, suffix, told):
  with pytest.raises(ValueError) as error:
    generate.parse_prompt(TEXT8, prompt, suffix, 12)
  assert told in str(error.value)
  assert '\n' not in str(error.value)


def test_a_request_repeats_the_prompt():
  request = generate.request(
    TEXT8, length=6, seeds=[3, 5], prompt='ab', suffix='z', steps=7
  )
  assert request.seeds == (3, 5)
  assert request.steps == 7
  assert request.given.tolist() == [[True, True, False, False, False, True]] * 2
  assert request.tokens.tolist() == [[1, 2, 0, 0, 0, 26]] * 2


def test_a_request_without_a_prompt_gives_nothing():
  request = generate.request(TEXT8, length=6, seeds=range(2))
  assert request.tokens is None and request.given is None
  assert request.seeds == (0, 1)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_seeds_have_32_bits(seed):
  with pytest.raises(ValueError, match=f'not {seed}'):
    generate.request(TEXT8, length=6, seeds=[0, seed])
  largest = generate.request(TEXT8, length=6, seeds=[2**32 - 1])
  assert largest.seeds == (2**32 - 1,)


def test_rows():
  request = generate.request(TEXT8, length=3, seeds=[7, 9], method='euler')
  samples = Samples(
    tokens=np.array([[1, 2, 3], [4, 5, 6]], np.int32),
    lengths=np.array([3, 2], np.int32),
  )
  rows = generate.rows(samples, TEXT8, request, step=np.int32(4).item())
  assert [row['text'] for row in rows] == ['abc', 'de']
  assert [row['seed'] for row in rows] == [7, 9]
  for row in rows:
    assert row['method'] == 'euler'
    assert row['steps'] == request.steps
    assert row['step'] == 4


def test_words_of_a_sample():
  assert generate.words(TEXT8.encode(' the cat '), TEXT8) == ['the', 'cat']
  tokenizer = marked.Marked(TEXT8)
  ids = [tokenizer.cls, *TEXT8.encode('a cat'), tokenizer.sep, tokenizer.pad]
  more = [*ids, *TEXT8.encode('no'), tokenizer.sep]
  assert generate.words(np.array(more), tokenizer) == ['a', 'cat']


def test_a_prompt_and_an_expression_between_marks():
  """The expression is of what stands between them."""
  pytest.importorskip('interegular')
  tokenizer = marked.Marked(TEXT8)
  cls, sep, pad = tokenizer.cls, tokenizer.sep, tokenizer.pad
  a, b, c = TEXT8.encode('abc')

  def accepts(*tokens, **fields):
    asked = generate.request(
      tokenizer, length=len(tokens), seeds=[0], regex='ab*', **fields
    )
    assert asked.conditions is not None
    if asked.given is not None and np.any(
      asked.given[0] & (asked.tokens[0] != tokens)
    ):
      return False
    return asked.conditions[0].automaton.accepted(tokens)

  for tokens, expected in (
    ([cls, a, b, b, b], True),
    ([cls, a, b, sep, pad], True),
    ([a, b, sep, c, sep], True),
    ([cls, a, c, sep, pad], False),
    ([cls, cls, a, sep, pad], False),
    ([a, cls, b, sep, pad], False),
    ([cls, a, pad, pad, pad], False),
  ):
    assert accepts(*tokens) == expected
  # A prompt has its mark in front, and a suffix ends the text.
  assert accepts(cls, a, b, sep, pad, prompt='a')
  assert not accepts(a, b, b, b, b, prompt='a')
  assert accepts(cls, a, b, b, sep, suffix='b')
  assert not accepts(cls, a, sep, b, sep, suffix='b')
  with pytest.raises(ValueError, match=r"regex 'ab\*' and one \[SEP\], behind"):
    accepts(cls, a, b, b, sep, suffix='c')
