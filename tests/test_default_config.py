"""The table of fields, what the defaults are, and how a config is checked."""

import json
import re

import pytest
from ml_collections import config_dict

from sedd_jax import config_checks, default_config
from sedd_jax.config_checks import ConfigError


def refused(**changes) -> str:
  """The error on the default config with some fields changed."""
  config = default_config.get_config()
  for path, value in changes.items():
    config_checks.assign(config, path.replace('__', '.'), value)
  with pytest.raises(ConfigError) as error:
    config_checks.validate(config)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_defaults_are_valid_and_the_papers():
  config = default_config.get_config()
  config_checks.validate(config)
  assert (config.model.hidden_size, config.model.num_layers) == (768, 12)
  assert config.optimizer.learning_rate == 3e-4
  assert config.optimizer.warmup_steps == 2500
  assert config.training.ema_decay == 0.9999
  assert config.training.reduction == 'sequence'


def test_groups_are_those_of_the_design():
  config = default_config.get_config()
  assert set(config) == {
    *('system', 'process', 'schedule', 'model', 'data', 'training'),
    *('optimizer', 'eval', 'sampling', 'task', 'seed', 'init_from'),
  }


def test_locked_except_for_the_open_groups():
  config = default_config.get_config()
  for group in (config, config.model, config.training, config.process):
    with pytest.raises(AttributeError):
      group.unheard_of = 1
  for path in default_config.OPEN_GROUPS:
    config_checks.lookup(config, path)['unheard_of'] = 1


def test_two_configs_share_nothing():
  default_config.get_config().task.words = 3
  assert not default_config.get_config().task


def test_every_field_says_a_sentence_and_a_known_rule():
  for path, field in default_config.FIELDS.items():
    assert re.fullmatch(r'[^|]+[A-Za-z0-9.)]\.', field.meaning), path
    if isinstance(field.permitted, str) and ':' not in field.permitted:
      assert field.permitted in default_config.RANGES, path
    if field.permitted is not None:
      assert default_config.permitted_text(path), path


def test_description_has_every_field_once():
  text = default_config.describe()
  listed = re.findall(r'^\| `([a-z0-9_.]+)', text, re.M)
  assert listed == [
    *default_config.FIELDS,
    *(f'{path}.' for path in default_config.OPEN_GROUPS),
  ]
  assert all(line.count('|') == 5 for line in text.splitlines())


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    (
      {'process__name': 'absorb'},
      "unknown process.name 'absorb'; nearest: abs",
    ),
    ({'schedule__name': 'geometry'}, 'nearest: geometric'),
    ({'sampling__method': 'twedie'}, 'nearest: tweedie'),
    ({'eval__protocol': 'bounds'}, 'nearest: bound'),
    ({'model__dtype': 'float16'}, 'nearest: bfloat16; known'),
    ({'system__name': 'seed'}, "unknown system.name 'seed'; nearest: sedd"),
    ({'training__batch_size': 0}, 'training.batch_size must be > 0, not 0'),
    ({'training__ema_decay': 1.0}, 'training.ema_decay must be in [0, 1)'),
    ({'optimizer__learning_rate': float('nan')}, 'must be > 0, not nan'),
    ({'optimizer__learning_rate': float('inf')}, 'must be > 0, not inf'),
    ({'model__num_heads': 5}, '768 with 5 heads'),
    ({'model__hidden_size': 36}, '36 with 12 heads'),
    ({'training__accumulation': 3}, 'must divide training.batch_size'),
    ({'schedule__sigma_min': 30.0}, 'must be below schedule.sigma_max'),
    ({'data__source': 'text_file'}, "'text_file' needs data.path"),
    ({'process__args__size': 3}, "takes no argument 'size'"),
    ({'process__args__vocab_size': 3}, 'from the program'),
    ({'model__name': 'transformers'}, 'nearest: transformer'),
    ({'model__args__hidden_sizes': 3}, "takes no argument 'hidden_sizes'"),
    ({'model__args__num_heads': 3}, 'from the program'),
    (
      {'system__args__timed': 'no'},
      "system.args.timed: make takes true or false, not 'no'",
    ),
    (
      {'process__name': 'nearest_neighbor', 'process__args__k': 2.5},
      'process.args.k: NearestNeighbor takes an integer, not 2.5',
    ),
    (
      {'system__name': 'masked_diffusion', 'system__args__num_steps': 4.5},
      'system.args.num_steps: make takes an integer, not 4.5',
    ),
    (
      {'system__name': 'd3pm', 'system__args__hybrid': 'a'},
      "system.args.hybrid: make takes a number, not 'a'",
    ),
    (
      {'schedule__name': 'spindle', 'schedule__args__strength': 'x'},
      "schedule.args.strength: Spindle takes a number, not 'x'",
    ),
    (
      {'system__name': 'multinomial', 'system__args__importance': 'no'},
      "system.args.importance: make takes true or false, not 'no'",
    ),
    ({'process__name': 'no.such:Thing'}, "cannot import 'no.such'"),
    (
      {'model__attention': 'cudnn', 'model__dtype': 'float32'},
      "needs model.dtype='bfloat16'",
    ),
  ],
)
def test_mistakes_are_told(changes, told):
  assert told in refused(**changes)


def test_a_class_of_ones_own_is_admitted_by_name():
  config = default_config.get_config()
  config.process.name = 'sedd_jax.processes:Uniform'
  config.schedule.name = 'sedd_jax.noise_schedules:LogLinear'
  config_checks.validate(config)


@pytest.mark.parametrize(
  'config',
  [
    {},
    config_dict.ConfigDict({'model': 3}),
    config_dict.ConfigDict({'process': {'name': 'absorbing', 'kind': 3}}),
  ],
)
def test_another_structure_is_refused(config):
  with pytest.raises(ConfigError):
    config_checks.validate(config)


def test_json_keeps_values_and_types_exactly():
  config = default_config.get_config()
  config.optimizer.learning_rate = 0.1 + 0.2
  config.schedule.sigma_max = 3
  config.task.words = [1, 2.5, 'x', True, None]
  config.process.args.deep = {'size': 2}
  text = config_checks.to_json(config)
  again = config_checks.from_json(text)
  assert again == config
  assert config_checks.to_json(again) == text
  for path in default_config.FIELDS:
    old = config_checks.lookup(config, path)
    assert type(config_checks.lookup(again, path)) is type(old), path
  assert again.is_locked


def test_json_without_a_field_takes_its_default():
  stored = json.loads(config_checks.to_json(default_config.get_config()))
  del stored['model']['remat']
  again = config_checks.from_json(json.dumps(stored))
  assert again == default_config.get_config()


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('{', 'no JSON'),
    ('[]', 'no JSON object'),
    ('{"model": {"hiden_size": 3}}', 'nearest: model.hidden_size'),
    ('{"model": {"hidden_size": "3"}}', 'model.hidden_size cannot be'),
    ('{"model": {"num_layers": true}}', 'model.num_layers takes an integer'),
    ('{"model": 3}', 'model is a group'),
  ],
)
def test_json_of_something_else_is_refused(text, told):
  with pytest.raises(ConfigError, match=re.escape(told)):
    config_checks.from_json(text)


def test_differences_name_the_fields():
  old, new = default_config.get_config(), default_config.get_config()
  assert not config_checks.differences(old, new)
  new.model.dropout = 0.0
  new.task.words = 1
  found = config_checks.differences(old, new)
  assert found.pop('task')[1].words == 1
  assert found == {'model.dropout': (0.1, 0.0)}


@pytest.mark.parametrize(
  ('path', 'text', 'value'),
  [
    ('training.num_steps', '1_000', 1000),
    ('seed', '+3', 3),
    ('model.dropout', '0', 0.0),
    ('optimizer.learning_rate', '3e-4', 3e-4),
    ('model.remat', 'True', True),
    ('data.path', '3', '3'),
    ('task.words', '3', 3),
    ('task.words', '[1, 2]', [1, 2]),
    ('task.words', 'three', 'three'),
    ('task.text', '"he go"', '"he go"'),
    ('task.text', '1e3', '1e3'),
    ('task.path', 'true', 'true'),
    ('system.args.timed', 'False', False),
    ('system.args.timed', 'TRUE', True),
    ('system.args.num_steps', 'None', None),
    ('system.args.num_steps', 'null', None),
    ('model.args.time', 'none', 'none'),
  ],
)
def test_text_becomes_the_fields_type(path, text, value):
  parsed = config_checks.parse(path, text)
  assert parsed == value
  assert type(parsed) is type(value)


@pytest.mark.parametrize(
  ('path', 'text', 'told'),
  [
    ('training.num_steps', '1e5', 'write 100000'),
    ('training.num_steps', '3.5', "takes an integer, not '3.5'"),
    ('training.num_steps', 'inf', 'takes an integer'),
    ('model.dropout', 'none', 'takes a number'),
    ('model.remat', '1', 'takes true or false'),
  ],
)
def test_text_of_another_type_is_refused(path, text, told):
  with pytest.raises(ConfigError, match=re.escape(told)):
    config_checks.parse(path, text)


def test_a_set_field_of_an_open_group_keeps_its_type():
  with pytest.raises(ConfigError, match='takes an integer'):
    config_checks.parse('task.words', 'many', current=3)
