"""What the benchmarks of whole systems share: a command line, a table, JSON."""

import argparse
import json
import os
import pathlib
import platform
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from sedd_jax import flags, main, systems
from sedd_jax.core import names
from sedd_jax.systems.base import System

# No text is read: what a tokenizer's name says of the vocabulary is enough.
VOCAB_SIZES = {'text8': 27, 'bytes': 256, 'gpt2': 50_257}


def parse(
  parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, flags.Command]:
  """The benchmark's own arguments, and the rest as a config's command line.

  Memory is kept as in a run.
  """
  main.keep_freed_memory()
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  parser.add_argument('--note', default='', help='kept in the JSON')
  own, rest = parser.parse_known_args()
  return own, flags.parse_or_exit(rest)


def integers(text: str) -> list[int]:
  """`1,2,4` as numbers."""
  return [int(part) for part in text.split(',')]


def vocab_size(config: Any) -> int:
  """Symbols of a config's tokenizer.

  Raises:
    ValueError: a tokenizer that is known by its files only.
  """
  return names.resolve(VOCAB_SIZES, config.data.tokenizer, 'tokenizer')


def system_of(config: Any) -> System:
  """The system of a config, without its data."""
  size = vocab_size(config)
  return systems.make(config, types.SimpleNamespace(vocab_size=size))


def told(config: Any) -> dict[str, Any]:
  """A config as a dict, in which files have lost their folders."""

  def bare(value: Any) -> Any:
    if isinstance(value, dict):
      return {name: bare(each) for name, each in value.items()}
    parts = value.split(',') if isinstance(value, str) else []
    if any(part.startswith(('/', './', '../')) for part in parts):
      return ','.join(pathlib.PurePath(part).name for part in parts)
    return value

  result = bare(config.to_dict())
  data = result['data']
  data['path'] = ','.join(
    pathlib.PurePath(path).name for path in data['path'].split(',')
  )
  return result


def machine() -> dict[str, Any]:
  """Where and with what something was measured."""
  devices = jax.devices()
  return {
    'jax': jax.__version__,
    'python': platform.python_version(),
    'device': devices[0].device_kind,
    'devices': len(devices),
    'cores': os.cpu_count(),
    'load': round(os.getloadavg()[0], 2),
  }


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
  """Rows as a Markdown table; a number has about three digits."""

  def text(value: Any) -> str:
    if not isinstance(value, float):
      return str(value)
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'

  lines = [columns, ['---'] * len(columns)]
  lines += [[text(row.get(column, '')) for column in columns] for row in rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def write(path: pathlib.Path | None, result: Mapping[str, Any]) -> None:
  """Writes a result as JSON, where a path is given."""
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + '\n')
