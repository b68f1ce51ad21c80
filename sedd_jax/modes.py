"""What `main` does: train, evaluate, sample, or a system's own task."""

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import sedd_jax
from sedd_jax import config_checks, flags, runs
from sedd_jax.evaluation import generate, likelihood, report
from sedd_jax.processes import base as process_base
from sedd_jax.systems import parts
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
  experiment = runs.build(config)
  initial = experiment.initial_params()
  layout = parallel.make(config.training.parallelism)
  workdir.mkdir(parents=True, exist_ok=True)
  if jax.process_index() == 0:
    _write(workdir / flags.CONFIG_FILE, config_checks.to_json(config))
  bound_fn = _bound_rows(experiment, layout)

  def evaluate_fn(params, aux, step):
    return _evaluated(experiment, layout, bound_fn, params, aux)

  def sample_fn(params, aux, step):
    run = runs.Run(experiment, params, aux, step)
    print('\n'.join(row['text'] for row in _rows(run, '', '')[0]), flush=True)

  system = experiment.system
  loop.train(
    system,
    experiment.dataset,
    workdir=workdir,
    seed=config.seed,
    training=config.training,
    optimizer=config.optimizer,
    evaluate_fn=evaluate_fn if system.bound else None,
    sample_fn=sample_fn if system.sample else None,
    initial_params=initial,
    record={'config': json.loads(config_checks.to_json(config))},
    flops_per_token=_flops_per_token(experiment),
  )
  if jax.process_index() == 0:
    metrics.plot_loss(workdir / 'metrics.jsonl', workdir / 'loss.png')
  params, aux, step = runs.restored(system, workdir)
  run = runs.Run(experiment, params, aux, step)
  if system.bound:
    _evaluate(run, workdir, layout, bound_fn)
  if system.sample and jax.process_index() == 0:
    _sample(run, workdir, ('', config.sampling.prompt))


def evaluate(command: flags.Command) -> None:
  """Bounds -log p over a split; writes evaluation.json."""
  run = runs.load(command.config, command.workdir)
  if run.experiment.system.bound is None:
    raise ValueError(f'system {run.config.system.name!r} has no likelihood')
  layout = parallel.make(run.config.training.parallelism)
  command.workdir.mkdir(parents=True, exist_ok=True)
  bound_fn = _bound_rows(run.experiment, layout)
  _evaluate(run, command.workdir, layout, bound_fn)


def sample(command: flags.Command) -> None:
  """Draws samples, with the prompt if there is one; writes samples.jsonl."""
  run = runs.load(command.config, command.workdir)
  command.workdir.mkdir(parents=True, exist_ok=True)
  _sample(run, command.workdir, (run.config.sampling.prompt,))


def task(command: flags.Command) -> None:
  """A further mode of the system; prints its answer as JSON."""
  run = runs.load(command.config, command.workdir)
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


def _bound_rows(experiment: runs.Experiment, layout: parallel.Layout) -> Any:
  """The bound of a host batch over all devices and processes."""
  if experiment.system.bound is None:
    return None
  compiled = layout.compile_rows(experiment.system.bound)

  def bound_fn(params, aux, key, batch):
    local = parallel.local_indices(len(batch['tokens']))
    mine = {k: x[local] if np.ndim(x) else x for k, x in batch.items()}
    return compiled(params, aux, key, mine)

  return bound_fn


def _evaluated(experiment, layout, bound_fn, params, aux, **options) -> Any:
  group = experiment.config.eval
  result = likelihood.evaluate(
    bound_fn,
    params,
    aux,
    experiment.dataset,
    split=group.split,
    batch_size=group.batch_size,
    multiple_of=parallel.num_devices(layout),
    max_sequences=group.max_sequences,
    **options,
  )
  return {**result, 'protocol': group.protocol, 'points': group.points}


def _evaluate(run, workdir, layout, bound_fn) -> None:
  from tqdm import auto

  def progress(batches):
    return auto.tqdm(
      batches,
      desc='bound',
      leave=False,
      disable=jax.process_index() > 0 or None,
    )

  config = run.config
  result = _evaluated(
    run.experiment,
    layout,
    bound_fn,
    layout.place(run.params),
    layout.place(run.aux),
    seed=config.seed,
    progress=progress,
  )
  info = run.experiment.dataset.info
  result |= {
    'step': run.step,
    'dtype': config.model.dtype,
    'seq_len': config.data.seq_len,
    't_min': config.training.t_min,
    'source': info.name,
    'files': [dict(file) for file in info.files],
    'version': sedd_jax.__version__,
    'commit': _commit(),
  }
  if jax.process_index():
    return
  _write(workdir / 'evaluation.json', json.dumps(result, indent=2) + '\n')
  print(likelihood.describe(result, info.unit), flush=True)


def _rows(run: runs.Run, prompt: str, suffix: str, **options) -> Any:
  """Samples as rows, the request's samples, and where tokens are given."""
  config = run.config
  samples = run.sample(
    config.sampling.num_samples, prompt=prompt, suffix=suffix, **options
  )
  rows = [
    {
      'text': run.tokenizer.decode(tokens[:length]),
      'seed': config.seed + place,
      'prompt': prompt,
      'suffix': suffix,
      'method': config.sampling.method,
      'steps': config.sampling.steps,
      'step': run.step,
    }
    for place, (tokens, length) in enumerate(
      zip(samples.tokens, samples.lengths)
    )
  ]
  return rows, samples


def _sample(run: runs.Run, workdir: pathlib.Path, prompts) -> None:
  """Prints and writes samples for each prompt, and the page of one of them."""
  config = run.config
  written = []
  for place, prompt in enumerate(prompts):
    # A run without a prompt draws freely once; a suffix goes with a prompt.
    if place and not prompt:
      continue
    suffix = config.sampling.suffix if place == len(prompts) - 1 else ''
    rows, samples = _rows(run, prompt, suffix, record_path=True)
    title = f'samples that keep {prompt!r}' if prompt else 'samples'
    print(f'{title}:')
    for row in rows:
      print(f'  {row["text"]!r}')
    if not written:
      _write_page(run, samples, prompt, suffix, workdir / 'denoising.html')
    written += rows
  generate.write_jsonl(workdir / 'samples.jsonl', written)
  print(f'see {workdir}', flush=True)


def _write_page(run, samples, prompt, suffix, path: pathlib.Path) -> None:
  if samples.path is None:
    return
  config = run.config
  process = parts.make_process(config, run.experiment.dataset.info.vocab_size)
  mask = process.vocab_size if process_base.has_mask(process) else None
  given = None
  if prompt or suffix:
    given = generate.parse_prompt(
      run.tokenizer, prompt, suffix, samples.tokens.shape[-1]
    ).given
  page = report.denoising_page(
    samples.path[:, 0],
    run.tokenizer,
    mask=mask,
    given=given,
    caption=(
      f'{config.system.name}, {config.process.name} noise, '
      f'{config.sampling.method}, {config.sampling.steps} steps, after '
      f'{run.step} training steps on {run.experiment.dataset.info.name}.'
    ),
  )
  report.write_page(path, page)


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
