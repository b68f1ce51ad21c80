"""Texts that are revised: what is asked, written, shown and scored."""

import json
import types

import numpy as np
import pytest

from sedd_jax import flags, modes, revisions, systems
from sedd_jax.processes import edits
from sedd_jax.samplers import edits as edit_samplers
from sedd_jax.systems.editing import revising

CAPACITY = 12
REPLACED = {ord('x'): ord('y')}


class Characters:
  """Encodes characters by their numbers."""

  def encode(self, text):
    return list(map(ord, text))

  def decode(self, ids):
    return ''.join(map(chr, ids))


class Sampler:
  """Puts a 'y' for every 'x', and keeps the rest, in one revision."""

  def __init__(self):
    self.asked = []

  def __call__(self, params, aux, request):
    self.asked.append(request)
    tokens = np.zeros((len(request.seeds), request.length), np.int32)
    lengths, history = [], []
    for row, start in zip(tokens, request.start):
      before = tuple(start[start >= 0].tolist())
      after = tuple(REPLACED.get(i, i) for i in before)
      row[: len(after)] = after
      lengths.append(len(after))
      edit = edits.alignment(before, after)
      history.append((edit_samplers.Revision(before, edit, -1.5),))
    return systems.Samples(
      tokens, np.array(lengths), calls=2, history=tuple(history)
    )


def config_of():
  sampling = types.SimpleNamespace(method='greedy', steps=3, batch_size=2)
  return types.SimpleNamespace(
    sampling=sampling,
    seed=7,
    system=types.SimpleNamespace(name='diffuser'),
  )


def task_of(sampler, source_length=0, marks=()):
  return revising.task(
    config_of(),
    sampler,
    lambda request: None,
    capacity=CAPACITY,
    source_length=source_length,
    marks=marks,
  )


def revise(sampler=None, **options):
  return task_of(sampler or Sampler())(None, None, options, Characters())


def write(folder, name, *lines):
  path = folder / name
  path.write_text(''.join(f'{line}\n' for line in lines), 'utf-8')
  return path


def run_of(**more):
  info = types.SimpleNamespace(name='mine')
  return types.SimpleNamespace(
    config=config_of(),
    tokenizer=Characters(),
    step=9,
    experiment=types.SimpleNamespace(info=info, **more),
  )


def files_of(revised, workdir):
  revisions.write(run_of(), workdir, revised, seconds=1.0)
  return {
    path.suffix: path.read_text('utf-8') for path in workdir.glob('revised.*')
  }


def test_a_line_for_each_text_whatever_becomes_of_it(tmp_path, capsys):
  # A separator of lines that is no line feed stays within its text.
  texts = ['a x b', 'whole', 'x' * (CAPACITY + 1), '', 'x\u2028é x']
  path = write(tmp_path, 'texts.txt', *texts)
  sampler = Sampler()
  revised = revise(sampler, path=str(path), begin=0.5)
  # Two batches of those that fit.
  assert [list(r.seeds) for r in sampler.asked] == [[7, 8], [9, 10]]
  assert all(r.options == {'begin': 0.5} for r in sampler.asked)
  found = files_of(revised, tmp_path)
  assert found['.txt'].split('\n') == [
    *('a y b', 'whole', texts[2], '', 'y é y', '')
  ]
  rows = [json.loads(line) for line in found['.jsonl'].split('\n')[:-1]]
  assert [row['text'] for row in rows] == texts
  assert [row['changed'] for row in rows] == [True, False, False, False, True]
  assert [row['too_long'] for row in rows] == [False, False, True, False, False]
  assert rows[0]['history'] == ['a [-x-]{+y+} b']
  assert rows[2]['log_prob'] is None and rows[0]['log_prob'] == -1.5
  told = json.loads(found['.json'])
  assert (told['num_texts'], told['num_changed'], told['num_too_long']) == (
    *(5, 2, 1),
  )
  assert told['begin'] == 0.5 and 'before' not in told
  assert found['.html'].count('<ol>') == 4 and '<del' in found['.html']
  out = capsys.readouterr().out
  assert '1 have more tokens than a text may have' in out
  assert '  1  a [-x-]{+y+} b' in out


def test_scores_before_and_after(tmp_path, capsys):
  path = write(tmp_path, 'dev.src', 'a b c d x', 'e f g h i')
  first = write(tmp_path, 'dev.ref0', 'a b c d y', 'e f g h i')
  second = write(tmp_path, 'dev.ref1', 'a b c d y', 'e f g h j')
  output = tmp_path / 'there' / 'out'
  revised = revise(
    path=str(path), references=f'{first},{second}', output=str(output)
  )
  assert revised.references == [
    ('a b c d y', 'a b c d y'),
    ('e f g h i', 'e f g h j'),
  ]
  files_of(revised, tmp_path)
  assert not (tmp_path / 'revised.txt').exists()
  told = json.loads((output / 'revised.json').read_text())
  assert told['after']['edit_f05'] == told['after']['edit_precision'] == 1
  assert told['before']['edit_recall'] == 0
  assert told['after']['exact_match'] == 1
  assert told['after']['gleu'] > told['before']['gleu']
  out = capsys.readouterr().out
  assert 'before: gleu' in out and 'after: gleu' in out


def test_mistakes(tmp_path):
  path = write(tmp_path, 'texts.txt', 'a', 'b')
  short = write(tmp_path, 'short.txt', 'a')
  empty = write(tmp_path, 'empty.txt', 'a', '')
  bad = tmp_path / 'bad.txt'
  bad.write_bytes(b'a\n\xff\n')
  blank = write(tmp_path, 'blank.txt')
  for told, options in (
    ('1 lines for 2 texts', {'path': path, 'references': short}),
    (
      'empty.txt:2: the reference is empty',
      {'path': path, 'references': empty},
    ),
    ('text 2 is empty', {'path': empty, 'references': path}),
    ('bad.txt:2: invalid UTF-8', {'path': bad}),
    ('no text to revise', {'path': blank}),
    ('task.output', {'path': path, 'output': short}),
    ('task.references', {'path': path, 'references': tmp_path / 'nowhere'}),
  ):
    options = {name: str(value) for name, value in options.items()}
    with pytest.raises(systems.TaskError, match=told):
      revise(**options)


def test_a_source_has_its_marks_as_in_training():
  sampler = Sampler()
  task = task_of(sampler, source_length=6, marks=(1, 2, 3))
  task(None, None, {'text': 'ab'}, Characters())
  [request] = sampler.asked
  assert request.source.tolist() == [[1, 97, 98, 2, -1, -1]]
  with pytest.raises(systems.TaskError, match='5 tokens, more than the 4'):
    task(None, None, {'text': 'abcde'}, Characters())


def test_the_mode_writes_what_the_task_made(tmp_path, monkeypatch, capsys):
  system = types.SimpleNamespace(tasks={'revise': task_of(Sampler())})
  run = run_of(system=system)
  run.params = run.aux = None
  run.config.task = {'text': 'a x'}
  monkeypatch.setattr(modes.runs, 'load', lambda *args, **options: run)
  modes.task(flags.Command(run.config, tmp_path, 'revise', {}))
  assert {path.suffix for path in tmp_path.glob('revised.*')} == {
    *('.txt', '.jsonl', '.json', '.html')
  }
  assert (tmp_path / 'revised.txt').read_text() == 'a y\n'
  assert '1 texts in' in capsys.readouterr().out
