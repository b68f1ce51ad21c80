"""Taggers: alignment with words, libraries that are there and that are not."""

import importlib
import types

import numpy as np
import pytest

from sedd_jax.data import DataError, tokenizers
from sedd_jax.data.labelling import taggers
from sedd_jax.data.labelling.spans import Tagged
from sedd_jax.data.paired import marked
from tests import toy_tagger

PLACES = ['dev.csv:2', 'dev.csv:3', 'dev.csv:4']


def test_texts_without_words_are_not_asked_for():
  asked = []

  def tagger(texts):
    asked.extend(texts)
    return toy_tagger.tagger(texts)

  texts = [['the', 'cat'], [], ['is']]
  found = taggers.tagged(tagger, texts, PLACES)
  assert asked == [['the', 'cat'], ['is']]
  assert found == [
    Tagged(('DT', 'NN'), ((0, 2, 'NP'),)),
    Tagged((), ()),
    Tagged(('VBZ',), ((0, 1, 'VP'),)),
  ]


@pytest.mark.parametrize(
  'said, told',
  [
    (
      Tagged(('NN',), ()),
      "dev.csv:3: the tagger says 1 tags of 2 words: 'a b'",
    ),
    (Tagged(('NN', ''), ()), "dev.csv:3: the tagger says ''"),
    (Tagged(('NN', 'N N'), ()), 'which is no name'),
    (Tagged(('NN', 'N]'), ()), 'which is no name'),
    (Tagged(('A', 'B'), ((1, 3, 'NP'),)), 'the words 1 to 3 of 2, which there'),
    (Tagged(('A', 'B'), ((1, 1, 'NP'),)), 'the words 1 to 1 of 2'),
    (Tagged(('A', 'B'), ((0, 2, 'NP'), (0, 2, 'VP'))), 'or twice'),
  ],
)
def test_what_a_tagger_may_not_say(said, told):
  def tagger(texts):
    return [Tagged(('NN',), ()), said]

  with pytest.raises(DataError, match=told):
    taggers.tagged(tagger, [['x'], ['a', 'b']], PLACES)


def test_a_text_that_a_tagger_leaves_out():
  with pytest.raises(DataError, match='of 1 texts, and 2 were asked for'):
    taggers.tagged(lambda texts: [Tagged(('A',), ())], [['x'], ['y']], PLACES)
  # A bracket is the name that a bracket has.
  found = taggers.tagged(lambda texts: [Tagged(('[',), ())], [['[']], PLACES)
  assert found[0].tags == ('[',)


def test_names():
  assert taggers.make('tests.toy_tagger:tagger') is toy_tagger.tagger
  with pytest.raises(ValueError, match="unknown tagger 'textblb'; nearest"):
    taggers.make('textblb')
  with pytest.raises(DataError, match='takes no argument'):
    taggers.make('textblob:x')


@pytest.mark.parametrize(
  'name, extra', [('spacy', 'spacy'), ('textblob', 'taggers')]
)
def test_a_library_that_is_not_there(monkeypatch, name, extra):
  def absent(module):
    raise ModuleNotFoundError(module)

  monkeypatch.setattr(importlib, 'import_module', absent)
  told = rf"tagger {name} is not installed: pip install 'sedd_jax\[{extra}\]'"
  with pytest.raises(DataError, match=told):
    taggers.make(name)


def document(words, heads, tags, deps):
  """What `of_pipeline` reads of spaCy's Doc, by the heads of the words."""

  def below(i):
    own = [k for k, head in enumerate(heads) if head == i and k != i]
    return [i, *(x for k in own for x in below(k))]

  class Doc(list):
    def has_annotation(self, name):
      return name == 'DEP' and deps is not None

  edges = [below(i) for i in range(len(words))]
  return Doc(
    types.SimpleNamespace(
      tag_=tags[i],
      dep_=deps and deps[i],
      left_edge=types.SimpleNamespace(i=min(edges[i])),
      right_edge=types.SimpleNamespace(i=max(edges[i])),
    )
    for i in range(len(words))
  )


def pipeline_of(doc, *names):
  return types.SimpleNamespace(
    pipe_names=('tagger', *names), pipe=lambda docs: (doc for _ in docs)
  )


def test_dependencies_are_phrases():
  words, tags = ['The', 'cat', 'sat', '.'], ('DT', 'NN', 'VBD', '.')
  deps = ('det', 'nsubj', 'ROOT', 'punct')
  doc = document(words, [1, 2, 2, 2], tags, deps)
  made = []
  tagger = taggers.of_pipeline(pipeline_of(doc, 'parser'), made.append)
  (found,) = taggers.tagged(tagger, [words], PLACES)
  assert made == [words] and found.tags == tags
  assert found.phrases == (
    *((0, 1, 'det'), (0, 2, 'nsubj'), (0, 4, 'ROOT'), (3, 4, 'punct')),
  )
  doc = document(words, [1, 2, 2, 2], tags, None)
  tagger = taggers.of_pipeline(pipeline_of(doc), list)
  assert taggers.tagged(tagger, [words], PLACES)[0] == Tagged(tags, ())


def test_constituents_where_there_are_some():
  words, tags = ['Go', '.'], ('VB', '.')

  def span(start, end, *names):
    return types.SimpleNamespace(
      start=start, end=end, _=types.SimpleNamespace(labels=names)
    )

  doc = document(words, [0, 0], tags, ('ROOT', 'punct'))
  parts = [span(0, 2, 'S', 'VP'), span(0, 1), span(1, 2)]
  sentence = types.SimpleNamespace(_=types.SimpleNamespace(constituents=parts))
  doc.sents = [sentence]
  tagger = taggers.of_pipeline(pipeline_of(doc, 'parser', 'benepar'), list)
  (found,) = taggers.tagged(tagger, [words], PLACES)
  assert found == Tagged(tags, ((0, 2, 'S::VP'),))


# It leaves the files of its lexicon to the garbage collector.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_textblob_keeps_words_as_they_are_cut():
  pytest.importorskip('textblob')
  text = "The Vaults isn't a pub near Café / [x], it's £20-25 (cheap)."
  words = tokenizers.split_words(text)
  texts = [words, ['the', 'cat', 'sat', '.']]
  found = taggers.tagged(taggers.make('textblob'), texts, PLACES)
  assert len(found[0].tags) == len(words) and "n't" in words
  assert found[1].tags == ('DT', 'NN', 'VBD', '.')
  assert found[1].phrases == ((0, 2, 'NP'), (2, 3, 'VP'))


def test_only_words_are_tagged(tmp_path):
  (tmp_path / 'words.txt').write_text(tokenizers.words_file({'cat': 2}, 0))
  words = marked.Marked(tokenizers.make(str(tmp_path)))
  taggers.require_words(words)
  ids = words.encode('cat dog cat')
  assert taggers.words_of(words, ids) == ['cat', '[UNK]', 'cat']
  assert taggers.words_of(words, np.zeros(0, np.int32)) == []
  with pytest.raises(DataError, match='must be a folder with words.txt'):
    taggers.require_words(marked.Marked(tokenizers.make('bytes')))
