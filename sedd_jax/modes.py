"""What `main` does: train, evaluate, sample, or a system's own task."""

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import sedd_jax
from sedd_jax import (
  answering,
  config_checks,
  controls,
  flags,
  revisions,
  runs,
  systems,
)
from sedd_jax.data import DataError, evaluation_sets, pipeline, statistics
from sedd_jax.data.labelling import labels
from sedd_jax.evaluation import (
  conditioning,
  edit_history,
  generate,
  generation,
  judges,
  likelihood,
  report,
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
    runs.require_same(config, workdir)
    goes_on = workdir if runs.has_checkpoint(workdir) else None
    experiment = runs.Experiment(config, workdir=goes_on)
    if config.eval.checkpoint == 'best' and experiment.system.bound is None:
      raise ValueError(
        f"eval.checkpoint='best': system {config.system.name} has no bound, by "
        'which a checkpoint could be the best'
      )
    requests = _requests(experiment, free=True)
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
    started = runs.has_checkpoint(workdir)
    initial = None if started else experiment.initial_params()
    initial_aux = None if started else experiment.initial_aux()
    _make_folder(workdir)
  files = experiment.files

  def check_record(record: Mapping[str, Any]) -> None:
    runs.require_same_files(record.get('files', files), files)
    # Not before: a run that is refused keeps what it had.
    if jax.process_index() == 0:
      report.write(workdir / flags.CONFIG_FILE, config_checks.to_json(config))
      if experiment.counts is not None:
        statistics.write(workdir / statistics.FILE, experiment.counts)
      if experiment.info.labels:
        labels.write_run(workdir, experiment.info.labels)

  system = experiment.system
  evaluator = None
  if system.bound is not None:
    evaluator = _Evaluator(experiment, layout, experiment.dataset)

  def sample_fn(params: Any, aux: Any, step: int) -> None:
    # From the host, as at the end: one compiled program serves both.
    params, aux = layout.whole((params, aux))
    if jax.process_index() == 0:
      run = runs.Run(experiment, params, aux, step)
      _print_rows(_drawn(run, requests[0])[0])

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
    experiment, *runs.restored(system, workdir, config.eval.checkpoint)
  )
  if evaluator:
    _evaluate(run, workdir, evaluator)
  if system.sample:
    parallel.by_first(lambda: _sample(run, workdir, requests))


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
  evaluator = _Evaluator(run.experiment, layout, dataset)
  if suite:
    _evaluate_suite(run, command.workdir, evaluator, suite)
  else:
    _evaluate(run, command.workdir, evaluator)


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
      _Asked(
        controls.of_config(run, one.request), [own | told for own in one.kept]
      )
      for one in _requests(run.experiment, free=False)
    ]
    _make_folder(command.workdir)
  parallel.by_first(lambda: _sample(run, command.workdir, requests))


def _answer(command: flags.Command, *, scored: bool) -> None:
  """Answers the pairs that `sampling.pairs` names."""
  with _mistakes_told():
    run = runs.load(command.config, command.workdir, read=False)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {run.config.system.name!r} draws no samples')
    asked = answering.asked(run.experiment)
    _make_folder(command.workdir)
  told = _circumstances(run, run.experiment.info)
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

  def answered() -> None:
    begin = time.perf_counter()
    answer = run.experiment.system.tasks[command.mode](
      run.params, run.aux, run.config.task, run.tokenizer
    )
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


class _Evaluator:
  """The bound over a split, on all devices and processes."""

  def __init__(
    self,
    experiment: runs.Experiment,
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


def _circumstances(run: runs.Run, info: pipeline.DataInfo) -> dict[str, Any]:
  """What an evaluation depends on besides the model."""
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


def _evaluate_suite(
  run: runs.Run, workdir: pathlib.Path, evaluator: _Evaluator, suite: str
) -> None:
  """Evaluates each set; writes and prints a table with published figures."""
  info = evaluator.dataset.info
  results = {
    split: evaluator(
      run.params, run.aux, run.step, split=split, progress=_progress
    )
    for split in info.num_tokens
  }
  if jax.process_index():
    return
  packing = evaluation_sets.packing_of(suite, run.config.eval.stride)
  table = report.suite_table(
    evaluation_sets.SUITES[suite],
    workdir.name,
    results,
    packing=packing,
    unit=info.unit,
  )
  told = {
    'suite': suite,
    'packing': packing,
    'sets': results,
    **_circumstances(run, info),
  }
  report.write_json(workdir / f'{suite}.json', told)
  report.write(workdir / f'{suite}.md', table)
  print(table, end='', flush=True)


def _evaluate(
  run: runs.Run, workdir: pathlib.Path, evaluator: _Evaluator
) -> None:
  """Evaluates, and writes and prints what came of it."""
  info = evaluator.dataset.info
  result = evaluator(
    run.params,
    run.aux,
    run.step,
    split=run.config.eval.split,
    progress=_progress,
  ) | _circumstances(run, info)
  if jax.process_index() == 0:
    report.write_json(workdir / 'evaluation.json', result)
    print(likelihood.describe(result, info.unit), flush=True)


def _evaluate_generation(command: flags.Command) -> None:
  """Draws samples at each point of the frontier, and writes their figures."""
  config = command.config
  with _mistakes_told():
    if config.eval.mauve:
      text_metrics.mauve_library()
    run = runs.load(config, command.workdir, read=False)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {config.system.name!r} draws no samples')
    asked = _frontier(run)
    text = _text_of(run.experiment)
    judge = None
    if config.eval.judge:
      judge = runs.judge(config.eval.judge)
      judges.require_readable(judge, run.tokenizer)
    _make_folder(command.workdir)
  parallel.by_first(
    lambda: _tell_generation(run, command.workdir, asked, text, judge)
  )


def _evaluate_control(command: flags.Command) -> None:
  """Draws samples under targets of a split, and writes how many are so."""
  with _mistakes_told():
    run = runs.load(command.config, command.workdir)
    if run.experiment.system.sample is None:
      raise ValueError(f'system {run.config.system.name!r} draws no samples')
    plan = controls.planned(run)
    _make_folder(command.workdir)
  told = _circumstances(run, run.experiment.dataset.info)
  parallel.by_first(lambda: controls.evaluate(plan, command.workdir, told))


def _frontier(run: runs.Run) -> list[tuple[float, systems.Request]]:
  """Temperature and request of each point, checked; without a prompt."""
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


def _text_of(experiment: runs.Experiment) -> list[np.ndarray] | None:
  """As many pieces of the split as samples, as long; None without its text."""
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


def _tell_generation(
  run: runs.Run,
  workdir: pathlib.Path,
  asked: Sequence[tuple[float, systems.Request]],
  text: Sequence[np.ndarray] | None,
  judge: judges.Judge | None,
) -> None:
  """Draws, measures, writes and prints."""
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
    found = generation.figures(
      generate.sequences(samples), tokenizer, judge, mauve_fn
    )
    points.append(
      {
        'temperature': temperature,
        'steps': request.steps,
        'calls': samples.calls,
        **found,
      }
    )
  as_ids = judge is not None and judges.reads_ids(judge, tokenizer)
  result = {
    'step': run.step,
    'judge': judge.name if judge else None,
    'reading': 'the same ids' if as_ids else 'their text, by its own tokenizer',
    'num_samples': len(asked[0][1].seeds),
    'length': run.experiment.length,
    'method': config.sampling.method,
    'top_p': config.sampling.top_p,
    **_kept({'label': config.sampling.label}),
    **controls.asked(config.sampling),
    'points': points,
    'data': None
    if text is None
    else generation.figures(text, tokenizer, judge),
    **_circumstances(
      run,
      run.experiment.info if text is None else run.experiment.dataset.info,
    ),
  }
  table = generation.table(workdir.name, result)
  report.write_json(workdir / 'generation.json', result)
  report.write(workdir / 'generation.md', table)
  report.write_jsonl(workdir / 'generation.jsonl', rows)
  generation.plot(result, workdir / 'generation.png')
  print(f'{table}see {workdir}', flush=True)


class _Asked(NamedTuple):
  """Samples that are asked for, and what of each, besides what it need not."""

  request: systems.Request
  kept: list[dict[str, Any]]


def _requests(experiment: runs.Experiment, *, free: bool) -> list[_Asked]:
  """What the config asks for; with `free`, samples without a prompt first.

  Of pairs one batch: all are answered in mode sample.
  """
  sampling = experiment.config.sampling
  if sampling.pairs:
    request = answering.preview(experiment)
    if experiment.system.check_request is not None:
      experiment.system.check_request(request)
    pairs = {'pairs': sampling.pairs}
    return [_Asked(request, [pairs] * len(request.seeds))]
  count = sampling.num_samples
  config = {name: sampling[name] for name in conditioning.ASKED}
  lines = [config]
  if sampling.prompts:
    lines = [
      config | line for line in conditioning.read_prompts(sampling.prompts)
    ]
  wanted = [lines]
  if free and any(map(_kept, lines)):
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
    _Asked(
      generate.joined(list(itertools.starmap(request_of, enumerate(lines)))),
      [_kept(line) for line in lines for _ in range(count)],
    )
    for lines in wanted
  ]
  if experiment.system.check_request is not None:
    for one in asked:
      experiment.system.check_request(one.request)
  return asked


def _kept(line: Mapping[str, Any]) -> dict[str, Any]:
  """Of what a line asks for, what is not asked for by default."""
  return {
    name: value
    for name, value in line.items()
    if value and (name, value) != ('ends', 'length')
  }


def _drawn(
  run: runs.Run, asked: _Asked
) -> tuple[list[dict[str, Any]], systems.Samples]:
  """Lines of samples.jsonl, and the samples that they tell of."""
  samples = run.draw(asked.request)
  rows = generate.rows(
    samples, run.tokenizer, asked.request, prompt='', suffix='', step=run.step
  )
  return [row | kept for row, kept in zip(rows, asked.kept)], samples


def _told(kept: Sequence[Mapping[str, Any]]) -> str:
  """What samples were asked for, in words."""
  if any(each != kept[0] for each in kept):
    return 'samples of several prompts:'
  rest = dict(kept[0])
  texts = [repr(rest.pop(n)) for n in ('prompt', 'suffix') if n in rest]
  told = f' that keep {" and ".join(texts)}' if texts else ''
  others = [f', {name} {value!r}' for name, value in rest.items()]
  return f'samples{told}{"".join(others)}:'


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
  print('\n'.join(f'  {row["text"]!r}' for row in rows), flush=True)


def _sample(
  run: runs.Run, workdir: pathlib.Path, requests: Sequence[_Asked]
) -> None:
  """Prints and writes samples, and the page of the first of them."""
  written: list[dict[str, Any]] = []
  for asked in requests:
    begin = time.perf_counter()
    rows, samples = _drawn(run, asked)
    seconds = time.perf_counter() - begin
    print(_told(asked.kept))
    _print_rows(rows)
    tokens = int(np.sum(samples.lengths))
    print(
      f'{tokens} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s '
      'with compilation; unigram entropy '
      f'{generate.unigram_entropy(samples):.2f} nats'
    )
    if not written and samples.path is not None:
      page = _page(run, asked.request, samples)
      report.write(workdir / 'denoising.html', page)
    if not written and samples.history is not None:
      report.write(workdir / 'edits.html', _edits_page(run, samples))
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


def _page(
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
