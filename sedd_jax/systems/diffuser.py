"""DiffusER, text diffusion by edits (arXiv 2210.16886).

Noise keeps, replaces, deletes and inserts spans; the network undoes one step of
it at a time: a tagger says what is done to each token, a writer fills the
slots.  Choices that the paper leaves open are listed in docs/systems.md.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names
from sedd_jax.data.paired import marked
from sedd_jax.losses import edits as edit_losses
from sedd_jax.models import edits as edit_models
from sedd_jax.processes import edit_arrays, edit_noise
from sedd_jax.samplers import edits as edit_samplers
from sedd_jax.systems import base
from sedd_jax.systems.common import parts, requests
from sedd_jax.systems.editing import edit_examples, edit_requests, revising

METHODS = edit_samplers.METHODS
TASKS = ('revise',)
DISTRACTORS = ('uniform', 'corpus')
_OPTIONS = (
  *('grid', 'start', 'beam', 'branches', 'temperature', 'top_p'),
  *('begin', 'keep_bias'),
)
_CONTEXT = ('kept', 'kept_valid', 'insert_slot', 'replace_slot')


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  return ({'sampling.method': 'nucleus', 'sampling.start': 'random'},)


def make(
  config: Any,
  data_info: Any,
  num_steps: int = 12,
  keep: float = 0.6,
  replace: float = 0.2,
  delete: float = 0.1,
  insert: float = 0.1,
  mean_length: float = 3.0,
  distractors: str = 'uniform',
  null_share: float = 0.1,
  source_share: float = 0.5,
  source_length: int = 0,
  capacity: int = 0,
  written: int = 0,
  longest_span: int = 0,
  timed: bool = True,
  tag_weight: float = 1.0,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config; reads model, data.seq_len and sampling.
    data_info: has `vocab_size`.
    num_steps: T, steps of noise.
    keep: see `processes.edit_noise.EditNoise`, also the following.
    replace: rate of replaced spans.
    delete: rate of deleted spans.
    insert: rate of inserted spans.
    mean_length: of the Poisson law of the lengths of spans.
    distractors: random tokens, which come in by noise: 'uniform' over the
      vocabulary, or as often as in the 'corpus', the train split.
    null_share: of the examples begin with nothing, and put all of x_0 in.
    source_share: of the other examples that have a source begin with it.
    source_length: tokens of a source; 0: there is none.
    capacity: tokens that a state may have; 0: half as many again as
      data.seq_len.
    written: length of the text of all spans of a revision; 0: capacity + 2.
    longest_span: tokens that a span may have in sampling; 0: as many as fit.
    timed: whether the networks are told the step.
    tag_weight: of the tags' cross entropy, that of the spans having 1.

  Returns:
    The system, without a likelihood: process and schedule are not read.

  Raises:
    ValueError: names or numbers that do not fit; before compilation.
  """
  parts.require_method(config, METHODS)
  parts.require_no_labels(config, data_info)
  vocab_size, seq_len = data_info.vocab_size, config.data.seq_len
  capacity = capacity or seq_len + seq_len // 2
  layout = edit_arrays.Layout(
    vocab_size=vocab_size, capacity=capacity, written=written or capacity + 2
  )
  noise = edit_noise.EditNoise(
    vocab_size=vocab_size,
    keep=keep,
    replace=replace,
    delete=delete,
    insert=insert,
    mean_length=mean_length,
    excluded=_marks(getattr(data_info, 'tokenizer', None)),
    weights=_weights(distractors, data_info),
  )
  _check(config, layout, num_steps, source_length)
  for name, share in (
    ('null_share', null_share),
    ('source_share', source_share),
  ):
    if not 0 <= share <= 1:
      raise ValueError(f'system.args.{name} is in [0, 1], not {share}')
  tagger, writer = _networks(config, layout, source_length)
  prepare = functools.partial(
    edit_examples.prepared,
    noise=noise,
    layout=layout,
    num_steps=num_steps,
    null_share=null_share,
    source_share=source_share,
    source_length=source_length,
  )

  def time_of(step: Any) -> Any:
    return step if timed else 0 * step

  def init(key):
    state = jnp.zeros((1, layout.places), jnp.int32)
    valid, time = jnp.ones_like(state, bool), jnp.ones(1)
    text = jnp.zeros((1, layout.written), jnp.int32)
    source = jnp.zeros((1, source_length), jnp.int32)
    sources = (source, source == 0) if source_length else ()
    context = {'kept': state, 'kept_valid': valid}
    context |= {'insert_slot': state, 'replace_slot': state}
    keys = jax.random.split(key)
    return {
      'tagger': tagger.init(keys[0], state, valid, time, *sources)['params'],
      'writer': writer.init(keys[1], context, text, text, time, *sources)[
        'params'
      ],
    }, ()

  def sources_of(batch):
    if not source_length:
      return None, None
    edit_examples.require_source(batch, source_length)
    source = batch['source']
    return source, batch.get('source_valid', jnp.ones_like(source, bool))

  def loss(params, aux, key, batch):
    del aux
    keys = keys_lib.example_keys(key, batch['index'])
    dropped: tuple[Any, Any] = (None, None)
    if config.model.dropout:
      dropped = keys_lib.folded(keys, 1), keys_lib.folded(keys, 2)
    time, sources = time_of(batch['time']), sources_of(batch)
    tag_logits: Any = tagger.apply(
      {'params': params['tagger']},
      batch['state'],
      batch['state_valid'],
      time,
      *sources,
      dropped[0],
    )
    span_logits: Any = writer.apply(
      {'params': params['writer']},
      {name: batch[name] for name in _CONTEXT},
      batch['text'],
      batch['text_slot'],
      time,
      *sources,
      dropped[1],
    )
    tags, flags = edit_losses.tag_nats(
      tag_logits, batch['tags'], batch['inserts']
    )
    spans = edit_losses.span_nats(span_logits, batch['text'])
    terms = {
      'tags': _summed(tags, batch['tags_scored']),
      'inserts': _summed(flags, batch['inserts_scored']),
      'spans': _summed(spans, batch['text_scored']),
      # The share of examples whose spans are longer than the writer's text.
      'cut': (
        batch['text_cut'].astype(spans.dtype),
        jnp.ones_like(spans[:, 0]),
      ),
    }
    nats = tag_weight * (terms['tags'][0] + terms['inserts'][0])
    weight = batch['counted'].astype(nats.dtype)
    return base.Loss(nats + terms['spans'][0], weight, terms)

  @jax.jit
  def tag(params, arrays, time, sources, keep_bias):
    logits: Any = tagger.apply(
      {'params': params['tagger']},
      arrays['state'],
      arrays['state_valid'],
      time,
      *sources,
    )
    return edit_losses.log_tag_probs(logits, keep_bias)

  @functools.partial(jax.jit, static_argnames=('law', 'rules'))
  def write(params, context, hypotheses, time, sources, keys, law, rules):
    variables = {'params': params['writer']}
    begun = writer.apply(variables, context, time, *sources, method='begin')

    def write_fn(*args):
      return writer.apply(variables, *args, method='write')

    return edit_samplers.write_spans(
      write_fn,
      begun,
      *hypotheses,
      rules=rules,
      keys=keys,
      temperature=law[0],
      top_p=law[1],
    )

  def check_request(request):
    takes = ('source',) if source_length else ()
    name = config.system.name
    options = requests.checked(request, METHODS, _OPTIONS, name, takes)
    requests.require_even(options.pop('grid', 'uniform'))
    edit_requests.check(request, options, layout, source_length, num_steps)

  def sample(params, aux, request):
    del aux
    check_request(request)
    rules = edit_samplers.Rules(
      layout, request.length, longest_span or layout.capacity
    )
    calls = 0

    def told(x, rows, source):
      """Time and sources of rows of a network's batch."""
      if not source_length:
        return np.full(len(rows), time_of(x), np.float32), (None, None)
      mine = np.full((len(rows), source_length), -1, np.int32)
      if source is not None:
        mine = source[rows]
      there = np.maximum(mine, 0), mine >= 0
      return np.full(len(rows), time_of(x), np.float32), there

    def chains_of(seeds, tokens, given, start, source):
      law = (
        request.options.get('temperature', 1.0),
        request.options.get('top_p', 1.0),
      )

      def tag_fn(arrays, time, rows):
        nonlocal calls
        calls += 1
        bias = np.float32(request.options.get('keep_bias', 0.0))
        found = tag(params, arrays, *told(time, rows, source), bias)
        return tuple(np.asarray(x) for x in found)

      def span_fn(context, count, scores, room, time, rows, drawn):
        nonlocal calls
        rows = np.repeat(rows, count.shape[1])
        keys = None
        if drawn is not None:
          keys = jax.vmap(jax.random.key)(jnp.asarray(drawn, jnp.uint32))
        *found, made = write(
          params,
          context,
          (count, scores, room),
          *told(time, rows, source),
          keys,
          law=law,
          # The length of samples is not read: one program for all.
          rules=rules._replace(longest=layout.capacity),
        )
        calls += 1 + int(made)
        return tuple(np.asarray(x) for x in found)

      revise = functools.partial(
        edit_samplers.revisions,
        tag_fn,
        span_fn,
        rules=rules,
        temperature=law[0],
        top_p=law[1],
      )
      return edit_requests.chains(
        revise,
        request,
        num_steps,
        noise,
        seeds,
        tokens,
        given,
        start,
        source,
      )

    return edit_requests.in_batches(chains_of, request, lambda: calls)

  revise = revising.task(
    config,
    sample,
    check_request,
    capacity=layout.capacity,
    source_length=source_length,
    marks=noise.excluded,
  )
  return base.System(
    init=init,
    loss=loss,
    bits_of=None,
    sample=sample,
    check_request=check_request,
    prepare=prepare,
    tasks={'revise': revise},
  )


def _marks(tokenizer: Any) -> tuple[int, ...]:
  """Symbols around texts, which are not edited: an edit sees where one ends."""
  if not isinstance(tokenizer, marked.Marked):
    return ()
  return tokenizer.cls, tokenizer.sep, tokenizer.pad


def _weights(distractors: str, data_info: Any) -> tuple[float, ...] | None:
  """Of each symbol as a random token; None: all alike."""
  if distractors not in DISTRACTORS:
    raise ValueError(
      f'unknown system.args.distractors {distractors!r}; '
      f'{names.alternatives(distractors, DISTRACTORS)}'
    )
  if distractors == 'uniform':
    return None
  return tuple(map(float, data_info.token_counts()))


def _check(
  config: Any, layout: edit_arrays.Layout, num_steps: int, source_length: int
) -> None:
  if config.model.name != 'transformer' or config.model.args:
    raise ValueError(
      'system diffuser has networks of its own, of the fields of model: '
      'model.name must be transformer, without model.args'
    )
  if num_steps < 1 or source_length < 0:
    raise ValueError(
      f'system.args: num_steps {num_steps} is at least 1, source_length '
      f'{source_length} at least 0'
    )
  _check_source(config.data, source_length)
  for field, length in (
    ('data.seq_len', config.data.seq_len),
    ('sampling.length', config.sampling.length),
  ):
    if length > layout.capacity:
      raise ValueError(
        f'{field} {length} is more than the {layout.capacity} tokens that a '
        'state may have: set system.args.capacity'
      )


def _check_source(data: Any, source_length: int) -> None:
  """Raises ValueError where sources would be ignored, or are not there."""
  if data.source != 'seq2seq':
    return
  if data.layout == 'joint':
    raise ValueError(
      "data.layout='joint' makes one text of source and target, and system "
      "diffuser edits one that stands apart: use 'split', or 'target'"
    )
  there = 0 if data.layout == 'target' else data.source_len or data.seq_len
  if source_length != there:
    raise ValueError(
      f'system.args.source_length={source_length}, but sources have {there} '
      f'tokens with data.layout={data.layout!r} (data.source_len, or '
      'data.seq_len where it is 0)'
    )


def _networks(
  config: Any, layout: edit_arrays.Layout, source_length: int
) -> tuple[edit_models.Tagger, edit_models.SpanWriter]:
  fields = {
    key: config.model[key]
    for key in config.model
    if key not in ('name', 'args')
  }
  return (
    edit_models.Tagger(
      vocab_size=layout.vocab_size, outputs=edit_losses.NUM_LOGITS, **fields
    ),
    edit_models.SpanWriter(
      vocab_size=layout.vocab_size,
      places=layout.places,
      written=layout.written,
      source_length=source_length,
      **fields,
    ),
  )


def _summed(nats: Any, scored: Any) -> tuple[Any, Any]:
  return (
    jnp.sum(jnp.where(scored, nats, 0), axis=-1),
    jnp.sum(scored, axis=-1).astype(nats.dtype),
  )
