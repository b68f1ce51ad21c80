"""Judges: a table of probabilities, worked out by hand."""

import dataclasses
import math
import sys

import numpy as np
import pytest

from sedd_jax.data import tokenizers
from sedd_jax.data.paired import marked
from sedd_jax.data.tokenizers import byte_pairs
from sedd_jax.evaluation import judges, likelihood

TEXT8 = tokenizers.make('text8')
BYTES = tokenizers.make('bytes')
SEPARATED = 7


def nats_of(token):
  """-log p of a token, whatever stands before it."""
  return np.asarray(token, float) + 1


def judge_of(tokenizer=TEXT8, scores_first=True, width=4, nats=nats_of):
  seen = []

  def nats_fn(tokens, valid, counted):
    assert tokens.shape == valid.shape == counted.shape
    assert not (counted & ~valid).any()
    # Padding stands at the end.
    assert (np.diff(valid.astype(int), axis=1) <= 0).all()
    seen.append((tokens, counted))
    return np.sum(np.where(counted, nats(tokens), 0), axis=1)

  judge = judges.Judge(
    name='by hand',
    tokenizer=tokenizer,
    width=width,
    scores_first=scores_first,
    nats_fn=nats_fn,
  )
  return judge, seen


def ids(text):
  return TEXT8.encode(text)


@pytest.mark.parametrize(
  ('length', 'width', 'expected'),
  [
    (3, 4, [(0, 3, 0)]),
    (4, 4, [(0, 4, 0)]),
    (5, 4, [(0, 4, 0), (2, 5, 2)]),
    (9, 4, [(0, 4, 0), (2, 6, 2), (4, 8, 2), (6, 9, 2)]),
    (4, 3, [(0, 3, 0), (1, 4, 2)]),
    (3, 1, [(0, 1, 0), (1, 2, 0), (2, 3, 0)]),
    (0, 4, [(0, 0, 0)]),
  ],
)
def test_windows(length, width, expected):
  tokens = np.arange(length)
  found = [
    (int(piece[0]) if len(piece) else 0, len(piece), first)
    for piece, first in judges.windows(tokens, width)
  ]
  assert found == [
    (start, stop - start, first) for start, stop, first in expected
  ]
  once = [
    t for piece, first in judges.windows(tokens, width) for t in piece[first:]
  ]
  assert once == tokens.tolist()


@pytest.mark.parametrize('scores_first', [True, False])
def test_every_token_counts_once(scores_first):
  """Also in pieces; the first has no law under some judges."""
  judge, seen = judge_of(scores_first=scores_first)
  texts = [ids('abcdefghi'), ids('zz'), ids('q')]
  found = judges.judged(judge, TEXT8, texts)
  left = 0 if scores_first else 1
  for row, text in enumerate(texts):
    assert found.nats[row] == nats_of(text[left:]).sum()
    assert found.tokens[row] == len(text) - left
    assert found.characters[row] == len(text) - left
  assert sum(counted.sum() for _, counted in seen) == 12 - 3 * left


def test_perplexities_by_hand():
  """Two samples of 2 and 4 nats a token, the second with three words."""
  found = judges.perplexities(
    judges.Judged(
      nats=np.array([4.0, 24.0]),
      tokens=np.array([2, 6]),
      characters=np.array([4, 10]),
      words=np.array([1, 3]),
    )
  )
  assert found['perplexity'] == pytest.approx(math.exp(28 / 8))
  assert found['mean_perplexity'] == pytest.approx(
    (math.exp(2) + math.exp(4)) / 2
  )
  assert found['bits_per_character'] == pytest.approx(28 / 14 / math.log(2))
  assert found['perplexity_per_word'] == pytest.approx(math.exp(28 / 4))
  # Residuals 4 - 7 and 24 - 21, over 8 tokens.
  assert found['standard_error'] == pytest.approx(
    math.exp(3.5) * math.sqrt(2 * (9 + 9)) / 8
  )


def test_what_has_no_perplexity_is_none():
  found = judges.perplexities(
    judges.Judged(*(np.array([x]) for x in (1e4, 2, 3, 0)))
  )
  assert found['perplexity'] is found['mean_perplexity'] is None
  assert found['perplexity_per_word'] is found['standard_error'] is None
  assert found['bits_per_character'] == pytest.approx(1e4 / 3 / math.log(2))


def test_another_tokenizer_gets_text():
  judge, seen = judge_of(BYTES, width=8)
  found = judges.judged(judge, TEXT8, [ids('a bc')])
  np.testing.assert_array_equal(seen[0][0][0, :4], list(b'a bc'))
  assert found.tokens.tolist() == [4] and found.words.tolist() == [2]
  assert not judges.reads_ids(judge, TEXT8) and judges.reads_ids(judge, BYTES)


class Pieces:
  """Tokens of two characters, 0 an end of text."""

  name, unit, separator, vocab_size = 'pieces', 'token', 0, 3
  vocabulary = {'<end>': 0, 'ab': 1, 'c ': 2}

  def encode(self, text):
    raise NotImplementedError

  def decode(self, tokens):
    return ''.join(('<end>', 'ab', 'c ')[t] for t in tokens)


def test_ends_of_documents_are_the_judges():
  judge, _ = judge_of(BYTES)
  read = judges.reading(judge, Pieces(), np.array([1, 0, 2, 1, 0]))
  assert bytes(read.astype(np.uint8)) == b'ab\nc ab\n'


def test_a_judge_that_cannot_read_is_told_before_any_sample():
  judge, seen = judge_of(TEXT8)
  with pytest.raises(ValueError, match="'text8', the run writes by 'bytes'"):
    judges.require_readable(judge, BYTES)
  assert not seen
  judges.require_readable(judge, TEXT8)
  judges.require_readable(judge_of(BYTES)[0], TEXT8)


def test_what_cannot_be_scored():
  judge, _ = judge_of(scores_first=False)
  with pytest.raises(ValueError, match='no token of the samples to score'):
    judges.judged(judge, TEXT8, [ids('a')])
  judge, _ = judge_of(nats=lambda tokens: np.where(tokens == 3, np.inf, 1.0))
  with pytest.raises(likelihood.BoundError, match='sample 1 under by hand'):
    judges.judged(judge, TEXT8, [ids('ab'), ids('ac')])


def test_without_the_libraries(monkeypatch):
  monkeypatch.setitem(sys.modules, 'transformers', None)
  with pytest.raises(ValueError, match=r"pip install 'sedd_jax\[judge\]'"):
    judges.of_transformers('gpt2')


def gpt2_files(folder, names):
  """A byte-level BPE of 256 bytes, two merges and an end, by our own rules."""
  shown = byte_pairs.byte_characters()
  pieces = [shown[b] for b in range(256)]
  merges = [('t', 'h'), ('th', 'e')]
  pieces += [a + b for a, b in merges] + ['<|endoftext|>']
  encoder, bpe = (folder / name for name in names)
  import json

  encoder.write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
  bpe.write_text('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))


def test_a_tokenizer_of_transformers(tmp_path):
  """What is asked of it, without the library: ids that are ours, or text."""
  gpt2_files(tmp_path, ('encoder.json', 'vocab.bpe'))
  ours = tokenizers.make(str(tmp_path))

  class Theirs:
    eos_token_id = 258

    def __len__(self):
      return ours.vocab_size

    def get_vocab(self):
      return dict(ours.vocabulary)

    def encode(self, text, add_special_tokens):
      assert not add_special_tokens
      return ours.encode(text).tolist()

    def decode(self, ids, clean_up_tokenization_spaces):
      assert not clean_up_tokenization_spaces
      return ours.decode(ids)

  read = judges._HubTokenizer(Theirs(), 'theirs')
  judge = dataclasses.replace(judge_of(BYTES, width=8)[0], tokenizer=read)
  for tokenizer, same in ((ours, True), (TEXT8, False)):
    judges.require_readable(judge, tokenizer)
    assert judges.reads_ids(judge, tokenizer) == same
  found = judges.reading(judge, TEXT8, ids('the'))
  np.testing.assert_array_equal(found, ours.encode('the'))


def test_gpt2_of_transformers(tmp_path):
  """Random weights: its own loss, on ids as they are and on text read anew."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  gpt2_files(tmp_path, ('vocab.json', 'merges.txt'))
  torch.manual_seed(0)
  config = transformers.GPT2Config(
    vocab_size=259,
    n_positions=16,
    n_embd=8,
    n_layer=2,
    n_head=2,
    bos_token_id=258,
    eos_token_id=258,
  )
  model = transformers.GPT2LMHeadModel(config).eval()
  for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.5)
  model.save_pretrained(tmp_path)
  judge = judges.of_transformers(str(tmp_path))
  assert judge.width == 16 and not judge.scores_first

  ours = tmp_path / 'ours'
  ours.mkdir()
  gpt2_files(ours, ('encoder.json', 'vocab.bpe'))
  same = tokenizers.make(str(ours))
  assert judges.reads_ids(judge, same)
  # Not how the text is read: ids as they are, [t, h] apart.
  sample = np.array([116, 104, 257, 258, 97, 32, 98])

  def own_loss(tokens):
    batch = torch.tensor(tokens).long()[None]
    with torch.no_grad():
      loss = model(input_ids=batch, labels=batch).loss
    return float(loss) * (len(tokens) - 1)

  # The shorter one is padded.
  found = judges.judged(judge, same, [sample, sample[:3]])
  expected = [own_loss(sample), own_loss(sample[:3])]
  np.testing.assert_allclose(found.nats, expected, rtol=1e-5)
  assert found.tokens.tolist() == [6, 2]
  assert judge.tokenizer.decode(sample[:3]) == 'ththe'

  text = 'the cat of the hat'
  read = same.encode(text)
  assert len(read) == 14
  found = judges.judged(judge, TEXT8, [ids(text)])
  np.testing.assert_allclose(found.nats, [own_loss(read)], rtol=1e-5)
  assert found.tokens.tolist() == [13]
  assert found.characters.tolist() == [len(text) - 3]

  # Longer than its positions: the second piece counts what the first has not.
  long = np.tile(sample, 3)
  piece = torch.tensor(long[8:]).long()[None]
  with torch.no_grad():
    law = torch.log_softmax(model(piece).logits, -1)[0, :-1]
  rest = -law.gather(-1, piece[0, 1:, None])[7:, 0].sum()
  found = judges.judged(judge, same, [long])
  np.testing.assert_allclose(
    found.nats, [own_loss(long[:16]) + float(rest)], rtol=1e-5
  )


def test_no_such_model(tmp_path):
  pytest.importorskip('transformers')
  with pytest.raises(ValueError, match='no folder of a run, and transformers'):
    judges.of_transformers(str(tmp_path / 'nowhere'))


def test_marks_are_ids_of_their_own():
  """[CLS] of one is the mask of the other, though letters are the same."""
  with_marks = marked.Marked(TEXT8)
  assert not judges.same_ids(with_marks, TEXT8)
  assert judges.same_ids(with_marks, marked.Marked(TEXT8))
