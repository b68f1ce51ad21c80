"""Makes the notebooks from their texts, which are what is edited.

  python colab/pair.py

A text is Python in the percent format (as jupytext has it): `# %%` begins a
cell of code, `# %% [markdown]` one of prose, each line of which is a comment.
The notebook beside it has the same cells and no outputs.
"""

import json
import pathlib
from typing import NamedTuple

_MARK = '# %%'
_PROSE = '# %% [markdown]'


class Cell(NamedTuple):
  """A cell: its kind, 'code' or 'markdown', and its text."""

  kind: str
  source: str


def cells(text: str) -> list[Cell]:
  """The cells of a text in the percent format.

  Raises:
    ValueError: text before the first mark, an unknown mark, or prose that is no
      comment.
  """
  found: list[tuple[str, list[str]]] = []
  for line in text.splitlines():
    if line.startswith(_MARK):
      if line not in (_MARK, _PROSE):
        raise ValueError(f'{line!r} is neither {_MARK!r} nor {_PROSE!r}')
      found.append(('code' if line == _MARK else 'markdown', []))
    elif not found:
      raise ValueError(f'{line!r} stands before the first {_MARK!r}')
    elif found[-1][0] == 'markdown' and line:
      if line != '#' and not line.startswith('# '):
        raise ValueError(f'{line!r} in a cell of prose is no comment')
      found[-1][1].append(line[2:])
    else:
      found[-1][1].append(line)
  return [Cell(kind, '\n'.join(lines).strip('\n')) for kind, lines in found]


def notebook(text: str) -> str:
  """The notebook of a text, as JSON (nbformat 4.5)."""
  made = []
  for place, cell in enumerate(cells(text)):
    entry = {
      'cell_type': cell.kind,
      'id': f'cell-{place}',
      'metadata': {},
      'source': cell.source.splitlines(keepends=True),
    }
    if cell.kind == 'code':
      entry |= {'execution_count': None, 'outputs': []}
    made.append(entry)
  whole = {
    'cells': made,
    'metadata': {
      'kernelspec': {
        'display_name': 'Python 3',
        'language': 'python',
        'name': 'python3',
      },
      'language_info': {'name': 'python'},
    },
    'nbformat': 4,
    'nbformat_minor': 5,
  }
  return json.dumps(whole, indent=1, ensure_ascii=False) + '\n'


if __name__ == '__main__':
  for path in pathlib.Path(__file__).parent.glob('*.py'):
    text = path.read_text(encoding='utf-8')
    if path.name != pathlib.Path(__file__).name:
      path.with_suffix('.ipynb').write_text(notebook(text), encoding='utf-8')
