"""Evaluations of a run: of a split, of published sets, of what it draws."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import sedd_jax
from sedd_jax import (
  config_checks,
  controls,
  drawing,
  experiments,
  runs,
  systems,
)
from sedd_jax.core import atomic
from sedd_jax.data import DataError, pipeline
from sedd_jax.data.sets import evaluation_sets
from sedd_jax.evaluation import (
  generate,
  generation,
  judges,
  likelihood,
  report,
  text_metrics,
)
from sedd_jax.losses import embedding
from sedd_jax.training import parallel


class Evaluator:
  """The bound over a split, on all devices and processes.

  Attributes:
    dataset: what it is evaluated on.
  """

  def __init__(
    self,
    experiment: experiments.Experiment,
    layout: parallel.Layout,
    dataset: pipeline.AnyDataset,
  ):
    self._experiment = experiment
    self._layout = layout
    self.dataset = dataset
    self._compiled = layout.compile_rows(experiment.system.bound)

  def __call__(
    self,
    params: Any,
    aux: Any,
    step: int,
    *,
    split: str,
    **options: Any,
  ) -> dict[str, Any]:
    """What `likelihood.evaluate` says of a split after so many steps."""
    config = self._experiment.config
    fits = config.eval.time_sampling == 'importance'
    # What is fitted is changed on the host.
    held = self._layout.whole if fits else self._layout.place
    result = likelihood.evaluate(
      self._rows,
      self._layout.place(params),
      held(aux),
      self.dataset,
      split=split,
      seed=config.seed,
      batch_size=config.eval.batch_size,
      multiple_of=parallel.num_devices(self._layout),
      max_sequences=config.eval.max_sequences,
      fit_batches=fits * config.eval.fit_batches,
      update_aux=self._experiment.system.update_aux,
      **options,
    )
    if size := self._experiment.system.dimensions:
      result['bits_per_dimension'] = embedding.bits_per_dimension(
        result['nats_per_token'], size
      )
    return {
      'step': step,
      **result,
      'protocol': config.eval.protocol,
      'points': config.eval.points,
      'chain_steps': config.eval.chain_steps,
      'time_sampling': config.eval.time_sampling,
      **self._given(),
    }

  def _given(self) -> dict[str, Any]:
    """What the bound is given, of a run with labels."""
    if not self._experiment.info.labels:
      return {}
    source = self._experiment.config.data.label
    told = f'labels ({source})' if self.dataset.info.labels else 'no label'
    return {'given': told}

  def _rows(self, params: Any, aux: Any, key: Any, batch: Any) -> Any:
    local = parallel.local_indices(len(batch['tokens']))
    mine = {k: x[local] if np.ndim(x) else x for k, x in batch.items()}
    return self._compiled(params, aux, key, mine)


def _progress(batches: Any, total: int) -> Any:
  """A bar on a terminal of the first process."""
  # Late, as it serves terminals only.
  import tqdm

  # None: no bar where the output is no terminal.
  disable = True if jax.process_index() else None
  return tqdm.tqdm(
    batches, desc='bound', leave=False, disable=disable, total=total
  )


def circumstances(run: runs.Run, info: pipeline.DataInfo) -> dict[str, Any]:
  """What an evaluation depends on besides the model.

  Args:
    run: what is evaluated.
    info: of the data.
  """
  config = run.config
  # Of pairs, how many did not fit.
  cut = {'cut': dict(info.cut)} if info.cut else {}
  return {
    **cut,
    'dtype': config.model.dtype,
    'seq_len': config.data.seq_len,
    't_min': config.training.t_min,
    'source': info.name,
    'files': [dict(file) for file in info.files],
    'version': sedd_jax.__version__,
    'commit': report.commit(),
  }


def evaluate_suite(
  run: runs.Run, workdir: pathlib.Path, evaluator: Evaluator, suite: str
) -> None:
  """Evaluates each set; writes and prints a table with published figures.

  Args:
    run: what is evaluated.
    workdir: gets SUITE.json and SUITE.md.
    evaluator: of the suite's sets.
    suite: of `evaluation_sets.SUITES`.
  """
  info = evaluator.dataset.info
  results = {
    split: evaluator(
      run.params, run.aux, run.step, split=split, progress=_progress
    )
    for split in info.num_tokens
  }
  for split, remark in info.remarks.items():
    results[split]['remark'] = remark
  if jax.process_index():
    return
  packing = evaluation_sets.packing_of(suite, run.config.eval.stride)
  table = report.suite_table(
    evaluation_sets.SUITES[suite],
    workdir.name,
    results,
    packing=packing,
    unit=info.unit,
    tokenizer=run.config.data.tokenizer,
    vocab_size=info.vocab_size,
    seq_len=run.config.data.seq_len,
  )
  told = {
    'suite': suite,
    'packing': packing,
    'tokenizer': run.config.data.tokenizer,
    'vocab_size': info.vocab_size,
    'sets': results,
    **circumstances(run, info),
  }
  report.write_json(workdir / f'{suite}.json', told)
  atomic.write_text(workdir / f'{suite}.md', table)
  print(table, end='', flush=True)


def evaluate_split(
  run: runs.Run, workdir: pathlib.Path, evaluator: Evaluator
) -> None:
  """Evaluates a split; writes and prints what came of it.

  Args:
    run: what is evaluated.
    workdir: gets evaluation.json.
    evaluator: of the run's data.
  """
  info = evaluator.dataset.info
  result = evaluator(
    run.params,
    run.aux,
    run.step,
    split=run.config.eval.split,
    progress=_progress,
  ) | circumstances(run, info)
  if jax.process_index() == 0:
    report.write_json(workdir / 'evaluation.json', result)
    print(likelihood.describe(result, info.unit), flush=True)


def frontier(run: runs.Run) -> list[tuple[float, systems.Request]]:
  """Temperature and request of each point, checked; without a prompt.

  Args:
    run: its config has `eval.temperatures` and `eval.steps`.

  Raises:
    ValueError: for numbers that are none, and what the system does not draw.
  """
  experiment, config = run.experiment, run.config
  temperatures = generation.numbers(
    config.eval.temperatures, 'eval.temperatures', float
  ) or [config.sampling.temperature]
  steps = generation.numbers(config.eval.steps, 'eval.steps', int) or [
    config.sampling.steps
  ]
  plain = controls.of_config(
    run,
    experiment.request(
      config.sampling.num_samples, label=config.sampling.label
    ),
  )
  found = []
  for temperature, count in generation.grid(temperatures, steps):
    # At 1 there is nothing to ask for, and any sampler does it.
    options = {**plain.options, 'temperature': temperature}
    if temperature == 1:
      del options['temperature']
    request = dataclasses.replace(plain, steps=count, options=options)
    if experiment.system.check_request is not None:
      experiment.system.check_request(request)
    found.append((temperature, request))
  return found


def text_of(experiment: experiments.Experiment) -> list[np.ndarray] | None:
  """As many pieces of the split as samples, as long; None without its text.

  Args:
    experiment: whose split it is.

  Raises:
    ValueError: no text to compare with, where `eval.mauve` needs it.
  """
  config, length = experiment.config, experiment.length
  try:
    tokens = experiment.dataset.tokens(config.eval.split)
  except DataError as error:
    if config.eval.mauve:
      raise
    print(f'no figures of the text itself: {error}', file=sys.stderr)
    return None
  number = len(tokens) // length
  if not number and config.eval.mauve:
    raise ValueError(
      f'eval.split {config.eval.split!r} has {len(tokens):,} tokens, fewer '
      f'than one sample of {length:,} to compare with'
    )
  places = likelihood.evaluated_indices(number, config.sampling.num_samples)
  return [tokens[i * length : (i + 1) * length] for i in places] or None


def evaluate_generation(
  run: runs.Run,
  workdir: pathlib.Path,
  asked: Sequence[tuple[float, systems.Request]],
  text: Sequence[np.ndarray] | None,
  judge: judges.Judge | None,
) -> None:
  """Draws, measures, writes and prints.

  Args:
    run: what draws.
    workdir: gets generation.json, .md, .png and .jsonl, the samples, which are
      there before their figures are.
    asked: of `frontier`.
    text: of `text_of`.
    judge: of the samples, or None.

  Raises:
    ConfigError: samples that cannot be measured.
  """
  config, tokenizer = run.config, run.tokenizer
  mauve_fn = None
  if config.eval.mauve:
    assert text is not None
    mauve_fn = functools.partial(
      text_metrics.mauve,
      references=[tokenizer.decode(piece) for piece in text],
      features=config.eval.mauve,
      length=run.experiment.length,
    )
  points: list[dict[str, Any]] = []
  rows: list[dict[str, Any]] = []
  for temperature, request in asked:
    samples = run.draw(request)
    rows += generate.rows(
      samples, tokenizer, request, temperature=temperature, step=run.step
    )
    report.write_jsonl(workdir / 'generation.jsonl', rows)
    try:
      found = generation.figures(
        generate.sequences(samples), tokenizer, judge, mauve_fn
      )
    except ValueError as error:
      raise config_checks.ConfigError(
        f'{error}; the samples are in {workdir / "generation.jsonl"}'
      ) from error
    points.append(
      {
        'temperature': temperature,
        'steps': request.steps,
        'calls': samples.calls,
        **found,
      }
    )
  guided = controls.asked(config.sampling)
  if guided:
    guided |= controls.settings(config.sampling)
  as_ids = judge is not None and judges.reads_ids(judge, tokenizer)
  result = {
    'step': run.step,
    'judge': judge.name if judge else None,
    'reading': 'the same ids' if as_ids else 'their text, by its own tokenizer',
    'num_samples': len(asked[0][1].seeds),
    'length': run.experiment.length,
    'method': config.sampling.method,
    'top_p': config.sampling.top_p,
    **drawing.beyond_defaults({'label': config.sampling.label}),
    **guided,
    'points': points,
    'data': None
    if text is None
    else generation.figures(text, tokenizer, judge),
    **circumstances(
      run,
      run.experiment.info if text is None else run.experiment.dataset.info,
    ),
  }
  table = generation.table(workdir.name, result)
  report.write_json(workdir / 'generation.json', result)
  atomic.write_text(workdir / 'generation.md', table)
  generation.plot(result, workdir / 'generation.png')
  print(f'{table}see {workdir}', flush=True)
