"""Every field of a config: default, type, meaning and permitted values.

`get_config()` returns the defaults, which are the recipe of SEDD-small with
absorbing noise on OpenWebText (arXiv 2310.16834, appendix C.2).  A recipe in
`configs/` changes what differs.  A field's type is that of its default, and
`validate` checks what can be known before any data is read.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import config_dict

from sedd_jax.core import names


class ConfigError(ValueError):
  """A mistake in a config or on the command line, told in one line."""


class Field(NamedTuple):
  """One field of the config.

  Attributes:
    default: its value in `get_config()`; sets the type.
    meaning: one sentence.
    permitted: a key of `RANGES`, a tuple of choices, or a table as
      `module:TABLE`, imported when it is needed; None for any value.
    custom: whether `module:Name` may stand for an entry of the table.
  """

  default: Any
  meaning: str
  permitted: str | tuple[str, ...] | None = None
  custom: bool = False


RANGES = {
  '> 0': lambda value: 0 < value < float('inf'),
  '>= 0': lambda value: 0 <= value < float('inf'),
  'in [0, 1)': lambda value: 0 <= value < 1,
  'in (0, 1)': lambda value: 0 < value < 1,
}

# What a group whose settings depend on a name may hold besides its fields.
OPEN_GROUPS = {
  'system.args': 'Arguments of the system, as its file in systems/ names them.',
  'process.args': "Arguments of the process' constructor.",
  'schedule.args': "Arguments of the schedule's constructor.",
  'model.args': "Arguments of the network's constructor.",
  'task': 'Options of the further modes of a system.',
}

FIELDS: dict[str, Field] = {
  'seed': Field(
    0, 'Seed of parameters, data order, noise and samples.', '>= 0'
  ),
  'init_from': Field(
    '', 'Weights to start from: a checkpoint file, folder or hub id.'
  ),
  'system.name': Field(
    'sedd', 'The text-diffusion system.', 'sedd_jax.systems:SYSTEMS', True
  ),
  'process.name': Field(
    'absorbing',
    'The noise on tokens.',
    'sedd_jax.processes:PROCESSES',
    True,
  ),
  'schedule.name': Field(
    'log_linear',
    'The amount of noise in time.',
    'sedd_jax.noise_schedules:SCHEDULES',
    True,
  ),
  'schedule.eps': Field(
    1e-3, 'log_linear: share of clean tokens at t = 1.', 'in [0, 1)'
  ),
  'schedule.sigma_min': Field(1e-4, 'geometric: total noise at t = 0.', '> 0'),
  'schedule.sigma_max': Field(20.0, 'geometric: total noise at t = 1.', '> 0'),
  'model.name': Field('transformer', 'The network.', ('transformer',), True),
  'model.hidden_size': Field(768, 'Width of the residual stream.', '> 0'),
  'model.num_layers': Field(12, 'Transformer blocks.', '> 0'),
  'model.num_heads': Field(
    12, 'Attention heads; divides hidden_size into even parts.', '> 0'
  ),
  'model.cond_size': Field(
    128, 'Width of the embedding of the noise level.', '> 0'
  ),
  'model.dropout': Field(
    0.1, 'Dropout on the two branches of a block.', 'in [0, 1)'
  ),
  'model.dtype': Field(
    'bfloat16',
    'Type the blocks compute in; parameters and loss are float32.',
    ('float32', 'bfloat16'),
  ),
  'model.scan_layers': Field(
    True, 'Scan over the blocks: compiles faster, runs slower on CPU.'
  ),
  'model.remat': Field(
    False, 'Recompute the blocks in the backward pass to save memory.'
  ),
  'model.attention': Field(
    'auto',
    'Attention kernel; auto: cudnn where device and shapes allow it, else xla.',
    ('auto', 'xla', 'cudnn'),
  ),
  'data.source': Field(
    'openwebtext',
    'The corpus.',
    ('pydoc', 'text_file', 'text8', 'enwik8', 'openwebtext'),
  ),
  'data.path': Field(
    '', "The corpus' file or folder; empty: the source's own default."
  ),
  'data.seq_len': Field(1024, 'Tokens a sequence.', '> 0'),
  'data.limit': Field(0, 'Tokens used at most; 0: all.', '>= 0'),
  'data.tokenizer': Field(
    'gpt2',
    'text8 (a to z and space), bytes, gpt2, or the path of a tokenizer.json.',
  ),
  'data.validation_fraction': Field(
    0.05,
    'Share held out where the corpus has no split of its own.',
    'in (0, 1)',
  ),
  'training.num_steps': Field(400_000, 'Optimizer steps.', '>= 0'),
  'training.batch_size': Field(
    512, 'Sequences a step, over all devices and hosts.', '> 0'
  ),
  'training.accumulation': Field(
    1, 'Micro-batches a step; divides batch_size.', '> 0'
  ),
  'training.log_every': Field(
    100, 'Steps between lines of metrics.jsonl.', '> 0'
  ),
  'training.checkpoint_every': Field(
    10_000, 'Steps between checkpoints; 0: at the end only.', '>= 0'
  ),
  'training.eval_every': Field(
    10_000, 'Steps between bounds on the validation split; 0: none.', '>= 0'
  ),
  'training.sample_every': Field(
    50_000, 'Steps between printed samples; 0: none.', '>= 0'
  ),
  'training.reduction': Field(
    'sequence',
    'The loss is nats per sequence (as SEDD) or per token; the clip sees it.',
    ('sequence', 'token'),
  ),
  'training.ema_decay': Field(
    0.9999, 'Decay of the averaged parameters.', 'in [0, 1)'
  ),
  'training.t_min': Field(
    1e-3, 'Earliest time of loss, bound and sampler.', 'in (0, 1)'
  ),
  'training.time_sampling': Field(
    'low_discrepancy',
    'How a batch draws its times.',
    'sedd_jax.core.times:TIMES',
  ),
  'training.parallelism': Field(
    'pmap', 'How a step is spread over devices.', ('pmap',)
  ),
  'training.keep_checkpoints': Field(2, 'Newest checkpoints kept.', '> 0'),
  'training.loss_chunk': Field(
    1024, 'Tokens whose logits exist at once in the loss; 0: all.', '>= 0'
  ),
  'training.refresh_every': Field(
    0, 'Steps between calls of a system\'s "refresh"; 0: none.', '>= 0'
  ),
  'training.compilation_cache': Field(
    '', 'Folder that keeps compiled programs between runs; empty: none.'
  ),
  'optimizer.name': Field('adamw', 'The optimizer.', ('adamw', 'adam', 'sgd')),
  'optimizer.learning_rate': Field(
    3e-4, 'Learning rate after the warm-up; constant.', '> 0'
  ),
  'optimizer.beta1': Field(0.9, 'Adam: decay of the mean.', 'in [0, 1)'),
  'optimizer.beta2': Field(0.999, 'Adam: decay of the square.', 'in [0, 1)'),
  'optimizer.eps': Field(1e-8, 'Adam: added to the root.', '> 0'),
  'optimizer.weight_decay': Field(0.0, 'AdamW: weight decay.', '>= 0'),
  'optimizer.warmup_steps': Field(
    2500, 'Steps in which the learning rate rises linearly.', '>= 0'
  ),
  'optimizer.clip_norm': Field(
    1.0, 'Global norm that gradients are clipped to; 0: no clip.', '>= 0'
  ),
  'eval.split': Field(
    'validation', 'The split evaluated.', ('train', 'validation', 'test')
  ),
  'eval.protocol': Field(
    'bound',
    'The whole bound, or the shorter form that the SEDD paper reports.',
    ('bound', 'sedd'),
  ),
  'eval.max_sequences': Field(
    1024, 'Sequences evaluated at most; 0: the whole split.', '>= 0'
  ),
  'eval.points': Field(8, 'Times drawn a sequence.', '> 0'),
  'eval.batch_size': Field(32, 'Sequences evaluated at once.', '> 0'),
  'eval.decoder_delta': Field(
    1e-6,
    'Uniform share mixed into the decoder at t_min.',
    'in (0, 1)',
  ),
  'sampling.method': Field(
    'tweedie', 'The reverse step.', 'sedd_jax.samplers:METHODS'
  ),
  'sampling.steps': Field(128, 'Reverse steps.', '> 0'),
  'sampling.num_samples': Field(8, 'Samples drawn.', '> 0'),
  'sampling.length': Field(
    0, 'Tokens a sample; 0: as long as data.seq_len.', '>= 0'
  ),
  'sampling.prompt': Field(
    '', 'Text that is kept; {blank:12} in it is 12 free tokens.'
  ),
  'sampling.suffix': Field('', 'Text that every sample ends with.'),
  'sampling.batch_size': Field(8, 'Samples drawn at once.', '> 0'),
  'sampling.grid': Field(
    'uniform',
    'Times from 1 to t_min; reference: to 1e-5, as the released code.',
    'sedd_jax.samplers:GRIDS',
  ),
}

# What the program passes to each class itself, where its signature names it.
OFFERED = {
  'system': ('config', 'data_info'),
  'process': ('vocab_size',),
  'schedule': ('eps', 'sigma_min', 'sigma_max'),
}

_TYPE_NAMES = {bool: 'true or false', int: 'an integer', float: 'a number'}


def get_config() -> config_dict.ConfigDict:
  """The defaults.

  Returns:
    A locked ConfigDict with the groups system, process, schedule, model, data,
    training, optimizer, eval, sampling and task, besides seed and init_from.
    The groups of `OPEN_GROUPS` are empty and take any field.

  >>> get_config().process.name
  'absorbing'
  """
  config = config_dict.ConfigDict()
  for path, field in FIELDS.items():
    group, _, leaf = path.rpartition('.')
    if group and group not in config:
      config[group] = config_dict.ConfigDict()
    (config[group] if group else config)[leaf] = field.default
  for path in OPEN_GROUPS:
    group, _, leaf = path.rpartition('.')
    if group and group not in config:
      config[group] = config_dict.ConfigDict()
    (config[group] if group else config)[leaf] = config_dict.ConfigDict()
  config.lock()
  for path in OPEN_GROUPS:
    lookup(config, path).unlock()
  return config


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


def parse(path: str, text: str, current: Any = None) -> Any:
  """A field's value from the command line's text.

  Args:
    path: the field's dotted path, known or in an open group.
    text: what was written.
    current: the value in the config, whose type counts in an open group; None
      if the open group lacks the field.

  Returns:
    The value.  In an open group a new field is read as JSON where that is
    possible, else as text.

  Raises:
    ConfigError: the text is no value of the field's type.

  >>> parse('model.dropout', '0')
  0.0
  """
  if path in FIELDS:
    current = FIELDS[path].default
  if isinstance(current, str):
    return text
  if isinstance(current, bool):
    if text.lower() in ('true', 'false'):
      return text.lower() == 'true'
  elif isinstance(current, int):
    if text.strip().lstrip('+-').replace('_', '').isdecimal():
      return int(text)
    if hint := _as_integer(text):
      raise ConfigError(f'{path} takes an integer, not {text!r}: write {hint}')
  elif isinstance(current, float):
    try:
      return float(text)
    except ValueError:
      pass
  else:
    try:
      return json.loads(text)
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
  _check_structure(config)
  for path, field in FIELDS.items():
    _check_permitted(path, field, lookup(config, path))
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


def _check_structure(config: config_dict.ConfigDict) -> None:
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
    {p.split('.')[0] for p in FIELDS}
  )
  alike = names.nearest(path, FIELDS)
  what = f'nearest: {", ".join(alike)}' if alike else f'known: {known}'
  return ConfigError(f'unknown field {path!r}; {what}')


def permitted_names(path: str) -> list[str]:
  """The names that a field's choices or table hold, without custom ones."""
  permitted = FIELDS[path].permitted
  if isinstance(permitted, tuple):
    return sorted(permitted)
  if permitted is None or permitted in RANGES:
    return []
  module, _, attribute = permitted.partition(':')
  return sorted(getattr(importlib.import_module(module), attribute))


def _check_permitted(path: str, field: Field, value: Any) -> None:
  if field.permitted is None:
    return
  if isinstance(field.permitted, str) and field.permitted in RANGES:
    if not RANGES[field.permitted](value):
      raise ConfigError(f'{path} must be {field.permitted}, not {value}')
    return
  if field.custom and ':' in value:
    return
  known = permitted_names(path)
  if value not in known:
    custom = '; or module:Name' if field.custom else ''
    raise ConfigError(
      f'unknown {path} {value!r}; {names.alternatives(value, known)}{custom}'
    )


def _check_args(config: config_dict.ConfigDict) -> None:
  for kind, offered in OFFERED.items():
    name = lookup(config, f'{kind}.name')
    args = lookup(config, f'{kind}.args')
    module, _, attribute = str(FIELDS[f'{kind}.name'].permitted).partition(':')
    table = getattr(importlib.import_module(module), attribute)
    try:
      target = names.resolve(table, name, kind)
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
  if config.schedule.sigma_min >= config.schedule.sigma_max:
    raise ConfigError(
      'schedule.sigma_min must be below schedule.sigma_max, not '
      f'{config.schedule.sigma_min} and {config.schedule.sigma_max}'
    )
  if config.data.source == 'text_file' and not config.data.path:
    raise ConfigError(
      "data.source='text_file' needs data.path, the path of the text"
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

  >>> config = get_config()
  >>> from_json(to_json(config)) == config
  True
  """
  try:
    stored = json.loads(text)
  except ValueError as error:
    raise ConfigError(f'the stored config is no JSON: {error}') from error
  if not isinstance(stored, dict):
    raise ConfigError('the stored config is no JSON object')
  config = get_config()
  for path, value in _leaves(stored):
    assign(config, path, value)
  _check_structure(config)
  return config


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


def describe() -> str:
  """All fields as a Markdown table, for the documentation."""
  rows = ['| field | default | meaning | permitted |', '|---|---|---|---|']
  for path, field in FIELDS.items():
    kind = type(field.default).__name__
    listed = ', '.join(f'`{name}`' for name in permitted_names(path))
    if field.custom:
      listed += ', or `module:Name`'
    if not listed:
      listed = field.permitted or kind
    rows.append(
      f'| `{path}` | `{json.dumps(field.default)}` | {field.meaning} | '
      f'{listed} |'
    )
  rows += [f'| `{path}.*` | | {text} | |' for path, text in OPEN_GROUPS.items()]
  return '\n'.join(rows) + '\n'
