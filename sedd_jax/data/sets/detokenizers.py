"""Tokenised corpora back into text, as zero-shot perplexities are reported.

Each corpus has the rules of the released code of SEDD (arXiv 2310.16834), which
MDLM's (arXiv 2406.07524) shares; a perplexity a token depends on every one of
them, also on those that mend nothing.  A rule is a literal or a regular
expression and what takes its place; they apply in order, to one example.
"""

import functools
import re
from collections.abc import Callable, Iterable

from sedd_jax.core import names

Detokenizer = Callable[[str], str]


def _literal(*pairs: tuple[str, str]) -> list[Detokenizer]:
  """One rule a pair: every occurrence, found from the left."""
  return [functools.partial(_replaced, old=old, new=new) for old, new in pairs]


def _replaced(text: str, *, old: str, new: str) -> str:
  return text.replace(old, new)


def _pattern(*pairs: tuple[str, str]) -> list[Detokenizer]:
  """One rule a pair: a regular expression and its replacement."""
  return [
    functools.partial(re.compile(pattern).sub, new) for pattern, new in pairs
  ]


def _closed_up(*marks: str) -> list[Detokenizer]:
  """No space before a mark that has one on either side."""
  return _literal(*((f' {mark} ', f'{mark} ') for mark in marks))


def _enclosed(*pairs: str) -> list[Detokenizer]:
  """No space inside two marks, the nearest that match."""

  def rule(pair: str) -> tuple[str, str]:
    opened, closed = map(re.escape, tuple(pair))
    return (
      rf'{opened}\s*([^{closed}]*?)\s*{closed}',
      rf'{pair[0]}\1{pair[1]}',
    )

  return _pattern(*map(rule, pairs))


_WIKITEXT = [
  *_literal(("s '", "s'")),
  # A slip of the released code: written for another language, it finds nothing
  # in a text but where the slashes stand there.
  *_pattern((r"/' [0-9]/", r"/'[0-9]/")),
  *_literal((' @-@ ', '-'), (' @,@ ', ','), (' @.@ ', '.')),
  *_closed_up(*':;.!?,'),
  *_enclosed('()', '[]', '{}', '""', "''"),
  *_literal(('= = = =', '===='), ('= = =', '==='), ('= =', '==')),
  *_literal((' ° ', '°'), (' \n', '\n'), ('\n ', '\n')),
  *_literal((' N ', ' 1 '), (" 's", "'s")),
]
_PTB = [
  *_literal((" 's", "'s"), ("s ' ", "s' "), (" n't", "n't"), (' \n ', '\n')),
  *_literal(('\\/', '/')),
  # Numbers that follow each other share the space between them.
  *_literal(*10 * [(' N ', ' 1 ')]),
  *_literal(('$ 1', '$1'), ('# 1', '#1'), ('<unk>', '?')),
]
_LM1B = [
  *_literal(('http : / / ', 'http://'), ('https : / / ', 'https://')),
  *_pattern((r" '(\w+)", r"'\1")),
  *_pattern((r' (\w+) \. ', r' \1. '), (r' (\w+) \.$', r' \1.')),
  *_closed_up('?'),
  *_pattern((r' \?$', '?')),
  *_closed_up('!'),
  *_pattern((r' \!$', '!')),
  *_closed_up(*',:;'),
  *_literal((' / ', '/')),
  *_pattern((r'" ([^"]+) "', r'"\1"'), (r"' ([^']+) '", r"'\1'")),
  *_pattern((r'\( ([^\(\)]+) \)', r'(\1)'), (r'\[ ([^\[\]]+) \]', r'[\1]')),
  *_literal(('$ ', '$'), ('£ ', '£')),
]
_LAMBADA = [
  *_literal(('“', '"'), ('”', '"')),
  str.strip,
  '\n{}'.format,
]
_RULES: dict[str, Iterable[Detokenizer]] = {
  'lambada': _LAMBADA,
  'lm1b': _LM1B,
  'none': [],
  'ptb': _PTB,
  'scientific_papers': [*_WIKITEXT, *_LM1B],
  'wikitext': _WIKITEXT,
}
NAMES = tuple(_RULES)


def detokenized(text: str, name: str) -> str:
  """An example of a corpus as text.

  Args:
    text: the example as the corpus has it: a line, a sentence or a passage.
    name: of `NAMES`.

  Returns:
    The text.

  Raises:
    ValueError: for an unknown name.

  >>> detokenized('a 2 @-@ year plan , for 3 @.@ 5 million', 'wikitext')
  'a 2-year plan, for 3.5 million'
  """
  for rule in names.resolve(_RULES, name, 'detokenizer'):
    text = rule(text)
  return text
