"""Names in a config: looked up in a table or imported, and checked before use.

A table is a literal dict from name to class or function.  A name of the form
`'my_pkg.my_file:MyProcess'` is imported instead, so that code outside the
package needs no registration.  See docs/extending.md.
"""

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_SHORT_LIST = 12

# The types that a value written in a config can be held to.
_KINDS = {
  bool: 'true or false',
  int: 'an integer',
  float: 'a number',
  str: 'text',
  type(None): 'null',
}


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
  """The known names most like a mistyped one, best first.

  Dotted names are compared whole and by their last part, so that a field that
  was put into the wrong group is found.

  Args:
    name: what was written.
    known: what may be written.
    count: names returned at most.

  Returns:
    Names from `known`; empty if none is alike.

  >>> nearest('absorbin', ['uniform', 'absorbing'])
  ['absorbing']
  >>> nearest('model.learning_rate', ['model.dtype', 'optimizer.learning_rate'])
  ['optimizer.learning_rate']
  """

  def likeness(other: str) -> float:
    pairs = ((name, other), (name.split('.')[-1], other.split('.')[-1]))
    return max(
      difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()
      for a, b in pairs
    )

  scored = sorted((-likeness(other), other) for other in known)
  best = max(0.6, -scored[0][0] - 0.2) if scored else 0
  return [other for score, other in scored[:count] if -score >= best]


def alternatives(name: str, known: Iterable[str]) -> str:
  """What to write instead: `nearest: a, b` or `known: a, b, c`.

  >>> alternatives('absorbin', ['uniform', 'absorbing'])
  'nearest: absorbing; known: absorbing, uniform'
  """
  known = sorted(known)
  alike = nearest(name, known)
  parts = [f'nearest: {", ".join(alike)}'] if alike else []
  if len(known) <= _SHORT_LIST:
    parts.append(f'known: {", ".join(known) or "none"}')
  elif not alike:
    parts.append(f'known: {", ".join(known[:_SHORT_LIST])}, ...')
  return '; '.join(parts)


def resolve(table: Mapping[str, Any], name: str, kind: str) -> Any:
  """The entry that a name stands for.

  Args:
    table: name to class or function.
    name: a name of the table, or `module:Name` to import.
    kind: what the table holds, for the error's text: 'process'.

  Returns:
    The class or function.

  Raises:
    ValueError: in one line, if the table does not have the name, or the module
      cannot be imported, or does not have the attribute.

  >>> resolve({}, 'math:sqrt', 'function')(9.0)
  3.0
  """
  if name in table:
    return table[name]
  module_name, colon, attribute = name.partition(':')
  if not colon:
    raise ValueError(
      f'unknown {kind} {name!r}; {alternatives(name, table)}; or module:Name'
    )
  try:
    module = importlib.import_module(module_name)
  # A user's module can fail in any way; the config that names it is at fault.
  except Exception as error:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(
      f'{kind} {name!r}: cannot import {module_name!r}: {text}'
    ) from error
  if not hasattr(module, attribute):
    public = [key for key in vars(module) if not key.startswith('_')]
    raise ValueError(
      f'{kind} {name!r}: {module_name} has no {attribute!r}; '
      f'{alternatives(attribute, public)}'
    )
  return getattr(module, attribute)


def accepted(
  target: Callable[..., Any], offered: Mapping[str, Any]
) -> dict[str, Any]:
  """Those of the offered arguments that the signature names.

  >>> accepted(lambda a, b=0: 0, {'a': 1, 'c': 2})
  {'a': 1}
  """
  parameters = inspect.signature(target).parameters
  return {key: value for key, value in offered.items() if key in parameters}


def argument(
  target: Callable[..., Any], args: Mapping[str, Any], name: str
) -> Any:
  """An argument as given, or else its default; None where there is no such.

  >>> argument(lambda a, b=0: 0, {'a': 1}, 'b')
  0
  """
  parameter = inspect.signature(target).parameters.get(name)
  default = parameter.default if parameter else None
  return args.get(name, None if default is inspect.Parameter.empty else default)


def _signature(target: Callable[..., Any]) -> inspect.Signature:
  """A signature, whose annotations are types where they can be resolved."""
  try:
    return inspect.signature(target, eval_str=True)
  # An annotation may be any expression, of names for the type checker alone.
  except Exception:
    return inspect.signature(target)


def _kinds_of(parameter: inspect.Parameter) -> set[type] | None:
  """The plain types that a parameter takes; None where it may take others.

  Those of its annotation; without one, that of its default.
  """
  annotation = parameter.annotation
  if annotation is parameter.empty:
    kind = type(parameter.default)
    plain = parameter.default is not None and kind in _KINDS
    return {kind} if plain else None
  union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
  parts = typing.get_args(annotation) if union else [annotation]
  kinds = {type(None) if part is None else part for part in parts}
  return kinds if all(kind in _KINDS for kind in kinds) else None


def _check_kind(parameter: inspect.Parameter, value: Any, what: str) -> None:
  """Raises ValueError for a value of another type than the parameter's."""
  kinds = _kinds_of(parameter)
  if kinds is None or type(value) in kinds:
    return
  if type(value) is int and float in kinds:
    return
  known = ' or '.join(text for kind, text in _KINDS.items() if kind in kinds)
  raise ValueError(f'{what} takes {known}, not {value!r}')


def check_args(
  target: Callable[..., Any],
  args: Mapping[str, Any],
  where: str,
  offered: Iterable[str] = (),
) -> None:
  """Checks the arguments of an open group against a signature.

  Args:
    target: the class or function that will be called.
    args: what the config's open group holds.
    where: the group's name, for the error's text: 'process.args'.
    offered: names of the arguments that the program passes itself.

  Raises:
    ValueError: in one line, on an argument that the signature lacks, one that
      the program passes, a value of another type than the annotation's or the
      default's, or a required one that is missing.
  """
  offered = set(offered)
  parameters = _signature(target).parameters
  named = {
    key: parameter
    for key, parameter in parameters.items()
    if parameter.kind
    in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
  }
  is_open = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
  title = getattr(target, '__name__', repr(target))
  free = [key for key in named if key not in offered]
  for key in args:
    if key in offered:
      raise ValueError(f'{where}.{key}: {title} gets {key!r} from the program')
    if key not in named and not is_open:
      raise ValueError(
        f'{where}.{key}: {title} takes no argument {key!r}; '
        f'{alternatives(key, free)}'
      )
    if key in named:
      _check_kind(named[key], args[key], f'{where}.{key}: {title}')
  missing = [
    key
    for key in free
    if named[key].default is inspect.Parameter.empty and key not in args
  ]
  if missing:
    raise ValueError(f'{where}: {title} needs {", ".join(missing)}')


def build(
  table: Mapping[str, Any],
  name: str,
  kind: str,
  args: Mapping[str, Any],
  offered: Mapping[str, Any],
) -> Any:
  """Resolves a name, checks the arguments, and calls what the name stands for.

  Args:
    table: name to class or function.
    name: a name of the table, or `module:Name` to import.
    kind: the config's group, for the error's text: 'process'.
    args: what the open group `<kind>.args` holds.
    offered: arguments that the program passes where the signature names them.

  Returns:
    What the call returned.

  Raises:
    ValueError: in one line, as `resolve` and `check_args`.

  >>> def scaled(factor, vocab_size):
  ...   return factor * vocab_size
  >>> build({'scaled': scaled}, 'scaled', 'process', {'factor': 2},
  ...       offered={'vocab_size': 27, 'num_steps': 4})
  54
  """
  target = resolve(table, name, kind)
  check_args(target, args, f'{kind}.args', offered)
  return target(**accepted(target, offered), **args)
