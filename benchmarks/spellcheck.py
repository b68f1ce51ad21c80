"""Spell checking of held-out text by a trained multinomial diffusion.

  python benchmarks/spellcheck.py FOLDER --rate=0.05 --sequences=512 \\
    --output=benchmarks/results/spellcheck.json

FOLDER is a run of multinomial diffusion with `system.args.decoder=posterior`,
its text still at hand.  At error_rate 1 what is written at a position counts
for nothing there: the released code's way.  Characters of evenly spread
sequences are replaced by others at random; mended is the share of them that are
right afterwards, spoiled the share of the others that are not.
"""

import argparse
import pathlib
from typing import Any

import common
import numpy as np

import sedd_jax
from sedd_jax.evaluation import likelihood


def corrupted(
  tokens: np.ndarray, rate: float, vocab_size: int, seed: int
) -> np.ndarray:
  """The tokens with a share of them replaced by any other."""
  rng = np.random.default_rng(seed)
  moved = (tokens + rng.integers(1, vocab_size, tokens.shape)) % vocab_size
  return np.where(rng.random(tokens.shape) < rate, moved, tokens)


def rates(
  clean: np.ndarray, wrong: np.ndarray, found: np.ndarray
) -> dict[str, Any]:
  """What became of the corrupted characters and of the others."""
  bad = wrong != clean
  return {
    'characters': clean.size,
    'corrupted': int(bad.sum()),
    'mended': float(np.mean(found[bad] == clean[bad])),
    'spoiled': float(np.mean(found[~bad] != clean[~bad])),
    'errors_after': int(np.sum(found != clean)),
  }


def main() -> None:
  """Corrupts, corrects, counts."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('run', type=pathlib.Path)
  parser.add_argument('--rate', type=float, default=0.05)
  parser.add_argument('--sequences', type=int, default=512)
  parser.add_argument('--split', default='validation')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  own = parser.parse_args()
  run = sedd_jax.load_run(own.run)
  tasks = run.experiment.system.tasks
  if 'spellcheck' not in tasks:
    parser.error(f'{own.run}: its system does not check spelling')
  dataset, tokenizer = run.experiment.dataset, run.tokenizer
  count = dataset.num_sequences(own.split)
  indices = likelihood.evaluated_indices(count, own.sequences)
  batch = dataset.eval_batch(own.split, indices, len(indices))
  clean = batch['tokens'][batch['valid']]
  wrong = corrupted(clean, own.rate, tokenizer.vocab_size, own.seed)
  text = tokenizer.decode(wrong)
  if not np.array_equal(tokenizer.encode(text), wrong):
    parser.error(f'{own.run}: its tokens are no characters that a text keeps')
  rows = []
  # `error_rate` counts symbols drawn at random, one in K of which is right.
  size = tokenizer.vocab_size
  for error_rate in (min(own.rate * size / (size - 1), 1.0), 1.0):
    options = {'text': text, 'error_rate': error_rate}
    answer = tasks['spellcheck'](run.params, run.aux, options, tokenizer)
    found = tokenizer.encode(answer['corrected'])
    rows.append({'error_rate': error_rate, **rates(clean, wrong, found)})
  print(common.table(list(rows[0]), rows))
  common.write(
    own.output,
    {
      'benchmark': 'spellcheck',
      **common.machine(),
      'config': common.told(run.config),
      'step': run.step,
      'split': own.split,
      'sequences': len(indices),
      'rate': own.rate,
      'seed': own.seed,
      'rows': rows,
    },
  )


if __name__ == '__main__':
  main()
