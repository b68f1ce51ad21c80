"""Spell checking as a user asks for it: train, then --mode=spellcheck."""

import json
import pathlib
import runpy
import sys

import numpy as np
import pytest

from sedd_jax import main
from tests import tiny

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'
FIELDS = {
  'system.name': 'multinomial',
  'process.name': 'uniform',
  'schedule.name': 'step_betas',
  'schedule.num_steps': 10,
  'sampling.method': 'ancestral',
  'sampling.steps': 5,
  'model.hidden_size': 32,
  'training.num_steps': 400,
  'training.batch_size': 32,
  'training.log_every': 200,
  'training.eval_every': 0,
  'training.sample_every': 0,
  'training.checkpoint_every': 400,
}


@pytest.mark.slow
def test_more_errors_are_mended_than_made(
  tiny_text, tmp_path, capsys, monkeypatch
):
  """On text that was not trained on, with 5 % of its characters replaced."""
  workdir = tmp_path / 'speller'
  changes = [f'--config.{path}={value}' for path, value in FIELDS.items()]
  main.main([*tiny.arguments(tiny_text), *changes, f'--workdir={workdir}'])

  def answered(**options):
    argv = [f'--config.task.{name}={value}' for name, value in options.items()]
    capsys.readouterr()
    main.main([f'--workdir={workdir}', '--mode=spellcheck', *argv])
    return json.loads(capsys.readouterr().out)

  text = tiny_text.read_text()[-960:]
  rng = np.random.default_rng(0)
  replaced = rng.random(len(text)) < 0.05
  letters = np.array(list('abcdefghijklmnopqrstuvwxyz '))
  wrong = ''.join(
    rng.choice(letters[letters != c]) if bad else c
    for c, bad in zip(text, replaced)
  )
  path = tmp_path / 'wrong.txt'
  path.write_text(wrong)
  answer = answered(path=path)
  assert answer['text'] == wrong
  alone = answered(path=path, error_rate=1.0)
  texts = {
    'written': wrong,
    'weighed': answer['corrected'],
    'network alone': alone['corrected'],
  }
  # Changes for the worse count as those for the better.
  errors = {
    name: sum(a != b for a, b in zip(text, found, strict=True))
    for name, found in texts.items()
  }
  assert errors['weighed'] < 0.7 * errors['written'], errors
  # The released code's way, of a network that the others' positions teach.
  assert errors['network alone'] > errors['weighed'], errors

  answer = answered(text='the cat sat on a maz of rome')
  assert answer['corrected'] == 'the cat sat on a mat of rome'
  assert answer['marked'] == 'the cat sat on a ma[z>t] of rome'
  assert answer['changes'] == 1

  monkeypatch.syspath_prepend(BENCHMARKS)
  told = tmp_path / 'told.json'
  argv = [str(BENCHMARKS / 'spellcheck.py'), str(workdir), f'--output={told}']
  monkeypatch.setattr(sys, 'argv', argv)
  runpy.run_path(argv[0], run_name='__main__')
  weighed, alone = json.loads(told.read_text())['rows']
  assert weighed['characters'] == alone['characters'] == 960
  for row in (weighed, alone):
    left = (1 - row['mended']) * row['corrupted']
    made = row['spoiled'] * (960 - row['corrupted'])
    assert row['errors_after'] == pytest.approx(left + made)
  assert weighed['errors_after'] < weighed['corrupted']
  assert weighed['spoiled'] < alone['spoiled']

  with pytest.raises(SystemExit) as ended:
    answered(path='absent.txt')
  assert ended.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: task.path absent.txt: ')
  print('wrong characters of', len(text), errors)
