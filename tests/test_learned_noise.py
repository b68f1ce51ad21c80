"""Noise that depends on the data: a run keeps what it has counted."""

import json
import os

import jax
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import experiments, flags, main, run_folders
from sedd_jax.config_checks import ConfigError
from sedd_jax.data import DataError
from sedd_jax.data.prepared import statistics
from tests import tiny

FIELDS = {
  'system.name': 'd3pm',
  'process.name': 'nearest_neighbor',
  'process.args.k': 3,
  'schedule.name': 'mutual_information',
  'schedule.num_steps': 8,
  'sampling.method': 'ancestral',
  'sampling.steps': 4,
  'training.num_steps': 20,
  'training.refresh_every': 10,
}


@pytest.mark.slow
def test_a_run_with_learned_neighbors(tiny_text, tmp_path, capsys):
  """Trained, evaluated and sampled; then used where its text is gone."""
  text = tmp_path / 'text.txt'
  text.write_text(tiny_text.read_text())
  workdir = tmp_path / 'run'
  changes = [f'--config.{path}={value}' for path, value in FIELDS.items()]
  main.main([*tiny.arguments(text), *changes, f'--workdir={workdir}'])
  counts = json.loads((workdir / statistics.FILE).read_text())['token_counts']
  train = text.read_text()[: 4800 * 4 // 5]
  assert counts[0] == train.count(' ') and counts[1] == train.count('a')
  reported = json.loads((workdir / 'evaluation.json').read_text())

  os.remove(text)
  run = sj.load_run(workdir)
  rows = run.sample(2, prompt='the {blank:4} of').tokens
  assert run.tokenizer.decode(rows[0]).startswith('the ')
  # The noise is that of the embeddings, not of the start.
  first = experiments.Experiment(run.config, read=False, workdir=workdir)
  _, aux = first.system.init(jax.random.key(0))
  assert np.any(aux['noise']['powers'] != run.aux['noise']['powers'])
  assert reported['terms'].keys() == {'diffusion', 'prior', 'reconstruction'}

  (workdir / statistics.FILE).unlink()
  with pytest.raises(DataError, match='text.txt'):
    sj.load_run(workdir)


def test_files_of_noise_belong_to_the_run(tiny_text, tmp_path):
  embeddings = tmp_path / 'embeddings.npy'
  np.save(embeddings, np.random.default_rng(0).standard_normal((27, 3)))
  fields = {**FIELDS, 'process.args.embeddings': embeddings}
  changes = [f'--config.{path}={value}' for path, value in fields.items()]
  argv = [*tiny.arguments(tiny_text), *changes]
  files = experiments.Experiment(flags.parse(argv).config).files
  assert [file['name'] for file in files] == ['tiny.txt', 'embeddings.npy']
  np.save(embeddings, np.ones((27, 3)))
  with pytest.raises(ConfigError, match='embeddings.npy .* the files are now'):
    run_folders.require_same_files(
      files, experiments.Experiment(flags.parse(argv).config).files
    )
