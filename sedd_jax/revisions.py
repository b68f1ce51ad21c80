"""What a run made of texts that were to be revised: files, and scores."""

import pathlib
import sys
from typing import Any

from sedd_jax import runs, systems
from sedd_jax.core import atomic
from sedd_jax.evaluation import edit_history, report, scoring

# Histories on the terminal, and on the page.
_SHOWN = 8
_ON_PAGE = 200
# What is told of the scores on the terminal.
_TOLD = ('gleu', 'edit_precision', 'edit_recall', 'edit_f05', 'exact_match')


def write(
  run: runs.Run,
  workdir: pathlib.Path,
  revised: systems.Revised,
  *,
  seconds: float,
) -> None:
  """Writes revised.txt, .jsonl, .json and .html, and shows the first texts.

  revised.txt has a line a text, in order, whatever became of it; white space
  that would end a line is a space there.

  Args:
    run: which revised them.
    workdir: where the files go, unless `revised.output` is another folder.
    revised: what came of it.
    seconds: that it took.
  """
  folder = pathlib.Path(revised.output or workdir)
  sampling = run.config.sampling
  rows = revised.rows
  result: dict[str, Any] = {
    'num_texts': len(rows),
    'num_changed': sum(row['changed'] for row in rows),
    'num_too_long': sum(row['too_long'] for row in rows),
    'method': sampling.method,
    'steps': sampling.steps,
    **revised.drawing,
    'calls': revised.calls,
    'seed': run.config.seed,
    'step': run.step,
    'system': run.config.system.name,
    'seconds': round(seconds, 1),
  }
  colour = sys.stdout.isatty()
  for history in revised.histories[:_SHOWN]:
    text = edit_history.terminal(history, run.tokenizer, colour=colour)
    print(text, end='')
  told = (
    f'{len(rows):,} texts in {seconds:.1f} s, {result["num_changed"]:,} of '
    'them changed'
  )
  if result['num_too_long']:
    told += (
      f'; {result["num_too_long"]:,} have more tokens than a text may have and '
      'were left as they are'
    )
  print(told)
  if revised.references:
    for name, kind in (('before', 'text'), ('after', 'revised')):
      found = scores([row[kind] for row in rows], revised)
      result[name] = found
      figures = ', '.join(f'{key} {found[key]:.4f}' for key in _TOLD)
      print(f'{name}: {figures}')
  lines = ''.join(f'{" ".join(r["revised"].splitlines())}\n' for r in rows)
  atomic.write_text(folder / 'revised.txt', lines)
  report.write_jsonl(folder / 'revised.jsonl', list(rows))
  report.write_json(folder / 'revised.json', result)
  shown = [history for history in revised.histories if history][:_ON_PAGE]
  caption = (
    f'{run.config.system.name}, {sampling.method}, after {run.step} training '
    f'steps on {run.experiment.info.name}'
  )
  if len(shown) < len(rows):
    caption += f'; {len(shown)} of {len(rows):,} texts'
  page = edit_history.page(shown, run.tokenizer, caption=f'{caption}.')
  atomic.write_text(folder / 'revised.html', page)
  print(f'see {folder / "revised.txt"}', flush=True)


def scores(texts: list[str], revised: systems.Revised) -> dict[str, Any]:
  """The figures of `scoring.table` of texts in place of those to be revised."""
  return scoring.table(
    [
      scoring.Row(str(number), row['text'], references, (text,))
      for number, (row, references, text) in enumerate(
        zip(revised.rows, revised.references, texts), 1
      )
    ]
  )
