"""A run as an object: what its config builds, and a stored one as functions."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax import config_checks, flags, run_folders, systems
from sedd_jax.core import names
from sedd_jax.data import pipeline
from sedd_jax.data.files import documents, labels
from sedd_jax.data.prepared import shards, statistics
from sedd_jax.default_config import FIELDS
from sedd_jax.evaluation import generate, judges
from sedd_jax.systems.base import Bound, Samples, System
from sedd_jax.systems.common import requests
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

  def initial_aux(self) -> PyTree | None:
    """What the system takes over from the run of `config.init_from`, or None.

    Raises:
      ValueError: no such run, or one that does not fit.
    """
    source = self.config.init_from
    if self.system.frozen is None or not source:
      return None
    try:
      run = load_run(source)
      if not judges.same_ids(run.tokenizer, self.tokenizer):
        raise ValueError(
          f'its tokens are those of {run.config.data.tokenizer!r}, and here '
          f'those of {self.config.data.tokenizer!r}: data.tokenizer must be '
          'the same'
        )
      return self.system.frozen(run.config, run.params)
    except (ValueError, checkpoint.CheckpointError) as error:
      raise ValueError(f'init_from: {source}: {error}') from error

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


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained system as functions of tokens, with averaged parameters.

  Attributes:
    experiment: what its config describes.
    params: the averaged parameters.
    aux: what the system carries besides.
    step: the updates made.
  """

  experiment: Experiment
  params: PyTree
  aux: PyTree
  step: int

  @property
  def config(self) -> Any:
    """The config that was stored."""
    return self.experiment.config

  @property
  def tokenizer(self) -> Any:
    """Has `encode(text)`, `decode(ids)` and `vocab_size`."""
    return self.experiment.tokenizer

  def score_fn(
    self, x_t: jax.Array, sigma: jax.Array, label: jax.Array | None = None
  ) -> jax.Array:
    """log p_t(y) / p_t(x_t), as `sedd_jax.samplers.sample` wants it.

    Args:
      x_t: `[batch, length]` int32.
      sigma: `[batch]`, total noise.
      label: `[batch, length]` int32, -1 for none; None: no label.

    Returns:
      `[batch, length, num_states]`.

    Raises:
      ValueError: a system without scores.
    """
    score_fn = self.experiment.compiled_score
    if score_fn is None:
      raise ValueError(f'system {self.config.system.name!r} has no score')
    told = () if label is None else (label,)
    return score_fn(self.params, self.aux, x_t, sigma, *told)

  def sample(
    self,
    num_samples: int = 1,
    *,
    seeds: Sequence[int] | None = None,
    prompt: str = '',
    suffix: str = '',
    label: str | Sequence[str | int] = '',
    length: int | None = None,
    **options: Any,
  ) -> Samples:
    """Draws samples; what is not given is as in the config.

    Args:
      num_samples: how many.
      seeds: one a sample; 0, 1, ... from the config's seed by default.
      prompt: text that is kept; `{blank:n}` is n free tokens.
      suffix: text that samples end with.
      label: that of all samples, or one a sample, by name or number; '' or -1
        for none.  How much it counts is the option 'label_scale'.
      length: tokens a sample.
      **options: conditions (contains, avoids, regex, json_schema, ends: see
        `evaluation.conditioning.condition`), and fields of `systems.Request`,
        such as method.

    Returns:
      Tokens `[num_samples, length]` and more; `tokenizer.decode` makes text.

    Raises:
      ValueError: a prompt that does not fit, a condition that cannot be met, an
        unknown method.
    """
    if length is not None:
      options['length'] = length
    if seeds is not None:
      options['seeds'] = seeds
    request = self.experiment.request(
      num_samples, prompt=prompt, suffix=suffix, label=label, **options
    )
    return self.draw(request)

  def draw(self, request: systems.Request) -> Samples:
    """What the system samples for a request."""
    if self.experiment.system.sample is None:
      raise ValueError(f'system {self.config.system.name!r} draws no samples')
    samples = self.experiment.system.sample(self.params, self.aux, request)
    requests.require_satisfied(samples, request)
    return samples

  def bound(
    self,
    tokens: jax.Array,
    seed: int = 0,
    *,
    label: str | Sequence[str | int] = '',
  ) -> Bound:
    """An upper bound on -log p of each sequence, in nats.

    Each has times of its own, where an evaluation spreads them over a split.

    Args:
      tokens: `[batch, length]` int32.
      seed: of the draws of time and noise.
      label: that p is given, of all sequences or one a sequence; see `sample`.

    Returns:
      Nats and counted tokens `[batch]`, and the terms.

    Raises:
      ValueError: a system without likelihood, or tokens of another shape.
    """
    bound_fn = self.experiment.compiled_bound
    if bound_fn is None:
      raise ValueError(f'system {self.config.system.name!r} has no likelihood')
    tokens = jnp.asarray(tokens, jnp.int32)
    if tokens.ndim != 2:
      raise ValueError(f'tokens must be [batch, length], not {tokens.shape}')
    vocab_size = self.experiment.info.vocab_size
    if bool(jnp.any((tokens < 0) | (tokens >= vocab_size))):
      raise ValueError(
        f'tokens must be data symbols, 0 to {vocab_size - 1}; they go from '
        f'{int(tokens.min())} to {int(tokens.max())}'
      )
    batch = {
      'tokens': tokens,
      'index': jnp.arange(len(tokens)),
      'count': jnp.asarray(len(tokens)),
    }
    numbers = self.experiment.label_numbers(label, len(tokens))
    if numbers is not None:
      batch['label'] = jnp.asarray(numbers)
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return bound_fn(self.params, self.aux, key, batch)

  def tokens(self, split: str) -> shards.Tokens:
    """All tokens of a split, `[num_tokens]`.

    An array, or of a split of several files what is indexed and sliced like
    one; `np.asarray` reads it into memory.
    """
    return self.experiment.dataset.tokens(split)


def load_run(workdir: str | os.PathLike, checkpoint: str = 'last') -> Run:
  """A stored run as functions.

  Args:
    workdir: the run's folder.
    checkpoint: 'last', the newest whole one, or 'best', that of the lowest
      validation.

  Returns:
    The run, with the averaged parameters of that checkpoint.

  Raises:
    ValueError: no run in that folder, or none of its checkpoints is whole.
    DataError: its tokenizer is not there any more.
  """
  stored = pathlib.Path(workdir) / flags.CONFIG_FILE
  if not stored.is_file():
    raise ValueError(f'no run in {workdir}: it has no {flags.CONFIG_FILE}')
  config = config_checks.read(stored)
  config.eval.checkpoint = checkpoint
  run = load(config, workdir, read=False)
  # Onto the device once, not at every call of a function.
  params, aux = jax.device_put((run.params, run.aux))
  return dataclasses.replace(run, params=params, aux=aux)


def load(config: Any, workdir: str | os.PathLike, *, read: bool = True) -> Run:
  """A stored run with a config of its own choosing for what may change.

  Where the folder holds no checkpoint, `init_from` gives the parameters.

  Args:
    config: the run's config, with other settings of evaluation or sampling.
    workdir: the run's folder.
    read: read the data now, not when it is first asked for.

  Returns:
    The run.

  Raises:
    ValueError: neither a checkpoint nor init_from.
  """
  experiment = Experiment(config, read=read, workdir=workdir)
  begins = config.init_from and experiment.system.frozen is None
  if begins and not run_folders.has_checkpoint(workdir):
    params, step = experiment.initial_params(), 0
    system = experiment.system
    aux = jax.jit(system.init)(jax.random.key(config.seed))[1]
    if system.refresh is not None and config.training.refresh_every:
      aux = system.refresh(jax.device_get(params), jax.device_get(aux))
  else:
    params, aux, step = run_folders.restored(
      experiment.system, workdir, config.eval.checkpoint
    )
  return Run(experiment, params, aux, step)


def judge(name: str) -> judges.Judge:
  """The judge that `eval.judge` names.

  Args:
    name: the folder of a run of system autoregressive, else what
      `judges.of_transformers` reads.

  Returns:
    The judge.  A run scores every token of a text, with averaged parameters,
    in pieces of at most its own data.seq_len.

  Raises:
    ValueError: a run without an exact likelihood, or no such model.
    DataError: its tokenizer is not there any more.
  """
  folder = pathlib.Path(name)
  if not run_folders.is_run(folder):
    return judges.of_transformers(name)
  run = load_run(folder)
  if run.config.system.name != 'autoregressive':
    raise ValueError(
      f'eval.judge {name}: system {run.config.system.name!r} has no exact '
      'likelihood, token by token; a judge is of system autoregressive, or a '
      'GPT-2'
    )
  bound_fn = run.experiment.compiled_bound
  assert bound_fn is not None

  def nats_fn(
    tokens: np.ndarray, valid: np.ndarray, counted: np.ndarray
  ) -> np.ndarray:
    batch = {
      'tokens': tokens,
      'valid': valid,
      'given': valid & ~counted,
      'index': np.arange(len(tokens)),
      'count': np.asarray(len(tokens)),
    }
    bound = bound_fn(run.params, run.aux, jax.random.key(0), batch)
    return np.asarray(bound.nats)

  return judges.Judge(
    name=folder.name,
    tokenizer=run.tokenizer,
    width=run.config.data.seq_len,
    scores_first=True,
    nats_fn=nats_fn,
  )
