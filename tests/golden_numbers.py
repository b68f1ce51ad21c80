"""Loads the committed golden arrays."""

import functools
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / 'golden'


@functools.cache
def load(name):
  """The arrays of `tests/golden/<name>.npz` as a dict."""
  with np.load(FOLDER / f'{name}.npz') as file:
    return {key: file[key] for key in file.files}
