"""Taggers: parts of speech and phrases of texts that are words already.

A tagger is a function of texts, each a list of words, that says a
`spans.Tagged` of each.  The libraries are imported when they are asked for.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sedd_jax.core import names
from sedd_jax.data import tokenizers
from sedd_jax.data.errors import DataError
from sedd_jax.data.labelling.spans import Tagged

Tagger = Callable[[Sequence[Sequence[str]]], Iterable[Tagged]]

_PIPELINE = 'en_core_web_sm'


def make(name: str) -> Tagger:
  """The tagger of a name.

  Args:
    name: of `TAGGERS`, perhaps with an argument (`spacy:en_core_web_md`), or
      `module:Name` of a function of one's own.

  Raises:
    ValueError: an unknown name, or a library or a pipeline that is not
      installed.
  """
  head, _, tail = name.partition(':')
  if head in TAGGERS:
    return TAGGERS[head](tail)
  return names.resolve(TAGGERS, name, 'tagger')


def tagged(
  tagger: Tagger, texts: Sequence[Sequence[str]], places: Sequence[str]
) -> list[Tagged]:
  """What a tagger says of texts, checked; of one without words nothing.

  Args:
    tagger: of `make`.
    texts: their words.
    places: what each is called, for the error.

  Raises:
    DataError: not a tag for each word, a tag or a phrase without a name, and a
      phrase of words that there are not, or twice.
  """
  some = [i for i, words in enumerate(texts) if words]
  found = list(tagger([texts[i] for i in some]))
  if len(found) != len(some):
    raise DataError(
      f'the tagger says something of {len(found)} texts, and {len(some)} were '
      f'asked for, the first at {places[some[0]]}'
    )
  everything = [Tagged((), ()) for _ in texts]
  for i, one in zip(some, found):
    _require_whole(one, texts[i], places[i])
    everything[i] = one
  return everything


def _require_whole(one: Tagged, words: Sequence[str], place: str) -> None:
  if len(one.tags) != len(words):
    raise DataError(
      f'{place}: the tagger says {len(one.tags)} tags of {len(words)} words: '
      f'{" ".join(words)[:60]!r}'
    )
  for name in (*one.tags, *(name for _, _, name in one.phrases)):
    if name in ('[', ']'):
      continue
    if not name or any(sign in name for sign in '[] \t\n'):
      raise DataError(
        f'{place}: the tagger says {name!r}, which is no name of a tag or a '
        'phrase'
      )
  places = [(start, end) for start, end, _ in one.phrases]
  for start, end in places:
    if not 0 <= start < end <= len(words) or places.count((start, end)) > 1:
      raise DataError(
        f'{place}: the tagger says a phrase of the words {start} to {end} of '
        f'{len(words)}, which there is not, or twice'
      )


def words_of(tokenizer: Any, ids: np.ndarray) -> list[str]:
  """The words of ids without marks, one each.

  Args:
    tokenizer: a `marked.Marked` of words, see `require_words`.
    ids: `[words]`.
  """
  return tokenizer.plain.decode(ids).split(' ') if len(ids) else []


def require_words(tokenizer: Any) -> None:
  """Raises DataError where a token is not a word."""
  if not isinstance(getattr(tokenizer, 'plain', None), tokenizers.Words):
    raise DataError(
      'parts of speech and phrases are of words: data.tokenizer must be a '
      f'folder with {tokenizers.WORDS_FILE} (prepare train-words), not '
      f'{tokenizer.name!r}'
    )


def textblob(argument: str = '') -> Tagger:
  """Tags of the Penn treebank and flat phrases (NP, VP, PP, ADJP, ADVP).

  By the tagger that TextBlob carries, pattern.en's, a lexicon with rules.

  Raises:
    DataError: the library is not installed, or there is an argument.
  """
  if argument:
    raise DataError(f'tagger textblob takes no argument ({argument!r})')
  parse = _library('textblob.en', 'textblob', 'taggers').parse

  def tagger(texts):
    for words in texts:
      # Each is a word, its tag, and its place in a phrase: B-NP, I-NP or O.
      sentences = parse(' '.join(words), tokenize=False, split=True)
      found = [word for sentence in sentences for word in sentence]
      yield Tagged(
        tuple(word[1] for word in found), chunks([word[2] for word in found])
      )

  return tagger


def chunks(places: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
  """Phrases by which words begin one and which are inside.

  >>> chunks(['B-NP', 'I-NP', 'O', 'B-PP', 'B-NP'])
  ((0, 2, 'NP'), (3, 4, 'PP'), (4, 5, 'NP'))
  """
  begins = [i for i, place in enumerate(places) if place.startswith('B-')]
  found = []
  for i in begins:
    end = i + 1
    while end < len(places) and places[end] == f'I-{places[i][2:]}':
      end += 1
    found.append((i, end, places[i][2:]))
  return tuple(found)


def spacy(argument: str = '') -> Tagger:
  """A pipeline of spaCy: see `of_pipeline`.

  Args:
    argument: its name or path; '' for en_core_web_sm.

  Raises:
    DataError: the library or the pipeline is not installed.
  """
  name = argument or _PIPELINE
  library = _library('spacy', 'spacy', 'spacy')
  try:
    pipeline = library.load(name)
  except OSError as error:
    raise DataError(
      f'tagger spacy: no pipeline {name!r}: python -m spacy download {name}'
    ) from error
  doc = importlib.import_module('spacy.tokens').Doc
  return of_pipeline(pipeline, lambda words: doc(pipeline.vocab, words=words))


def of_pipeline(pipeline: Any, doc_of: Callable[[list[str]], Any]) -> Tagger:
  """A pipeline of spaCy as a tagger.

  The tags are the fine ones (of English the Penn treebank's).  Phrases are the
  constituents where benepar is in the pipeline, those of one place joined by
  `::`; else the words below each word of the dependencies, from the first to
  the last one, named by the dependency.

  Args:
    pipeline: has `pipe_names` and `pipe(docs)`.
    doc_of: makes a document of words.
  """
  phrases_of = (
    _constituents if 'benepar' in pipeline.pipe_names else _dependencies
  )

  def tagger(texts):
    docs = pipeline.pipe(doc_of(list(words)) for words in texts)
    for doc in docs:
      yield Tagged(tuple(word.tag_ for word in doc), phrases_of(doc))

  return tagger


def _constituents(doc: Any) -> tuple[tuple[int, int, str], ...]:
  return tuple(
    (each.start, each.end, '::'.join(each._.labels))
    for sentence in doc.sents
    for each in sentence._.constituents
    if each._.labels
  )


def _dependencies(doc: Any) -> tuple[tuple[int, int, str], ...]:
  found: dict[tuple[int, int], str] = {}
  for word in doc if doc.has_annotation('DEP') else ():
    place = (word.left_edge.i, word.right_edge.i + 1)
    # Of words that cross others two may have the same: the first has it.
    found.setdefault(place, word.dep_)
  return tuple((*place, name) for place, name in found.items())


def _library(module: str, name: str, extra: str) -> Any:
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise DataError(
      f"tagger {name} is not installed: pip install 'sedd_jax[{extra}]'"
    ) from error


TAGGERS: Mapping[str, Callable[[str], Tagger]] = {
  'textblob': textblob,
  'spacy': spacy,
}
