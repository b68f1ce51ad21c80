"""Spell checking: what is likeliest, pieces of text, the reference's answer."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.systems import TaskError, spelling
from tests import golden_numbers


def test_the_likeliest_is_that_of_bayes():
  """p(x_0 | others) q(x | x_0), a share of positions drawn at random."""
  probs = np.random.default_rng(0).dirichlet(np.ones(4), 200)
  tokens = np.random.default_rng(1).integers(4, size=200)
  rate = 0.3
  joint = probs * ((1 - rate) * np.eye(4) + rate / 4)[tokens]
  found = spelling.likeliest(jnp.log(probs), jnp.asarray(tokens), rate)
  np.testing.assert_array_equal(found, joint.argmax(-1))
  assert (joint.argmax(-1) != probs.argmax(-1)).any()


def test_a_network_that_knows_its_own_position_has_no_rate():
  def corrected(tokens, error_rate):
    assert error_rate == 1
    return tokens

  assert checked(corrected, blind=False, text='abc')['changes'] == 0
  with pytest.raises(TaskError, match='unknown option task.error_rate'):
    checked(corrected, blind=False, text='abc', error_rate=0.1)


class Letters:
  """Encodes a to e."""

  def encode(self, text):
    return [ord(letter) - ord('a') for letter in text]

  def decode(self, ids):
    return ''.join(chr(ord('a') + int(i)) for i in ids)


def checked(corrected, length=6, blind=True, **options):
  return spelling.checked(
    corrected, options, Letters(), length=length, blind=blind
  )


def test_spelling_is_checked_piece_by_piece():
  def corrected(tokens, error_rate):
    assert error_rate == 0.05
    assert tokens.shape[1] <= 4
    return jnp.where(tokens == 4, 0, tokens)

  answer = checked(corrected, 4, text='abeabcdee')
  assert answer == {
    'text': 'abeabcdee',
    'corrected': 'abaabcdaa',
    'marked': 'ab[e>a]abcd[e>a][e>a]',
    'changes': 3,
  }
  json.dumps(answer)
  short = checked(corrected, 4, text='be')
  assert short['corrected'] == 'ba'


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({}, 'needs one of --config.task.text=TEXT and --config.task.path=FILE'),
    ({'text': 'a', 'path': 'b'}, 'needs one of'),
    ({'path': 'absent.txt'}, 'task.path absent.txt: '),
    ({'text': 'a', 'rate': 0.1}, 'unknown option task.rate; known: error_rate'),
    ({'text': 'a', 'error_rate': 0}, r'must be in \(0, 1\], not 0'),
    ({'text': 'a', 'error_rate': 'a'}, r'must be in \(0, 1\], not a'),
  ],
)
def test_mistakes(options, told):
  with pytest.raises(TaskError, match=told):
    checked(lambda tokens, error_rate: tokens, **options)


def test_golden_spell_checking():
  """argmax of the raw network at the first step, of a table by position."""
  golden = golden_numbers.load('multinomial')
  weights, bias = golden['W'][0], golden['U']

  def corrected(tokens, error_rate):
    logits = weights[:, tokens].transpose(1, 2, 0) + bias[None]
    return spelling.likeliest(logits, tokens, error_rate)

  for tokens, expected in zip(golden['spell_x'], golden['spell_argmax']):
    answer = checked(corrected, text=Letters().decode(tokens), error_rate=1.0)
    assert answer['corrected'] == Letters().decode(expected)
