"""Conditions imposed on a step of a sampler, by forward-backward.

Of one step the next tokens are drawn independently, by a product law.  Under a
condition they are drawn from that law given that the sequence satisfies it,
exactly: messages backward over the states of the condition's automaton, then a
path of classes of tokens forward.  The token within its class is then drawn as
without a condition.

Masks are revealed as before, at the same chances; what they reveal is part of a
whole x_0 drawn so.  Every state has a completion that satisfies the condition,
and the last one does.  Where noise does not mask, the state itself is held to
the condition after every step, as prompts are put back.

Exact is each step: x_0 ~ prod_i p(x_0^i | x_t) given the condition.  The law of
the sampler is the model's given the condition where the tokens that are not yet
revealed are independent given x_t, under the model: for independent tokens,
with templates alone and one token a step, and at the last token.  Else it is
near it; docs/conditioning.md has figures.
"""

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import categorical, numerics
from sedd_jax.core import keys as keys_lib
from sedd_jax.processes import Absorbing, base
from sedd_jax.samplers.conditions import Tables

# What a step's key is folded with for the path; the tokens have the key itself.
_PATH = 0x70617468
# The least probability of a token: whatever the weights, no completion is lost.
_LEAST = float(jnp.finfo(jnp.float32).tiny)


def require_process(process: base.TokenProcess) -> None:
  """Raises ValueError for noise whose states a condition is not about."""
  if isinstance(process, Absorbing) or not base.has_mask(process):
    return
  raise ValueError(
    f'{type(process).__name__} both masks and changes tokens: conditions are '
    'for noise that does one of the two'
  )


def _log_classes(probs, fixed, x, symbol_class, classes):
  """log p of each class at each place, `[length, classes]`."""
  sums = jax.ops.segment_sum(probs.T, symbol_class, num_segments=classes).T
  own = jax.nn.one_hot(symbol_class[x], classes, dtype=bool)
  return jnp.where(
    fixed[:, None],
    jnp.where(own, 0.0, -jnp.inf),
    numerics.log_or_nothing(sums),
  )


def _messages(log_classes, moves, accepts):
  """log p(accepted | state) behind each place, but for a factor a place.

  Args:
    log_classes: `[length, classes]`.
    moves: `[states, classes]`.
    accepts: `[states]`.

  Returns:
    `[length, states]`.
  """

  def before(after, log_class):
    now = jax.nn.logsumexp(log_class[None] + after[moves], axis=-1)
    best = jnp.max(now)
    return now - jnp.where(jnp.isfinite(best), best, 0), after

  last = jnp.where(accepts, 0.0, -jnp.inf).astype(log_classes.dtype)
  return jax.lax.scan(before, last, log_classes, reverse=True)[1]


def _choice(log_class, after):
  """Weights of the classes, `[..., classes]`; the largest is 1."""
  scores = log_class + after
  best = jnp.max(scores, axis=-1, keepdims=True)
  return jnp.exp(scores - jnp.where(jnp.isfinite(best), best, 0))


def _path(key, log_classes, after, moves):
  """A path of classes, `[length]`."""

  def forward(state, inputs):
    place, log_class, behind = inputs
    weights = _choice(log_class, behind[moves[state]])
    chosen = categorical.categorical(jax.random.fold_in(key, place), weights)
    return moves[state, chosen], chosen

  places = jnp.arange(len(log_classes))
  first = jnp.zeros((), moves.dtype)
  return jax.lax.scan(forward, first, (places, log_classes, after))[1]


def _class_probs(log_classes, after, moves):
  """Probabilities of the classes at each place, `[length, classes]`."""
  states = len(moves)

  def forward(held, inputs):
    log_class, behind = inputs
    rows, _ = numerics.safe_normalize(_choice(log_class[None], behind[moves]))
    joint = held[:, None] * rows
    ahead = jax.ops.segment_sum(
      joint.reshape(-1), moves.reshape(-1), num_segments=states
    )
    return ahead, jnp.sum(joint, axis=0)

  start = jax.nn.one_hot(0, states, dtype=log_classes.dtype)
  return jax.lax.scan(forward, start, (log_classes, after))[1]


def _of_row(probs, fixed, x, symbol_class, moves, accepts):
  """`log_classes` and messages of a row."""
  log_classes = _log_classes(probs, fixed, x, symbol_class, moves.shape[-1])
  return log_classes, _messages(log_classes, moves, accepts)


def _by_row(of_row, condition, *rows):
  """A function of rows and of their automaton, over a batch."""
  one = len(condition.moves) == 1
  which = jnp.maximum(condition.which, 0)
  leaves = [
    leaf[0] if one else jnp.asarray(leaf)[which] for leaf in condition[:3]
  ]
  axes = (0,) * len(rows) + (None if one else 0,) * 3
  return jax.vmap(of_row, in_axes=axes)(*rows, *leaves)


def _proper(weights, vocab_size):
  """Probabilities of the data symbols, none of them 0."""
  probs, _ = numerics.safe_normalize(weights[..., :vocab_size])
  return jnp.maximum(numerics.as_float(probs), _LEAST)


def within(
  keys: Array,
  weights: Array,
  x: Array,
  fixed: Array,
  condition: Tables,
) -> Array:
  """Weights left of the tokens once the classes of all places are drawn.

  Drawing each place's token by what is returned is drawing all of them from the
  product law of `weights` given the condition.

  Args:
    keys: typed keys `[batch]`, of this step; only folded here.
    weights: `[batch, length, n]`, of the next token at each place, n at least
      the number of data symbols; those beyond (the mask) are not read.
    x: `[batch, length]` int32.
    fixed: `[batch, length]` bool, where x is what the sequence has.
    condition: of the rows; a row without one keeps its weights.

  Returns:
    `[batch, length, num_symbols]`; rows sum to what they summed to over the
    data symbols, whatever condition there is.
  """
  condition = jax.tree.map(jnp.asarray, condition)
  count = condition.symbol_class.shape[-1]
  own = weights[..., :count]
  probs = _proper(weights, count)
  path_keys = keys_lib.folded(keys, _PATH)

  def of_row(key, probs, fixed, x, symbol_class, moves, accepts):
    log_classes, after = _of_row(probs, fixed, x, symbol_class, moves, accepts)
    chosen = _path(key, log_classes, after, moves)
    kept = jnp.where(symbol_class[None] == chosen[:, None], probs, 0)
    return numerics.safe_normalize(kept)[0]

  kept = _by_row(
    of_row, condition, path_keys, probs, fixed, jnp.minimum(x, count - 1)
  )
  kept = kept * jnp.sum(own, axis=-1, keepdims=True)
  free = (condition.which < 0)[:, None, None]
  return jnp.where(free | fixed[..., None], own, kept)


def marginals(
  weights: Array, x: Array, fixed: Array, condition: Tables
) -> Array:
  """Law of each place's token under the product law given the condition.

  Args:
    weights: `[batch, length, n]`, as in `within`.
    x: `[batch, length]` int32.
    fixed: `[batch, length]` bool.
    condition: of the rows; a row without one keeps its weights.

  Returns:
    `[batch, length, num_symbols]`.
  """
  condition = jax.tree.map(jnp.asarray, condition)
  count = condition.symbol_class.shape[-1]
  probs = _proper(weights, count)

  def of_row(probs, fixed, x, symbol_class, moves, accepts):
    log_classes, after = _of_row(probs, fixed, x, symbol_class, moves, accepts)
    chances = _class_probs(log_classes, after, moves)
    sums = jnp.where(jnp.isfinite(log_classes), jnp.exp(log_classes), 1)
    return probs * (chances / sums)[:, symbol_class]

  held = _by_row(of_row, condition, probs, fixed, jnp.minimum(x, count - 1))
  free = (condition.which < 0)[:, None, None]
  return jnp.where(free | fixed[..., None], weights[..., :count], held)


def step_weights(
  keys: Array,
  weights: Array,
  x: Array,
  given: Array | None,
  condition: Tables,
  process: base.TokenProcess,
) -> Array:
  """Weights of a step's next states, narrowed to what the condition allows.

  Args:
    keys: typed keys `[batch]`, of this step; only folded here.
    weights: `[batch, length, num_states]`, non-negative.
    x: `[batch, length]` int32, the present states.
    given: `[batch, length]` bool, where x is clamped, or None.
    condition: of the rows.
    process: the noise.

  Returns:
    `[batch, length, num_states]`.  Under absorbing noise the share of the mask
    is what it was.

  Raises:
    ValueError: see `require_process`.
  """
  require_process(process)
  fixed = jnp.zeros(x.shape, bool) if given is None else jnp.asarray(given)
  if isinstance(process, Absorbing):
    fixed = fixed | (x != process.mask)
  kept = within(keys, weights, x, fixed, condition)
  return jnp.concatenate([kept, weights[..., kept.shape[-1] :]], axis=-1)
