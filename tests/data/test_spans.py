"""Facts on words: how they are written, their numbers, contradictions."""

import numpy as np
import pytest

from sedd_jax.data.labelling import spans
from sedd_jax.data.labelling.spans import Fact, Tagged

LABELS = ('pos[.]', 'pos[DT]', 'pos[NN]', 'span[]', 'span[NP]', 'span[VP]')


def test_what_is_written():
  assert spans.read('NN[3]') == [Fact(3, 4, 'pos[NN]')]
  assert spans.read('nsubj:pass[0:4]') == [Fact(0, 4, 'span[nsubj:pass]')]
  assert spans.read('[1:3]') == [Fact(1, 3, 'span[]')]
  assert spans.read('pos: DT  * .') == [
    *(Fact(0, 1, 'pos[DT]'), Fact(2, 3, 'pos[.]'))
  ]
  for other in ('food[Thai]', 'food[]', 'prose', 'pos[NN]', 'pos:NN'):
    assert spans.read(other) is None


def test_a_parse_says_of_all_words_what_they_are():
  found = spans.read('parse: VP[1:3] NP[1:2] [3:4]')
  places = [(i, j) for i in range(4) for j in range(i + 1, 5)]
  assert [(fact.start, fact.end) for fact in found] == places
  named = {(f.start, f.end): f.label for f in found if f.label != 'span[]'}
  assert named == {(1, 3): 'span[VP]', (1, 2): 'span[NP]'}


def test_what_is_said_of_a_text_is_written_and_read_again():
  said = Tagged(('DT', '*', ']', '.'), [(0, 2, 'NP'), (2, 3, ']')])
  tags = spans.read(f'pos: {spans.written_tags(said.tags)}')
  assert [fact.label for fact in tags] == [
    *('pos[DT]', 'pos[SYM]', 'pos[-RSB-]', 'pos[.]')
  ]
  assert [spans.tag(name) for name in said.tags] == [f.label for f in tags]
  parse = spans.read(f'parse: {spans.written_parse(said)}')
  assert len(parse) == 4 * 5 // 2
  assert [f for f in parse if f.label != 'span[]'] == [
    *(Fact(0, 2, 'span[NP]'), Fact(2, 3, 'span[-RSB-]'))
  ]


def test_numbers():
  rows = [
    [*spans.read('DT[0]'), *spans.read('NP[0:1]'), *spans.read('pos: DT')],
    [],
    spans.read('[1:3]'),
  ]
  found = spans.numbered(rows, LABELS, [3, 3, 3])
  assert found.shape == (3, 8, 3) and found.dtype == np.int32
  # Behind [CLS]; what is asked for twice is there once.
  assert found[0, :2].tolist() == [[1, 2, 1], [1, 2, 4]]
  assert found[2, 0].tolist() == [2, 4, 3]
  assert (found[..., 2] >= 0).sum(1).tolist() == [2, 0, 1]
  assert spans.numbered([spans.read('parse: NP[0:4]')], LABELS, [4]).shape == (
    *(1, 16, 3),
  )


@pytest.mark.parametrize(
  'text, told',
  [
    ('NN[3:3]', 'has no words: the end, 3, must be above 3'),
    ('[3]', r"'\[3\]' is neither a tag as NNP\[0\] nor a phrase"),
    ('pos:', "control 'pos:' has nothing in it"),
    ('parse: NP', "'NP' is neither a tag"),
    ('parse: NP[0:2] NN[1]', r'a parse is of phrases.*NN\[1\] is a tag'),
  ],
)
def test_what_cannot_be_read(text, told):
  with pytest.raises(ValueError, match=told):
    spans.read(text)


@pytest.mark.parametrize(
  'texts, told',
  [
    (['NNN[0]'], r'NNN\[0\]: unknown tag; nearest: NN'),
    (['NNP[0:1]'], r'NNP\[0:1\]: unknown phrase; nearest: NP'),
    (['DT[4]'], r'DT\[4\]: the text has 4 words at most'),
    (['NP[2:5]'], r'NP\[2:5\]: the text has 4 words at most'),
    (['pos: DT NN', 'DT[1]'], r'NN\[1\] and DT\[1\] contradict each other'),
    (['NP[0:2]', 'parse: VP[0:3]'], r'NP\[0:2\] and \[0:2\] contradict'),
  ],
)
def test_facts_that_cannot_be(texts, told):
  facts = [fact for text in texts for fact in spans.read(text)]
  with pytest.raises(ValueError, match=told):
    spans.numbered([facts], LABELS, [4])
