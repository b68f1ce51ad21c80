"""Checks of a config, and its way to and from text.

All that can be known before data is read and anything compiles: fields and
their types, permitted values, names in tables, arguments against signatures,
and rules between fields.
"""

import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from sedd_jax import default_config
from sedd_jax.core import names
from sedd_jax.default_config import FIELDS, OPEN_GROUPS, RANGES, TEXTS

# What the program passes to each class itself, where its signature names it.
# A network gets all fields of its group; `parent` and `name` are flax's own.
OFFERED = {
  'system': ('config', 'data_info'),
  'process': ('vocab_size', 'betas'),
  'schedule': (
    *('levels', 'counts'),
    *(
      path.removeprefix('schedule.')
      for path in FIELDS
      if path.startswith('schedule.') and path != 'schedule.name'
    ),
  ),
  'model': (
    *('num_states', 'num_labels', 'causal', 'parent', 'name'),
    *(path.removeprefix('model.') for path in FIELDS if 'model.' in path),
  ),
}

_TYPE_NAMES = {bool: 'true or false', int: 'an integer', float: 'a number'}


class ConfigError(ValueError):
  """A mistake in a config or on the command line, told in one line."""


def open_group(path: str) -> str | None:
  """The open group that a field lies in, or None.

  >>> open_group('process.args.table')
  'process.args'
  """
  return next((g for g in OPEN_GROUPS if path.startswith(f'{g}.')), None)


def lookup(config: config_dict.ConfigDict, path: str) -> Any:
  """A field or group by its dotted path."""
  value: Any = config
  for part in path.split('.'):
    value = value[part]
  return value


def find(config: config_dict.ConfigDict, path: str) -> Any:
  """A field by its dotted path, None where an open group lacks it."""
  try:
    return lookup(config, path)
  except (KeyError, TypeError):
    return None


def parse(path: str, text: str, current: Any = None) -> Any:
  """A field's value from the command line's text.

  Args:
    path: the field's dotted path, known or in an open group.
    text: what was written.
    current: the value in the config, whose type counts in an open group; None
      if the open group lacks the field.

  Returns:
    The value.  In an open group a new field but those of `TEXTS` is read as
    JSON or one of Python's True, False and None where that is possible, else as
    text.

  Raises:
    ConfigError: the text is no value of the field's type.

  >>> parse('model.dropout', '0')
  0.0
  """
  if path in FIELDS:
    current = FIELDS[path].default
  if isinstance(current, str) or path in TEXTS:
    return text
  if isinstance(current, bool):
    if text.lower() in ('true', 'false'):
      return text.lower() == 'true'
  elif isinstance(current, int):
    if re.fullmatch(r'[+-]?[0-9]+(_[0-9]+)*', text.strip()):
      return int(text)
    if hint := _as_integer(text):
      raise ConfigError(f'{path} takes an integer, not {text!r}: write {hint}')
  elif isinstance(current, float):
    try:
      return float(text)
    except ValueError:
      pass
  else:
    # Not `none`, which is a name too (model.args.time).
    text = {'None': 'null'}.get(text, text)
    whole = text.lower() in ('true', 'false')
    try:
      return json.loads(text.lower() if whole else text)
    except ValueError:
      return text
  raise ConfigError(f'{path} takes {_TYPE_NAMES[type(current)]}, not {text!r}')


def _as_integer(text: str) -> str:
  """The digits of an integer that was written as a float, else ''."""
  try:
    value = float(text)
    return str(int(value)) if value == int(value) else ''
  except (ValueError, OverflowError):
    return ''


def validate(config: config_dict.ConfigDict) -> None:
  """Checks all that is known before data is read, without compiling anything.

  Fields and their types, permitted values, names in tables, arguments against
  the signatures that they go to, and rules between fields.

  Args:
    config: a config, from `get_config` or a file.

  Raises:
    ConfigError: in one line that names the field and what it may be.
  """
  check_structure(config)
  for path in FIELDS:
    _check_permitted(path, lookup(config, path))
  _check_args(config)
  _check_rules(config)


def _leaves(
  group: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  for key, value in group.items():
    path = f'{prefix}{key}'
    if path not in OPEN_GROUPS and isinstance(
      value, Mapping | config_dict.ConfigDict
    ):
      yield from _leaves(value, f'{path}.')
    else:
      yield path, value


def check_structure(config: config_dict.ConfigDict) -> None:
  """Checks that a config has exactly the fields of the default, of their types.

  Raises:
    ConfigError: in one line that names the field.
  """
  if not isinstance(config, config_dict.ConfigDict):
    raise ConfigError(
      'get_config() must return the ConfigDict of default_config.get_config(), '
      f'not {type(config).__name__}'
    )
  present = dict(_leaves(config))
  for path in present:
    if path not in FIELDS and path not in OPEN_GROUPS:
      raise unknown_field(path)
  for path in OPEN_GROUPS:
    if not isinstance(present.get(path), config_dict.ConfigDict):
      raise ConfigError(f'{path} is a group, not {present.get(path)!r}')
  for path, field in FIELDS.items():
    if path not in present:
      raise ConfigError(f'{path} is missing from the config')
    value, kind = present[path], type(field.default)
    if type(value) is not kind:
      raise ConfigError(
        f'{path} takes {_TYPE_NAMES.get(kind, "text")}, not {value!r}'
      )


def unknown_field(path: str) -> ConfigError:
  """The error on a field that does not exist, with those like it."""
  if any(known.startswith(f'{path}.') for known in (*FIELDS, *OPEN_GROUPS)):
    known = [p for p in (*FIELDS, *OPEN_GROUPS) if p.startswith(f'{path}.')]
    return ConfigError(f'{path} is a group of fields: {", ".join(known)}')
  if path in OPEN_GROUPS:
    return ConfigError(f'{path} is a group of fields: write {path}.NAME=VALUE')
  group = path.split('.')[0]
  known = [p for p in FIELDS if p.startswith(f'{group}.')] or sorted(
    {p.split('.')[0] for p in (*FIELDS, *OPEN_GROUPS)}
  )
  alike = names.nearest(path, FIELDS)
  what = (
    f'nearest: {", ".join(alike)}' if alike else f'known: {", ".join(known)}'
  )
  return ConfigError(f'unknown field {path!r}; {what}')


def _check_permitted(path: str, value: Any) -> None:
  field = FIELDS[path]
  if field.permitted is None:
    return
  if isinstance(field.permitted, str) and field.permitted in RANGES:
    if not RANGES[field.permitted](value):
      raise ConfigError(f'{path} must be {field.permitted}, not {value}')
    return
  if field.custom and ':' in value:
    return
  known = default_config.table(path)
  if value not in known:
    custom = '; or module:Name' if field.custom else ''
    raise ConfigError(
      f'unknown {path} {value!r}; {names.alternatives(value, known)}{custom}'
    )


def _check_args(config: config_dict.ConfigDict) -> None:
  for kind, offered in OFFERED.items():
    name = lookup(config, f'{kind}.name')
    args = lookup(config, f'{kind}.args')
    try:
      target = names.resolve(default_config.table(f'{kind}.name'), name, kind)
      names.check_args(target, args, f'{kind}.args', offered)
    except ValueError as error:
      raise ConfigError(str(error)) from error


def _check_rules(config: config_dict.ConfigDict) -> None:
  model, training = config.model, config.training
  if model.hidden_size % (2 * model.num_heads):
    raise ConfigError(
      'model.hidden_size must be a multiple of 2 * model.num_heads (rotary '
      f'embeddings turn pairs), not {model.hidden_size} with '
      f'{model.num_heads} heads'
    )
  if model.attention == 'cudnn' and model.dtype != 'bfloat16':
    raise ConfigError(
      "model.attention='cudnn' needs model.dtype='bfloat16', not "
      f'{model.dtype!r}'
    )
  if training.batch_size % training.accumulation:
    raise ConfigError(
      'training.accumulation must divide training.batch_size, not '
      f'{training.accumulation} and {training.batch_size}'
    )
  if config.eval.checkpoint == 'best':
    _check_best(training)
  if config.schedule.sigma_min >= config.schedule.sigma_max:
    raise ConfigError(
      'schedule.sigma_min must be below schedule.sigma_max, not '
      f'{config.schedule.sigma_min} and {config.schedule.sigma_max}'
    )
  evaluations = ('generation', 'suite', 'control')
  if len(two := [name for name in evaluations if config.eval[name]]) > 1:
    raise ConfigError(
      f'eval.{two[0]} and eval.{two[1]} are two evaluations: choose one'
    )
  _check_control(config)
  _check_generation(config)
  if config.sampling.label and not config.data.label:
    raise ConfigError(
      f'sampling.label={config.sampling.label!r} needs data.label, where the '
      'labels of the data are'
    )
  asked = config.sampling.label or config.sampling.prompts
  if config.sampling.label_scale != 1 and not asked:
    raise ConfigError(
      f'sampling.label_scale={config.sampling.label_scale} needs '
      'sampling.label, the label that counts'
    )
  tagger = config.data.tagger
  if tagger != FIELDS['data.tagger'].default and config.data.label != '@spans':
    raise ConfigError(
      f"data.tagger={tagger!r} is of data.label='@spans', not "
      f'{config.data.label!r}'
    )
  if config.data.source == 'text_file' and not config.data.path:
    raise ConfigError(
      "data.source='text_file' needs data.path, the path of the text"
    )
  if config.data.source != 'seq2seq':
    for name in ('validation_path', 'test_path'):
      if config.data[name]:
        raise ConfigError(
          f"data.{name} is of data.source='seq2seq', not {config.data.source!r}"
        )
  if config.sampling.choice and config.sampling.num_samples < 2:
    raise ConfigError(
      f'sampling.choice={config.sampling.choice!r} is among the samples of a '
      'prompt: sampling.num_samples must be at least 2'
    )
  if config.sampling.pairs:
    _check_pairs(config)


def _check_best(training: config_dict.ConfigDict) -> None:
  told = "eval.checkpoint='best' needs "
  if not training.keep_best:
    raise ConfigError(f'{told}training.keep_best')
  if not 0 < training.eval_every <= training.num_steps:
    raise ConfigError(
      f'{told}training.eval_every from 1 to training.num_steps '
      f'({training.num_steps}), not {training.eval_every}'
    )


# What samples may be asked to be, but for what is given.
_OF_TEXT = ('contains', 'avoids', 'regex', 'json_schema')
# What goes with other samples than answers to pairs.
_OF_FREE = (
  *('sampling.prompt', 'sampling.suffix', 'sampling.prompts'),
  *(f'sampling.{name}' for name in _OF_TEXT),
  *('sampling.label', 'sampling.choice'),
  *('eval.judge', 'eval.mauve'),
  *('eval.temperatures', 'eval.steps', 'eval.control'),
  *('sampling.control', 'sampling.control_length'),
)


def _check_pairs(config: config_dict.ConfigDict) -> None:
  told = f'sampling.pairs={config.sampling.pairs!r}'
  data = config.data
  if data.source != 'seq2seq' or data.layout == 'target':
    raise ConfigError(
      f"{told} needs data.source='seq2seq' with a source in data.layout "
      f'(joint, split), not {data.source!r} and {data.layout!r}'
    )
  for path in _OF_FREE:
    if lookup(config, path):
      raise ConfigError(f'{told} and {path} do not go together')
  if data.layout == 'joint' and config.sampling.length not in (0, data.seq_len):
    raise ConfigError(
      f'{told}: the samples have source and target, data.seq_len='
      f'{data.seq_len} tokens; leave sampling.length at 0'
    )


def _check_generation(config: config_dict.ConfigDict) -> None:
  """Nothing is set of an evaluation of samples where it has no effect."""
  of_eval, sampling = config.eval, config.sampling
  fields = {'mauve': [], 'temperatures': [], 'steps': [], 'judge': ['control']}
  for name, others in fields.items():
    if of_eval[name] and not any(of_eval[o] for o in ('generation', *others)):
      also = ''.join(f' or eval.{other}' for other in others)
      raise ConfigError(
        f'eval.{name}={of_eval[name]!r} is of samples that are evaluated: it '
        f'needs eval.generation=true{also}'
      )
  if not of_eval.generation:
    return
  # A recipe may have a prompt of its samples: that is for them.
  for name in ('prompts', 'ends', *_OF_TEXT):
    if sampling[name] != FIELDS[f'sampling.{name}'].default:
      raise ConfigError(
        f'sampling.{name}={sampling[name]!r} is of --mode=sample: '
        'eval.generation evaluates samples without conditions on their text'
      )


def _check_control(config: config_dict.ConfigDict) -> None:
  """Nothing of control is set where nothing is controlled."""
  sampling = config.sampling
  if sampling.control and not sampling.classifier:
    raise ConfigError(
      f'sampling.control={sampling.control!r} needs sampling.classifier, the '
      'folder of a run that knows the label'
    )
  if config.eval.control and (sampling.control or sampling.control_length):
    raise ConfigError(
      'eval.control takes its labels and lengths from the split: leave '
      'sampling.control and sampling.control_length out'
    )
  if config.eval.control or sampling.control:
    return
  if not sampling.control_length:
    for name in (
      *('guidance_scale', 'fluency', 'control_steps', 'control_rate'),
      *('control_reset', 'control_until', 'classifier', 'guidance'),
    ):
      if sampling[name] != FIELDS[f'sampling.{name}'].default:
        raise ConfigError(
          f'sampling.{name}={sampling[name]!r} is of controls: it needs '
          'sampling.control, sampling.control_length or eval.control'
        )
  elif sampling.classifier:
    raise ConfigError(
      f'sampling.classifier={sampling.classifier!r} needs sampling.control, '
      'the label that samples have'
    )


def differences(
  old: config_dict.ConfigDict, new: config_dict.ConfigDict
) -> dict[str, tuple[Any, Any]]:
  """The fields in which two configs differ.

  Args:
    old: a config.
    new: another one.

  Returns:
    Dotted path to `(old value, new value)`; an open group counts as one field.
  """
  before, after = dict(_leaves(old)), dict(_leaves(new))
  return {
    path: (before.get(path), after.get(path))
    for path in (*FIELDS, *OPEN_GROUPS)
    if before.get(path) != after.get(path)
  }


def to_json(config: config_dict.ConfigDict) -> str:
  """A config as JSON text that `from_json` reads back exactly."""
  return json.dumps(config.to_dict(), indent=2) + '\n'


def from_json(text: str) -> config_dict.ConfigDict:
  """Reads a config that `to_json` wrote; fields that it lacks are defaults.

  Args:
    text: the JSON text.

  Returns:
    A locked config with exactly the stored types.

  Raises:
    ConfigError: the text is no config, or has fields unknown here.

  >>> config = default_config.get_config()
  >>> from_json(to_json(config)) == config
  True
  """
  try:
    stored = json.loads(text)
  except ValueError as error:
    raise ConfigError(f'the stored config is no JSON: {error}') from error
  if not isinstance(stored, dict):
    raise ConfigError('the stored config is no JSON object')
  config = default_config.get_config()
  for path, value in _leaves(stored):
    assign(config, path, value)
  check_structure(config)
  return config


def read(path: pathlib.Path) -> config_dict.ConfigDict:
  """`from_json` of a file, which its errors name.

  Raises:
    ConfigError: see `from_json`.
  """
  try:
    return from_json(path.read_text(encoding='utf-8'))
  except (ConfigError, UnicodeDecodeError) as error:
    raise ConfigError(f'{path}: {error}') from error


def assign(config: config_dict.ConfigDict, path: str, value: Any) -> None:
  """Sets a field.

  Args:
    config: a locked config, changed in place.
    path: the field's dotted path; in an open group it may be new.
    value: the value, of the field's own type.

  Raises:
    ConfigError: no such field, or a value of another type.
  """
  if path not in FIELDS and path not in OPEN_GROUPS and not open_group(path):
    raise unknown_field(path)
  group, _, leaf = path.rpartition('.')
  try:
    if path in OPEN_GROUPS:
      lookup(config, path).update(value)
      return
    target = config
    for part in group.split('.') if group else ():
      if part not in target:
        target[part] = config_dict.ConfigDict()
      target = target[part]
    target[leaf] = value
  except (TypeError, ValueError, KeyError, AttributeError) as error:
    raise ConfigError(f'{path} cannot be {value!r}') from error
