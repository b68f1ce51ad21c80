"""What `main` does: train, evaluate, sample, or a system's own task."""

import contextlib
import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from sedd_jax import (
  answering,
  config_checks,
  controls,
  drawing,
  evaluating,
  experiments,
  flags,
  revisions,
  run_folders,
  runs,
  systems,
)
from sedd_jax.core import atomic
from sedd_jax.data import pipeline
from sedd_jax.data.files import labels
from sedd_jax.data.prepared import statistics
from sedd_jax.data.sets import evaluation_sets
from sedd_jax.evaluation import (
  judges,
  text_metrics,
)
from sedd_jax.training import loop, metrics, parallel, tracing, trackers
from sedd_jax.training import optimizer as optimizer_lib


def train(command: flags.Command) -> None:
  """Trains, then evaluates and samples; a finished run goes on from there."""
  config, workdir = command.config, command.workdir
  # All that can be wrong is told here, before the folder is made and anything
  # compiles: a prompt that does not fit would else be told after the training.
  with _mistakes_told():
    if controls.asked(config.sampling) or config.eval.control:
      raise ValueError(
        'sampling.control, sampling.control_length and eval.control are for '
        '--mode=sample and --mode=evaluate of a trained run'
      )
    run_folders.require_same(config, workdir)
    goes_on = workdir if run_folders.has_checkpoint(workdir) else None
    experiment = experiments.Experiment(config, workdir=goes_on)
    if config.eval.checkpoint == 'best' and experiment.system.bound is None:
      raise ValueError(
        f"eval.checkpoint='best': system {config.system.name} has no bound, by "
        'which a checkpoint could be the best'
      )
    requests = drawing.requests_of(experiment, free=True)
    experiment.dataset.tokens(config.eval.split)
    layout = parallel.make(config.training.parallelism)
    parallel.check_batch_size(
      config.training.batch_size,
      parallel.num_devices(layout),
      config.training.accumulation,
    )
    trackers.named(config.training.trackers)
    tracing.steps_of(config.training.profile)
    optimizer_lib.make(**config.optimizer)
    # What a run that goes on started from may be gone by now.
    started = run_folders.has_checkpoint(workdir)
    initial = None if started else experiment.initial_params()
    initial_aux = None if started else runs.initial_aux(experiment)
    _make_folder(workdir)
  files = experiment.files

  def check_record(record: Mapping[str, Any]) -> None:
    run_folders.require_same_files(record.get('files', files), files)
    # Not before: a run that is refused keeps what it had.
    if jax.process_index() == 0:
      atomic.write_text(
        workdir / flags.CONFIG_FILE, config_checks.to_json(config)
      )
      if experiment.counts is not None:
        statistics.write(workdir / statistics.FILE, experiment.counts)
      if experiment.info.labels:
        labels.write_run(workdir, experiment.info.labels)

  system = experiment.system
  evaluator = None
  if system.bound is not None:
    evaluator = evaluating.Evaluator(experiment, layout, experiment.dataset)

  def sample_fn(params: Any, aux: Any, step: int) -> None:
    # From the host, as at the end: one compiled program serves both.
    params, aux = layout.whole((params, aux))
    if jax.process_index() == 0:
      run = runs.Run(experiment, params, aux, step)
      drawing.print_rows(drawing.drawn(run, requests[0])[0])

  loop.train(
    system,
    experiment.dataset,
    workdir=workdir,
    seed=config.seed,
    training=config.training,
    optimizer=config.optimizer,
    evaluate_fn=functools.partial(evaluator, split='validation')
    if evaluator
    else None,
    sample_fn=sample_fn if system.sample else None,
    initial_params=initial,
    initial_aux=initial_aux,
    record={
      'config': json.loads(config_checks.to_json(config)),
      'files': files,
    },
    check_record=check_record,
    flops_per_token=experiment.flops_per_token,
  )
  if jax.process_index() == 0:
    metrics.plot_loss(workdir / 'metrics.jsonl', workdir / 'loss.png')
  run = runs.Run(
    experiment, *run_folders.restored(system, workdir, config.eval.checkpoint)
  )
  if evaluator:
    evaluating.evaluate_split(run, workdir, evaluator)
  if system.sample:
    parallel.by_first(lambda: drawing.write_samples(run, workdir, requests))


def evaluate(command: flags.Command) -> None:
  """Bounds -log p over a split or a suite of published sets, or samples.

  Writes evaluation.json; of a suite SUITE.json and SUITE.md; of samples
  generation.json, .md, .png and .jsonl, or of pairs answers.json and .jsonl; of
  control control.json, .md, .jsonl.
  """
  if command.config.eval.control:
    _evaluate_control(command)
    return
  if command.config.eval.generation:
    if command.config.sampling.pairs:
      _answer(command, scored=True)
    else:
      _evaluate_generation(command)
    return
  suite = command.config.eval.suite
  with _mistakes_told():
    run = runs.load(command.config, command.workdir, read=not suite)
    if run.experiment.system.bound is None:
      raise ValueError(f'system {run.config.system.name!r} has no likelihood')
    dataset: pipeline.AnyDataset
    if suite:
      dataset = evaluation_sets.load(
        suite,
        run.config.eval.suite_path,
        run.tokenizer,
        run.config.data.seq_len,
        run.config.eval.stride,
      )
    else:
      dataset = run.experiment.dataset
      dataset.tokens(run.config.eval.split)
    layout = parallel.make(run.config.training.parallelism)
    _make_folder(command.workdir)
  evaluator = evaluating.Evaluator(run.experiment, layout, dataset)
  if suite:
    evaluating.evaluate_suite(run, command.workdir, evaluator, suite)
  else:
    evaluating.evaluate_split(run, command.workdir, evaluator)


def sample(command: flags.Command) -> None:
  """Draws samples, with the prompt if there is one; writes samples.jsonl.

  With `sampling.pairs` answers them: answers.jsonl and answers.json.
  """
  if command.config.sampling.pairs:
    _answer(command, scored=False)
    return
  with _mistakes_told():
    run = runs.load(command.config, command.workdir, read=False)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {run.config.system.name!r} draws no samples')
    told = controls.asked(run.config.sampling)
    requests = [
      drawing.Asked(
        controls.of_config(run, one.request), [own | told for own in one.kept]
      )
      for one in drawing.requests_of(run.experiment, free=False)
    ]
    _make_folder(command.workdir)
  parallel.by_first(
    lambda: drawing.write_samples(run, command.workdir, requests)
  )


def _answer(command: flags.Command, *, scored: bool) -> None:
  """Answers the pairs that `sampling.pairs` names."""
  with _mistakes_told():
    run = runs.load(command.config, command.workdir, read=False)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {run.config.system.name!r} draws no samples')
    asked = answering.asked(run.experiment)
    _make_folder(command.workdir)
  told = evaluating.circumstances(run, run.experiment.info)
  parallel.by_first(
    lambda: answering.answer(
      run, command.workdir, asked, scored=scored, told=told
    )
  )


def task(command: flags.Command) -> None:
  """A further mode of the system; prints its answer as JSON.

  Of texts that it revised it writes revised.txt, .jsonl, .json and .html.
  """
  with _mistakes_told():
    run = runs.load(command.config, command.workdir, read=False)
    of_mode = run.experiment.system.tasks.get(command.mode)
    if of_mode is None:
      system = run.config.system
      raise ValueError(
        f'system {system.name!r} has no mode {command.mode!r} with '
        f'system.args {dict(system.args)}'
      )

  def answered() -> None:
    begin = time.perf_counter()
    answer = of_mode(run.params, run.aux, run.config.task, run.tokenizer)
    if isinstance(answer, systems.Revised):
      seconds = time.perf_counter() - begin
      revisions.write(run, command.workdir, answer, seconds=seconds)
    else:
      print(json.dumps(answer, ensure_ascii=False, indent=2))

  parallel.by_first(answered)


MODES = {'train': train, 'evaluate': evaluate, 'sample': sample}


@contextlib.contextmanager
def _mistakes_told() -> Iterator[None]:
  """In this block a ValueError is a mistake in the config, told in one line.

  After it, a ValueError is a fault of the program, and keeps its traceback.
  """
  try:
    yield
  except ValueError as error:
    raise config_checks.ConfigError(str(error)) from error
  except (MemoryError, OverflowError) as error:
    raise config_checks.ConfigError(
      f'the config asks for more than fits into memory: {error}'
    ) from error


def _make_folder(workdir: pathlib.Path) -> None:
  """Makes a run's folder, in which files can be written."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise config_checks.ConfigError(
      f'--workdir={workdir} cannot be written: {error.strerror or error}'
    ) from error


def _evaluate_generation(command: flags.Command) -> None:
  """Draws samples at each point of the frontier, and writes their figures."""
  config = command.config
  with _mistakes_told():
    if config.eval.mauve:
      text_metrics.mauve_library()
    run = runs.load(config, command.workdir, read=False)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {config.system.name!r} draws no samples')
    asked = evaluating.frontier(run)
    text = evaluating.text_of(run.experiment)
    judge = None
    if config.eval.judge:
      judge = runs.judge(config.eval.judge)
      judges.require_readable(judge, run.tokenizer)
    _make_folder(command.workdir)
  parallel.by_first(
    lambda: evaluating.evaluate_generation(
      run, command.workdir, asked, text, judge
    )
  )


def _evaluate_control(command: flags.Command) -> None:
  """Draws samples under targets of a split, and writes how many are so."""
  with _mistakes_told():
    run = runs.load(command.config, command.workdir)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {run.config.system.name!r} draws no samples')
    plan = controls.planned(run)
    _make_folder(command.workdir)
  told = evaluating.circumstances(run, run.experiment.dataset.info)
  parallel.by_first(lambda: controls.evaluate(plan, command.workdir, told))
