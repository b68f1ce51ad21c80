"""Names in a config: looked up, imported, and checked against signatures."""

import dataclasses

import pytest

from sedd_jax.core import names


@dataclasses.dataclass
class Box:
  size: int
  vocab_size: int
  colour: str = 'red'


TABLE = {'box': Box, 'dict': dict}


def test_nearest_prefers_the_closest_and_drops_the_far():
  assert names.nearest('boks', ['box', 'spindle', 'bogs'], 1) == ['bogs']
  assert names.nearest('zzz', ['box', 'dict']) == []


def test_nearest_finds_a_field_of_another_group():
  known = ['model.dtype', 'optimizer.learning_rate', 'model.dropout']
  assert names.nearest('model.learning_rat', known) == [
    'optimizer.learning_rate'
  ]


def test_long_lists_are_cut():
  known = [f'name{i:02}' for i in range(40)]
  assert names.alternatives('zzz', known).endswith('name11, ...')


def test_resolve_imports_module_and_name():
  assert names.resolve(TABLE, 'box', 'shape') is Box
  assert names.resolve(TABLE, 'decimal:Decimal', 'shape').__name__ == 'Decimal'


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('bx', "unknown shape 'bx'; nearest: box; known: box, dict"),
    ('no.such:Box', "cannot import 'no.such': ModuleNotFoundError"),
    ('decimal:Decimall', "decimal has no 'Decimall'; nearest: Decimal"),
  ],
)
def test_resolve_names_the_offender(name, told):
  with pytest.raises(ValueError) as error:
    names.resolve(TABLE, name, 'shape')
  assert told in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('args', 'told'),
  [
    ({'size': 1, 'color': 'blue'}, 'shape.args.color: Box takes no argument'),
    ({'size': 1, 'color': 'blue'}, 'nearest: colour'),
    ({}, 'shape.args: Box needs size'),
    ({'size': 1, 'vocab_size': 3}, "Box gets 'vocab_size' from the program"),
  ],
)
def test_arguments_are_held_to_the_signature(args, told):
  with pytest.raises(ValueError) as error:
    names.check_args(Box, args, 'shape.args', offered=['vocab_size'])
  assert told in str(error.value)


def takes(
  share: float,
  count: int = 1,
  flag: bool = True,
  path: 'str | None' = None,
  table: list | None = None,
  plain=1.0,
  free=None,
  late: 'Absent' = 3,  # noqa: F821
):
  del share, count, flag, path, table, plain, free, late


def test_values_of_the_types_of_a_signature():
  for args in (
    {'share': 1, 'count': 2, 'flag': False, 'path': 'x', 'table': [1]},
    {'share': 0.5, 'path': None, 'table': 'file', 'plain': 2, 'free': 'any'},
    {'share': 0.5, 'late': 'unresolved'},
  ):
    names.check_args(takes, args, 'shape.args')


@pytest.mark.parametrize(
  ('name', 'value', 'told'),
  [
    ('share', 'a', "takes a number, not 'a'"),
    ('share', True, 'takes a number, not True'),
    ('count', 2.0, 'takes an integer, not 2.0'),
    ('count', True, 'takes an integer, not True'),
    ('flag', 'False', "takes true or false, not 'False'"),
    ('flag', 1, 'takes true or false, not 1'),
    ('plain', 'a', "takes a number, not 'a'"),
  ],
)
def test_values_of_other_types(name, value, told):
  with pytest.raises(ValueError) as error:
    names.check_args(takes, {'share': 1.0, name: value}, 'shape.args')
  assert str(error.value) == f'shape.args.{name}: takes {told}'


def test_annotations_in_quotes():
  def of(path: 'str | None' = None):
    del path

  with pytest.raises(ValueError, match='takes text or null, not 3'):
    names.check_args(of, {'path': 3}, 'shape.args')


def test_build_offers_what_the_signature_names():
  box = names.build(
    TABLE, 'box', 'shape', {'size': 2}, {'vocab_size': 27, 'num_steps': 5}
  )
  assert box == Box(size=2, vocab_size=27)


def test_open_keyword_arguments_are_admitted():
  names.check_args(lambda **options: options, {'any': 1}, 'shape.args')
