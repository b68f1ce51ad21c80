"""What a run leaves to look at: a sample's denoising as a page, whole files."""

import html
import json
import os
import pathlib
import re
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sedd_jax.core import atomic
from sedd_jax.evaluation import likelihood

_MAX_FRAMES = 129

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>
  :root { color-scheme: light dark;
    --page: #faf9f6; --panel: #fff; --ink: #1f1e1b; --soft: #6d6a63;
    --open: #aaa69c; --line: #e2ded4; --fresh: #ffd766; --given: #1767ad;
    --settled: #c9a24b; --accent: #8d6a1c; }
  @media (prefers-color-scheme: dark) { :root {
    --page: #16171a; --panel: #1e2024; --ink: #ece9e2; --soft: #a09d96;
    --open: #6b6e77; --line: #34373e; --fresh: #8a6610; --given: #7dbbf5;
    --settled: #a3853f; --accent: #c9a24b; } }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem;
    margin: 2rem auto; padding: 0 1rem; background: var(--page);
    color: var(--ink); }
  h1 { font-size: 1.5rem; margin: 0; }
  h1 + p { margin: .3rem 0 1.2rem; color: var(--soft); }
  #text { font: 1rem/1.75 ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas,
    monospace; white-space: break-spaces; overflow-wrap: anywhere; margin: 0;
    background: var(--panel); border: 1px solid var(--line);
    border-radius: .5rem; padding: .9rem 1.1rem; }
  #text.grid { word-break: break-all; }
  .open { color: var(--open); }
  .fresh { background: var(--fresh); color: var(--ink);
    border-radius: .15rem; }
  .given { color: var(--given); border-bottom: 2px solid var(--given); }
  .row { display: flex; gap: .9rem; align-items: center; margin: 0 0 .9rem; }
  .row input { flex: 1; min-width: 0; accent-color: var(--accent); }
  .row button { font: inherit; width: 5.5rem; padding: .25rem 0;
    color: inherit; background: var(--panel); cursor: pointer;
    border: 1px solid var(--open); border-radius: .4rem; }
  #name { width: 8.5rem; text-align: right; color: var(--soft);
    font-variant-numeric: tabular-nums; }
  .legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0;
    margin: .7rem 0 1.6rem; list-style: none; font-size: .85rem;
    color: var(--soft); }
  .legend b { font: 1rem ui-monospace, 'DejaVu Sans Mono', monospace;
    margin-right: .4rem; color: var(--ink); }
  .legend .open { color: var(--open); }
  .legend .given { color: var(--given); }
  figure { margin: 0; }
  canvas { display: block; width: 100%; height: 9rem; cursor: pointer;
    image-rendering: pixelated; border-radius: .3rem; }
  figcaption { margin-top: .5rem; font-size: .85rem; color: var(--soft); }
</style>
<h1>@TITLE@</h1>
<p>@CAPTION@</p>
<div class="row">
  <button id="play" type="button">Play</button>
  <input id="step" type="range" min="0" value="0" aria-label="step">
  <span id="name"></span>
</div>
<p id="text">@FINAL@</p>
<ul class="legend">
  <li id="masked"><b class="open">&#9617;</b>masked</li>
  <li id="moving"><b class="open">a</b>will still change</li>
  <li><b class="fresh">a</b>changed just now</li>
  <li id="kept"><b class="given">a</b>given</li>
</ul>
<figure>
  <canvas id="map" aria-hidden="true"></canvas>
  <figcaption>Steps from top to bottom, tokens from left to right: filled from
  where a token is as in the end; the marked row is shown above.</figcaption>
</figure>
<script>
const frames = @FRAMES@, vocabulary = @VOCABULARY@, given = @GIVEN@;
const names = @NAMES@, mask = @MASK@, last = frames.length - 1;
const get = id => document.getElementById(id);
const slider = get('step'), text = get('text'), map = get('map');
const grid = Object.values(vocabulary).every(x => [...x].length === 1);
const hidden = grid ? '\\u2591' : '\\u2591'.repeat(3);
slider.max = last;
text.classList.toggle('grid', grid);
get('masked').hidden = mask === null;
get('kept').hidden = !given.includes(1);
// From which frame on each token is as in the end.
const settled = frames[last].map((id, i) => {
  let k = last;
  while (k > 0 && frames[k - 1][i] === id) k--;
  return k;
});
get('moving').hidden = !frames.some((frame, k) =>
  frame.some((id, i) => id !== mask && k < settled[i]));
// Half of the free tokens are as in the end: there is something to see.
const free = settled.filter((_, i) => !given[i]).sort((a, b) => a - b);
let shown = free[free.length >> 1] ?? last;
function shape(id) {
  if (id === mask) return hidden;
  // Line breaks would move the text about as they come and go.
  return grid ? vocabulary[id].replace('\\n', '\\u21b5') : vocabulary[id];
}
function show(k) {
  shown = k;
  text.replaceChildren(...frames[k].map((id, i) => {
    const span = document.createElement('span');
    span.textContent = shape(id);
    const kinds = [];
    if (given[i]) kinds.push('given');
    else if (k < settled[i]) kinds.push('open');
    if (k && frames[k - 1][i] !== id) kinds.push('fresh');
    span.className = kinds.join(' ');
    return span;
  }));
  slider.value = k;
  get('name').textContent = names[k];
  draw();
}
function draw() {
  const style = getComputedStyle(document.documentElement);
  const [wide, high] = [frames[0].length, frames.length];
  map.width = wide;
  map.height = high;
  const pen = map.getContext('2d');
  const fill = (colour, x, y, w, h) => {
    pen.fillStyle = style.getPropertyValue('--' + colour);
    pen.fillRect(x, y, w, h);
  };
  fill('line', 0, 0, wide, high);
  settled.forEach((k, i) => {
    pen.globalAlpha = given[i] ? 0.6 : 1;
    fill(given[i] ? 'given' : 'settled', i, k, 1, high - k);
  });
  pen.globalAlpha = 0.8;
  fill('ink', 0, shown, wide, 1);
}
let timer = null;
function stop() {
  clearInterval(timer);
  timer = null;
  get('play').textContent = 'Play';
}
get('play').onclick = () => {
  if (timer) return stop();
  if (shown === last) show(0);
  get('play').textContent = 'Pause';
  timer = setInterval(() => shown < last ? show(shown + 1) : stop(),
    Math.max(40, 8000 / frames.length));
};
slider.oninput = () => { stop(); show(+slider.value); };
map.onclick = event => {
  stop();
  const share = event.offsetY / map.clientHeight;
  show(Math.min(last, Math.floor(share * frames.length)));
};
matchMedia('(prefers-color-scheme: dark)').onchange = draw;
show(shown);
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
  # In one pass, for the text may contain what looks like a placeholder.
  return re.sub('@([A-Z]+)@', lambda found: filled[found[1]], _PAGE)


def suite_table(
  suite: Any,
  name: str,
  results: Mapping[str, Mapping[str, Any]],
  *,
  packing: str,
  unit: str,
  tokenizer: str,
  vocab_size: int,
  seq_len: int,
) -> str:
  """A suite's figures as a Markdown table, published ones below.

  Args:
    suite: has `sets`, `figure`, `published`, `source`, `tokens` and `length`.
    name: of the run.
    results: set to what `likelihood.evaluate` says of it, and perhaps a
      `remark`; sets may be missing.
    packing: of the sets, in words.
    unit: of the data, for bits a character.
    tokenizer: its name.
    vocab_size: its tokens.
    seq_len: of the sequences.

  Returns:
    The table, a line on how it was made, and in which respects the published
    figures are of other tokens or lengths.
  """

  def line(label: str, texts: Iterable[str]) -> str:
    return f'| {" | ".join((label, *texts))} |'

  def own(split: str) -> str:
    result = results.get(split)
    if result is None:
      return 'not at hand'
    value, error = result[suite.figure], result['standard_error']
    if value is None:
      return 'beyond 1e304'
    # By a nat a token: that of exp, or what all are divided by.
    slope = value if perplexities else value / result['nats_per_token']
    spread = '' if error is None else f' ± {slope * error:.{digits}f}'
    mark = ' (*)' if 'remark' in result else ''
    return f'{value:.{digits}f}{spread}{mark}'

  perplexities = suite.figure == 'perplexity'
  digits = 2 if perplexities else 3
  per = 'byte' if unit == 'byte' else 'character'
  lines = [
    line('perplexity a token' if perplexities else f'bits a {per}', suite.sets),
    line('---', ['---'] * len(suite.sets)),
    line(name, map(own, suite.sets)),
  ]
  for model, row in suite.published.items():
    found = (f'{row[s]:.2f}' if s in row else '' for s in suite.sets)
    lines.append(line(model, found))
  first = next(iter(results.values()))
  counted = ', '.join(
    f'{split} {likelihood.counted(result)}' for split, result in results.items()
  )
  given = f', given {first["given"]}' if 'given' in first else ''
  steps = first.get('chain_steps')
  of_steps = f', {steps} steps of the chain' if steps else ''
  how = (
    f'at most (eval.protocol {first["protocol"]}{of_steps}, {first["points"]} '
    'times a sequence)'
  )
  if likelihood.is_exact(first):
    how = 'exact'
  named = pathlib.PurePath(tokenizer).name
  lines.append(
    f'\n{name}: step {first["step"]}{given}, {how}, '
    f'{vocab_size:,} tokens ({named}), sequences of {seq_len}, packing '
    f'{packing}, sequences: {counted}. The others: {suite.source}.'
  )
  size, known = suite.tokens
  if perplexities and vocab_size != size:
    lines.append(
      f'\nThe others are of {size:,} tokens ({known}): a perplexity a token of '
      f'{vocab_size:,} is not to be compared with theirs.'
    )
  if suite.length and seq_len != suite.length:
    lines.append(
      f'\nThe others are of sequences of {suite.length}, not {seq_len}: of '
      'another context.'
    )
  lines += [
    f'\n(*) {split}: {result["remark"]}.'
    for split, result in results.items()
    if 'remark' in result
  ]
  return '\n'.join(lines) + '\n'


def plot_levels(tokens: np.ndarray, path: str | os.PathLike) -> None:
  """Draws sequences of ordered symbols as curves, as PNG.

  Args:
    tokens: `[n, length]` integers; at most the first eight are drawn.
    path: of the picture.
  """
  # Late, and without pyplot: a notebook's or a user's backend stays as it is.
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  rows = np.asarray(tokens)[:8]
  canvas = figure.Figure(figsize=(7, 1.1 * len(rows)), layout='constrained')
  backend_agg.FigureCanvasAgg(canvas)
  panels = canvas.subplots(len(rows), sharex=True, sharey=True, squeeze=False)
  for axes, row in zip(panels[:, 0], rows):
    axes.step(np.arange(len(row)), row, where='mid', color='#4477aa')
  panels[-1, 0].set_xlabel('position')
  canvas.supylabel('symbol')
  canvas.savefig(path, dpi=120)


def _script(value: Any) -> str:
  """JSON that can stand in a script element: nothing in it closes one."""
  return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a value as indented JSON.

  Raises:
    ValueError: it holds NaN or an infinity, which JSON has not.
  """
  atomic.write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def write_jsonl(path: str | os.PathLike, rows: list[dict[str, Any]]) -> None:
  """Writes rows, one JSON object a line."""
  atomic.write_text(
    path, ''.join(f'{json.dumps(r, ensure_ascii=False)}\n' for r in rows)
  )


def commit() -> str | None:
  """The commit of the checkout that the package lies in, None outside of one.

  Returns:
    40 hexadecimal digits, and '-dirty' where files differ from the commit.
  """
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / '.git').exists():
    return None
  try:
    result = subprocess.run(
      # No tag takes the place of the digits.
      ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      cwd=root,
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return result.stdout.strip()
