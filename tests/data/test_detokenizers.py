"""Rules of the released evaluations, on the cases that are easily got wrong.

All texts are written for these tests.
"""

import pytest

from sedd_jax.data.sets import detokenizers

CASES = {
  'wikitext': [
    ('a 10 @-@ year , 3 @,@ 500 @.@ 5 mile run', 'a 10-year, 3,500.5 mile run'),
    # A space closes up after marks on both sides, not at the end of a line.
    ('it ended . Why ? Nobody knew .', 'it ended. Why? Nobody knew .'),
    ('one ; two : three ! four', 'one; two: three! four'),
    ('( a b ) [ c ] { d }', '(a b) [c] {d}'),
    (' = Title = ', ' = Title = '),
    (' = = Part = = ', ' == Part == '),
    (' = = = Piece = = = ', ' === Piece === '),
    ('he said " go on " twice', 'he said "go on" twice'),
    # Quotes pair up from the left, also those that do not belong together.
    ('" a " b " c "', '"a" b "c"'),
    ("the dogs ' bowl", "the dogs' bowl"),
    # An apostrophe opens a pair with the next one.
    ("a ' b ' c", "a 'b' c"),
    ("Ann 's and Bob 's", "Ann's and Bob's"),
    ('at 20 ° north', 'at 20°north'),
    ('a line \n another', 'a line\nanother'),
    ('about N of them', 'about 1 of them'),
    ('<unk> stays', '<unk> stays'),
    ("/' 5/", "/'[0-9]/"),
  ],
  'ptb': [
    ("the firm 's shares did n't rise", "the firm's shares didn't rise"),
    ("the firms ' shares", "the firms' shares"),
    ('from $ N to $ N million', 'from $1 to $1 million'),
    # One pass would leave every second of them.
    ('up N N N N %', 'up 1 1 1 1 %'),
    ('number # N of <unk>', 'number #1 of ?'),
    ('either\\/or', 'either/or'),
    # Nothing stands before the first, nothing after the last.
    ('N of N', 'N of N'),
  ],
  'lm1b': [
    ('He left , she stayed .', 'He left, she stayed.'),
    ('Who ? Me !', 'Who? Me!'),
    ('Who ? Me ?', 'Who? Me?'),
    ("It 's the dogs ' own", "It's the dogs ' own"),
    ('see http : / / example.org now', 'see http://example.org now'),
    ('and / or', 'and/or'),
    ('" Well , " he said', '"Well," he said'),
    ('( so ) [ it ] goes', '(so) [it] goes'),
    ('$ 5 or £ 4', '$5 or £4'),
    ('9 : 30 ; then', '9: 30; then'),
    ('an end . And on .', 'an end. And on.'),
  ],
  # The rules of WikiText, then those of LM1B.
  'scientific_papers': [
    # LM1B's rule wants a whole word before the last mark.
    ('we ( so to say ) find , in @-@ line .', 'we (so to say) find, in-line .'),
    ('we ( so to say ) find , in line .', 'we (so to say) find, in line.'),
    ('a = = b \n 3 N of $ 4', 'a == b\n3 1 of $4'),
    ('is it ? it is !', 'is it? it is!'),
  ],
  'none': [(' a , “b” ', ' a , “b” ')],
  'lambada': [
    ('  “Yes,” she said. ', '\n"Yes," she said.'),
    ('', '\n'),
    ('it’s', '\nit’s'),
  ],
}


@pytest.mark.parametrize(
  'name,text,expected',
  [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_odd_cases(name, text, expected):
  assert detokenizers.detokenized(text, name) == expected


def test_all_have_cases():
  assert set(CASES) == set(detokenizers.NAMES)


def test_an_unknown_corpus():
  with pytest.raises(ValueError, match="'wikitex'; nearest: wikitext"):
    detokenizers.detokenized('', 'wikitex')
