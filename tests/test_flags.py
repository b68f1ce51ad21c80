"""The command line: what it reads, and the one line on every mistake."""

import pathlib
import re
import subprocess
import sys

import pytest

from sedd_jax import config_checks, default_config, flags
from sedd_jax.config_checks import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def run(tmp_path):
  """A folder with the stored config of a run."""
  config = default_config.get_config()
  config.model.hidden_size = 96
  config.seed = 5
  (tmp_path / 'config.json').write_text(config_checks.to_json(config))
  return tmp_path


def refused(*argv: str) -> str:
  """The one line on a mistaken command line."""
  with pytest.raises(ConfigError) as error:
    flags.parse(argv)
  return str(error.value)


def written(folder: pathlib.Path, body: str) -> str:
  path = folder / 'mine.py'
  path.write_text(f'from sedd_jax import default_config\n{body}\n')
  return f'--config={path}'


def test_a_bare_name_and_a_path_are_the_same_recipe():
  bare = flags.parse(['--config=quickstart'])
  path = flags.parse([f'--config={ROOT}/configs/quickstart.py'])
  assert bare == path
  assert bare.mode == 'train'
  assert bare.workdir == pathlib.Path('runs/quickstart')
  assert bare.config.is_locked
  assert bare.overrides == {}


def test_overrides_are_set_and_returned():
  command = flags.parse(
    [
      '--config',
      'quickstart',
      '--config.training.num_steps',
      '30',
      '--config.model.dropout=0.5',
      '--config.sampling.prompt=the {blank:12} of rome = 1',
      '--config.seed=1',
      '--config.seed=2',
      '--workdir=elsewhere/a',
    ]
  )
  assert command.config.training.num_steps == 30
  assert command.config.model.dropout == 0.5
  assert command.config.sampling.prompt == 'the {blank:12} of rome = 1'
  assert command.config.seed == 2
  assert command.workdir == pathlib.Path('elsewhere/a')
  assert command.overrides['training.num_steps'] == 30
  assert len(command.overrides) == 4


def test_open_groups_take_new_fields():
  command = flags.parse(['--config=quickstart', '--config.task.words=[1, 2]'])
  assert list(command.config.task.words) == [1, 2]


def test_a_negative_number_is_a_value():
  told = refused('--config=quickstart', '--config.seed', '-1')
  assert told == 'seed must be in [0, 2**32), not -1'


@pytest.mark.parametrize(
  ('argv', 'told'),
  [
    ([], '--mode=train needs --config; recipes: '),
    (['--mode=sample'], 'needs --config or --workdir of a run'),
    (['--workdir=x'], '--mode=train needs --config'),
    (['--confg=quickstart'], 'unknown flag --confg; nearest: --config'),
    (['--config=quickstrt'], "no recipe 'quickstrt'; nearest: quickstart"),
    (['--config'], '--config needs a value'),
    (['--config='], '--config needs a value'),
    (['--config', '--mode=train'], '--config needs a value'),
    (['quickstart'], "unexpected argument 'quickstart'"),
    (['--config=quickstart', '--mode=evalute'], 'nearest: evaluate'),
    (
      ['--config=nowhere/quickstart.py'],
      'nowhere/quickstart.py does not exist',
    ),
  ],
)
def test_mistaken_flags(argv, told):
  assert told in refused(*argv)


@pytest.mark.parametrize(
  ('override', 'told'),
  [
    ('--config.training.num_step=3', 'nearest: training.num_steps'),
    ('--config.learning_rate=3', 'nearest: optimizer.learning_rate'),
    ('--config.model=3', 'model is a group of fields: model.name'),
    ('--config.task=3', 'write task.NAME=VALUE'),
    ('--config.foo.bar=3', "unknown field 'foo.bar'; known: data, eval"),
    ('--config.training.num_steps=1e5', 'write 100000'),
    ('--config.training.num_steps=many', 'takes an integer'),
    ('--config.model.remat', '--config.model.remat needs a value'),
    ('--config.process.name=absorb', 'nearest: absorbing'),
    ('--config.process.args.foo=1', "takes no argument 'foo'"),
    ('--config.training.batch_size=0', 'must be > 0'),
    ('--num_steps=3', ', --config.training.num_steps'),
  ],
)
def test_mistaken_fields(override, told):
  assert told in refused('--config=quickstart', override)


@pytest.mark.parametrize(
  ('body', 'told'),
  [
    ('def config(): pass', 'mine.py has no get_config(); it has: default_con'),
    ('def get_config(:', 'mine.py:2: SyntaxError'),
    ('def get_config():\n  return 1 / 0', 'mine.py:3: ZeroDivisionError'),
    ('def get_config():\n  return {}', 'not dict'),
    ('import no_such_package', 'mine.py:2: ModuleNotFoundError'),
    (
      'def get_config():\n  c = default_config.get_config()\n'
      '  c.model.hiden_size = 3\n  return c',
      'Did you mean "hidden_size" instead of "hiden_size"',
    ),
    (
      'def get_config():\n  c = default_config.get_config()\n'
      '  c.training.num_steps = 1e5\n  return c',
      'mine.py:4: TypeError',
    ),
    (
      'def get_config():\n  c = default_config.get_config()\n'
      '  c.unlock()\n  c.model.hiden_size = 3\n  return c',
      "unknown field 'model.hiden_size'; nearest: model.hidden_size",
    ),
  ],
)
def test_mistaken_files(tmp_path, body, told):
  message = refused(written(tmp_path, body))
  assert told in message
  assert '\n' not in message
  assert 'Other fields present' not in message


def test_a_relative_path_has_its_line_too(tmp_path, monkeypatch):
  written(tmp_path, 'def get_config():\n  return 1 / 0')
  monkeypatch.chdir(tmp_path)
  assert 'mine.py:3: ZeroDivisionError' in refused('--config=mine.py')


def test_a_file_that_exits_and_a_folder(tmp_path):
  told = refused(written(tmp_path, 'raise SystemExit(3)'))
  assert 'mine.py:2: SystemExit: 3' in told
  assert 'is a folder' in refused(f'--config={tmp_path}/')


def test_no_bucket_for_a_folder():
  told = refused('--config=quickstart', '--workdir=gs://bucket/run')
  assert '--workdir=gs://bucket/run is no folder' in told


@pytest.mark.parametrize('error', ["'a' is wrong: 'b'", "no 'c'", "'d'"])
@pytest.mark.parametrize('kind', [ValueError, KeyError])
def test_quotes_of_a_message_stay(capsys, error, kind):
  with pytest.raises(SystemExit) as ended:
    flags.exit_with(kind(error))
  assert ended.value.code == 2
  assert capsys.readouterr().err == f'error: {error}\n'


def test_seeds_are_of_32_bits():
  told = refused('--config=quickstart', '--config.seed=4294967296')
  assert told == 'seed must be in [0, 2**32), not 4294967296'


def test_a_file_of_ones_own(tmp_path):
  argument = written(
    tmp_path,
    'def get_config():\n  c = default_config.get_config()\n'
    '  c.model.num_layers = 7\n  return c',
  )
  command = flags.parse([argument])
  assert command.config.model.num_layers == 7
  assert command.workdir == pathlib.Path('runs/mine')


def test_a_mistyped_path_names_its_neighbour():
  told = refused(f'--config={ROOT}/configs/quickstrt.py')
  assert f'nearest: {ROOT}/configs/quickstart.py' in told


@pytest.mark.parametrize('mode', ['evaluate', 'sample'])
def test_a_run_brings_its_config(run, mode, capsys):
  command = flags.parse([f'--workdir={run}', f'--mode={mode}'])
  assert command.config.model.hidden_size == 96
  assert command.config.is_locked
  with_recipe = flags.parse(
    [f'--workdir={run}', f'--mode={mode}', '--config=quickstart']
  )
  assert with_recipe == command
  # What the recipe says otherwise is told.
  told = capsys.readouterr().err
  assert 'stores its own config' in told and 'model.hidden_size' in told


def test_a_run_admits_what_does_not_change_it(run):
  argv = [f'--workdir={run}', '--mode=sample']
  command = flags.parse(
    [
      *argv,
      '--config.sampling.steps=3',
      '--config.eval.points=2',
      '--config.data.path=there',
      '--config.seed=6',
      '--config.model.hidden_size=96',
    ]
  )
  assert command.config.sampling.steps == 3
  assert command.config.seed == 6
  told = refused(*argv, '--config.model.hidden_size=128')
  assert 'model.hidden_size is 96 in the run' in told
  assert 'cannot be 128' in told


def test_training_takes_the_recipe_and_not_the_stored_config(run):
  command = flags.parse([f'--workdir={run}', '--config=owt_absorb'])
  assert command.config.model.hidden_size == 768


def test_no_run_to_evaluate(tmp_path):
  argv = [f'--workdir={tmp_path}', '--mode=evaluate']
  assert f'no run in {tmp_path}' in refused(*argv)
  assert 'train it first' in refused(*argv, '--config=quickstart')
  command = flags.parse(
    [*argv, '--config=owt_absorb', '--config.init_from=weights']
  )
  assert command.config.init_from == 'weights'


def test_a_broken_stored_config_is_told(tmp_path):
  (tmp_path / 'config.json').write_text('{')
  told = refused(f'--workdir={tmp_path}', '--mode=sample')
  assert 'the stored config is no JSON' in told
  assert told.startswith(str(tmp_path / 'config.json'))
  (tmp_path / 'config.json').write_bytes(b'\xff')
  told = refused(f'--workdir={tmp_path}', '--mode=sample')
  assert told.startswith(str(tmp_path / 'config.json'))


def test_help_lists_every_field():
  text = flags.help_text()
  for path in (*default_config.FIELDS, *default_config.OPEN_GROUPS):
    assert f'--config.{path}' in text
  assert max(map(len, text.splitlines())) <= 80


def test_the_process_ends_with_one_line_and_code_2():
  program = 'from sedd_jax import flags; flags.parse_or_exit()'
  mistake = '--config.training.num_stepps=3'
  ended = subprocess.run(
    [sys.executable, '-c', program, '--config=quickstart', mistake],
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 2
  assert ended.stdout == ''
  assert re.fullmatch(
    r"error: unknown field 'training\.num_stepps'; nearest: training\.num_steps"
    r'.*\n',
    ended.stderr,
  )


def test_help_ends_with_code_0(capsys):
  with pytest.raises(SystemExit) as ended:
    flags.parse_or_exit(['--help'])
  assert ended.value.code == 0
  assert capsys.readouterr().out.startswith('usage: python -m sedd_jax.main')


def test_a_line_break_that_is_quoted_stays(capsys):
  with pytest.raises(SystemExit):
    flags.exit_with(ValueError(f'character {chr(10)!r}\nis none'))
  assert capsys.readouterr().err == "error: character '\\n' is none\n"
