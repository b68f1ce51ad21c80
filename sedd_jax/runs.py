"""A stored run as functions: scores, bounds, samples."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax import config_checks, experiments, flags, run_folders, systems
from sedd_jax.data.prepared import shards
from sedd_jax.evaluation import judges
from sedd_jax.systems.base import Bound, Samples
from sedd_jax.systems.common import requests
from sedd_jax.training import checkpoint

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained system as functions of tokens, with averaged parameters.

  Attributes:
    experiment: what its config describes.
    params: the averaged parameters.
    aux: what the system carries besides.
    step: the updates made.
  """

  experiment: experiments.Experiment
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
  experiment = experiments.Experiment(config, read=read, workdir=workdir)
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


def initial_aux(experiment: experiments.Experiment) -> PyTree | None:
  """What the system takes over from the run of `config.init_from`, or None.

  Raises:
    ValueError: no such run, or one that does not fit.
  """
  source = experiment.config.init_from
  if experiment.system.frozen is None or not source:
    return None
  try:
    run = load_run(source)
    if not judges.same_ids(run.tokenizer, experiment.tokenizer):
      raise ValueError(
        f'its tokens are those of {run.config.data.tokenizer!r}, and here '
        f'those of {experiment.config.data.tokenizer!r}: data.tokenizer must '
        'be the same'
      )
    return experiment.system.frozen(run.config, run.params)
  except (ValueError, checkpoint.CheckpointError) as error:
    raise ValueError(f'init_from: {source}: {error}') from error


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
