"""Success of control: whether a text has what it was asked for, and how fluent.

As arXiv 2205.14217 evaluates it (section 6): of a field, whether its value
stands in the text; of a length, whether the text is at most 2 tokens shorter or
longer; of parts of speech, the share of words that have theirs; of a span,
whether a tagger finds that phrase; of a parse, F1 of its phrases.  Fluency is
-log p a token under another model, a judge.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sedd_jax.core import names
from sedd_jax.data import tokenizers
from sedd_jax.data.labelling import meanings, spans
from sedd_jax.evaluation import judges, likelihood, tagged_words

# The kind of control that needs no classifier.
LENGTH = 'length'
# Tokens that a length may be off.
TOLERANCE = 2

# What is wanted of a sample: field to value, 'length' to a number, and 'pos',
# 'span' and 'parse' to what `spans` writes of words.
Target = Mapping[str, Any]


def kinds(text: str, known: Sequence[str]) -> list[tuple[str, ...]]:
  """The controls that are evaluated, each of one part or several.

  Args:
    text: of `eval.control`: fields (of words and phrases 'pos', 'span' and
      'parse') and 'length', by commas, together with '+'.
    known: the fields that there are.

  Raises:
    ValueError: for another field, or one twice.

  >>> kinds('food, food+length', ['food'])
  [('food',), ('food', 'length')]
  """
  found = [
    tuple(part.strip() for part in kind.split('+')) for kind in text.split(',')
  ]
  for kind in found:
    for part in kind:
      if part not in (*known, LENGTH):
        raise ValueError(
          f'eval.control: no classifier (sampling.classifier) knows labels of '
          f'{part!r}; {names.alternatives(part, [*known, LENGTH])}'
        )
    if len(set(kind)) < len(kind) or found.count(kind) > 1:
      raise ValueError(
        f'eval.control: {"+".join(kind)} is there twice, or has a part twice'
      )
  return found


def targets(
  dataset: Any,
  split: str,
  kind: Sequence[str],
  count: int,
  tagger: tagged_words.Words | None = None,
) -> list[dict[str, Any]]:
  """What texts of a split are like, in those parts.

  Args:
    dataset: pairs, whose sources are meanings where fields are asked for.
    split: of them.
    kind: fields, 'length' for the tokens of a text without its marks, and those
      of words and phrases.  A span is one of several words if there is any, of
      another place in each text.
    count: targets at most, evenly spread over the rows that have all fields.
    tagger: of words and phrases.

  Raises:
    ValueError: other data, or no row with those fields, or with phrases.
  """
  if getattr(dataset, 'layout', '') != 'target':
    raise ValueError(
      "eval.control takes its targets from pairs: data.source='seq2seq' with "
      f"data.layout='target', not {dataset.info.name!r} of another layout"
    )
  rows = []
  pairs = dataset.pairs(split)
  read: dict[int, dict[str, str]] = {}
  of_words = [part for part in kind if part in spans.KINDS]
  fields = [part for part in kind if part not in (LENGTH, *of_words)]
  for row, (i, _) in enumerate(dataset.places(split).tolist()):
    if fields and i not in read:
      read[i] = meanings.facts(pairs[i].source, pairs[i].id)
    if all(field in read[i] for field in fields):
      rows.append((row, i))
  if not rows:
    raise ValueError(f'no text of the {split} split has {" and ".join(fields)}')
  found = []
  texts = dataset.target_ids(split)
  for place in likelihood.evaluated_indices(len(rows), count):
    row, i = rows[place]
    target: dict[str, Any] = {field: read[i][field] for field in fields}
    if LENGTH in kind:
      target[LENGTH] = len(texts[row])
    if of_words:
      assert tagger is not None
      said = tagger(texts[row], pairs[i].id)
      if not said.phrases and set(of_words) - {spans.POS}:
        continue
      target |= {
        part: tagged_words.WRITTEN[part](said, row) for part in of_words
      }
    found.append(target)
  if not found:
    raise ValueError(f'no text of the {split} split that is tried has phrases')
  return found


def labels_of(target: Target) -> list[str]:
  """The labels that a target asks for, its length apart."""
  return [
    _LABELS.get(part, '{0}[{1}]').format(part, value)
    for part, value in target.items()
    if part != LENGTH
  ]


_LABELS = {spans.SPAN: '{1}', spans.POS: '{0}: {1}', spans.PARSE: '{0}: {1}'}


def text_ids(ids: np.ndarray, tokenizer: Any) -> np.ndarray:
  """The tokens of a text up to the first [SEP] behind one, without marks.

  Args:
    ids: `[length]`.
    tokenizer: a `data.paired.marked.Marked`.
  """
  ids = np.asarray(ids)
  marks = np.isin(ids, (tokenizer.cls, tokenizer.sep, tokenizer.pad))
  ends = np.flatnonzero((np.cumsum(~marks) > 0) & (ids == tokenizer.sep))
  end = ends[0] if len(ends) else len(ids)
  return ids[:end][~marks[:end]]


def has_words(text: str, value: str) -> bool:
  """Whether the words of a value stand in a text, one after the other.

  >>> has_words('The Mill is by the City centre.', 'city centre')
  True
  >>> has_words('a publication', 'pub')
  False
  """
  wanted, words = (
    [word.casefold() for word in tokenizers.split_words(x)]
    for x in (value, text)
  )
  size = len(wanted)
  return any(
    words[i : i + size] == wanted for i in range(len(words) - size + 1)
  )


def successes(
  ids: np.ndarray,
  tokenizer: Any,
  target: Target,
  tagger: tagged_words.Words | None = None,
) -> dict[str, float]:
  """Which parts of a target a sample has, or how much of them.

  Args:
    ids: `[length]`.
    tokenizer: a `data.paired.marked.Marked`.
    target: what was asked for.
    tagger: of words and phrases.
  """
  own = text_ids(ids, tokenizer)
  text = tokenizer.text(own)
  found: dict[str, float] = {}
  for part, wanted in target.items():
    if part in tagged_words.MEASURED:
      assert tagger is not None
      found[part] = tagged_words.MEASURED[part](tagger(own), wanted)
    elif part == LENGTH:
      found[part] = abs(len(own) - wanted) <= TOLERANCE
    else:
      found[part] = has_words(text, wanted)
  return found


def figures(
  samples: Sequence[np.ndarray],
  wanted: Sequence[Target],
  tokenizer: Any,
  judge: judges.Judge | None,
  tagger: tagged_words.Words | None = None,
) -> dict[str, Any]:
  """How often samples have all that was asked for, each part, and fluency.

  Args:
    samples: `[length]` ids each.
    wanted: their targets, those of the same one together, equally many.
    tokenizer: a `data.paired.marked.Marked`.
    judge: for the fluency; None leaves it out.
    tagger: of words and phrases.

  Returns:
    A JSON-able dict: success, of a sample that of its least part, its
    standard_error over the targets (None of one alone), parts, mean_length, and
    what `fluency` says.
  """
  each = [
    successes(ids, tokenizer, target, tagger)
    for ids, target in zip(samples, wanted)
  ]
  least = [min(found.values()) for found in each]
  by_target: dict[int, list[float]] = {}
  for target, found in zip(wanted, least):
    by_target.setdefault(id(target), []).append(found)
  means = np.array([np.mean(found) for found in by_target.values()])
  return {
    'num_samples': len(each),
    'success': float(np.mean(least)),
    'standard_error': float(means.std(ddof=1) / np.sqrt(len(means)))
    if len(means) > 1
    else None,
    'parts': {
      part: float(np.mean([found[part] for found in each]))
      for part in wanted[0]
    },
    'mean_length': float(
      np.mean([len(text_ids(ids, tokenizer)) for ids in samples])
    ),
    **fluency(samples, tokenizer, judge),
  }


def fluency(
  samples: Sequence[np.ndarray], tokenizer: Any, judge: judges.Judge | None
) -> dict[str, Any]:
  """-log p a token of texts, and perplexities, under a judge; without none.

  A judge that reads the same ids is given a text between [CLS] and [SEP], as
  it was trained, of which [CLS] is no token to be scored; another one the text.
  """
  if judge is None:
    return {}
  texts = [text_ids(ids, tokenizer) for ids in samples]
  if judges.reads_ids(judge, tokenizer):
    texts = [
      np.array([tokenizer.cls, *own, tokenizer.sep], np.int32) for own in texts
    ]
    judge = dataclasses.replace(judge, scores_first=False)
  told = judges.judged(judge, tokenizer, texts)
  return {
    'nats_per_token': float(told.nats.sum() / told.tokens.sum()),
    **judges.perplexities(told),
  }


_COLUMNS = {
  'success': ('success', '{:.1%}'),
  'standard error': ('standard_error', '{:.1%}'),
  'tokens': ('mean_length', '{:.1f}'),
  'nats a token': ('nats_per_token', '{:.3f}'),
  'perplexity': ('perplexity', '{:.2f}'),
}


def table(name: str, result: Mapping[str, Any]) -> str:
  """The figures as a Markdown table, with a line on how they were made.

  Args:
    name: of the run.
    result: `controls`, each with kind, num_targets, controlled and unguided;
      `data`, the fluency of the split's texts; judge, samples_per_target.
  """

  def line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'

  def row(
    kind: str, count: object, which: str, found: Mapping[str, Any]
  ) -> str:
    values = [
      '' if found.get(figure) is None else text.format(found[figure])
      for figure, text in _COLUMNS.values()
    ]
    return line([kind, str(count), which, *values])

  columns = ['control', 'targets', '', *_COLUMNS]
  lines = [line(columns), line(['---'] * len(columns))]
  for one in result['controls']:
    count = one['num_targets']
    lines.append(row(one['kind'], count, 'controlled', one['controlled']))
    lines.append(row(one['kind'], count, 'without', one['unguided']))
  lines.append(row('', '', 'text of the data', result['data']))
  told = f'fluency under {result["judge"]}' if result['judge'] else 'no judge'
  lines.append(
    f'\n{name}: targets of the {result["split"]} split, '
    f'{result["samples_per_target"]} samples each, {result["method"]} in '
    f'{result["steps"]} steps; {told}. Success: the words of the value stand '
    f'in the text; the length is off by at most {TOLERANCE}; pos: the '
    'share of words with their tags; span: the phrase is found; parse: F1 of '
    'phrases.'
  )
  return '\n'.join(lines) + '\n'
