"""Answers to pairs: several candidates of each, and the one to be taken.

Rows are in the order of the pairs, and as `scoring.read` reads them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sedd_jax.data.paired.questions import Questions
from sedd_jax.evaluation import scoring
from sedd_jax.samplers import mbr
from sedd_jax.systems.base import Request, Samples


def requests(
  questions: Questions, template: Request, *, candidates: int, seed: int
) -> list[Request]:
  """What is asked of a system, a request a batch.

  The candidates of a question follow each other; candidate j of question i has
  the seed `seed + i * candidates + j`, so answers do not depend on the batches,
  nor on how many questions follow.

  Args:
    questions: at least one.
    template: gives everything but the rows; its `batch_size` those of a batch.
    candidates: of each question.
    seed: of the first.

  Returns:
    The requests, in order.
  """
  rows = np.repeat(np.arange(len(questions)), candidates)
  size = template.batch_size or len(rows)
  found = []
  for first in range(0, len(rows), size):
    mine = rows[first : first + size]
    seeds = [(seed + first + i) % 2**32 for i in range(len(mine))]
    found.append(
      dataclasses.replace(
        template,
        seeds=tuple(seeds),
        record_path=False,
        **questions.at(mine),
      )
    )
  return found


def preview(questions: Questions, template: Request, *, seed: int) -> Request:
  """One candidate of each of the first questions that fill a batch."""
  count = min(len(questions), template.batch_size or len(questions))
  return dataclasses.replace(
    template,
    seeds=tuple((seed + i) % 2**32 for i in range(count)),
    **questions.at(np.arange(count)),
  )


def texts(
  samples: Samples, request: Request, tokenizer: Any, *, cut: bool
) -> list[str]:
  """What was written, without what was given, marks, and space around it.

  Args:
    samples: what came of the request.
    request: the request.
    tokenizer: a `data.paired.marked.Marked`.
    cut: whether a text ends at its first [SEP]: where padding is not learned,
      nothing is said of what is behind it.
  """
  found = []
  for row, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths)):
    free = np.arange(len(tokens)) < length
    if request.given is not None:
      free &= ~request.given[row]
    found.append(tokenizer.text(tokens[free], cut=cut))
  return found


def answered(
  draw: Callable[[Request], Samples],
  asked: Iterable[Request],
  questions: Questions,
  tokenizer: Any,
  *,
  candidates: int,
  cut: bool,
  record: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
  """Rows of a file of outputs, each as soon as its candidates are drawn.

  Args:
    draw: gives the samples of a request.
    asked: what `requests` gives.
    questions: those that it was made of.
    tokenizer: a `data.paired.marked.Marked`.
    candidates: of each question.
    cut: see `texts`.
    record: further entries of every row.

  Yields:
    Id, source, references and candidates (`scoring.output_row`); `text`, the
    candidate of the least risk by sentence BLEU (`samplers.mbr`); `cut`, where
    the pair was too long to be told whole; and the record.
  """
  waiting: list[str] = []
  place = 0
  for request in asked:
    waiting += texts(draw(request), request, tokenizer, cut=cut)
    while len(waiting) >= candidates:
      own, waiting = waiting[:candidates], waiting[candidates:]
      yield scoring.output_row(
        questions.pairs[place],
        own,
        text=own[mbr.choose([text.split() for text in own])],
        cut=bool(questions.cut[place]),
        **record,
      )
      place += 1


def scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The figures of `scoring.table` of rows that `answered` gave."""
  return scoring.table(
    [
      scoring.Row(row['id'], row['src'], tuple(row['refs']), tuple(row['hyps']))
      for row in rows
    ]
  )
