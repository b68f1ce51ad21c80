"""A run with labels, from its text to samples of each."""

import html
import json

import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import config_checks, drawing, experiments, main, systems
from sedd_jax.data import DataError
from sedd_jax.data.files import labels
from tests import tiny

FIELDS = {
  'data.label': '@file',
  'training.num_steps': 6,
  'training.label_dropout': 0.5,
  'training.sample_every': 0,
  'training.eval_every': 0,
  'system.args.timed': 'false',
  'sampling.prompt': '',
  'sampling.steps': 2,
  'eval.max_sequences': 8,
  'eval.batch_size': 8,
}


def write(folder, names):
  """A file of text for each label."""
  folder.mkdir()
  for number, name in enumerate(names):
    text = (name + ' ') * 60 + 'abcd'[number] * 40
    (folder / f'{name}.txt').write_text(text)
  return folder


def run_main(workdir, text, *more, **fields):
  flags = [
    f'--config.{path}={value}' for path, value in {**FIELDS, **fields}.items()
  ]
  main.main([*tiny.arguments(text), *flags, f'--workdir={workdir}', *more])


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
  folder = tmp_path_factory.mktemp('labelled')
  text = write(folder / 'text', ['verse', 'prose'])
  run_main(
    folder / 'run',
    text,
    **{'sampling.label': 'verse', 'sampling.label_scale': 2.0},
  )
  return folder / 'run'


def test_what_a_run_writes(labelled):
  assert labels.read_run(labelled) == ('prose', 'verse')
  result = json.loads((labelled / 'evaluation.json').read_text())
  assert result['given'] == 'labels (@file)'
  rows = tiny.rows(labelled / 'samples.jsonl')
  # Without a label, as without a prompt, and then with it.
  assert [row.get('label') for row in rows] == [None] * 2 + ['verse'] * 2


@pytest.mark.slow
def test_a_stored_run(labelled):
  run = sj.load_run(labelled)
  assert run.experiment.info.labels == ('prose', 'verse')
  both = run.sample(2, label=['verse', ''], seeds=[4, 4]).tokens
  alone = run.sample(1, label='verse', seeds=[4]).tokens
  np.testing.assert_array_equal(both[0], alone[0])
  np.testing.assert_array_equal(both[1], run.sample(1, seeds=[4]).tokens[0])
  tokens = np.asarray(run.tokens('validation')[:16], np.int32)[None]
  nats = [run.bound(tokens, label=name).nats[0] for name in ('', 'verse', [-1])]
  assert nats[0] == nats[2] != nats[1]
  for label, told in (
    ('vers', "unknown label 'vers'; nearest: verse"),
    ([2], 'labels must be 1, one a sequence, from 0 to 1'),
    (['verse', 'verse'], 'labels must be 1'),
  ):
    with pytest.raises(ValueError, match=told):
      run.sample(1, label=label)


def test_the_page_names_the_label(labelled):
  run = sj.load_run(labelled)
  path = np.zeros((2, 1, tiny.SEQ_LEN), np.int32)
  samples = systems.Samples(path[-1], None, path)
  for label, there in (('verse', True), ('', False)):
    request = run.experiment.request(1, label=label)
    page = html.unescape(drawing.page(run, request, samples))
    assert ("steps, label 'verse', after" in page) == there


def test_lines_of_prompts_have_labels_of_their_own(labelled, tmp_path):
  path = tmp_path / 'prompts.jsonl'
  lines = [{'label': 'prose'}, {'prompt': 'a', 'label': ''}, {'suffix': 'b'}]
  path.write_text('\n'.join(map(json.dumps, lines)))
  found = experiment_of(labelled, labelled, sampling__prompts=str(path))
  (asked,) = drawing.requests_of(found, free=False)
  # What a line does not say is as in the config.
  assert asked.request.label.tolist() == [0, 0, -1, -1, 1, 1]
  assert [kept.get('label') for kept in asked.kept[1:3]] == ['prose', None]


def experiment_of(folder, workdir=None, **fields):
  config = config_checks.read(folder / 'config.json')
  for path, value in fields.items():
    config_checks.assign(config, path.replace('__', '.'), value)
  return experiments.Experiment(config, workdir=workdir)


def test_other_text_by_the_numbers_of_the_run(labelled, tmp_path):
  text = write(tmp_path / 'text', ['verse'])
  found = experiment_of(labelled, labelled, data__path=str(text))
  assert found.info.labels == ('prose', 'verse')
  batch = found.dataset.train_batch(0, 0, [0], 1)
  assert np.all(batch['label'] == 1)
  text = write(tmp_path / 'other', ['verse', 'drama'])
  with pytest.raises(DataError, match="'drama' of this text is none of those"):
    experiment_of(labelled, labelled, data__path=str(text))


@pytest.mark.slow
def test_begun_from_another_run(labelled, trained, tmp_path):
  """One without labels is begun from as it is; other labels are refused."""
  begun = experiment_of(labelled, init_from=str(trained)).initial_params()
  assert not begun.pop('label_embed')['embedding'].any()
  before = sj.load_run(trained).params
  np.testing.assert_array_equal(
    begun['embed']['embedding'], before['embed']['embedding']
  )
  again = experiment_of(labelled, init_from=str(labelled)).initial_params()
  assert again['label_embed']['embedding'].any()
  text = write(tmp_path / 'text', ['verse', 'drama'])
  for fields in ({'data__path': str(text)}, {'data__label': ''}):
    other = experiment_of(labelled, init_from=str(labelled), **fields)
    with pytest.raises(ValueError, match="trained with the labels 'prose'"):
      other.initial_params()


@pytest.mark.parametrize(
  'fields, told',
  [
    ({'sampling.label': 'verse', 'data.label': ''}, 'needs data.label'),
    ({'sampling.label_scale': 2.0}, 'needs sampling.label'),
    ({'sampling.label': 'vers'}, "unknown label 'vers'"),
    (
      {
        'sampling.label': 'verse',
        'sampling.label_scale': 2.0,
        'training.label_dropout': 0.0,
      },
      'never trained without labels',
    ),
    ({'data.label': 'genre'}, "plain text has no field 'genre'"),
    ({'data.source': 'pydoc', 'data.path': ''}, "'pydoc' have no labels"),
  ],
)
def test_mistakes_are_told_before_training(tmp_path, capsys, fields, told):
  text = write(tmp_path / 'text', ['verse', 'prose'])
  with pytest.raises(SystemExit):
    run_main(tmp_path / 'run', text, **fields)
  assert told in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
