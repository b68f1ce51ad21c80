"""TFDS datasets of text8, enwik8 and local text, without TensorFlow.

An example is `{'text': bytes}`: one of the consecutive pieces that a split is
cut into, in order.  TensorFlow is needed neither to build nor to read them:
files are array_record, and fetching and unpacking is our own.

  builder = Text8(data_dir='data', file_format='array_record')
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir='downloads'))
  pieces = builder.as_data_source(split='train')
"""

import abc
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sedd_jax.data.files import documents, downloads
from sedd_jax.data.sources import corpora

PIECE_BYTES = 2**16


class _ByPosition(tfds.core.GeneratorBasedBuilder):
  """A text in consecutive pieces, split by position."""

  VERSION = tfds.core.Version('1.0.0')
  # TFDS looks there for checksums, of which it needs none: ours are in
  # `downloads`.  To find it, TFDS 4.9.10 imports importlib_resources, which
  # neither it nor etils 1.15 declares.
  code_path = None
  _DESCRIPTION = ''
  _HOMEPAGE = ''

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self._DESCRIPTION,
      homepage=self._HOMEPAGE,
      features=tfds.features.FeaturesDict({'text': tfds.features.Text()}),
      # The pieces of a split are its text only in their order.
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict]]]:
    text, shares = self._text(dl_manager)
    data = np.frombuffer(text, np.uint8)
    parts = corpora.split_by_position([data], shares)
    return {k: self._generate_examples(np.asarray(v)) for k, v in parts.items()}

  def _generate_examples(self, data: np.ndarray) -> Iterator[tuple[int, dict]]:
    for number, begin in enumerate(range(0, len(data), PIECE_BYTES)):
      yield number, {'text': data[begin : begin + PIECE_BYTES].tobytes()}

  @abc.abstractmethod
  def _text(
    self, dl_manager: tfds.download.DownloadManager
  ) -> tuple[bytes, dict[str, float]]:
    """The whole text, and the shares of its splits."""


class _Published(_ByPosition):
  """text8 or enwik8: fetched and checked, or found in `manual_dir`."""

  def _text(
    self, dl_manager: tfds.download.DownloadManager
  ) -> tuple[bytes, dict[str, float]]:
    name = self.name
    published = downloads.PUBLISHED[name]
    try:
      file = corpora.find_published(name, os.fspath(dl_manager.manual_dir))
    # What TFDS raises for no or an empty manual_dir.
    except AssertionError:
      folder = pathlib.Path(dl_manager.download_dir)
      folder.mkdir(parents=True, exist_ok=True)
      file = folder / f'{name}.zip'
      if not file.is_file():
        downloads.fetch(
          published.url,
          file,
          sha256=published.zip_sha256,
          size=published.zip_size,
          what_then=f'put {file.name} into manual_dir',
        )
    return corpora.read_published(name, file), corpora.PUBLISHED_SHARES


class Text8(_Published):
  """100,000,000 characters of Wikipedia in a to z and space."""

  _DESCRIPTION = __doc__
  _HOMEPAGE = 'https://mattmahoney.net/dc/textdata.html'
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'text8, or text8.zip, .gz or .xz.'


class Enwik8(_Published):
  """100,000,000 bytes of Wikipedia's XML."""

  _DESCRIPTION = __doc__
  _HOMEPAGE = 'https://mattmahoney.net/dc/textdata.html'
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'enwik8, or enwik8.zip, .gz or .xz.'


class LocalText(_ByPosition):
  """The text files of `manual_dir`, one after another, UTF-8."""

  _DESCRIPTION = __doc__
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'Text files: see documents.SUFFIXES.'

  def __init__(self, *, validation_fraction: float = 0.05, **kwargs: Any):
    """Takes what TFDS' builders take.

    Args:
      validation_fraction: share held out at the end.
      **kwargs: data_dir, file_format and what else TFDS knows.
    """
    self._shares = corpora.held_out(validation_fraction)
    super().__init__(**kwargs)

  def _text(
    self, dl_manager: tfds.download.DownloadManager
  ) -> tuple[bytes, dict[str, float]]:
    files = documents.find(os.fspath(dl_manager.manual_dir))
    texts = documents.read_documents(files)
    data = '\n'.join(document.text() for document in texts).encode()
    return data, self._shares


BUILDERS: dict[str, type[_ByPosition]] = {
  'text8': Text8,
  'enwik8': Enwik8,
  'text_file': LocalText,
}


def build(
  source: str,
  data_dir: str | os.PathLike[str],
  manual_dir: str | os.PathLike[str] | None,
  **arguments: Any,
) -> pathlib.Path:
  """Builds a dataset.

  Args:
    source: a name of `BUILDERS`.
    data_dir: TFDS' folder of datasets.
    manual_dir: the folder of the files; None to download them.
    **arguments: of the builder.

  Returns:
    The dataset's folder, which `data.path` takes.

  Raises:
    DataError: for missing or faulty files.
  """
  builder = BUILDERS[source](
    data_dir=os.fspath(data_dir), file_format='array_record', **arguments
  )
  config = tfds.download.DownloadConfig(
    manual_dir=None if manual_dir is None else os.fspath(manual_dir)
  )
  builder.download_and_prepare(
    download_dir=os.path.join(data_dir, 'downloads'), download_config=config
  )
  return pathlib.Path(builder.data_path)
