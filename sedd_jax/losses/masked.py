"""Masked diffusion: cross entropy at the masks, and what it weighs.

Where noise only masks, the reverse process reveals, and its likelihood is an
integral of cross entropies (MDLM, arXiv 2406.07524, eq. 10; MD4, 2406.04329,
eq. 5).  The network's prediction of x_0 and SEDD's scores are two forms of one
thing; `log_score` and `log_probs` go back and forth.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.losses import head
from sedd_jax.losses.score_matching import at_random_times
from sedd_jax.noise_schedules import Continuous
from sedd_jax.processes import Absorbing


def cross_entropy(
  logits: Array, x_t: Array, x_0: Array, *, process: Absorbing
) -> Array:
  """-log x̂_0(x_0) at masked positions, 0 at the others.

  Masks are never predicted, and what is not masked is known (SUBS).

  Args:
    logits: `[..., length, n]` of the clean symbol, n one of vocab_size and
      num_states; that of the mask is not read.
    x_t: `[..., length]` int32.
    x_0: `[..., length]` int32.
    process: absorbing noise.

  Returns:
    `[..., length]` in nats.

  Raises:
    ValueError: for shapes that do not fit.

  >>> process = Absorbing(vocab_size=4)
  >>> x_t, x_0 = jnp.array([4, 1]), jnp.array([2, 1])
  >>> print(cross_entropy(jnp.zeros((2, 4)), x_t, x_0, process=process))
  [1.3862944 0.       ]
  """
  shapes.require_tokens(x_t, 'x_t')
  shapes.require_tokens(x_0, 'x_0')
  sizes = (process.vocab_size, process.num_states)
  shapes.require_last_axis(logits, sizes, 'logits')
  if not logits.shape[:-1] == x_t.shape == x_0.shape:
    raise ValueError(
      f'logits {logits.shape}, x_t {x_t.shape} and x_0 {x_0.shape} do not fit'
    )
  logits = numerics.as_float(logits)[..., : process.vocab_size]
  own = jnp.take_along_axis(logits, x_0[..., None], axis=-1)[..., 0]
  nats = jax.nn.logsumexp(logits, axis=-1) - own
  return jnp.where(x_t == process.mask, nats, 0)


def cross_entropy_from_features(
  h: Array,
  kernel: Array,
  bias: Array,
  x_t: Array,
  x_0: Array,
  *,
  process: Absorbing,
  chunk: int = 1024,
) -> Array:
  """`cross_entropy` of h kernel + bias, never holding all logits at once.

  Only masked tokens go through the head (`head.of_features`).

  Args:
    h: `[batch, length, width]`, what the last linear map is applied to.
    kernel: `[width, num_states]`.
    bias: `[num_states]`.
    x_t: `[batch, length]` int32.
    x_0: `[batch, length]` int32.
    process: absorbing noise.
    chunk: tokens whose logits are held.

  Returns:
    `[batch, length]` in nats.

  Raises:
    ValueError: for shapes that do not fit, or no chunk.
  """

  sizes = (process.vocab_size, process.num_states)
  if kernel.shape[0] != h.shape[-1] or kernel.shape[1] not in sizes:
    raise ValueError(
      f'kernel {kernel.shape} does not map features of {h.shape} to '
      f'{" or ".join(map(str, sizes))} states'
    )
  shapes.require_tokens(x_t, 'x_t')
  shapes.require_tokens(x_0, 'x_0')
  if not h.shape[:-1] == x_t.shape == x_0.shape:
    raise ValueError(
      f'h {h.shape}, x_t {x_t.shape} and x_0 {x_0.shape} do not fit'
    )

  def slope(logits, x_t, x_0):
    symbols = logits[..., : process.vocab_size]
    target = jax.nn.one_hot(x_0, process.vocab_size, dtype=logits.dtype)
    found = jax.nn.softmax(symbols, axis=-1) - target
    found = jnp.where((x_t == process.mask)[..., None], found, 0)
    rest = logits.shape[-1] - process.vocab_size
    return jnp.pad(found, [(0, 0), (0, rest)])

  return head.of_features(
    functools.partial(cross_entropy, process=process),
    slope,
    h,
    kernel,
    bias,
    (x_t, x_0),
    counted=x_t == process.mask,
    chunk=chunk,
  )


def weight(schedule: Continuous, t: ArrayLike) -> Array:
  """-alpha_bar'(t) / (1 - alpha_bar(t)), the weight of the integral at t.

  Args:
    schedule: total noise in time.
    t: any shape, above 0.

  Returns:
    The shape of t; 1 / t for the log-linear schedule.
  """
  return schedule.rate(t) * jnp.exp(-numerics.log_expm1(schedule.total(t)))


def masked_diffusion(
  logits_fn: Callable[[Array, Array], Array],
  key: Array,
  x_0: Array,
  *,
  process: Absorbing,
  schedule: Continuous,
  t: ArrayLike | None = None,
  t_min: float = 1e-3,
) -> Array:
  """The continuous-time objective at one time a sequence.

  Args:
    logits_fn: `(x_t [batch, length], t [batch]) -> logits [batch, length, n]`
      of the clean symbol; n as in `cross_entropy`.
    key: one typed key.
    x_0: `[batch, length]` int32.
    process: absorbing noise.
    schedule: total noise in time.
    t: `[batch]` or a scalar; drawn by low discrepancy on [t_min, 1] by default.
    t_min: the smallest time.

  Returns:
    `[batch]` in nats a sequence; its mean times (1 - t_min) is the integral in
    the likelihood bound.

  Raises:
    ValueError: for shapes that do not fit, or t_min outside (0, 1).

  >>> from sedd_jax import noise_schedules
  >>> process = Absorbing(vocab_size=27)
  >>> logits_fn = lambda x_t, t: jnp.zeros((*x_t.shape, 27))
  >>> x_0 = jnp.zeros((2, 5), jnp.int32)
  >>> schedule = noise_schedules.LogLinear()
  >>> masked_diffusion(logits_fn, jax.random.key(0), x_0, process=process,
  ...                  schedule=schedule).shape
  (2,)
  """
  t, _, x_t = at_random_times(
    key, x_0, process=process, schedule=schedule, t=t, t_min=t_min
  )
  nats = cross_entropy(logits_fn(x_t, t), x_t, x_0, process=process)
  return weight(schedule, t) * jnp.sum(nats, axis=-1)


def log_score(logits: Array, x_t: Array, sigma: Array) -> Array:
  """SEDD's log p_t(y) / p_t(x_t) of a prediction of x_0.

  At a mask, p(x_0 = y) / (e^sigma - 1).  Elsewhere scores are never read, and
  are 0.

  Args:
    logits: `[batch, length, vocab_size]` of the clean symbol.
    x_t: `[batch, length]` int32, the mask being vocab_size.
    sigma: `[batch]`, total noise, above 0 and finite.

  Returns:
    `[batch, length, vocab_size + 1]`; the entry of x_t is 0.
  """
  size = logits.shape[-1]
  level = numerics.log_expm1(sigma)[:, None, None]
  value = jax.nn.log_softmax(numerics.as_float(logits)) - level
  value = jnp.pad(value, [(0, 0), (0, 0), (0, 1)])
  return jnp.where((x_t == size)[..., None], value, 0)


def log_probs(log_score: Array, sigma: Array) -> Array:
  """The prediction of x_0 that a score is: `log_score` backwards, at masks.

  A score that was not made so may not sum to one; it is normalised.

  Args:
    log_score: `[batch, length, vocab_size + 1]`, that at masks.
    sigma: `[batch]`, total noise, above 0 and finite.

  Returns:
    Normalised log probabilities `[batch, length, vocab_size]`.
  """
  level = numerics.log_expm1(sigma)[:, None, None]
  return jax.nn.log_softmax(numerics.as_float(log_score)[..., :-1] + level)
