"""Meaning representations as labels: `name[Aromi], area[city centre]`.

The sources of E2E's pairs (arXiv 1706.09254) are such texts.  A label is a
field with its value, written as there: `area[city centre]`; `area[]` is that of
a text whose meaning lacks the field.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from sedd_jax.core import names
from sedd_jax.data import crops
from sedd_jax.data.errors import DataError
from sedd_jax.data.files import labels
from sedd_jax.data.labelling import labelled
from sedd_jax.data.paired import seq2seq
from sedd_jax.data.paired.pairs import Pair

_FACT = re.compile(r'\s*([^\[\],]+?)\s*\[([^\[\]]+)\]\s*')
_LABEL = re.compile(r'([^\[\]]+)\[[^\[\]]*\]')
# The draw of a row's field, apart from that of the row.
_STREAM = 1


def facts(text: str, where: str) -> dict[str, str]:
  """The fields of a meaning representation with their values, in order.

  Args:
    text: `field[value], field[value], ...`.
    where: the text's place, for the error.

  Raises:
    DataError: for another text, and a field that is there twice.

  >>> facts('name[Aromi], area[city centre]', 'dev.csv:2')
  {'name': 'Aromi', 'area': 'city centre'}
  """
  found: dict[str, str] = {}
  for part in re.split(r',(?![^\[]*\])', text):
    fact = _FACT.fullmatch(part)
    if fact is None or fact[1] in found:
      raise DataError(
        f'{where}: no meaning representation, as field[value], field[value], '
        f'each field once: {text[:60]!r}'
      )
    found[fact[1]] = fact[2].strip()
  return found


def label_of(field: str, value: str) -> str:
  """The label of a fact, `field[value]`; of value '' that of its absence."""
  return f'{field}[{value}]'


def field_of(label: str) -> str:
  """The field of a label `field[value]`; '' for a label of another form.

  >>> field_of('area[city centre]'), field_of('area[]'), field_of('prose')
  ('area', 'area', '')
  """
  found = _LABEL.fullmatch(label)
  return found[1] if found else ''


class LabelledPairs(labelled.Labelled):
  """Pairs whose sources are meanings, with `label [b]` in each batch.

  Of data.label=FIELD it is the row's value of that field.  Of '@meaning' it is
  that of one of all fields, drawn evenly: in training anew for each row of a
  step, by seed, step and index alone; in evaluation by the row.  A row whose
  meaning lacks the field has the label `field[]`.

  All else is as of `seq2seq.PairDataset`.

  Attributes:
    info: that of the pairs, with the labels.
  """

  def __init__(
    self,
    pairs: seq2seq.PairDataset,
    label: str,
    known: Sequence[str] | None = None,
  ):
    """Reads the sources.

    Args:
      pairs: as they were read.
      label: a field, or `labels.MEANING` for all.
      known: the labels of a run in the order of their numbers; None: those of
        all splits, by the alphabet.

    Raises:
      DataError: a source that is no meaning representation, a field that none
        has, and a label that is not known.
    """
    meanings = {
      split: [_facts(pair) for pair in pairs.pairs(split)]
      for split in pairs.info.num_tokens
    }
    everything = [each for own in meanings.values() for each in own]
    fields = sorted({field for each in everything for field in each})
    if label != labels.MEANING:
      if label not in fields:
        raise DataError(
          f'data.label={label!r}: no meaning has that field; '
          f'{names.alternatives(label, [*fields, labels.MEANING])}'
        )
      fields = [label]
    own = {
      label_of(field, each.get(field, ''))
      for each in everything
      for field in fields
    }
    numbers = labels.numbered(own, known)
    self._labels = {
      split: _table(rows, pairs.places(split), fields, numbers)
      for split, rows in meanings.items()
    }
    super().__init__(pairs, tuple(numbers))

  def train_labels(
    self, seed: int, step: int, indices: np.ndarray
  ) -> np.ndarray:
    """`[b]`."""
    table = self._labels['train']
    rows = crops.starts(seed, step, indices, len(table))
    fields = crops.starts(seed, step, indices, table.shape[1], stream=_STREAM)
    return table[rows, fields]

  def eval_labels(self, split: str, indices: np.ndarray) -> np.ndarray:
    """`[b]`."""
    table = self._labels[split]
    fields = crops.starts(0, 0, indices, table.shape[1], stream=_STREAM)
    found = table[np.minimum(indices, len(table) - 1), fields]
    return np.where(indices < len(table), found, np.int32(labels.NONE))


def _facts(pair: Pair) -> dict[str, str]:
  return facts(pair.source, pair.id)


def _table(
  meanings: Sequence[Mapping[str, str]],
  places: np.ndarray,
  fields: Sequence[str],
  numbers: Mapping[str, int],
) -> np.ndarray:
  """Labels of the rows of a split, `[rows, fields]` int32."""
  each = [
    [numbers[label_of(field, one.get(field, ''))] for field in fields]
    for one in meanings
  ]
  return np.array(each, np.int32).reshape(-1, len(fields))[places[:, 0]]
