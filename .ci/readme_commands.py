"""Holds the commands of README.md to what the program accepts.

  python .ci/readme_commands.py README.md

Run in a scratch folder with links to configs/ and launch/.  Quickstart commands
are executed, made small; those of the long recipes go through the command
line's checks, the arguments of data.prepare through its parser; installing and
testing is for the caller, and here only the wording is compared.
"""

import pathlib
import re
import shlex
import subprocess
import sys

from sedd_jax import flags
from sedd_jax.data import prepare

PROMISED = (
  'pip install -e . && python -m sedd_jax.main --config=configs/quickstart.py',
  "pip install -e '.[test]' && pytest",
)
SMALL = (
  '--config.eval.max_sequences=4',
  '--config.eval.points=1',
  '--config.sampling.num_samples=1',
  '--config.sampling.steps=4',
)
MAIN = ['python', '-m', 'sedd_jax.main']


def commands(text: str) -> list[str]:
  """Lines of the fenced bash blocks, continued lines joined."""
  blocks = re.findall(r'^```(?:bash|sh)\n(.*?)^```', text, re.M | re.S)
  joined = '\n'.join(blocks).replace('\\\n', ' ')
  lines = (line.split('  #')[0].strip() for line in joined.splitlines())
  return [line for line in lines if line and not line.startswith('#')]


def check(command: str) -> None:
  """Executes or parses one command."""
  words = shlex.split(command, comments=True)
  if words[:3] == MAIN or words[0].startswith('launch/'):
    check_main(words[3:] if words[:3] == MAIN else words[1:])
  elif words[:3] == ['python', '-m', 'sedd_jax.data.prepare']:
    source = prepare.argument_parser().parse_args(words[3:]).source
    if source not in prepare.COMMANDS:
      raise SystemExit(f'README: no source {source!r} to prepare')
  elif words[0] not in (
    'pip',
    'pytest',
    'git',
    'cd',
    'ruff',
    'mypy',
    '.ci/run',
  ):
    raise SystemExit(f'README: no way to check {command!r}')


def check_main(argv: list[str]) -> None:
  """Runs the quickstart made small; parses what would train for long."""
  text = ' '.join(argv)
  if '--help' in argv or 'quickstart' in text:
    train = '--mode' not in text or '--mode=train' in text
    steps = ('--config.training.num_steps=4',) if train else ()
    argv = [*argv, *SMALL, *steps] if '--help' not in argv else argv
    subprocess.run([sys.executable, *MAIN[1:], *argv], check=True)
  elif '--config=' in text and '--mode' not in text:
    flags.parse(argv)
  else:
    raise SystemExit(f'README: no way to check the arguments {text!r}')


def main(path: str) -> None:
  found = commands(pathlib.Path(path).read_text())
  missing = [promise for promise in PROMISED if promise not in found]
  if missing:
    raise SystemExit(f'README lacks the commands {missing}')
  for line in found:
    for command in line.split(' && '):
      print(f'$ {command}', flush=True)
      check(command)


if __name__ == '__main__':
  main(sys.argv[1])
