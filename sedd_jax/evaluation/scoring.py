"""Scores outputs against references: all figures of a file in one table.

  python -m sedd_jax.evaluation.scoring seed1.jsonl seed2.jsonl \\
    --pairs test.jsonl --output scores.json

A line of an output file is a JSON object with `hyps`, a list of strings or one
string, and with `src` and `trg` or `refs` as in files of pairs, or, where these
come from --pairs, with the `id` of the pair ('test.jsonl:17' is line 17).
Several files bring candidates of the same sources, told by their ids.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax.data.errors import DataError
from sedd_jax.data.paired import pairs
from sedd_jax.evaluation import correction, overlap, report, text_metrics
from sedd_jax.samplers import mbr

CHOICES = ('mbr', 'first')


class Row(NamedTuple):
  """What was made of one source.

  Attributes:
    id: of the pair.
    source: a text; empty where there is none.
    references: at least one.
    hypotheses: candidates in order, at least one; any may be empty.
  """

  id: str
  source: str
  references: tuple[str, ...]
  hypotheses: tuple[str, ...]


def table(
  rows: Sequence[Row],
  *,
  choice: str = 'mbr',
  diversity_of: int = 3,
  bert_score: Callable[[Sequence[str], Sequence[Sequence[str]]], float]
  | None = None,
) -> dict[str, Any]:
  """All figures of some outputs.

  Args:
    rows: at least one.
    choice: which candidate is scored: 'mbr', by minimum Bayes risk under
      smoothed sentence BLEU, or 'first'.
    diversity_of: candidates of each source that the diversity is of, the first
      so many; DiffuSeq reports 3.
    bert_score: `(texts, references) ->` a number, or None.

  Returns:
    A JSON-able dict of num_rows, num_hypotheses (the least and most a row),
    num_references (likewise), choice; the means over rows of bleu (smoothed,
    by sentence), rouge_l, dist_1, exact_match and length (words); corpus_bleu;
    gleu, edit_precision, edit_recall and edit_f05, None unless every row has a
    source; self_bleu and div_4, means over rows, and diversity_of, how many
    candidates of each row they are of, None where a row has one only;
    bert_score, None without the function.

  Raises:
    ValueError: without rows, for an unknown choice, and a row without a
      reference or a candidate.
  """
  _check(rows, choice, diversity_of)
  chosen = [_chosen(row.hypotheses, choice) for row in rows]
  references = [row.references for row in rows]
  paired = list(zip(references, chosen))
  least = min(len(row.hypotheses) for row in rows)
  found: dict[str, Any] = {
    'num_rows': len(rows),
    'num_hypotheses': _range([len(row.hypotheses) for row in rows]),
    'num_references': _range([len(own) for own in references]),
    'choice': choice,
    'bleu': _mean(overlap.sentence_bleu(*pair) for pair in paired),
    'corpus_bleu': overlap.corpus_bleu(references, chosen),
    'rouge_l': _mean(overlap.rouge_l(*pair) for pair in paired),
    'dist_1': _mean(map(overlap.dist_1, chosen)),
    'exact_match': _mean(overlap.exact_match(*pair) for pair in paired),
    'length': _mean(len(text.split()) for text in chosen),
    **dict.fromkeys(
      ('gleu', 'edit_precision', 'edit_recall', 'edit_f05'), None
    ),
    **dict.fromkeys(('diversity_of', 'self_bleu', 'div_4', 'bert_score'), None),
  }
  if all(row.source for row in rows):
    texts = [row.source for row in rows], references, chosen
    found['gleu'] = correction.gleu(*texts)
    found |= correction.edit_scores(*texts)
  if least > 1:
    number = min(diversity_of, least)
    several = [row.hypotheses[:number] for row in rows]
    found['diversity_of'] = number
    found['self_bleu'] = _mean(map(overlap.self_bleu, several))
    found['div_4'] = _mean(map(overlap.div_4, several))
  if bert_score is not None:
    found['bert_score'] = bert_score(chosen, references)
  return found


def _check(rows: Sequence[Row], choice: str, diversity_of: int) -> None:
  if choice not in CHOICES:
    raise ValueError(f'unknown choice {choice!r}; known: {", ".join(CHOICES)}')
  if diversity_of < 2:
    raise ValueError(
      f'diversity is of 2 candidates or more, not {diversity_of}'
    )
  if not rows:
    raise ValueError('there is no row to score')
  for row in rows:
    for kind in ('references', 'hypotheses'):
      if not getattr(row, kind):
        raise ValueError(f'row {row.id!r} has no {kind}')


def _chosen(hypotheses: Sequence[str], choice: str) -> str:
  if choice == 'first':
    return hypotheses[0]
  return hypotheses[mbr.choose([text.split() for text in hypotheses])]


def _mean(values: Any) -> float:
  return float(np.mean(list(values)))


def _range(counts: Sequence[int]) -> list[int]:
  return [min(counts), max(counts)]


def output_row(
  pair: pairs.Pair, hypotheses: Sequence[str], **more: Any
) -> dict[str, Any]:
  """A line of an output file, as `read` reads it.

  Args:
    pair: what the candidates were made of.
    hypotheses: candidates.
    more: further fields, which `read` leaves alone.
  """
  return {
    'id': pair.id,
    'src': pair.source,
    'refs': list(pair.targets),
    'hyps': list(hypotheses),
    **more,
  }


def read(
  files: Sequence[pathlib.Path], against: Sequence[pairs.Pair] | None = None
) -> list[Row]:
  """Rows of files of outputs, in the order of the first, or of the pairs.

  Args:
    files: as the head of this module says; candidates of several are joined in
      the order of the files.
    against: pairs that have the sources and references, all of which need an
      output; None: the lines of the first file have them.

  Raises:
    DataError: for a line that is no output, with its number, an id that is
      there twice, and one that only some of the files or pairs have.
  """
  found = [_outputs(file) for file in files]
  if against is None:
    known = {}
    for key, (place, line) in found[0].items():
      known[key] = _pair_of(key, place, line)
  else:
    known = {pair.id: pair for pair in against}
  for file, lines in zip(files, found):
    for key in known:
      if key not in lines:
        raise DataError(f'{file}: no output with the id {key!r}')
    for key, (place, _) in lines.items():
      if key not in known:
        raise DataError(
          f'{place}: the id {key!r} is not among those of '
          f'{files[0] if against is None else "the pairs"}'
        )
  return [
    Row(
      key,
      pair.source,
      pair.targets,
      tuple(text for lines in found for text in lines[key][1]['hyps']),
    )
    for key, pair in known.items()
  ]


def _outputs(file: pathlib.Path) -> dict[str, tuple[str, dict[str, Any]]]:
  """Id to the place and the object of each line."""
  found: dict[str, tuple[str, dict[str, Any]]] = {}
  for number, text in pairs.lines(file):
    place = f'{file}:{number}'
    try:
      line = json.loads(text)
    except (ValueError, RecursionError) as error:
      raise DataError(f'{place}: no JSON: {error}') from error
    hypotheses = line.get('hyps') if isinstance(line, dict) else None
    if isinstance(hypotheses, str):
      hypotheses = [hypotheses]
    if not (
      isinstance(hypotheses, list)
      and hypotheses
      and all(isinstance(x, str) for x in hypotheses)
    ):
      raise DataError(
        f"{place}: not an output; a line has 'hyps', a string or a list of "
        f'strings, not {text[:60]!r}'
      )
    key = str(line.get('id', number))
    if key in found:
      raise DataError(
        f'{place}: the id {key!r} is that of {found[key][0]} already'
      )
    found[key] = place, {**line, 'hyps': hypotheses}
  if not found:
    raise DataError(f'{file}: empty')
  return found


def _pair_of(key: str, place: str, line: Mapping[str, Any]) -> pairs.Pair:
  own = {name: line[name] for name in ('trg', 'refs') if name in line}
  source = line.get('src', '')
  targets = own.get('refs', list(own.values()))
  texts = [source, *targets] if isinstance(targets, list) else [None]
  if len(own) != 1 or not targets or not all(isinstance(x, str) for x in texts):
    raise DataError(
      f"{place}: no references; a line has the string 'trg' or a list 'refs' "
      'of strings, or --pairs names the files that have them'
    )
  return pairs.Pair(key, source, tuple(targets))


def main(argv: Sequence[str] | None = None) -> int:
  """The command line.

  Args:
    argv: arguments after the program's name; None: the process' own.

  Returns:
    Exit code: 0, or 1 after a message on what is wrong.
  """
  parser = argparse.ArgumentParser(
    prog='python -m sedd_jax.evaluation.scoring',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('outputs', nargs='*', help='files of outputs')
  parser.add_argument(
    '--pairs', default='', help='files of pairs with sources and references'
  )
  parser.add_argument(
    '--copy',
    action='store_true',
    help="score the sources of --pairs themselves: what an output's figures "
    'are before anything is done',
  )
  parser.add_argument(
    '--choice',
    choices=CHOICES,
    default='mbr',
    help='which candidate is scored; default: mbr',
  )
  parser.add_argument(
    '--diversity-of',
    type=int,
    default=3,
    help='candidates that self-BLEU and div-4 are of; default: 3',
  )
  parser.add_argument(
    '--bert-score',
    metavar='MODEL',
    help=f'with BERTScore of this network ({text_metrics.BERT_SCORE_MODEL} is '
    "DiffuSeq's); needs the extra bertscore",
  )
  parser.add_argument('--output', help='JSON file; default: standard output')
  arguments = parser.parse_args(argv)
  try:
    result = _result(arguments)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  if arguments.output:
    report.write_json(arguments.output, result)
  else:
    print(json.dumps(result, indent=2))
  return 0


def _result(arguments: argparse.Namespace) -> dict[str, Any]:
  if arguments.bert_score:
    text_metrics.bert_score_library()
  against = None
  if arguments.pairs:
    against = pairs.read(pairs.find(arguments.pairs))
  if arguments.copy == bool(arguments.outputs):
    raise ValueError('name files of outputs, or --copy and --pairs')
  if arguments.copy:
    if against is None:
      raise ValueError('--copy needs --pairs')
    rows = [Row(*pair, (pair.source,)) for pair in against]
  else:
    files = [pathlib.Path(path) for path in arguments.outputs]
    rows = read(files, against)

  def bert_score(
    texts: Sequence[str], references: Sequence[Sequence[str]]
  ) -> float:
    return text_metrics.bert_score(texts, references, arguments.bert_score)

  return table(
    rows,
    choice=arguments.choice,
    diversity_of=arguments.diversity_of,
    bert_score=bert_score if arguments.bert_score else None,
  )


if __name__ == '__main__':
  sys.exit(main())
