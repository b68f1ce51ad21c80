"""What a config describes: data, system, and what a training begins with."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sedd_jax import flags, run_folders, systems
from sedd_jax.core import names
from sedd_jax.data import pipeline
from sedd_jax.data.files import documents, labels
from sedd_jax.data.prepared import statistics
from sedd_jax.default_config import FIELDS
from sedd_jax.evaluation import generate
from sedd_jax.systems.base import Bound, System
from sedd_jax.training import checkpoint, metrics

PyTree = Any

# Options of samplers.
_OPTIONS = (
  *('temperature', 'top_p', 'cached', 'corrector_steps', 'corrector_size'),
  *('remasking', 'remask_strength', 'block', 'prompt_scale', 'label_scale'),
  *('start', 'beam', 'branches'),
  *('eta', 'variance', 'clamp', 'noise_limit'),
)


# The part of a network that alone knows of labels.
_LABEL_TABLE = 'label_embed'


class Experiment:
  """What a config describes; its text is read when it is first asked for.

  Attributes:
    config: the config.
    info: vocabulary and tokenizer of the data; with its text once read.
    counts: occurrences of each token, `[vocab_size]`, if the system asked.
    system: the system.
  """

  def __init__(
    self,
    config: Any,
    *,
    read: bool = True,
    workdir: str | os.PathLike | None = None,
  ):
    """Builds the system.

    Args:
      config: a checked config.
      read: read the data now, so that it is told first if it is missing; False
        where only a vocabulary is needed, as for samples.
      workdir: of a stored run; its counts of tokens are taken, if it has any.

    Raises:
      DataError: the data or its tokenizer is missing or damaged.
      ValueError: a system that cannot be made of these parts.
    """
    data = config.data
    self.config = config
    self.counts: np.ndarray | None = None
    self._workdir = workdir
    # What the labels' numbers are, whatever text is read.
    self._labels: tuple[str, ...] | None = None
    if data.label and workdir is not None:
      self._labels = labels.read_run(pathlib.Path(workdir))
    unknown = bool(data.label) and self._labels is None
    info = (
      self.dataset.info
      if read or unknown
      else pipeline.describe(
        source=data.source,
        path=data.path,
        tokenizer=data.tokenizer,
        known=self._labels or (),
      )
    )
    self.info = dataclasses.replace(info, token_counts=self._token_counts)
    self.system: System = systems.make(config, self.info)
    if config.training.refresh_every and self.system.refresh is None:
      raise ValueError(
        f'training.refresh_every={config.training.refresh_every}: system '
        f'{config.system.name!r} has nothing to refresh'
      )

  def _token_counts(self) -> np.ndarray:
    """Occurrences of each token: of a file, of the stored run, or counted."""
    if self.counts is None:
      path: str | os.PathLike = self.config.data.statistics
      # What a run was trained with stays, whatever became of the file.
      if self._workdir is not None:
        stored = pathlib.Path(self._workdir) / statistics.FILE
        path = stored if stored.is_file() else path
      size = self.info.vocab_size
      self.counts = (
        statistics.read(path, size)
        if path
        else statistics.count(self.dataset.tokens('train'), size)
      )
    return self.counts

  @property
  def files(self) -> list[dict[str, str]]:
    """`name` and `sha256` of the files that training depends on.

    Those of the text, of its tokens, of the tokenizer and of the noise.
    """
    arguments = self.config.process.args.values()
    named = [x for x in arguments if isinstance(x, str) and os.path.isfile(x)]
    noise = documents.described([pathlib.Path(path) for path in named])
    info = self.dataset.info
    read = documents.described(list(self.tokenizer.files.values()))
    found = (*info.files, *info.token_files, *read, *noise)
    return [dict(file) for file in found]

  @functools.cached_property
  def dataset(self) -> pipeline.AnyDataset:
    """The data.

    Raises:
      DataError: it is missing or damaged.
    """
    data = self.config.data
    return pipeline.load(
      source=data.source,
      path=data.path,
      tokenizer=data.tokenizer,
      seq_len=data.seq_len,
      limit=data.limit,
      validation_fraction=data.validation_fraction,
      test_fraction=data.test_fraction,
      label=data.label,
      tagger=data.tagger,
      known=self._labels,
      pairs={name: data[name] for name in pipeline.PAIR_FIELDS},
    )

  @functools.cached_property
  def compiled_bound(self) -> Callable[..., Bound] | None:
    """`System.bound`, compiled once a shape; None where there is none."""
    return self.system.bound and jax.jit(self.system.bound)

  @functools.cached_property
  def compiled_score(self) -> Callable[..., jax.Array] | None:
    """`(params, aux, x_t, sigma) -> log_score`, compiled, None without one."""
    make = self.system.score_fn
    if make is None:
      return None
    return jax.jit(lambda params, aux, *inputs: make(params, aux)(*inputs))

  @property
  def flops_per_token(self) -> float:
    """Model FLOPs of a training step, a token."""
    params, _ = jax.eval_shape(self.system.init, jax.random.key(0))
    model = self.config.model
    return metrics.flops_per_token(
      metrics.num_parameters_per_token(params),
      model.num_layers,
      model.hidden_size,
      self.config.data.seq_len,
    )

  @property
  def tokenizer(self) -> Any:
    """The data's tokenizer."""
    return self.info.tokenizer

  @property
  def length(self) -> int:
    """Tokens of a sample."""
    return self.config.sampling.length or self.config.data.seq_len

  def request(
    self,
    num_samples: int,
    *,
    prompt: str = '',
    suffix: str = '',
    label: str | Sequence[str | int] = '',
    first: int = 0,
    **options: Any,
  ) -> systems.Request:
    """A request for samples; what is not given is as in the config.

    Args:
      num_samples: how many.
      prompt: text that is kept; `{blank:n}` is n free tokens.
      suffix: text that samples end with.
      label: that of all samples, or one a sample, by name or number; '' or -1
        for none.
      first: samples of this run before them, whose seeds they do not take.
      **options: conditions (contains, avoids, regex, json_schema, ends: see
        `evaluation.conditioning.condition`), and fields of `systems.Request`.

    Returns:
      The request.

    Raises:
      ValueError: a prompt that does not fit, a condition that cannot be met, a
        label that there is not.
    """
    config = self.config
    chosen = {'grid': config.sampling.grid}
    for name in _OPTIONS:
      # By default there is nothing to ask for, and any sampler does it.
      if config.sampling[name] != FIELDS[f'sampling.{name}'].default:
        chosen[name] = config.sampling[name]
    settings = {
      'length': self.length,
      'seeds': [
        (config.seed + place) % 2**32
        for place in range(first, first + num_samples)
      ],
      'method': config.sampling.method,
      'steps': config.sampling.steps,
      'batch_size': config.sampling.batch_size,
      'options': chosen,
      'label': self.label_numbers(label, num_samples),
      **options,
    }
    return generate.request(
      self.tokenizer, prompt=prompt, suffix=suffix, **settings
    )

  def label_numbers(
    self, label: str | Sequence[str | int], num_samples: int
  ) -> np.ndarray | None:
    """Labels by their numbers.

    Args:
      label: of all samples, or one a sample, by name or number; '' or -1 for
        none.
      num_samples: how many.

    Returns:
      int32 `[num_samples]`; None where no label is asked for.

    Raises:
      ValueError: a label that there is not, or another number of them.
    """
    if isinstance(label, str):
      if not label:
        return None
      label = [label] * num_samples
    known = self.info.labels
    if not known:
      raise ValueError(
        f'label {label[0]!r} is asked for, and the run was trained without '
        'labels (data.label)'
      )
    for name in label:
      if isinstance(name, str) and name and name not in known:
        raise ValueError(
          f'unknown label {name!r}; {names.alternatives(name, known)}'
        )
    numbers = [
      (known.index(name) if name else -1) if isinstance(name, str) else name
      for name in label
    ]
    found = np.array(numbers, np.int32)
    if len(found) != num_samples or not -1 <= found.min() <= found.max() < len(
      known
    ):
      raise ValueError(
        f'labels must be {num_samples}, one a sequence, from 0 to '
        f'{len(known) - 1}, or -1 for none, not {numbers[:4]}'
      )
    return found

  def initial_params(self) -> PyTree | None:
    """The weights of `config.init_from`, or None where it is empty.

    Raises:
      ValueError: a checkpoint that does not fit the config, or none.
    """
    source = self.config.init_from
    if not source or self.system.frozen is not None:
      return None
    folder = pathlib.Path(source)
    # A folder of the hub has a config.json too.
    if run_folders.is_run(folder):
      system = self._unlabelled(folder)
      run_folders.require_same_meaning(folder, self.config)
      try:
        params, _, _ = run_folders.restored(system, source, with_aux=False)
      except checkpoint.CheckpointError as error:
        raise ValueError(f'init_from: {source}: {error}') from error
    elif self.system.load_pretrained is not None:
      try:
        params = self.system.load_pretrained(source)
      except ValueError as error:
        raise ValueError(f'init_from: {error}') from error
    else:
      raise ValueError(
        f'init_from: system {self.config.system.name!r} reads folders of runs '
        f'only, and {source!r} has no {flags.CONFIG_FILE} with checkpoints'
      )
    wanted, _ = jax.eval_shape(self.system.init, jax.random.key(0))
    if _LABEL_TABLE in wanted and _LABEL_TABLE not in params:
      # As it is at the start: zero, so that nothing changes.
      params = params | {
        _LABEL_TABLE: jax.tree.map(
          lambda leaf: np.zeros(leaf.shape, leaf.dtype), wanted[_LABEL_TABLE]
        )
      }
    run_folders.require_same_shapes(params, wanted, source)
    return params

  def _unlabelled(self, folder: pathlib.Path) -> System:
    """The system as a stored run has it, which may have no labels.

    Raises:
      ValueError: the run has other labels.
    """
    stored, own = labels.read_run(folder), self.info.labels
    if stored is not None and tuple(own) != stored:
      raise ValueError(
        f'init_from: {folder} was trained with the labels {_listed(stored)}, '
        f'and data.label gives {_listed(own)}'
      )
    if stored is not None or not own:
      return self.system

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
      params, aux = self.system.init(key)
      kept = {k: v for k, v in params.items() if k != _LABEL_TABLE}
      return kept, aux

    return dataclasses.replace(self.system, init=init)


def _listed(named: Sequence[str]) -> str:
  """Some names, for the text of an error."""
  some = ', '.join(map(repr, named[:3])) or 'none'
  return some + (f' and {len(named) - 3} more' if len(named) > 3 else '')
