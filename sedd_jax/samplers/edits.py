"""The reverse of noise that edits: tags, then spans, then the edit itself.

DiffusER, arXiv 2210.16886, section 2.3.  One revision draws or chooses a tag
for each token and a flag for each gap, drops what is deleted, lets the writer
fill the slots, and applies the edit on the host; p(x_s | x_t) is the product of
the probabilities of its tags, flags and spans.  Arrays have one shape whatever
the lengths, so that nothing compiles again.

Networks are functions: `TagFn` gives log probabilities of tags and flags,
`SpanFn` writes spans, by `write_spans`.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.core import categorical
from sedd_jax.core import keys as keys_lib
from sedd_jax.processes import edit_arrays, edits
from sedd_jax.samplers import unmasking

METHODS = ('greedy', 'beam', 'beam_2d', 'nucleus')
STARTS = ('null', 'random', 'source', 'draft')

Tokens = tuple[int, ...]
# (state arrays [n, places], time, rows [n]) -> log probs of tags [n, places, 3]
# and flags [n, places, 2].
TagFn = Callable[[Any, float, np.ndarray], tuple[np.ndarray, np.ndarray]]
# (context arrays [n, width, places], count, scores, room [n, width], time,
# rows [n], seeds [n] or None) -> what `write_spans` returns.
SpanFn = Callable[..., Any]


class Rules(NamedTuple):
  """What states and spans are held to.

  Attributes:
    layout: sizes of the arrays.
    longest: tokens that a state may have, at most the layout's capacity.
    longest_span: tokens that a span may have.
  """

  layout: edit_arrays.Layout
  longest: int
  longest_span: int


class Revision(NamedTuple):
  """One step of the reverse process.

  Attributes:
    state: tokens before it.
    edit: of them.
    log_prob: of tags, flags and spans, nats below 0.
  """

  state: Tokens
  edit: edits.Edit
  log_prob: float

  @property
  def result(self) -> Tokens:
    """Tokens after it."""
    return edits.applied(self.state, self.edit)


class Chain(NamedTuple):
  """Revisions of one sequence.

  Attributes:
    revisions: in order.
    state: tokens after the last.
    score: log p, summed over the revisions.
    resting: whether the last one changed nothing, so that there is no next.
  """

  revisions: tuple[Revision, ...]
  state: Tokens
  score: float = 0.0
  resting: bool = False

  def with_revision(self, revision: Revision) -> 'Chain':
    """The chain one revision longer."""
    return Chain(
      (*self.revisions, revision),
      revision.result,
      self.score + revision.log_prob,
      edits.is_identity(revision.edit),
    )


class _Writing(NamedTuple):
  """The state of `write_spans`: `[n, width, ...]` but for the first two."""

  place: Array
  begun: Any
  logits: Array
  symbol: Array
  slot: Array
  length: Array
  room: Array
  slots: Array
  score: Array
  text: Array
  parent: Array


def write_spans(
  write_fn: Callable[[Array, Array, Any, Array], tuple[Array, Any]],
  begun: Any,
  count: Array,
  scores: Array,
  room: Array,
  *,
  rules: Rules,
  keys: Array | None = None,
  temperature: float = 1.0,
  top_p: float = 1.0,
) -> tuple[Array, Array, Array, Array]:
  """Writes the spans of hypotheses by a beam, or draws them.

  A span takes tokens as long as there is room for them, in itself and in the
  state, and for the ends of the slots to come; then its end is all that is left
  to choose, at probability 1.

  Args:
    write_fn: `(symbol [n * width], slot [n * width], begun, place) -> (logits
      [n * width, vocab_size + 1], begun)`, as `models.edits.SpanWriter.write`.
    begun: arrays with n * width on the second axis.
    count: `[n, width]` int32, slots, at most the layout's `most_slots`.
    scores: `[n, width]`, log p of each hypothesis so far; -inf: there is none.
    room: `[n, width]` int32, tokens that may be put in.
    rules: see `Rules`.
    keys: `[n]` typed, to draw; then width is 1.  None: the best by a beam.
    temperature: of draws.
    top_p: of draws.

  Returns:
    Text `[n, width, written]`, log p `[n, width]` with the spans', falling, the
    hypothesis `[n, width]` that each came from, and the calls of `write_fn`.
  """
  layout = rules.layout
  n, width = count.shape
  end, symbols = layout.end, layout.vocab_size + 1
  hypotheses = jnp.arange(width, dtype=jnp.int32)[None]

  def is_done(s: _Writing) -> Array:
    closed = (s.symbol == end) & (s.slot == s.slots)
    return closed | jnp.isneginf(s.score)

  def advance(s: _Writing) -> _Writing:
    done = is_done(s)
    opens = (s.symbol == end) & ~done
    chooses = ~done & ~opens
    needed = 1 + 2 * (s.slots - s.slot)
    fits = (s.room > 0) & (s.length < rules.longest_span)
    fits &= layout.written - (s.place + 1) >= needed
    allowed = fits[..., None] | (jnp.arange(symbols) == end)[None, None]
    logits = jnp.where(allowed, s.logits, -jnp.inf)
    gains = jax.nn.log_softmax(logits)
    if keys is None:
      only = jnp.where(jnp.arange(symbols) == 0, 0, -jnp.inf)[None, None]
      gains = jnp.where(chooses[..., None], gains, only)
      totals = (s.score[..., None] + gains).reshape(n, width * symbols)
      score, best = jax.lax.top_k(totals, width)
      parent, symbol = best // symbols, best % symbols
    else:
      probs = unmasking.sharpened(logits[:, 0], temperature, top_p)
      symbol = categorical.categorical(keys_lib.folded(keys, s.place), probs)
      symbol = symbol[:, None]
      gain = jnp.take_along_axis(gains, symbol[..., None], axis=-1)[..., 0]
      score = s.score + jnp.where(chooses, gain, 0)
      parent = jnp.zeros_like(symbol)

    def of(x: Array) -> Array:
      index = parent.reshape(*parent.shape, *(1,) * (x.ndim - 2))
      return jnp.take_along_axis(x, index, axis=1)

    done, opens = of(done), of(opens)
    symbol = jnp.where(opens, layout.marker, symbol).astype(jnp.int32)
    symbol = jnp.where(done, end, symbol)
    puts = ~done & (symbol < end)
    slot = of(s.slot) + opens
    written = jnp.where(done, 0, symbol)[..., None]
    here = (jnp.arange(layout.written) == s.place)[None, None]
    begun = s.begun
    if width > 1:
      rows = (width * jnp.arange(n)[:, None] + parent).ravel()
      begun = jax.tree.map(lambda x: jnp.take(x, rows, axis=1), begun)
    logits, begun = write_fn(symbol.ravel(), slot.ravel(), begun, s.place)
    return _Writing(
      place=s.place + 1,
      begun=begun,
      logits=logits.reshape(n, width, symbols),
      symbol=symbol,
      slot=slot,
      length=jnp.where(opens, 0, of(s.length) + puts),
      room=of(s.room) - puts,
      slots=of(s.slots),
      score=score,
      text=jnp.where(here, written, of(s.text)),
      parent=of(s.parent),
    )

  def goes_on(s: _Writing) -> Array:
    return (s.place < layout.written) & ~jnp.all(is_done(s))

  zeros = jnp.zeros((n, width), jnp.int32)
  final = jax.lax.while_loop(
    goes_on,
    advance,
    _Writing(
      place=jnp.zeros((), jnp.int32),
      begun=begun,
      logits=jnp.zeros((n, width, symbols), jnp.float32),
      symbol=jnp.full_like(zeros, end),
      slot=zeros,
      length=zeros,
      room=room,
      slots=count,
      score=scores,
      text=jnp.zeros((n, width, layout.written), jnp.int32),
      parent=zeros + hypotheses,
    ),
  )
  order = jnp.argsort(-final.score, axis=1)
  parent = jnp.take_along_axis(final.parent, order, axis=1)
  score = jnp.take_along_axis(final.score, order, axis=1)
  text = jnp.take_along_axis(final.text, order[..., None], axis=1)
  return text, score, parent, final.place


class Tagged(NamedTuple):
  """Tags and flags of a state, and their log probability."""

  tags: np.ndarray
  inserts: np.ndarray
  log_prob: float


class _Slots(NamedTuple):
  """The slots of tags and flags so far, as `edits.slots` numbers them.

  Attributes:
    used: how many.
    flagged: something is put in behind the last token that is not deleted.
    runs: that token is replaced.
  """

  used: int = 0
  flagged: bool = False
  runs: bool = False

  def opens(self, width: int, choice: int) -> bool:
    """Whether a flag (of 2) or a tag (of 3) takes a slot of its own."""
    if width == 2:
      return choice == 1 and not self.flagged
    return choice == edits.REPLACE and (self.flagged or not self.runs)

  def after(self, width: int, choice: int) -> '_Slots':
    """The slots with one more flag or tag."""
    used = self.used + self.opens(width, choice)
    if width == 2:
      return self._replace(used=used, flagged=self.flagged or choice == 1)
    if choice == edits.DELETE:
      return self
    return _Slots(used, False, choice == edits.REPLACE)

  def law(self, row: np.ndarray, most: int) -> np.ndarray:
    """Log p of a flag or a tag, where there can be so many slots."""
    if self.used < most:
      return row
    opens = [self.opens(len(row), choice) for choice in range(len(row))]
    held = np.where(opens, -np.inf, row)
    # What is forced stays.
    if np.isneginf(held).all():
      return row
    return held - np.logaddexp.reduce(held)


def likeliest_tags(
  log_tags: np.ndarray,
  log_inserts: np.ndarray,
  width: int,
  most: int = sys.maxsize,
) -> list[Tagged]:
  """The most probable tags and flags, best first.

  From left to right; where all slots are taken no further one is opened, and
  the law is that of what remains.  Exactly the most probable ones if no slot is
  missing, or if the width takes in all; else those that a beam finds.

  Args:
    log_tags: `[n, 3]` log probabilities of the tags of n tokens.
    log_inserts: `[n + 1, 2]` of the flags.
    width: how many; fewer are returned where fewer are possible.
    most: slots that there can be.

  >>> flat = np.log(np.array([[0.5, 0.3, 0.2]])), np.log(np.full((2, 2), 0.5))
  >>> [found.tags.tolist() for found in likeliest_tags(*flat, 5)]
  [[0], [0], [0], [0], [1]]
  """
  beams: list[tuple[float, Tokens, _Slots]] = [(0.0, (), _Slots())]
  for row in _interleaved(log_tags, log_inserts):
    longer = [
      (score + float(gain), (*chosen, place), slots)
      for score, chosen, slots in beams
      for place, gain in enumerate(slots.law(row, most))
      if gain > -np.inf
    ]
    beams = [
      (score, chosen, slots.after(len(row), chosen[-1]))
      for score, chosen, slots in sorted(longer, key=lambda x: -x[0])[:width]
    ]
  return [
    Tagged(np.array(c[1::2], np.int8), np.array(c[::2], bool), score)
    for score, c, _ in beams
  ]


def drawn_tags(
  log_tags: np.ndarray,
  log_inserts: np.ndarray,
  rng: np.random.Generator,
  temperature: float = 1.0,
  top_p: float = 1.0,
  most: int = sys.maxsize,
) -> Tagged:
  """Tags and flags drawn each from its own law, by nucleus.

  As in `likeliest_tags` no slot is opened where all are taken.

  Args:
    log_tags: `[n, 3]`.
    log_inserts: `[n + 1, 2]`.
    rng: which the draw depends on.
    temperature: see `unmasking.sharpened`.
    top_p: see `unmasking.sharpened`.
    most: slots that there can be.

  Returns:
    The draw, with its log probability under the model's own law.
  """
  chosen: list[int] = []
  score, slots = 0.0, _Slots()
  for row in _interleaved(log_tags, log_inserts):
    row = slots.law(row, most)
    probs = _sharpened(row, temperature, top_p)
    place = int(np.searchsorted(np.cumsum(probs), rng.random(), side='right'))
    place = min(place, int(np.flatnonzero(probs)[-1]))
    chosen.append(place)
    score += float(row[place])
    slots = slots.after(len(row), place)
  return Tagged(
    np.array(chosen[1::2], np.int8), np.array(chosen[::2], bool), score
  )


def _interleaved(
  log_tags: np.ndarray, log_inserts: np.ndarray
) -> list[np.ndarray]:
  """Flag, tag, flag, ..., flag: from left to right."""
  rows = list(itertools.chain(*zip(log_inserts, log_tags)))
  return [*rows, log_inserts[-1]]


def _sharpened(
  log_probs: np.ndarray, temperature: float, top_p: float
) -> np.ndarray:
  """`unmasking.sharpened` of one small law, on the host in float64."""
  scaled = log_probs.astype(np.float64) / temperature
  probs = np.exp(scaled - scaled.max())
  probs /= probs.sum()
  falling = np.sort(probs)[::-1]
  before = np.cumsum(falling) - falling
  probs = np.where(probs >= falling[before < top_p].min(), probs, 0)
  return probs / probs.sum()


def revisions(
  tag_fn: TagFn,
  span_fn: SpanFn,
  states: Sequence[Tokens],
  time: float,
  *,
  rules: Rules,
  rows: np.ndarray,
  fixed: Sequence[int],
  forced: bool = False,
  width: int = 1,
  seeds: np.ndarray | None = None,
  temperature: float = 1.0,
  top_p: float = 1.0,
) -> list[list[Revision]]:
  """Revisions of some states: the best ones by a beam, or one draw.

  A beam begins with the `width` most probable tags and flags and goes on over
  the symbols of the spans: with all of them in it, its first is the most
  probable edit.

  Args:
    tag_fn: see `TagFn`.
    span_fn: see `SpanFn`; draws as it likes where it is given seeds.
    states: n sequences.
    time: the step, told to the networks.
    rules: see `Rules`.
    rows: `[n]`, the sequence of the request that each state is of.
    fixed: n numbers of tokens at the beginning that stay as they are.
    forced: something is put in at the end of each state, as of an empty one
      that has to begin.
    width: hypotheses of the beam.
    seeds: `[n]` integers, to draw; None: the best.
    temperature: of the draws of tags.
    top_p: of the draws of tags.

  Returns:
    For each state its revisions, best first.
  """
  layout, most = rules.layout, rules.layout.most_slots
  arrays = edit_arrays.stacked([layout.state(x) for x in states])
  log_tags, log_inserts = tag_fn(arrays, time, rows)
  hypotheses: list[list[Tagged]] = []
  for i, x in enumerate(states):
    tags, flags = _held(
      log_tags[i, : len(x)], log_inserts[i, : len(x) + 1], fixed[i], forced
    )
    if seeds is None:
      hypotheses.append(likeliest_tags(tags, flags, width, most))
    else:
      # Apart from the seeds of the spans.
      rng = np.random.default_rng([int(seeds[i]), 1])
      hypotheses.append(
        [drawn_tags(tags, flags, rng, temperature, top_p, most)]
      )
  contexts, counts, scores, room = [], [], [], []
  for x, found in zip(states, hypotheses):
    none = found[0]._replace(log_prob=-np.inf)
    missing = [none] * (width - len(found))
    for tags, flags, score in (*found, *missing):
      slots = edits.slots(tags, flags)
      contexts.append(layout.context(x, slots))
      counts.append(slots.number)
      scores.append(score)
      room.append(rules.longest - int(np.sum(tags == edits.KEEP)))
  shape = (len(states), width)
  text, log_probs, parents = span_fn(
    edit_arrays.stacked(contexts),
    np.array(counts, np.int32).reshape(shape),
    np.array(scores, np.float32).reshape(shape),
    np.array(room, np.int32).reshape(shape),
    time,
    rows,
    seeds,
  )
  return [
    [
      Revision(
        x,
        edits.Edit(
          found[parents[i, k]].tags,
          found[parents[i, k]].inserts,
          layout.spans(text[i, k]),
        ),
        float(log_probs[i, k]),
      )
      for k in range(width)
      if log_probs[i, k] > -np.inf
    ]
    for i, (x, found) in enumerate(zip(states, hypotheses))
  ]


def _held(
  log_tags: np.ndarray, log_inserts: np.ndarray, fixed: int, forced: bool
) -> tuple[np.ndarray, np.ndarray]:
  """The laws where the first tokens stay, and the end's flag may be forced."""
  tags = np.array(log_tags, np.float64)
  inserts = np.array(log_inserts, np.float64)
  tags[:fixed] = (0, -np.inf, -np.inf)
  inserts[:fixed] = (0, -np.inf)
  if forced:
    inserts[-1] = (-np.inf, 0)
  return tags, inserts


def drawn(
  revise_fn: Callable[..., list[list[Revision]]],
  starts: Sequence[Tokens],
  times: Sequence[float],
  *,
  fixed: Sequence[int],
  forced: bool,
  seeds: np.ndarray,
) -> list[Chain]:
  """Chains of revisions that are drawn, each from its own seed.

  Args:
    revise_fn: `revisions` but for what follows, and the states and the time.
    starts: the initial states.
    times: of the revisions, all of which are made.
    fixed: see `revisions`.
    forced: of the first revision.
    seeds: `[n]` integers.
  """
  chains = [Chain((), x) for x in starts]
  for step, time in enumerate(times):
    found = revise_fn(
      [chain.state for chain in chains],
      time,
      rows=np.arange(len(chains)),
      fixed=fixed,
      forced=forced and step == 0,
      width=1,
      seeds=np.array(
        [np.random.SeedSequence([s, step]).generate_state(1)[0] for s in seeds]
      ),
    )
    chains = [c.with_revision(r[0]) for c, r in zip(chains, found)]
  return chains


def best(
  revise_fn: Callable[..., list[list[Revision]]],
  starts: Sequence[Tokens],
  times: Sequence[float],
  *,
  fixed: Sequence[int],
  forced: bool,
  width: int = 1,
  branches: int = 1,
) -> list[Chain]:
  """Chains of revisions of high probability, by beams.

  In each revision a beam over tags and symbols gives `width` hypotheses of each
  of `branches` chains, and those chains go on whose scores, summed over their
  revisions, are highest; of chains in the same state the best.  A chain rests
  after a revision that changes nothing.  Width 1 is the greedy choice, branches
  1 that of a beam within each revision.  What the greedy choice finds is always
  among the candidates, of a revision and in the end: the result never scores
  below it.

  Args:
    revise_fn: `revisions` but for what follows, and the states and the time.
    starts: n initial states.
    times: of the revisions that are made at most.
    fixed: see `revisions`.
    forced: of the first revision.
    width: hypotheses of the beam within a revision.
    branches: chains that go on.

  Returns:
    For each start the chain with the highest score.
  """
  beams = [[Chain((), x)] for x in starts]
  for step, time in enumerate(times):
    if all(chain.resting for found in beams for chain in found):
      break
    # One shape: where there are fewer chains, the first stands in again.
    chosen = [(found + found[:1] * branches)[:branches] for found in beams]
    chains = [chain for found in chosen for chain in found]
    asked = dict(
      rows=np.repeat(np.arange(len(starts)), branches),
      fixed=np.repeat(fixed, branches),
      forced=forced and step == 0,
    )
    states = [chain.state for chain in chains]
    found = revise_fn(states, time, width=width, **asked)
    if width > 1:
      greedy = revise_fn(states, time, width=1, **asked)
      found = [a + b for a, b in zip(found, greedy)]
    grown = [
      [chain] if chain.resting else [chain.with_revision(r) for r in options]
      for chain, options in zip(chains, found)
    ]
    beams = [
      _foremost(
        itertools.chain(*grown[i * branches : (i + 1) * branches]), branches
      )
      for i in range(len(starts))
    ]
  if width > 1:
    greedy_chains = best(revise_fn, starts, times, fixed=fixed, forced=forced)
    beams = [[*found, c] for found, c in zip(beams, greedy_chains)]
  return [max(found, key=lambda chain: chain.score) for found in beams]


def _foremost(chains: Any, count: int) -> list[Chain]:
  """The best chains, one of each state."""
  found: dict[Any, Chain] = {}
  for chain in sorted(chains, key=lambda chain: -chain.score):
    found.setdefault((chain.state, chain.resting), chain)
  return list(found.values())[:count]
