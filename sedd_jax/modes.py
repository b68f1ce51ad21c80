"""What `main` does: train, evaluate, sample, or a system's own task."""

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import sedd_jax
from sedd_jax import config_checks, flags, runs, systems
from sedd_jax.evaluation import generate, likelihood, report
from sedd_jax.training import loop, metrics, parallel

# Fields that may differ when a stored run is continued.
_MAY_DIFFER = (
  'training.num_steps',
  'training.log_every',
  'training.eval_every',
  'training.sample_every',
  'training.checkpoint_every',
  'training.keep_checkpoints',
  'training.compilation_cache',
  'training.parallelism',
  'eval.',
  'sampling.',
  'task',
  'data.path',
)


def train(command: flags.Command) -> None:
  """Trains, then evaluates and samples; a finished run goes on from there."""
  config, workdir = command.config, command.workdir
  _require_same_run(config, workdir)
  experiment = runs.Experiment(config)
  # A prompt that does not fit is told before the training, not after it.
  requests = _requests(experiment, free=True)
  experiment.dataset.tokens(config.eval.split)
  initial = experiment.initial_params()
  layout = parallel.make(config.training.parallelism)
  workdir.mkdir(parents=True, exist_ok=True)
  if jax.process_index() == 0:
    _write(workdir / flags.CONFIG_FILE, config_checks.to_json(config))
  system = experiment.system
  evaluator = _Evaluator(experiment, layout) if system.bound else None

  def sample_fn(params: Any, aux: Any, step: int) -> None:
    run = runs.Run(experiment, params, aux, step)
    for row in _drawn(run, requests[0])[0]:
      print(f'  {row["text"]!r}', flush=True)

  loop.train(
    system,
    experiment.dataset,
    workdir=workdir,
    seed=config.seed,
    training=config.training,
    optimizer=config.optimizer,
    evaluate_fn=evaluator
    and (lambda params, aux, step: evaluator(params, aux)),
    sample_fn=sample_fn if system.sample else None,
    initial_params=initial,
    record={'config': json.loads(config_checks.to_json(config))},
    flops_per_token=_flops_per_token(experiment),
  )
  if jax.process_index() == 0:
    metrics.plot_loss(workdir / 'metrics.jsonl', workdir / 'loss.png')
  params, aux, step = runs.restored(system, workdir)
  run = runs.Run(experiment, params, aux, step)
  if evaluator:
    _evaluate(run, workdir, evaluator)
  if system.sample and jax.process_index() == 0:
    _sample(run, workdir, requests)


def evaluate(command: flags.Command) -> None:
  """Bounds -log p over a split; writes evaluation.json."""
  run = runs.load(command.config, command.workdir)
  if run.experiment.system.bound is None:
    raise ValueError(f'system {run.config.system.name!r} has no likelihood')
  layout = parallel.make(run.config.training.parallelism)
  command.workdir.mkdir(parents=True, exist_ok=True)
  _evaluate(run, command.workdir, _Evaluator(run.experiment, layout))


def sample(command: flags.Command) -> None:
  """Draws samples, with the prompt if there is one; writes samples.jsonl."""
  run = runs.load(command.config, command.workdir, read=False)
  requests = _requests(run.experiment, free=False)
  command.workdir.mkdir(parents=True, exist_ok=True)
  _sample(run, command.workdir, requests)


def task(command: flags.Command) -> None:
  """A further mode of the system; prints its answer as JSON."""
  run = runs.load(command.config, command.workdir, read=False)
  answer = run.experiment.system.tasks[command.mode](
    run.params, run.aux, run.config.task, run.tokenizer
  )
  print(json.dumps(answer, ensure_ascii=False, indent=2))


MODES = {'train': train, 'evaluate': evaluate, 'sample': sample}


def _require_same_run(config: Any, workdir: pathlib.Path) -> None:
  """Refuses to continue a stored run with another model, data or noise."""
  stored = workdir / flags.CONFIG_FILE
  if not stored.is_file():
    return
  old = config_checks.from_json(stored.read_text())
  changed = {
    path: values
    for path, values in config_checks.differences(old, config).items()
    if not path.startswith(_MAY_DIFFER)
  }
  if changed:
    told = ', '.join(
      f'{path} ({old!r}, now {new!r})' for path, (old, new) in changed.items()
    )
    raise config_checks.ConfigError(
      f'{workdir} holds a run with other settings: {told}; choose another '
      f'--workdir, or start from its weights with --config.init_from={workdir}'
    )


class _Evaluator:
  """The bound over a split, on all devices and processes."""

  def __init__(self, experiment: runs.Experiment, layout: parallel.Layout):
    self._experiment = experiment
    self._layout = layout
    self._compiled = layout.compile_rows(experiment.system.bound)

  def __call__(self, params: Any, aux: Any, **options: Any) -> dict[str, Any]:
    group = self._experiment.config.eval
    result = likelihood.evaluate(
      self._rows,
      self._layout.place(params),
      self._layout.place(aux),
      self._experiment.dataset,
      split=group.split,
      seed=self._experiment.config.seed,
      batch_size=group.batch_size,
      multiple_of=parallel.num_devices(self._layout),
      max_sequences=group.max_sequences,
      **options,
    )
    return {**result, 'protocol': group.protocol, 'points': group.points}

  def _rows(self, params: Any, aux: Any, key: Any, batch: Any) -> Any:
    local = parallel.local_indices(len(batch['tokens']))
    mine = {k: x[local] if np.ndim(x) else x for k, x in batch.items()}
    return self._compiled(params, aux, key, mine)


def _evaluate(
  run: runs.Run, workdir: pathlib.Path, evaluator: _Evaluator
) -> None:
  """Evaluates, and writes and prints what came of it."""
  # Late: a third of the time that the imports of a short run take.
  from tqdm import auto

  def progress(batches: Any) -> Any:
    # None: no bar where the output is no terminal.
    disable = True if jax.process_index() else None
    return auto.tqdm(batches, desc='bound', leave=False, disable=disable)

  config, info = run.config, run.experiment.dataset.info
  result = evaluator(run.params, run.aux, progress=progress) | {
    'step': run.step,
    'dtype': config.model.dtype,
    'seq_len': config.data.seq_len,
    't_min': config.training.t_min,
    'source': info.name,
    'files': [dict(file) for file in info.files],
    'version': sedd_jax.__version__,
    'commit': _commit(),
  }
  if jax.process_index() == 0:
    _write(workdir / 'evaluation.json', json.dumps(result, indent=2) + '\n')
    print(likelihood.describe(result, info.unit), flush=True)


class _Asked(NamedTuple):
  """Samples that are asked for, and the texts that they keep."""

  request: systems.Request
  prompt: str
  suffix: str


def _requests(experiment: runs.Experiment, *, free: bool) -> list[_Asked]:
  """What the config asks for; with `free`, samples without a prompt first."""
  sampling = experiment.config.sampling
  texts = [(sampling.prompt, sampling.suffix)]
  if free and any(texts[0]):
    texts.insert(0, ('', ''))
  return [
    _Asked(
      experiment.request(
        sampling.num_samples, prompt=prompt, suffix=suffix, record_path=True
      ),
      prompt,
      suffix,
    )
    for prompt, suffix in texts
  ]


def _drawn(
  run: runs.Run, asked: _Asked
) -> tuple[list[dict[str, Any]], systems.Samples]:
  samples = run.draw(asked.request)
  rows = generate.rows(
    samples,
    run.tokenizer,
    asked.request,
    prompt=asked.prompt,
    suffix=asked.suffix,
    step=run.step,
  )
  return rows, samples


def _sample(
  run: runs.Run, workdir: pathlib.Path, requests: Sequence[_Asked]
) -> None:
  """Prints and writes samples, and the page of the first of them."""
  written: list[dict[str, Any]] = []
  for asked in requests:
    rows, samples = _drawn(run, asked)
    kept = [repr(text) for text in (asked.prompt, asked.suffix) if text]
    print(f'samples that keep {" and ".join(kept)}:' if kept else 'samples:')
    for row in rows:
      print(f'  {row["text"]!r}')
    if not written and samples.path is not None:
      page = _page(run, asked.request, samples)
      _write(workdir / 'denoising.html', page)
    written += rows
  generate.write_jsonl(workdir / 'samples.jsonl', written)
  print(f'see {workdir}', flush=True)


def _page(
  run: runs.Run, request: systems.Request, samples: systems.Samples
) -> str:
  config, vocab_size = run.config, run.experiment.info.vocab_size
  # Noise that masks has a state beyond the data's; others have not.
  masks = bool(np.any(samples.path == vocab_size))
  return report.denoising_page(
    samples.path[:, 0],
    run.tokenizer,
    mask=vocab_size if masks else None,
    given=None if request.given is None else request.given[0],
    caption=(
      f'{config.system.name}, {config.process.name} noise, {request.method}, '
      f'{request.steps} steps, after {run.step} training steps on '
      f'{run.experiment.info.name}.'
    ),
  )


def _flops_per_token(experiment: runs.Experiment) -> float:
  params, _ = jax.eval_shape(experiment.system.init, jax.random.key(0))
  model = experiment.config.model
  embedded = params.get('embed', {}) if isinstance(params, Mapping) else {}
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  count -= sum(leaf.size for leaf in jax.tree.leaves(embedded))
  return metrics.flops_per_token(
    count, model.num_layers, model.hidden_size, experiment.config.data.seq_len
  )


def _commit() -> str | None:
  """The commit of the checkout that the package lies in, if it does."""
  folder = pathlib.Path(__file__).resolve().parents[1]
  if not (folder / '.git').exists():
    return None
  try:
    result = subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
      cwd=folder,
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return result.stdout.strip()


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_name(f'{path.name}.partial')
  partial.write_text(text, encoding='utf-8')
  os.replace(partial, path)
