"""Guidance: samples of what a classifier says is more of a condition c.

With log p(c | x_t) of noisy texts, the ratios of the law given c are

  p_t(y | c) / p_t(x | c) = p_t(y) / p_t(x) * p(c | y) / p(c | x),

y differing from x in one token, and a prediction of x_0 at a mask is weighed by
the same factor, y having that symbol there.  Raised to a power gamma it is the
classifier-based guidance of arXiv 2412.10193: of one token the samples' law is
p(x) p(c | x)^gamma / Z; of several it is p(x | c) for gamma = 1, as far as the
sampler is exact, and for another gamma a law of its own.

Where noise masks, a network without labels is its own classifier of a prompt:
p(c | x) is proportional to p(x | c) / p(x), and p(x) is what it says of the
text with the prompt masked.  That is classifier-free guidance (arXiv
2412.10193), as arXiv 2410.18514 takes it from a model that was not trained with
conditions.

A network that was trained with labels, and now and then without, says both
p(x | label) and p(x): `by_label` takes the same combination of these, where x
is a log score or a prediction of x_0; of the steps of a chain whose noise does
not mask, `of_steps` takes that of the laws of a step (arXiv 2412.10193).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import numerics, shapes
from sedd_jax.samplers import loop

Guide = Callable[[Array, Array], Array]


def log_weights(
  guides: Sequence[Guide], x_t: Array, level: Array, num_symbols: int
) -> Array:
  """log p(c | y) - log p(c | x_t) of all y that differ in one token.

  Exact, by as many calls of each guide as there are pairs of a place and a
  symbol, `num_symbols` texts of each row at once: for small vocabularies or
  small guides.

  Args:
    guides: `(x_t [batch, length], level [batch]) -> log p(c | x_t) [batch]`,
      finite; their sum counts.
    x_t: `[batch, length]` int32.
    level: `[batch]`, total noise.
    num_symbols: the symbols that y may have, the first of the states.

  Returns:
    `[batch, length, num_symbols]`; 0 for the own symbol.
  """
  length = x_t.shape[1]

  def told(x):
    return sum(guide(x, level) for guide in guides)

  def changed(place_and_symbol):
    place, symbol = place_and_symbol
    return told(x_t.at[:, place].set(symbol))

  symbols = jnp.arange(num_symbols, dtype=x_t.dtype)
  places = jnp.repeat(jnp.arange(length), num_symbols)
  values = jax.lax.map(
    changed, (places, jnp.tile(symbols, length)), batch_size=num_symbols
  )
  values = values.reshape(length, num_symbols, -1).transpose(2, 0, 1)
  return values - told(x_t)[:, None, None]


def first_order(
  guides: Sequence[Guide],
  x_t: Array,
  level: Array,
  num_symbols: int,
  *,
  num_states: int,
) -> Array:
  """`log_weights` by one gradient in place of as many calls.

  A token is told by weights of its states, of which one is 1, and log p(c | y)
  is taken as linear in them (arXiv 2412.10193): exact where it is, and else an
  approximation.

  Args:
    guides: as there, of `x_t [batch, length, num_states]`, floats.
    x_t, level, num_symbols: as there.
    num_states: of a token, the mask's included.

  Returns:
    `[batch, length, num_symbols]`; 0 for the own symbol.

  >>> ones = lambda x, sigma: jnp.log(3.0) * jnp.sum(x[..., 1], axis=-1)
  >>> x_t, sigma = jnp.array([[0, 2]]), jnp.ones(1)
  >>> jnp.exp(first_order([ones], x_t, sigma, 2, num_states=3)).round().tolist()
  [[[1.0, 3.0], [1.0, 3.0]]]
  """

  def told(x):
    return jnp.sum(sum(guide(x, level) for guide in guides))

  slope = jax.grad(told)(jax.nn.one_hot(x_t, num_states))
  own = jnp.take_along_axis(slope, x_t[..., None], axis=-1)
  return slope[..., :num_symbols] - own


def guided(
  output_fn: Callable[[Array, Array], Array],
  guides: Sequence[Guide],
  scale: float = 1.0,
  *,
  level_of: Callable[[Array], Array] = lambda told: told,
  weights_fn: Callable[..., Array] = log_weights,
) -> Callable[[Array, Array], Array]:
  """A network's log scores, or logits of x_0 at masks, under guidance.

  Args:
    output_fn: `(x_t [batch, length], told [batch]) -> [batch, length, n]`.
    guides: see `log_weights`; none leaves all as it is.
    scale: gamma, the power of p(c | x); 0 leaves all as it is.
    level_of: `(told) -> total noise [batch]`.
    weights_fn: `log_weights`, or `first_order` of so many states.

  Returns:
    A function like output_fn.

  >>> flat = lambda x_t, sigma: jnp.zeros((*x_t.shape, 2))
  >>> ones = lambda x_t, sigma: jnp.sum(x_t, axis=-1) * jnp.log(3.0)
  >>> x_t, sigma = jnp.array([[0, 2]]), jnp.ones(1)
  >>> jnp.exp(guided(flat, [ones])(x_t, sigma)).round().tolist()
  [[[1.0, 3.0], [0.0, 0.0]]]
  """
  if not guides or scale == 0:
    return output_fn

  def weighed(x_t, told):
    output = output_fn(x_t, told)
    weights = weights_fn(guides, x_t, level_of(told), output.shape[-1])
    return output + scale * weights

  return weighed


def by_prompt(
  output_fn: Callable[..., Array],
  given: Array | None,
  scale: float = 1.0,
  *,
  mask: int,
) -> Callable[..., Array]:
  """scale log p(. | given) + (1 - scale) log p(.), with the given masked.

  Each call is one of output_fn on twice the rows.

  Args:
    output_fn: `(x_t [batch, length], *told [batch]) -> [batch, length, n]`,
      logits of x_0 or log scores at masks, under absorbing noise.
    given: `[batch, length]` bool, the condition; None leaves all as it is.
    scale: gamma; 1 leaves all as it is, 0 forgets what is given.
    mask: the state of what is not told.

  Returns:
    A function like output_fn.

  >>> told = lambda x_t: jnp.where(x_t[..., :1] == 2, 0.0, 1.0)[..., None]
  >>> given = jnp.array([[True, False]])
  >>> by_prompt(told, given, 3.0, mask=2)(jnp.array([[0, 2]])).tolist()
  [[[3.0]]]
  """
  if given is None or scale == 1:
    return output_fn

  def weighed(x_t, *told):
    # Under `by_label` the rows come twice.
    kept = jnp.tile(given, (len(x_t) // len(given), 1))
    pair = _of_both(
      output_fn, (x_t, *told), (jnp.where(kept, mask, x_t), *told)
    )
    return _combined(*pair, scale)

  return weighed


def by_label(
  output_fn: Callable[..., Array],
  label: Array | None,
  scale: float = 1.0,
) -> Callable[[Array, Array], Array]:
  """scale log p(. | label) + (1 - scale) log p(.), by one network.

  Each call is one of output_fn on twice the rows; at scale 0 or 1 on as many.

  Args:
    output_fn: `(x_t [batch, length], told [batch], label [batch, length]) ->
      [batch, length, n]`, log scores or logits of x_0; the label may be left
      out.
    label: `[batch]` int32, `shapes.NO_LABEL` for none; None: no row has one.
    scale: gamma; 1 is the conditional law, 0 the unconditional one.

  Returns:
    A function of x_t and told.

  >>> def output_fn(x_t, told, label=0):
  ...   return jnp.where(label >= 0, 3.0, 1.0)[..., None]
  >>> guided = by_label(output_fn, jnp.array([0, -1]), 2.0)
  >>> guided(jnp.zeros((2, 1), jnp.int32), jnp.ones(2)).tolist()
  [[[5.0]], [[1.0]]]
  """
  if label is None or scale == 0:
    return output_fn

  def told_label(x_t, told):
    return output_fn(x_t, told, _of_tokens(label, x_t))

  def weighed(x_t, told):
    return _combined(*both(output_fn, label)(x_t, told), scale)

  return told_label if scale == 1 else weighed


def both(
  output_fn: Callable[..., Array], label: Array
) -> Callable[[Array, Array], tuple[Array, Array]]:
  """What a network says with the label, and without, in one call.

  Args:
    output_fn: as in `by_label`.
    label: `[batch]` int32.

  Returns:
    `(x_t, told) -> (conditional, unconditional)`.
  """

  def pair(x_t, told):
    known = _of_tokens(label, x_t)
    unknown = jnp.full_like(known, shapes.NO_LABEL)
    return _of_both(output_fn, (x_t, told, known), (x_t, told, unknown))

  return pair


def of_steps(planned: loop.Plan, scale: float) -> loop.Plan:
  """The steps of a chain with p(x_s | x_t, label)^scale p(x_s | x_t)^(1-scale).

  Args:
    planned: steps by the output of one network.
    scale: gamma.

  Returns:
    Steps by the outputs of `both`; weights sum to 1.
  """

  def weights_of(pair, x, of_step):
    conditional, free = (planned.weights_of(each, x, of_step) for each in pair)
    tiny = jnp.finfo(conditional.dtype).tiny
    told, untold = (
      jnp.log(jnp.maximum(numerics.safe_normalize(weights)[0], tiny))
      for weights in (conditional, free)
    )
    # What cannot be stays so.
    held = (conditional > 0) | (free > 0)
    logits = jnp.where(held, _combined(told, untold, scale), -jnp.inf)
    return jax.nn.softmax(logits)

  return loop.Plan(planned.inputs, planned.told, weights_of)


def _of_tokens(label: Array, x_t: Array) -> Array:
  """A label a row as one a token."""
  return jnp.broadcast_to(label[:, None], x_t.shape)


def _of_both(
  output_fn: Callable[..., Array],
  inputs: Sequence[Array],
  without: Sequence[Array],
) -> tuple[Array, Array]:
  """The outputs for two batches by one call on twice the rows."""
  twice = [jnp.concatenate(pair) for pair in zip(inputs, without)]
  conditional, free = jnp.split(output_fn(*twice), 2)
  return conditional, free


def _combined(conditional: Array, free: Array, scale: float) -> Array:
  return scale * conditional + (1 - scale) * free


def require_scale(scale: float, name: str) -> None:
  """Raises ValueError for a scale of `by_prompt` or `by_label`."""
  if not 0 <= scale < float('inf'):
    raise ValueError(f'{name} must be at least 0, not {scale}')
