"""Samples that a config asks for: their requests, drawn, told and written."""

import itertools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sedd_jax import answering, experiments, runs, systems
from sedd_jax.core import atomic
from sedd_jax.evaluation import (
  conditioning,
  edit_history,
  generate,
  report,
)
from sedd_jax.samplers import mbr


class Asked(NamedTuple):
  """Samples that are asked for, and what of each, besides what it need not."""

  request: systems.Request
  kept: list[dict[str, Any]]


def requests_of(
  experiment: experiments.Experiment, *, free: bool
) -> list[Asked]:
  """What the config asks for, of pairs one batch: mode sample answers all.

  Args:
    experiment: of the config.
    free: whether samples without a prompt come first.

  Returns:
    One request, or two.

  Raises:
    ValueError: for what the system does not draw.
  """
  sampling = experiment.config.sampling
  if sampling.pairs:
    request = answering.preview(experiment)
    if experiment.system.check_request is not None:
      experiment.system.check_request(request)
    pairs = {'pairs': sampling.pairs}
    return [Asked(request, [pairs] * len(request.seeds))]
  count = sampling.num_samples
  config = {name: sampling[name] for name in conditioning.ASKED}
  lines = [config]
  if sampling.prompts:
    lines = [
      config | line for line in conditioning.read_prompts(sampling.prompts)
    ]
  wanted = [lines]
  if free and any(map(beyond_defaults, lines)):
    wanted.insert(0, [{}])

  def request_of(place: int, line: Mapping[str, Any]) -> Any:
    try:
      return experiment.request(
        count, first=place * count, record_path=True, **line
      )
    except ValueError as error:
      if not sampling.prompts:
        raise
      raise ValueError(
        f'{sampling.prompts}, prompt {place + 1}: {error}'
      ) from error

  asked = [
    Asked(
      generate.joined(list(itertools.starmap(request_of, enumerate(lines)))),
      [beyond_defaults(line) for line in lines for _ in range(count)],
    )
    for lines in wanted
  ]
  if experiment.system.check_request is not None:
    for one in asked:
      experiment.system.check_request(one.request)
  return asked


def beyond_defaults(line: Mapping[str, Any]) -> dict[str, Any]:
  """Of what a line asks for, what is not asked for by default."""
  return {
    name: value
    for name, value in line.items()
    if value and (name, value) != ('ends', 'length')
  }


def drawn(
  run: runs.Run, asked: Asked
) -> tuple[list[dict[str, Any]], systems.Samples]:
  """Lines of samples.jsonl, and the samples that they tell of.

  Args:
    run: what draws them.
    asked: of `requests_of`.
  """
  samples = run.draw(asked.request)
  rows = generate.rows(
    samples, run.tokenizer, asked.request, prompt='', suffix='', step=run.step
  )
  return [row | kept for row, kept in zip(rows, asked.kept)], samples


def chosen(
  run: runs.Run, rows: list[dict[str, Any]], samples: systems.Samples
) -> list[dict[str, Any]]:
  """Rows that say which of the samples of each prompt is chosen.

  Args:
    run: has the tokenizer; with as many samples a prompt as its config says.
    rows: of `drawn`.
    samples: of the same.
  """
  size = run.config.sampling.num_samples
  texts = [
    generate.words(ids, run.tokenizer) for ids in generate.sequences(samples)
  ]
  best = {
    first + mbr.choose(texts[first : first + size])
    for first in range(0, len(texts), size)
  }
  return [row | {'chosen': place in best} for place, row in enumerate(rows)]


def in_words(kept: Sequence[Mapping[str, Any]]) -> str:
  """What samples were asked for, in words."""
  if any(each != kept[0] for each in kept):
    return 'samples of several prompts:'
  rest = dict(kept[0])
  texts = [repr(rest.pop(n)) for n in ('prompt', 'suffix') if n in rest]
  told = f' that keep {" and ".join(texts)}' if texts else ''
  others = [f', {name} {value!r}' for name, value in rest.items()]
  return f'samples{told}{"".join(others)}:'


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
  """Prints the texts of samples, a line each; what is chosen with a star."""
  marks = ('*' if row.get('chosen') else ' ' for row in rows)
  lines = [f'{mark} {row["text"]!r}' for mark, row in zip(marks, rows)]
  print('\n'.join(lines), flush=True)


def write_samples(
  run: runs.Run, workdir: pathlib.Path, requests: Sequence[Asked]
) -> None:
  """Prints and writes samples, and the page of the first of them.

  Args:
    run: what draws them.
    workdir: gets samples.jsonl, denoising.html, or edits.html, and of ordered
      data samples.png.
    requests: of `requests_of`.
  """
  written: list[dict[str, Any]] = []
  for asked in requests:
    begin = time.perf_counter()
    rows, samples = drawn(run, asked)
    seconds = time.perf_counter() - begin
    if run.config.sampling.choice:
      rows = chosen(run, rows, samples)
    print(in_words(asked.kept))
    print_rows(rows)
    tokens = int(np.sum(samples.lengths))
    print(
      f'{tokens} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s '
      'with compilation; unigram entropy '
      f'{generate.unigram_entropy(samples):.2f} nats'
    )
    if not written and samples.path is not None:
      shown = page(run, asked.request, samples)
      atomic.write_text(workdir / 'denoising.html', shown)
    if not written and samples.history is not None:
      atomic.write_text(workdir / 'edits.html', _edits_page(run, samples))
      colour = sys.stdout.isatty()
      print(
        edit_history.terminal(samples.history[0], run.tokenizer, colour=colour),
        end='',
      )
    if not written and run.config.data.ordered:
      report.plot_levels(samples.tokens, workdir / 'samples.png')
    written += rows
  report.write_jsonl(workdir / 'samples.jsonl', written)
  print(f'see {workdir}', flush=True)


def _edits_page(run: runs.Run, samples: systems.Samples) -> str:
  """The revisions of the first of some samples."""
  config = run.config
  return edit_history.page(
    samples.history,
    run.tokenizer,
    caption=(
      f'{config.system.name}, {config.sampling.method}, from '
      f'{config.sampling.start}, after {run.step} training steps on '
      f'{run.experiment.info.name}.'
    ),
  )


def page(
  run: runs.Run, request: systems.Request, samples: systems.Samples
) -> str:
  """The denoising of the first of some samples."""
  config, vocab_size = run.config, run.experiment.info.vocab_size
  # Noise that masks has a state beyond the data's; others have not.
  masks = bool(np.any(samples.path == vocab_size))
  label = -1 if request.label is None else int(request.label[0])
  told = f'label {run.experiment.info.labels[label]!r}, ' if label >= 0 else ''
  return report.denoising_page(
    samples.path[:, 0],
    run.tokenizer,
    mask=vocab_size if masks else None,
    given=None if request.given is None else request.given[0],
    caption=(
      f'{config.system.name}, {config.process.name} noise, {request.method}, '
      f'{request.steps} steps, {told}after {run.step} training steps on '
      f'{run.experiment.info.name}.'
    ),
  )
