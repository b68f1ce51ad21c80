"""Trains one small network under every system, alike, and evaluates it.

  python benchmarks/family.py FOLDER --config.data.source=text_file \\
    --config.data.path=text8-like.xz --config.data.validation_fraction=0.05 \\
    --config.data.test_fraction=0.05
  python benchmarks/training_runs.py FOLDER/* --sample --output=FILE

Each system is a run in a folder of its own; one that was stopped goes on, one
that is whole is left.  `--only=mdlm,autoregressive` takes some; whatever else
is given goes to the training's `python -m sedd_jax.main`, after what is here.
The final figure is the strict bound over the whole validation split.
"""

import argparse
import pathlib
import subprocess
import sys

# 2.5 M parameters, 10.24 M characters.
SHARED = {
  'model.hidden_size': 192,
  'model.num_heads': 6,
  'optimizer.name': 'muon',
  'optimizer.learning_rate': 4e-3,
  'optimizer.warmup_steps': 100,
  'optimizer.decay': 'cosine',
  'optimizer.decay_steps': 2500,
  'training.num_steps': 2500,
  # The same training: products of fewer rows are faster on a CPU.
  'training.accumulation': 4,
  'training.ema_decay': 0.998,
  'training.eval_every': 500,
  'training.checkpoint_every': 100,
  'eval.protocol': 'bound',
  'eval.batch_size': 64,
  'eval.max_sequences': 128,
  'sampling.num_samples': 4,
}
CHAIN = {
  'schedule.num_steps': 1000,
  'sampling.method': 'ancestral',
  'sampling.steps': 250,
}
UNIFORM = {
  'process.name': 'uniform',
  'schedule.name': 'step_betas',
  'schedule.betas': 'cosine',
  **CHAIN,
}
SEDD = {'sampling.steps': 250}
SYSTEMS = {
  'sedd_absorb': SEDD,
  'sedd_uniform': {
    **SEDD,
    'process.name': 'uniform',
    'schedule.name': 'geometric',
    'eval.time_sampling': 'importance',
  },
  'multinomial': {
    **UNIFORM,
    'system.name': 'multinomial',
    'schedule.args.min_alpha': 0.001**0.5,
  },
  'd3pm_uniform': {**UNIFORM, 'system.name': 'd3pm'},
  'd3pm_absorb': {
    **CHAIN,
    'system.name': 'd3pm',
    'system.args.hybrid': 0.01,
    'schedule.name': 'step_betas',
    'schedule.betas': 'reciprocal',
    'schedule.args.min_alpha': 0.0,
  },
  'd3pm_nn': {
    **CHAIN,
    'system.name': 'd3pm',
    'process.name': 'nearest_neighbor',
    'process.args.k': 5,
    'schedule.name': 'mutual_information',
    'training.refresh_every': 500,
  },
  'diffusion_bert': {
    **CHAIN,
    'system.name': 'diffusion_bert',
    'schedule.name': 'spindle',
  },
  'mdlm': {
    'system.name': 'masked_diffusion',
    'sampling.method': 'ancestral',
    'sampling.steps': 250,
  },
  'autoregressive': {
    'system.name': 'autoregressive',
    'sampling.method': 'autoregressive',
  },
}


# Training evaluates 128 sequences at 4 times; at last all are, at two, or of a
# chain in steps at one and at its first step besides.
WHOLE = {'eval.max_sequences': 0}


def arguments(
  folder: pathlib.Path, name: str, mode: str, rest: list[str]
) -> list[str]:
  """What a system's run gives to `python -m sedd_jax.main`."""
  fields = {**SHARED, **SYSTEMS[name]}
  if mode == 'evaluate':
    in_steps = 'schedule.num_steps' in SYSTEMS[name]
    fields = {**WHOLE, 'eval.points': 1 if in_steps else 2}
  return [
    f'--mode={mode}',
    f'--workdir={folder / name}',
    *(['--config=text8_absorb_small'] if mode == 'train' else []),
    *(f'--config.{field}={value}' for field, value in fields.items()),
    *(rest if mode == 'train' else []),
  ]


def main() -> None:
  """Trains and evaluates what is not yet."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--only', default=','.join(SYSTEMS))
  own, rest = parser.parse_known_args()
  names = own.only.split(',')
  for name in names:
    if name not in SYSTEMS:
      parser.error(f'unknown system {name!r}; known: {", ".join(SYSTEMS)}')
  for name in names:
    done = own.folder / name / 'whole'
    if done.exists():
      continue
    for mode in ('train', 'evaluate'):
      print(f'{name}: {mode}', flush=True)
      program = [sys.executable, '-m', 'sedd_jax.main']
      given = arguments(own.folder, name, mode, rest)
      subprocess.run([*program, *given], check=True)
    done.touch()


if __name__ == '__main__':
  main()
