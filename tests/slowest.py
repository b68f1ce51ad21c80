"""Which tests are slow by their time: writes `tests/slow.txt`.

  rm -rf .jax_cache
  pytest -m '' --junitxml=times.xml
  python -m tests.slowest times.xml

Of a run without `-m ''`, with --add: what is listed stays.

The fast tests are to take less than ten minutes on two cores without a cache.
So cases of a test that take longer than `LONG` seconds are slow, but that the
quickest of them stays where otherwise none would, unless it takes longer than
`ALONE`.  `conftest.py` marks what is listed; what is in `KEPT` never is.
"""

import collections
import pathlib
import sys
from xml.etree import ElementTree

LIST = pathlib.Path(__file__).with_name('slow.txt')
LONG, ALONE = 1.0, 4.0
# What the README promises first, and what a session's fixture is made for.
KEPT = (
  'tests.test_main::test_a_folder_that_cannot_be_written',
  'tests.test_docs::test_readme_snippet_runs',
  'tests.core.test_randomness::test_where_to_jump',
  'tests.core.test_randomness::test_whole_draw_jumps_at_the_nominal_rate',
)


def name_of(nodeid: str) -> str:
  """A test as junit's files name it, `module::name`.

  >>> name_of('tests/a/test_b.py::TestC::test_d[x/y::z]')
  'tests.a.test_b.TestC::test_d[x/y::z]'
  """
  path, _, rest = nodeid.partition('::')
  base, bracket, case = rest.partition('[')
  *classes, name = base.split('::')
  module = path.removesuffix('.py').replace('/', '.')
  return f'{".".join([module, *classes])}::{name}{bracket}{case}'


def chosen(times: dict[str, float]) -> list[str]:
  """The slow ones of tests, by their seconds."""
  cases = collections.defaultdict(list)
  for name, seconds in times.items():
    cases[name.partition('[')[0]].append((seconds, name))
  slow: list[str] = []
  for test, found in cases.items():
    if test in KEPT:
      continue
    long = sorted(case for case in found if case[0] > LONG)
    if len(long) == len(found) and long[0][0] < ALONE:
      long = long[1:]
    slow += [name for _, name in long]
  return sorted(slow)


def main(path: str, *flags: str) -> None:
  """Reads a file of junit's format and writes the list, or adds to it.

  Raises:
    SystemExit: for a flag that is none.
  """
  if set(flags) - {'--add'}:
    raise SystemExit(f'{flags}: takes --add')
  tests = ElementTree.parse(path).getroot().iter('testcase')
  times = {
    f'{test.get("classname")}::{test.get("name")}': float(test.get('time', 0))
    for test in tests
    if str(test.get('classname')).startswith('tests.')
  }
  listed = LIST.read_text().splitlines() if flags else []
  LIST.write_text('\n'.join(sorted({*chosen(times), *listed})) + '\n')


if __name__ == '__main__':
  main(*sys.argv[1:])
