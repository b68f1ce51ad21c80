"""The smallest run: its command line, and its text."""

import json
import pathlib

import numpy as np

SEQ_LEN = 16
NUM_STEPS = 30
VALIDATION_SEQUENCES = 60


def write_text(folder: pathlib.Path) -> pathlib.Path:
  """4800 characters of a few words, a fifth of them for validation."""
  words = ['the', 'cat', 'sat', 'on', 'a', 'mat', 'of', 'rome']
  rng = np.random.default_rng(0)
  text = ' '.join(rng.choice(words, 2000))[:4800]
  path = folder / 'tiny.txt'
  path.write_text(text)
  return path


def arguments(text: pathlib.Path) -> list[str]:
  """Flags of a run that is trained in seconds; more may follow."""
  fields = {
    'model.hidden_size': 16,
    'model.num_layers': 1,
    'model.num_heads': 2,
    'model.cond_size': 8,
    'data.source': 'text_file',
    'data.path': text,
    'data.seq_len': SEQ_LEN,
    'data.validation_fraction': 0.2,
    'optimizer.learning_rate': 0.01,
    'optimizer.warmup_steps': 1,
    'training.num_steps': NUM_STEPS,
    'training.batch_size': 8,
    'training.log_every': 10,
    'training.eval_every': 20,
    'training.sample_every': 20,
    'training.checkpoint_every': 20,
    'training.ema_decay': 0.9,
    'eval.max_sequences': 0,
    'eval.batch_size': 32,
    'eval.points': 2,
    'sampling.steps': 4,
    'sampling.num_samples': 2,
    'sampling.batch_size': 4,
    'sampling.prompt': 'the {blank:4} of',
  }
  flags = [f'--config.{path}={value}' for path, value in fields.items()]
  return ['--config=quickstart', *flags]


def rows(path: pathlib.Path) -> list[dict]:
  """The objects of a file with one a line."""
  return [json.loads(line) for line in path.read_text().splitlines()]
