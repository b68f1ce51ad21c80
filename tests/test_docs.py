"""The pages say what the code does."""

import pathlib
import re
import sys

import numpy as np
import pytest

from sedd_jax import default_config, flags

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CHANGELOG.md', *(ROOT / 'docs').iterdir()]


def blocks(page):
  return re.findall(r'^```python\n(.*?)^```', page.read_text(), re.M | re.S)


def test_config_page_is_that_of_the_fields():
  page = (ROOT / 'docs' / 'config.md').read_text()
  assert page.endswith(default_config.describe())


def test_readme_snippet_runs():
  (snippet,) = blocks(ROOT / 'README.md')
  names = {}
  exec(snippet, names)
  assert names['loss'].shape == (4,)
  assert names['post'].shape == (4, 32, 28)
  assert names['text'].shape == (4, 32)
  assert np.all(np.asarray(names['text']) < 27)


def test_schedule_outside_the_package(tmp_path, monkeypatch):
  (snippet,) = blocks(ROOT / 'docs' / 'extending.md')
  (tmp_path / 'my_noise.py').write_text(snippet)
  monkeypatch.syspath_prepend(tmp_path)
  command = flags.parse(
    [
      '--config=quickstart',
      '--config.schedule.name=my_noise:Linear',
      '--config.schedule.args.slope=6.0',
    ]
  )
  from sedd_jax.systems import parts

  schedule = parts.make_schedule(command.config)
  assert float(schedule.total(0.5)) == 3.0
  sys.modules.pop('my_noise')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)#:]+)\)', page.read_text()):
    assert (page.parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
  named = re.findall(
    r'`((?:tests|benchmarks|configs|sedd_jax|docs)/[\w/]+\.\w+)`',
    page.read_text(),
  )
  for name in named:
    assert (ROOT / name).exists(), name
