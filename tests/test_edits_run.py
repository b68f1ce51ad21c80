"""A run of DiffusER from the command line: trained, stopped, sampled."""

import json

import pytest

from sedd_jax import main
from sedd_jax.training import metrics
from tests import tiny


def flags_of(text, workdir, **fields):
  fields = {
    'model.hidden_size': 16,
    'model.num_layers': 1,
    'model.num_heads': 2,
    'model.cond_size': 8,
    'data.source': 'text_file',
    'data.path': text,
    'data.seq_len': 8,
    'training.num_steps': 4,
    'training.batch_size': 8,
    'training.log_every': 1,
    'training.checkpoint_every': 0,
    'sampling.num_samples': 2,
    'sampling.batch_size': 2,
    'sampling.steps': 2,
    **fields,
  }
  flags = [f'--config.{path}={value}' for path, value in fields.items()]
  return ['--config=toy_diffuser', f'--workdir={workdir}', *flags]


def told(workdir):
  rows = list(metrics.read(workdir / 'metrics.jsonl'))
  return [{k: v for k, v in row.items() if k != 'timing'} for row in rows]


@pytest.mark.slow
def test_a_run_of_edits(tiny_text, tmp_path, capsys):
  main.main(flags_of(tiny_text, tmp_path / 'whole'))
  whole = told(tmp_path / 'whole')
  assert len(whole) == 4
  assert all('bpc' not in row for row in whole)
  assert set(whole[0]['terms']) == {'tags', 'inserts', 'spans'}
  assert '<ol>' in (tmp_path / 'whole' / 'edits.html').read_text()
  assert '  1  ' in capsys.readouterr().out
  # What goes on after two steps sees the same edits.
  part = tmp_path / 'part'
  main.main(flags_of(tiny_text, part, **{'training.num_steps': 2}))
  main.main(flags_of(tiny_text, part))
  assert told(part) == whole
  rows = tiny.rows(part / 'samples.jsonl')
  assert rows == tiny.rows(tmp_path / 'whole' / 'samples.jsonl')


@pytest.mark.slow
def test_texts_of_a_run_are_corrected(tmp_path, capsys):
  texts = [f'the cat sat on mat {n} .' for n in range(20)]
  path = tmp_path / 'clean.jsonl'
  path.write_text(''.join(f'"{text}"\n' for text in texts))
  fields = {
    'data.path': path,
    'data.source': 'seq2seq',
    'data.layout': 'target',
    'data.tokenizer': 'bytes',
    'data.seq_len': 32,
    'system.args.distractors': 'corpus',
    'training.num_steps': 1,
  }
  run = tmp_path / 'run'
  main.main(flags_of(path, run, **fields))
  for name in ('src', 'ref0', 'ref1'):
    text = 'the cats sat .\na mat\n' + 99 * 'x' + '\n'
    (tmp_path / f'dev.{name}').write_text(text)
  files = [str(tmp_path / f'dev.ref{n}') for n in range(2)]
  capsys.readouterr()
  main.main(
    [
      *(f'--workdir={run}', '--mode=revise'),
      f'--config.task.path={tmp_path / "dev.src"}',
      f'--config.task.references={",".join(files)}',
      '--config.task.begin=1',
      '--config.task.keep_bias=99',
    ]
  )
  # Nothing is edited by so sure a tagger.
  assert (run / 'revised.txt').read_text() == text
  told = json.loads((run / 'revised.json').read_text())
  assert told['before'] == told['after'] and told['num_too_long'] == 1
  assert 'after: gleu' in capsys.readouterr().out
