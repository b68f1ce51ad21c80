"""Folders that TFDS wrote, read back whole."""

import os

from sedd_jax.data.errors import DataError

_SPLITS = ('train', 'validation', 'test')


def is_tfds(path: str | os.PathLike[str]) -> bool:
  """Whether a folder is a dataset that TFDS wrote."""
  return os.path.isfile(os.path.join(path, 'dataset_info.json'))


def read(folder: str | os.PathLike[str]) -> bytes:
  """The whole text of a dataset, its splits one after another.

  Args:
    folder: a dataset of one of `tfds_builders.BUILDERS`.

  Returns:
    The text's bytes.

  Raises:
    DataError: if it cannot be read, or is no dataset of ours.
  """
  # Takes half a second to import.
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(os.fspath(folder))
    sources = [
      builder.as_data_source(split=split)
      for split in _SPLITS
      if split in builder.info.splits
    ]
    return b''.join(example['text'] for source in sources for example in source)
  except (KeyError, TypeError, ValueError, OSError) as error:
    raise DataError(f'{folder}: cannot be read by TFDS: {error!r}') from error
