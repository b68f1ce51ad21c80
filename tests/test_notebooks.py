"""The notebooks run, small, and are as their texts say."""

import pathlib
import sys
import types

import jax
import jupytext
import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXTS = sorted((ROOT / 'colab').glob('*.py'))


@pytest.fixture
def executed(tmp_path, monkeypatch):
  """Runs a text in an empty folder; gives its names and what it showed."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('SEDD_JAX_NOTEBOOK_SMALL', '1')
  shown = types.SimpleNamespace(figures=[], pages=[])

  def show():
    shown.figures.append(
      [np.asarray(line.get_xydata()) for line in plt.gca().lines]
    )
    plt.close('all')

  monkeypatch.setattr(plt, 'show', show)
  # What a notebook's server has, and the tests have not.
  server = types.ModuleType('IPython')
  server.get_ipython, server.version_info = lambda: None, (9, 0)
  server.display = types.SimpleNamespace(HTML=shown.pages.append)
  monkeypatch.setitem(sys.modules, 'IPython', server)

  def execute(name):
    path = ROOT / 'colab' / f'{name}.py'
    names = {'__name__': '__main__'}
    # As a reader's jax is set, who writes `h @ weight + bias`.
    with jax.numpy_rank_promotion('allow'):
      exec(compile(path.read_text(), path, 'exec'), names)
    return types.SimpleNamespace(**names), shown

  return execute


@pytest.mark.slow
def test_quickstart(executed, capsys):
  notebook, shown = executed('quickstart')
  for name in ('evaluation.json', 'samples.jsonl', 'denoising.html'):
    assert (notebook.workdir / name).is_file()
  training, validation = shown.figures[0]
  assert training[:, 0].tolist() == [5, 10, 15, 20, 25, 30]
  assert validation[:, 0].tolist() == [15, 30]
  assert training[-1, 1] < training[0, 1]
  assert validation[-1, 1] == pytest.approx(
    notebook.result['bits_per_character']
  )
  assert len(set(notebook.texts)) == 3
  kept = notebook.story.replace('{blank:8}', '?' * 8)
  kept = kept.replace('{blank:14}', '?' * 14)
  for told in notebook.stories:
    assert len(told) == 64
    assert all(a in ('?', b) for a, b in zip(kept, told))
  assert len(set(notebook.stories)) == 4
  assert 'One sample, denoised' in shown.pages[0]
  assert notebook.texts[0] in capsys.readouterr().out


@pytest.mark.slow
def test_sedd_by_hand(executed):
  notebook, shown = executed('sedd_by_hand')
  assert len(shown.figures) == 3
  assert min(notebook.correlations.values()) > 0.98
  assert abs(notebook.losses[-100:].mean() - notebook.entropy) < 0.1
  variation = notebook.variation
  assert variation['samples'] < 2 * variation['as many exact draws']
  assert variation['samples'] < variation['tokens drawn apart'] / 4
  # The enumerated ratios are conditional laws over e^sigma - 1.
  p_0, mask = notebook.p_0, notebook.S - 1
  (place,) = np.flatnonzero((notebook.states == [2, mask, mask]).all(1))
  odds = np.expm1(float(notebook.schedule.total(0.5)))
  seen = p_0[2].sum(1) / p_0[2].sum()
  np.testing.assert_allclose(
    np.exp(notebook.true_log_score(0.5)[place, 1, :mask]),
    seen / odds,
    rtol=1e-5,
  )


@pytest.mark.parametrize('text', TEXTS, ids=lambda path: path.stem)
def test_a_notebook_is_as_its_text(text):
  """Else `jupytext --sync` makes it so."""
  notebook = jupytext.read(text.with_suffix('.ipynb'))
  assert notebook.metadata['kernelspec']['name'] == 'python3'
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      assert cell.outputs == [] and cell.execution_count is None
  cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
  assert cells == [
    (cell.cell_type, cell.source) for cell in jupytext.read(text).cells
  ]
  assert {kind for kind, _ in cells} == {'code', 'markdown'}


def test_every_notebook_has_a_text():
  assert [path.stem for path in TEXTS] == ['quickstart', 'sedd_by_hand']
  assert {path.stem for path in (ROOT / 'colab').glob('*.ipynb')} == {
    path.stem for path in TEXTS
  }
