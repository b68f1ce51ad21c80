"""A run answers the pairs of a split or of files, in their order."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sedd_jax import experiments, runs, systems
from sedd_jax.data.paired import questions, seq2seq
from sedd_jax.data.prepared import packing
from sedd_jax.evaluation import answers, report

# What is told of the scores on the terminal.
_TOLD = ('bleu', 'rouge_l', 'dist_1', 'self_bleu', 'div_4', 'length')
_SHOWN = 8


class Asked(NamedTuple):
  """What is asked of a run."""

  questions: questions.Questions
  requests: Sequence[systems.Request]


def questions_of(experiment: experiments.Experiment) -> questions.Questions:
  """The pairs that `sampling.pairs` names: a split, or files.

  Raises:
    DataError: for what is missing, damaged, empty, or no pairs.
  """
  config = experiment.config
  what, limit = config.sampling.pairs, config.sampling.num_pairs
  if what not in packing.SPLITS:
    return questions.of_files(
      what,
      experiment.info,
      seq_len=config.data.seq_len,
      layout=config.data.layout,
      source_len=config.data.source_len,
      limit=limit,
    )
  dataset = experiment.dataset
  assert isinstance(dataset, seq2seq.PairDataset)
  return questions.of_split(dataset, what, limit)


def preview(experiment: experiments.Experiment) -> systems.Request:
  """One candidate of each of the first pairs, a batch, with its path.

  Raises:
    ValueError: for pairs that are not there, or that the system cannot answer.
  """
  return answers.preview(
    questions_of(experiment),
    experiment.request(1, record_path=True),
    seed=experiment.config.seed,
  )


def asked(experiment: experiments.Experiment) -> Asked:
  """All that `sampling.pairs` asks for.

  Raises:
    ValueError: for pairs that are not there, or that the system cannot answer.
  """
  config = experiment.config
  found = questions_of(experiment)
  requests = answers.requests(
    found,
    experiment.request(1),
    candidates=config.sampling.num_samples,
    seed=config.seed,
  )
  if experiment.system.check_request is not None:
    # They differ in their rows only.
    experiment.system.check_request(requests[0])
  if config.sampling.start == 'source' and found.source is not None:
    # What is begun with is what of a source fits, without its two marks.
    own = np.sum(found.source >= 0, axis=-1) - 2
    cut = found.cut | (own > requests[0].length)
    found = dataclasses.replace(found, cut=cut)
  return Asked(found, requests)


def answer(
  run: runs.Run,
  workdir: pathlib.Path,
  wanted: Asked,
  *,
  scored: bool,
  told: Mapping[str, Any],
) -> None:
  """Draws all candidates; writes answers.jsonl and answers.json.

  Args:
    run: with parameters.
    workdir: where the files go.
    wanted: what `asked` gives.
    scored: whether answers.json has the figures of `scoring.table`.
    told: further entries of answers.json.
  """
  # Late, as it serves terminals only.
  import tqdm

  config, asked_of = run.config, wanted.questions
  sampling = config.sampling
  # Onto the device once, not for every batch.
  params, aux = jax.device_put((run.params, run.aux))
  run = dataclasses.replace(run, params=params, aux=aux)
  calls: list[float] = []

  def draw(request: systems.Request) -> systems.Samples:
    samples = run.draw(request)
    calls.append(samples.calls)
    return samples

  begin = time.perf_counter()
  found = answers.answered(
    draw,
    wanted.requests,
    asked_of,
    run.tokenizer,
    candidates=sampling.num_samples,
    # What padding is where it was not learned, nobody knows.
    cut=not config.data.predict_padding,
    record={
      'method': sampling.method,
      'steps': sampling.steps,
      'step': run.step,
    },
  )
  # None: no bar where the output is no terminal.
  bar = tqdm.tqdm(
    found, desc='answers', total=len(asked_of), leave=False, disable=None
  )
  rows = list(bar)
  seconds = time.perf_counter() - begin
  result: dict[str, Any] = {
    'pairs': sampling.pairs,
    'num_pairs': len(rows),
    'num_cut': int(asked_of.cut.sum()),
    'candidates': sampling.num_samples,
    'seed': config.seed,
    'method': sampling.method,
    'steps': sampling.steps,
    'calls': float(np.mean(calls)),
    'batch_size': sampling.batch_size,
    'seconds': round(seconds, 1),
    'step': run.step,
    'system': config.system.name,
    **told,
  }
  for row in rows[:_SHOWN]:
    print(f'  {row["src"]!r} -> {row["text"]!r}')
  print(
    f'{len(rows):,} pairs of {sampling.pairs}, {sampling.num_samples} '
    f'candidates each, in {seconds:.1f} s; {result["num_cut"]:,} pairs did '
    'not fit and were cut'
  )
  if scored:
    result['scores'] = scores = answers.scores(rows)
    print(
      ', '.join(
        f'{name} {scores[name]:.4f}'
        for name in _TOLD
        if scores[name] is not None
      )
    )
  report.write_jsonl(workdir / 'answers.jsonl', rows)
  report.write_json(workdir / 'answers.json', result)
  print(f'see {workdir / "answers.jsonl"}', flush=True)
