"""A sample's denoising, step by step, as a page to look at."""

import html
import json
from typing import Any

import numpy as np

_MAX_FRAMES = 129

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem;
         margin: 2rem auto; padding: 0 1rem; }
  #text { font: 1rem/1.7 ui-monospace, monospace; white-space: pre-wrap;
          overflow-wrap: anywhere; border: 1px solid #8886; padding: 1rem;
          border-radius: .4rem; min-height: 8rem; }
  .mask { opacity: .35; }
  .new { background: #f5c84299; border-radius: .2rem; }
  .given { text-decoration: underline; text-underline-offset: .25em; }
  .row { display: flex; gap: .8rem; align-items: center; margin: 1rem 0; }
  input { flex: 1; }
  button { font: inherit; padding: .2rem .9rem; }
  #bar { height: .35rem; background: #8883; border-radius: .2rem; }
  #bar div { height: 100%; background: #d9a514; border-radius: .2rem; }
  footer { color: #888; font-size: .85rem; }
</style>
<h1>@TITLE@</h1>
<p>@CAPTION@</p>
<div class="row">
  <button id="play">Play</button>
  <input id="step" type="range" min="0" value="0" aria-label="step">
  <span id="label"></span>
</div>
<div id="bar"><div></div></div>
<p id="text">@FINAL@</p>
<footer>Highlighted: changed since the frame before. Underlined: given.</footer>
<script>
const frames = @FRAMES@, vocabulary = @VOCABULARY@, given = @GIVEN@;
const names = @NAMES@, mask = @MASK@;
const slider = document.getElementById('step');
const text = document.getElementById('text');
slider.max = frames.length - 1;
function show(k) {
  text.replaceChildren(...frames[k].map((id, i) => {
    const span = document.createElement('span');
    span.textContent = id === mask ? '\\u2591' : vocabulary[id];
    const kinds = [];
    if (id === mask) kinds.push('mask');
    else if (k && frames[k - 1][i] !== id) kinds.push('new');
    if (given[i]) kinds.push('given');
    span.className = kinds.join(' ');
    return span;
  }));
  slider.value = k;
  document.getElementById('label').textContent = names[k];
  const share = mask === null ? k / (frames.length - 1) :
    frames[k].filter(id => id !== mask).length / frames[k].length;
  document.querySelector('#bar div').style.width = 100 * share + '%';
}
let timer = null;
function stop() { clearInterval(timer); timer = null;
  document.getElementById('play').textContent = 'Play'; }
document.getElementById('play').onclick = () => {
  if (timer) return stop();
  if (+slider.value === frames.length - 1) show(0);
  document.getElementById('play').textContent = 'Pause';
  timer = setInterval(() => {
    if (+slider.value < frames.length - 1) show(+slider.value + 1);
    else stop();
  }, Math.max(40, 6000 / frames.length));
};
slider.oninput = () => { stop(); show(+slider.value); };
show(Math.floor((frames.length - 1) / 2));
</script>
</html>
"""


def denoising_page(
  path: np.ndarray,
  tokenizer: Any,
  *,
  mask: int | None,
  given: np.ndarray | None = None,
  title: str = 'One sample, denoised',
  caption: str = '',
) -> str:
  """A self-contained HTML page that plays the reverse process of one sample.

  Args:
    path: `[states, length]` int32: the start, the state after each step, and
      the final denoising; more than 129 states are thinned out evenly.
    tokenizer: has `decode(ids)`.
    mask: the mask's id, or None where the noise has none.
    given: `[length]` bool, tokens of the prompt.
    title: heading.
    caption: a sentence below it.

  Returns:
    The page.
  """
  count = len(path)
  kept = np.unique(
    np.linspace(0, count - 1, min(count, _MAX_FRAMES)).round().astype(int)
  )
  vocabulary = {
    int(token): tokenizer.decode([int(token)])
    for token in np.unique(path)
    if token != mask
  }
  labels = [f'step {k} of {count - 2}' for k in kept[:-1]] + ['denoised']
  if given is None:
    given = np.zeros(path.shape[1], bool)
  filled = {
    'TITLE': html.escape(title),
    'CAPTION': html.escape(caption),
    'FINAL': html.escape(tokenizer.decode([int(t) for t in path[-1]])),
    'FRAMES': _script(path[kept].tolist()),
    'VOCABULARY': _script(vocabulary),
    'GIVEN': _script(given.astype(int).tolist()),
    'NAMES': _script(labels),
    'MASK': _script(mask),
  }
  page = _PAGE
  for name, value in filled.items():
    page = page.replace(f'@{name}@', value)
  return page


def _script(value: Any) -> str:
  """JSON that can stand in a script element, and contains no placeholder."""
  text = json.dumps(value, separators=(',', ':'))
  return text.replace('<', '\\u003c').replace('@', '\\u0040')
