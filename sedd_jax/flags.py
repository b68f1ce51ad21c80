"""The command line: from arguments to a checked config, or to one line of text.

`--config=<recipe or file> [--config.GROUP.FIELD=VALUE ...] [--workdir=DIR]
[--mode=MODE]`, each also as `--flag value`.  Nothing here compiles, and every
mistake is a `ConfigError` that names the offender and the nearest alternatives.
"""

import importlib.resources
import importlib.util
import inspect
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from ml_collections import config_dict

from sedd_jax import config_checks, default_config
from sedd_jax.config_checks import ConfigError
from sedd_jax.core import names

MODES = ('train', 'evaluate', 'sample')
CONFIG_FILE = 'config.json'
_FLAGS = ('config', 'workdir', 'mode', 'help')

# Fields that evaluate, sample and a system's tasks may change on a stored run;
# all others made the run what it is.
_CHANGEABLE = ('eval.', 'sampling.', 'task.', 'data.path', 'seed')

_USAGE = """\
usage: python -m sedd_jax.main --config=CONFIG [--config.GROUP.FIELD=VALUE ...]
                               [--workdir=DIR] [--mode=MODE]

  --config   a shipped recipe by its bare name, or the path of a .py file with
             a function get_config(); the recipes are:
{recipes}
  --workdir  folder of the run; default runs/<name of the config>
  --mode     train (default), evaluate, sample, or a task of the system; all
             but train take the config that the run stored, and may change
             eval.*, sampling.*, task.*, data.path and seed

fields:
"""


class Command(NamedTuple):
  """What the command line asks for.

  Attributes:
    config: the checked, locked config, with the overrides in it.
    workdir: folder of the run.
    mode: 'train', 'evaluate', 'sample', or a task of the system.
    overrides: dotted path to value, of the fields that were set explicitly.
  """

  config: config_dict.ConfigDict
  workdir: pathlib.Path
  mode: str
  overrides: dict[str, Any]


def parse(argv: Sequence[str]) -> Command:
  """Reads the command line.

  Args:
    argv: the arguments without the program's name.

  Returns:
    The command; its config has passed `config_checks.validate`.

  Raises:
    ConfigError: in one line, on any mistake.
  """
  given, texts = _split(argv)
  mode = given.get('mode', 'train')
  source = given.get('config')
  if source is None and (mode == 'train' or 'workdir' not in given):
    raise ConfigError(
      f'--mode={mode} needs --config'
      + ('' if mode == 'train' else ' or --workdir of a run')
      + f'; recipes: {", ".join(recipes())}; or the path of a .py file'
    )
  path = None if source is None else _config_path(source)
  workdir = pathlib.Path(
    given['workdir']
    if path is None
    else given.get('workdir') or f'runs/{path.stem}'
  )
  if '://' in given.get('workdir', ''):
    raise ConfigError(
      f'--workdir={given["workdir"]} is no folder: give one that is mounted, '
      'by every host'
    )
  # Unknown fields are told before the file is run, which may take long.
  for field in texts:
    _check_field(field)
  stored = workdir / CONFIG_FILE
  if mode != 'train' and stored.is_file():
    config, overrides = _from_run(stored, texts, mode)
    if path is not None:
      _tell_differences(config, load(path), overrides, path, workdir)
  elif path is None:
    raise ConfigError(f'no run in {workdir}: it has no {CONFIG_FILE}')
  else:
    config = load(path)
    overrides = _override(config, texts)
    _check_mode(config, mode)
    if mode != 'train' and not config.init_from:
      raise ConfigError(
        f'no run in {workdir} to {mode}: it has no {CONFIG_FILE}; train it '
        f'first (--mode=train), or set init_from'
      )
  config_checks.validate(config)
  _check_mode(config, mode)
  return Command(config, workdir, mode, overrides)


def parse_or_exit(argv: Sequence[str] | None = None) -> Command:
  """`parse`, with the error as one line on stderr and exit code 2.

  `--help` prints all flags and fields, and exits with 0.

  Args:
    argv: the arguments without the program's name; those of the process by
      default.
  """
  argv = sys.argv[1:] if argv is None else argv
  if '--help' in argv or '-h' in argv:
    print(help_text())
    sys.exit(0)
  try:
    return parse(argv)
  except ConfigError as error:
    exit_with(error)


def exit_with(error: Exception) -> NoReturn:
  """Ends the program with code 2 and the error as one line on stderr."""
  print(f'error: {_one_line(error)}', file=sys.stderr)
  sys.exit(2)


def help_text() -> str:
  """All flags, and all fields with their defaults."""
  listed = textwrap.fill(
    ', '.join(recipes()),
    78,
    initial_indent=' ' * 13,
    subsequent_indent=' ' * 13,
  )
  lines = [_USAGE.format(recipes=listed)]
  for path, field in default_config.FIELDS.items():
    choices = default_config.permitted_text(path)
    lines.append(f'  --config.{path}={field.default}')
    text = field.meaning + (f' [{choices}]' if choices else '')
    lines += textwrap.wrap(
      text, 78, initial_indent=' ' * 6, subsequent_indent=' ' * 6
    )
  for path, text in default_config.OPEN_GROUPS.items():
    lines += [f'  --config.{path}.NAME=VALUE', f'      {text}']
  return '\n'.join(lines)


def recipes() -> list[str]:
  """Names of the shipped recipes."""
  return sorted(
    entry.name.removesuffix('.py')
    for entry in _recipe_folder().iterdir()
    if entry.name.endswith('.py')
  )


def load(path: pathlib.Path) -> config_dict.ConfigDict:
  """The config that a file's `get_config()` returns.

  Args:
    path: a Python file.

  Returns:
    The config, with the structure of `default_config.get_config()`, locked.

  Raises:
    ConfigError: the file fails, has no `get_config`, or returns something else.
  """
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise ConfigError(f'config file {path} is no Python file')
  module = importlib.util.module_from_spec(spec)
  # The user's file can fail in any way.
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
      public = [key for key in vars(module) if not key.startswith('_')]
      raise ConfigError(
        f'config file {path} has no get_config(); it has: '
        f'{", ".join(public) or "nothing"}'
      )
    config = module.get_config()
  except ConfigError:
    raise
  except (Exception, SystemExit) as error:
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if pathlib.Path(frame.filename).absolute() == path.absolute()
    ]
    if isinstance(error, SyntaxError):
      lines.append(error.lineno)
    place = f'{path}:{lines[-1]}' if lines else str(path)
    raise ConfigError(f'config file {place}: {_told(error)}') from error
  config_checks.check_structure(config)
  config.lock()
  return config


def _recipe_folder() -> Any:
  return importlib.resources.files('sedd_jax') / 'recipes'


def _config_path(source: str) -> pathlib.Path:
  """The file behind --config: a bare recipe's name, or a path."""
  path = pathlib.Path(source)
  if path.suffix != '.py' and len(path.parts) == 1:
    if source not in recipes():
      raise ConfigError(
        f'no recipe {source!r}; {names.alternatives(source, recipes())}; or '
        'the path of a .py file'
      )
    return pathlib.Path(str(_recipe_folder() / f'{source}.py'))
  if path.is_dir():
    raise ConfigError(f'--config={source} is a folder, not a .py file')
  if not path.is_file():
    beside = {other.stem: str(other) for other in path.parent.glob('*.py')}
    alike = [beside[stem] for stem in names.nearest(path.stem, beside)]
    raise ConfigError(
      f'config file {source} does not exist; '
      + (f'nearest: {", ".join(alike)}; ' if alike else '')
      + f'recipes: {", ".join(recipes())}'
    )
  return path


def _split(argv: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
  """Flags and fields with their texts; of a repeated one the last counts."""
  given: dict[str, str] = {}
  fields: dict[str, str] = {}
  rest = list(argv)
  while rest:
    arg = rest.pop(0)
    if not arg.startswith('--'):
      raise ConfigError(
        f'unexpected argument {arg!r}; flags are written --flag=value'
      )
    name, equals, text = arg[2:].partition('=')
    if name not in _FLAGS and not name.startswith('config.'):
      raise _unknown_flag(name)
    if not equals:
      if not rest or rest[0].startswith('--'):
        raise ConfigError(f'--{name} needs a value: --{name}=VALUE')
      text = rest.pop(0)
    if name in _FLAGS:
      if not text:
        raise ConfigError(f'--{name} needs a value: --{name}=VALUE')
      given[name] = text
    else:
      fields[name.removeprefix('config.')] = text
  return given, fields


def _unknown_flag(name: str) -> ConfigError:
  fields = [f'config.{path}' for path in default_config.FIELDS]
  alike = names.nearest(name, [*_FLAGS, *fields])
  listed = ', '.join(f'--{other}' for other in alike or _FLAGS)
  return ConfigError(
    f'unknown flag --{name}; {"nearest" if alike else "known"}: {listed}'
  )


def _check_field(path: str) -> None:
  if path not in default_config.FIELDS and not config_checks.open_group(path):
    raise config_checks.unknown_field(path)


def _override(
  config: config_dict.ConfigDict, texts: dict[str, str]
) -> dict[str, Any]:
  """Sets the fields that were given as text; returns their values."""
  overrides = {}
  for path, text in texts.items():
    current = config_checks.find(config, path)
    overrides[path] = config_checks.parse(path, text, current)
    config_checks.assign(config, path, overrides[path])
  return overrides


def _from_run(
  stored: pathlib.Path, texts: dict[str, str], mode: str
) -> tuple[config_dict.ConfigDict, dict[str, Any]]:
  """The config that a run stored, with the overrides that it admits."""
  config = config_checks.read(stored)
  before = config_checks.read(stored)
  overrides = _override(config, texts)
  for path, value in overrides.items():
    old = config_checks.find(before, path)
    if value != old and not path.startswith(_CHANGEABLE):
      raise ConfigError(
        f'{path} is {old!r} in the run {stored.parent} and cannot be {value!r} '
        f'in --mode={mode}, which may change eval.*, sampling.*, task.*, '
        'data.path and seed'
      )
  return config, overrides


def _tell_differences(
  stored: config_dict.ConfigDict,
  asked: config_dict.ConfigDict,
  overrides: dict[str, Any],
  path: pathlib.Path,
  workdir: pathlib.Path,
) -> None:
  """Says that the run's own config counts where --config is another."""
  differing = [
    field
    for field in config_checks.differences(stored, asked)
    if field not in overrides
  ]
  if differing:
    print(
      f'{workdir} stores its own config, which counts; {path.name} differs in '
      f'{", ".join(differing)}',
      file=sys.stderr,
    )


def _check_mode(config: config_dict.ConfigDict, mode: str) -> None:
  """Refuses a mode that is neither ours nor in TASKS of the system's file."""
  if mode in MODES:
    return
  systems = importlib.import_module('sedd_jax.systems')
  make = names.resolve(systems.SYSTEMS, config.system.name, 'system')
  tasks = getattr(inspect.getmodule(make), 'TASKS', ())
  if mode not in tasks:
    raise ConfigError(
      f'unknown mode {mode!r}; {names.alternatives(mode, [*MODES, *tasks])}'
    )


def _told(error: BaseException) -> str:
  return f'{type(error).__name__}: {_one_line(error)}'


def _one_line(error: BaseException) -> str:
  """An exception's text on one line, without the config that may be in it."""
  # A KeyError's own text is the repr of what it was given.
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  if 'Other fields present:' in text:
    text = text.replace('\\n', ' ')
  text = ' '.join(text.split())
  start, dump, rest = text.partition(' Other fields present:')
  _, hint, hinted = rest.partition('Did you mean')
  return start + (f' {hint}{hinted}' if dump and hint else '')
