"""The page of a denoising, and files that appear whole."""

import html.parser
import json
import pathlib
import re
import subprocess

import numpy as np
import pytest

from sedd_jax.data import tokenizers
from sedd_jax.evaluation import report

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT8 = tokenizers.make('text8')
BYTES = tokenizers.make('bytes')
MASK = 27


class Page(html.parser.HTMLParser):
  """Elements, attributes, text and script of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.script, self.texts = [], [], '', {}
    self._open = []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    self._open.append(dict(attrs).get('id') or tag)

  def handle_endtag(self, tag):
    self._open.pop()

  def handle_data(self, data):
    if self._open and self._open[-1] == 'script':
      self.script += data
    elif self._open:
      self.texts[self._open[-1]] = self.texts.get(self._open[-1], '') + data

  def constant(self, name):
    """The value of a constant of the script."""
    (text,) = re.findall(
      rf'[ ,]{name} = (.*?)(?:, \w+ =|;\n|, last)', self.script
    )
    return json.loads(text)


def masked_path():
  return np.array([[27, 27, 27], [27, 2, 27], [1, 2, 27], [1, 2, 3]], np.int32)


def test_frames_are_those_of_the_path():
  text = report.denoising_page(
    masked_path(), TEXT8, mask=MASK, given=np.array([False, True, False])
  )
  page = Page(text)
  assert page.constant('frames') == masked_path().tolist()
  assert page.constant('vocabulary') == {'1': 'a', '2': 'b', '3': 'c'}
  assert page.constant('given') == [0, 1, 0]
  assert page.constant('mask') == MASK
  assert page.constant('names') == [
    *('step 0 of 2', 'step 1 of 2', 'step 2 of 2', 'denoised')
  ]
  # Read where scripts do not run.
  assert page.texts['text'] == 'abc'


def test_noise_without_a_mask_and_without_a_prompt():
  page = Page(report.denoising_page(masked_path() % 27, TEXT8, mask=None))
  assert page.constant('mask') is None
  assert page.constant('given') == [0, 0, 0]


def test_many_steps_are_thinned_out():
  path = np.arange(1002)[:, None] % 20 * np.ones((1, 5), int)
  page = Page(report.denoising_page(path, TEXT8, mask=None))
  frames, names = page.constant('frames'), page.constant('names')
  assert len(frames) == len(names) == 129
  assert frames[0] == path[0].tolist() and frames[-1] == path[-1].tolist()
  assert names[0] == 'step 0 of 1000' and names[-1] == 'denoised'
  steps = [int(name.split()[1]) for name in names[:-1]]
  assert {7, 8} == set(np.diff(steps))
  for step, frame in zip(steps, frames):
    assert frame == path[step].tolist()


@pytest.mark.parametrize(
  'text',
  ['</script><script>x()</script>', '<!--<script>', '@FRAMES@ @MASK@', '&lt;'],
)
def test_any_text_is_safe(text):
  """Each character as a token, and each token as a whole text."""
  ids = BYTES.encode(text)
  path = np.stack([np.full_like(ids, 256), ids])

  class Whole:
    def decode(self, ids):
      return text

  for tokenizer in (BYTES, Whole()):
    page = Page(
      report.denoising_page(path, tokenizer, mask=256, title=text, caption=text)
    )
    assert page.tags.count('script') == 1
    assert page.texts['text'] == page.texts['h1'] == text
    assert page.texts['title'] == text
    assert page.constant('frames') == path.tolist()
    told = page.constant('vocabulary')
    assert [told[str(i)] for i in ids] == [tokenizer.decode([i]) for i in ids]


def test_the_page_asks_for_nothing():
  text = report.denoising_page(masked_path(), TEXT8, mask=MASK)
  page = Page(text)
  assert not {'src', 'href', 'srcset'} & {name for name, _ in page.attributes}
  assert not {'link', 'img', 'iframe'} & set(page.tags)
  for request in ('http:', 'https:', '//', 'url(', '@import', 'fetch('):
    outside = re.sub(r'^\s*//.*$', '', text, flags=re.M)
    assert request not in outside, request


def test_ids_of_the_script_exist():
  text = report.denoising_page(masked_path(), TEXT8, mask=MASK)
  asked = set(re.findall(r"get\('(\w+)'\)", text))
  assert asked <= {
    value for name, value in Page(text).attributes if name == 'id'
  }
  assert {'play', 'step', 'text', 'map'} <= asked


def test_colours_of_the_script_exist_in_light_and_dark():
  text = report.denoising_page(masked_path(), TEXT8, mask=MASK)
  light, dark = re.findall(r':root \{(.*?)\}', text, re.S)
  defined = [set(re.findall(r'--(\w+):', part)) for part in (light, dark)]
  assert defined[0] == defined[1]
  assert set(re.findall(r'var\(--(\w+)\)', text)) <= defined[0]


def test_json(tmp_path):
  path = tmp_path / 'evaluation.json'
  report.write_json(path, {'a': 1.5, 'b': None})
  assert json.loads(path.read_text()) == {'a': 1.5, 'b': None}
  with pytest.raises(ValueError):
    report.write_json(path, {'a': float('nan')})
  assert json.loads(path.read_text()) == {'a': 1.5, 'b': None}


def test_jsonl(tmp_path):
  path = tmp_path / 'samples.jsonl'
  rows = [{'text': 'a\nb\u2028', 'seed': 0}, {'text': 'é', 'seed': 1}]
  report.write_jsonl(path, rows)
  lines = path.read_text('utf-8').split('\n')
  assert [json.loads(line) for line in lines[:-1]] == rows
  assert lines[-1] == ''


def test_commit():
  if not (ROOT / '.git').exists():
    assert report.commit() is None
    return
  found = report.commit()
  assert found is not None and re.fullmatch('[0-9a-f]{40}(-dirty)?', found)
  told = subprocess.run(
    ['git', 'cat-file', '-t', found.removesuffix('-dirty')],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert told.stdout == 'commit\n'
