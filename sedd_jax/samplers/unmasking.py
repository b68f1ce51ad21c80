"""Absorbing noise undone token by token, with no grid of times.

Of a masked token nothing but the time of its reveal is left to chance by the
schedule: that time's share of masks, 1 - alpha_bar, is uniform and the same law
for all tokens, whatever they are.  So the order and the times of all reveals
can be drawn at the start, and the network is called at these times only: the
first-hitting sampler (arXiv 2409.02908, section 4).  One token a call it has
the law of the reverse process itself, with `length` calls at most.

Fewer calls reveal several tokens at once, as if they were independent.  The
other orders choose by the network what to reveal first: departures from the
process, each by its name.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import categorical, numerics
from sedd_jax.core import keys as keys_lib
from sedd_jax.noise_schedules import Continuous, time_of
from sedd_jax.processes import Absorbing
from sedd_jax.samplers import constrained, loop
from sedd_jax.samplers.conditions import Tables


def _confidence(probs: Array, drawn: Array) -> Array:
  """The probability of what was drawn (MaskGIT, arXiv 2202.04200)."""
  return jnp.take_along_axis(probs, drawn[..., None], axis=-1)[..., 0]


def _margin(probs: Array, drawn: Array) -> Array:
  """The most probable symbol's lead on the second (arXiv 2502.06768)."""
  del drawn
  best, second = jnp.unstack(jax.lax.top_k(probs, 2)[0], axis=-1)
  return best - second


def _entropy(probs: Array, drawn: Array) -> Array:
  """The entropy, least first."""
  del drawn
  held = probs > 0
  return jnp.sum(
    jnp.where(held, probs * jnp.log(jnp.where(held, probs, 1)), 0), axis=-1
  )


# What the network is surest of is revealed first.
CERTAINTIES = {
  'confidence': _confidence,
  'margin': _margin,
  'entropy': _entropy,
}
ORDERS = ('first_hitting', *CERTAINTIES)


def sharpened(
  logits: Array, temperature: float = 1.0, top_p: float = 1.0
) -> Array:
  """Probabilities of logits, changed from the model's own.

  Args:
    logits: `[..., n]`.
    temperature: the logits are divided by it; above 0.
    top_p: only the most probable symbols are kept, as few as hold this share
      (nucleus sampling, arXiv 1904.09751); in (0, 1].

  Returns:
    `[..., n]`, rows summing to 1; the model's at 1 and 1.

  Raises:
    ValueError: for numbers out of range.

  >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
  >>> sharpened(logits, top_p=0.6).round(3).tolist()[::2]
  [0.625, 0.0]
  """
  require_sharpening(temperature, top_p)
  probs = jax.nn.softmax(numerics.as_float(logits) / temperature)
  if top_p == 1:
    return probs
  falling = jnp.sort(probs, axis=-1, descending=True)
  # Kept is what stands where those before it do not hold the share yet.
  before = jnp.cumsum(falling, axis=-1) - falling
  least = jnp.min(jnp.where(before < top_p, falling, 1), axis=-1, keepdims=True)
  kept = jnp.where(probs >= least, probs, 0)
  return kept / jnp.sum(kept, axis=-1, keepdims=True)


def require_sharpening(temperature: float, top_p: float) -> None:
  """Raises ValueError for numbers that `sharpened` does not take."""
  if not 0 < temperature < float('inf'):
    raise ValueError(f'temperature must be above 0, not {temperature}')
  if not 0 < top_p <= 1:
    raise ValueError(f'top_p must be in (0, 1], not {top_p}')


def sample(
  logits_fn: Callable[[Array, Array], Array],
  key: Array,
  shape: tuple[int, int],
  *,
  process: Absorbing,
  schedule: Continuous,
  steps: int | None = None,
  order: str = 'first_hitting',
  tokens: Array | None = None,
  given: Array | None = None,
  start: Array | None = None,
  t_min: float = 1e-3,
  temperature: float = 1.0,
  top_p: float = 1.0,
  condition: Tables | None = None,
  return_path: bool = False,
  logits_at: Callable[[Array, Array, Array], Array] | None = None,
) -> Array:
  """Draws sequences by revealing masks, one jit-able scan.

  Each call of the network reveals the same number of a row's masked tokens, to
  one more or less; with as many steps as masked tokens, one a call.

  Args:
    logits_fn: `(x_t [batch, length], t [batch]) -> logits of x_0 [batch,
      length, n]`, n one of vocab_size and num_states; read at masks only, and
      that of the mask never.
    key: one typed key (row i uses fold_in(key, i)), or one a row.
    shape: (batch, length).
    process: absorbing noise.
    schedule: total noise in time.
    steps: calls of the network, at most length; length by default.
    order: 'first_hitting', the process's own; or what the network is surest of
      first: 'confidence' (the probability of the token it drew), 'margin' or
      'entropy'.  The time told is then that of the masks' share.
    tokens: `[batch, length]` int32, the prompt where `given`.
    given: `[batch, length]` bool, True where the result is clamped to `tokens`.
    start: `[batch, length]` int32, an initial state in place of all masks; what
      is not masked there stays.
    t_min: the earliest time that the network is told.
    temperature: see `sharpened`; 1 is the model.
    top_p: see `sharpened`; 1 is the model.
    condition: what the result satisfies besides, see `samplers.constrained`;
      what `top_p` cuts off stands where nothing else satisfies it, and 'margin'
      and 'entropy' are of the tokens' laws under it.
    return_path: return every state, not the last one alone.
    logits_at: `(x_t, t, places [batch, n]) -> logits [batch, n, ...]`, what
      logits_fn says there, without the rest, for 'first_hitting' without a
      condition: it needs those that it reveals alone.

  Returns:
    int32 `[batch, length]`, data symbols only; with return_path `[steps + 1,
    batch, length]`.

  Raises:
    ValueError: for an unknown order, or arguments that do not fit.
    TypeError: for noise that does not mask.

  >>> from sedd_jax import noise_schedules
  >>> process = Absorbing(vocab_size=4)
  >>> flat = lambda x_t, t: jnp.zeros((*x_t.shape, 4))
  >>> sample(flat, jax.random.key(0), (2, 3), process=process,
  ...        schedule=noise_schedules.LogLinear()).shape
  (2, 3)
  """
  _check(process, shape, steps, order, t_min)
  batch, length = shape
  steps = length if steps is None else steps
  keys = keys_lib.row_keys(key, batch)
  # Of a step, the first mask that is revealed: all rows share the shares.
  most = -(-length // steps)
  begun = jnp.full(shape, process.mask) if start is None else jnp.asarray(start)
  masked = begun == process.mask
  if given is not None:
    masked &= ~jnp.asarray(given)
  count = jnp.sum(masked, axis=-1)

  def first_of(step: Any) -> Array:
    """Masks revealed before a step, `[batch]`."""
    return -(-step * count // steps)

  def probs_of(logits: Array) -> Array:
    return sharpened(logits[..., : process.vocab_size], temperature, top_p)

  if order == 'first_hitting':
    places, times = _order(keys, masked, schedule, t_min)

    def weights_fn(x, step, memory):
      first = first_of(step)
      at = jnp.minimum(first, length - 1)[:, None]
      t = jnp.take_along_axis(times, at, axis=1)[:, 0]
      slots = first[:, None] + jnp.arange(most)[None]
      due = slots < first_of(step + 1)[:, None]
      slots = jnp.minimum(slots, length - 1)
      # Where nothing is due, a place that is dropped.
      chosen = jnp.take_along_axis(places, slots, axis=1)
      if condition is not None:
        found = logits_fn(x, t)
      elif logits_at is not None:
        found = logits_at(x, t, chosen)
      else:
        found = jnp.take_along_axis(logits_fn(x, t), chosen[..., None], axis=1)
      return (probs_of(found), jnp.where(due, chosen, length)), memory

    def draw_fn(step_keys, weights, x, step):
      del step
      probs, chosen = weights
      if condition is not None:
        fixed = x != process.mask
        probs = constrained.within(step_keys, probs, x, fixed, condition)
        at = jnp.minimum(chosen, length - 1)[..., None]
        probs = jnp.take_along_axis(probs, at, axis=1)
      drawn = categorical.categorical(step_keys, probs)
      rows = jnp.arange(batch)[:, None]
      return x.at[rows, chosen].set(drawn.astype(x.dtype), mode='drop')

  else:
    certainty = CERTAINTIES[order]

    def weights_fn(x, step, memory):
      share = 1 - step / steps
      level = -jnp.log1p(-jnp.minimum(share, 1 - 2.0**-24))
      t = jnp.clip(time_of(schedule, level), t_min, 1)
      logits = logits_fn(x, jnp.broadcast_to(t, (batch,)))
      return probs_of(logits), memory

    def draw_fn(step_keys, weights, x, step):
      hidden, held = x == process.mask, weights
      if condition is not None:
        held = constrained.within(step_keys, weights, x, ~hidden, condition)
        weights = constrained.marginals(weights, x, ~hidden, condition)
      drawn = categorical.categorical(step_keys, held)
      sure = jnp.where(hidden, certainty(weights, drawn), -jnp.inf)
      rank = jnp.argsort(jnp.argsort(-sure, axis=-1), axis=-1)
      due = first_of(step + 1) - first_of(step)
      return jnp.where(hidden & (rank < due[:, None]), drawn, x)

  states, _ = loop.reverse(
    weights_fn,
    keys,
    shape,
    jnp.arange(steps),
    process=process,
    tokens=tokens,
    given=given,
    start=begun,
    return_path=return_path,
    draw_fn=draw_fn,
  )
  return states


def _order(
  keys: Array, masked: Array, schedule: Continuous, t_min: float
) -> tuple[Array, Array]:
  """Masked places in the order of their reveals, and the times of these.

  Args:
    keys: typed keys `[batch]`.
    masked: `[batch, length]` bool.
    schedule: total noise in time.
    t_min: the earliest time told.

  Returns:
    Places `[batch, length]`, masked ones first, and times `[batch, length]`.
  """
  length = masked.shape[1]
  # The share of masks at which each is revealed.
  shares = jax.vmap(lambda key: categorical.uniform(key, (length,)))(
    keys_lib.folded(keys, 0)
  )
  shares = jnp.where(masked, shares, 0)
  places = jnp.argsort(-shares, axis=1)
  level = -jnp.log1p(-jnp.take_along_axis(shares, places, axis=1))
  return places, jnp.clip(time_of(schedule, level), t_min, 1)


def _check(process, shape, steps, order, t_min):
  if not isinstance(process, Absorbing):
    raise TypeError(
      f'{type(process).__name__} does not mask: unmasking is for Absorbing'
    )
  if len(shape) != 2:
    raise ValueError(f'shape must be (batch, length), not {shape}')
  if order not in ORDERS:
    raise ValueError(f'unknown order {order!r}: use {", ".join(ORDERS)}')
  if steps is not None and not 1 <= steps <= shape[1]:
    raise ValueError(
      f'steps must be from 1 to the {shape[1]} tokens of a sequence, not '
      f'{steps}'
    )
  if not 0 < t_min < 1:
    raise ValueError(f't_min must be in (0, 1), not {t_min}')
