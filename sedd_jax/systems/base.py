"""The record that every system is, and what it passes to trainer and evaluator.

A system is built once by `make(config, data_info)`; training and evaluation see
this record and nothing else.  See docs/extending.md.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any


class Loss(NamedTuple):
  """What a training step minimises, one row an example.

  Attributes:
    nats: `[batch]`, the example's loss summed over its tokens, in nats.
    weight: `[batch]`, the number of tokens that the loss is about; of a
      classifier 1, or 0 of a text without labels.
    terms: name to `(sum, weight)`, both `[batch]`: parts worth logging in nats.
    stats: pytree of `[batch, ...]` that `System.update_aux` consumes.
  """

  nats: Array
  weight: Array
  terms: Mapping[str, tuple[Array, Array]] = {}
  stats: PyTree = ()


class Bound(NamedTuple):
  """An unbiased estimate of an upper bound on -log p, one row an example.

  Attributes:
    nats: `[batch]`, nats a sequence.
    weight: `[batch]`, tokens counted in the sequence.
    terms: name to `[batch]`, nats; the terms sum to `nats`.  'nll' alone says
      that it is no bound but -log p itself.
    stats: pytree of `[batch, ...]` that `System.update_aux` consumes.
  """

  nats: Array
  weight: Array
  terms: Mapping[str, Array] = {}
  stats: PyTree = ()


class TaskError(ValueError):
  """A mistake in what a task was asked, told in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What to sample.

  Attributes:
    length: tokens a sequence.
    seeds: `[n]` integers, one a sequence; a sequence depends on its own seed
      alone, so a batch gives the tokens that single requests give.
    tokens: `[n, length]` int32 or None, the prompt.
    given: `[n, length]` bool or None, True where `tokens` is clamped.
    start: `[n, length]` int32 or None, an initial state that is not clamped;
      of systems that edit below 0 where it has ended.
    conditions: of each sequence a `samplers.Condition` or None, or None for
      all; their templates are in `tokens` and `given` already.
    source: `[n, source_length]` int32 or None, for sequence-to-sequence; below
      0 where a source has ended.
    label: `[n]` int32, labels of the data by their numbers, -1 for none, or
      None.
    guidance_scale: strength of the guides, a power of p(c | x).
    guides: functions `(x_t, level) -> log p(c | x_t)`, `[n]`, level `[n]` the
      total noise (of Diffusion-LM vectors, and the step); jax code without
      side effects.
    pinned: `[n, length]` int32 or None, tokens that predictions of vectors are
      drawn to, as by a guide; below 0 where they are free.
    method: sampler's name.
    steps: reverse steps.
    batch_size: rows of the one compiled shape; requests are padded to it.
    record_path: keep every intermediate state of the first batch in
      `Samples.path`.
    options: further options of the sampler.
  """

  length: int
  seeds: Any
  tokens: Any = None
  given: Any = None
  start: Any = None
  conditions: Any = None
  source: Any = None
  label: Any = None
  guidance_scale: float = 1.0
  guides: tuple[Callable, ...] = ()
  pinned: Any = None
  method: str = 'tweedie'
  steps: int = 64
  batch_size: int | None = None
  record_path: bool = False
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Samples(NamedTuple):
  """What came out of a request.

  Attributes:
    tokens: `[n, length]` int32.
    lengths: `[n]` int32, tokens that count in each row.
    path: `[steps + 1, m, length]` int32 or None, of the first m sequences, one
      batch: the start, and the state after each step, the final denoising too.
    calls: network calls a batch; the mean over batches where they differ.
    history: of the first batch, for each sequence the revisions
      (`samplers.edits.Revision`) that led to it; None but of systems that edit.
  """

  tokens: Any
  lengths: Any
  path: Any = None
  calls: float = 0
  history: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
  """A text-diffusion system as functions over explicit parameters.

  Attributes:
    init: `(key) -> (params, aux)`.
    loss: `(params, aux, key, batch) -> Loss`; `key` is the step's key.
    bits_of: the term of the loss whose bits are reported; '' for the whole,
      None where the loss is no likelihood's, and no bits are.
    update_aux: `(aux, stats) -> aux` each step, or None; `stats` are those of
      the whole global batch in order of index.
    refresh: `(params, aux) -> aux` on the host every
      `config.training.refresh_every` steps, or None.
    bound: `(params, aux, key, batch) -> Bound`, or None where the system has no
      likelihood.
    sample: `(params, aux, request) -> Samples`, called on the host, or None.
    check_request: `(request) -> None`, raises ValueError for one that `sample`
      would refuse, before anything is trained; None where nothing can be amiss.
    prepare: `(seed, step, index, example) -> example`, host-side corruption, a
      pure function of its arguments, or None.
    tasks: further modes of `main`: `(params, aux, options, tokenizer) ->` a
      JSON-able dict, or `revising.Revised`, texts that `main` writes, shows and
      scores; raises `TaskError` for options that do not fit.
    score_fn: `(params, aux) -> (x_t, sigma) -> log_score`, or None for systems
      without one.
    load_pretrained: `(path) -> params` reads a checkpoint of the original's, or
      None.
    frozen: `(config, params) -> aux`, in place of that of `init`: what a system
      takes as it is from the run that `init_from` names, whose config and
      averaged parameters it is given; raises ValueError where they do not fit.
      None for a system that takes weights to go on from.
    dimensions: numbers that a token is diffused as, by which bits a dimension
      are told of the bound; 0 for noise on tokens.
    log_label: `(params, aux, x_t, level [n], label [n]) -> log p(label | x_t)
      [n]` of a classifier, of vectors at a step, or of tokens (or weights of
      their states) at a total noise; 0 where the label is below 0 (of words and
      phrases `[n, facts, 3]`, see `data.labelling.spans.numbered`); or None.
  """

  init: Callable[..., Any]
  loss: Callable[..., Loss]
  bits_of: str | None = ''
  update_aux: Callable[..., PyTree] | None = None
  refresh: Callable[..., PyTree] | None = None
  bound: Callable[..., Bound] | None = None
  sample: Callable[..., Samples] | None = None
  check_request: Callable[[Request], None] | None = None
  prepare: Callable[..., Any] | None = None
  tasks: Mapping[str, Callable[..., Any]] = dataclasses.field(
    default_factory=dict
  )
  score_fn: Callable[..., Any] | None = None
  load_pretrained: Callable[..., PyTree] | None = None
  frozen: Callable[..., PyTree] | None = None
  dimensions: int = 0
  log_label: Callable[..., Array] | None = None
