"""Score entropy in its exact, implicit and denoising forms.

Source: arXiv 2310.16834.  With true ratios r and scores s a token's loss is
sum_y Q[y, x_t] (s_y - r_y log s_y + r_y (log r_y - 1)), y != x_t: convex in s,
non-negative and zero at s = r.  Term by term it is r (e^u - 1 - u) with
u = log(s / r), and that is how it is computed: as a sum of terms none of which
can be negative, so that float32 survives near the optimum.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import numerics, shapes, times
from sedd_jax.losses import head
from sedd_jax.noise_schedules import Continuous
from sedd_jax.processes import Absorbing, Relaxing, Uniform

# Total noise from which e^sigma is put in no product, for it may overflow.
_FAR = 40.0


def score_entropy(
  log_score: Array,
  x_t: Array,
  x_0: Array,
  sigma: ArrayLike,
  *,
  process: Relaxing,
) -> Array:
  """Denoising score entropy of each token (arXiv 2310.16834, theorem 3.4).

  The true ratios are those of q(x_t | x_0).  Unweighted: multiply by the
  schedule's `rate(t)` for the DWDSE integrand.  Absorbing noise counts masked
  tokens only.

  Args:
    log_score: `[..., length, num_states]`, log p_t(y) / p_t(x_t); the own entry
      is not read.
    x_t: `[..., length]` int32, noisy tokens.
    x_0: `[..., length]` int32, clean tokens, below `vocab_size`.
    sigma: total noise of x_t, above 0, also infinite; a scalar or of the
      tokens' rank.
    process: `Uniform` or `Absorbing`.

  Returns:
    `[..., length]` in nats, never negative.

  Raises:
    ValueError: for shapes that do not fit.
    TypeError: for a process without score-entropy weights.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> x_t, x_0 = jnp.array([[2, 1]]), jnp.array([[0, 1]])
  >>> log_score = jnp.zeros((1, 2, 3))
  >>> loss = score_entropy(log_score, x_t, x_0, 1.0, process=process)
  >>> print(loss.round(3))
  [[1.103 0.   ]]
  """
  loss, _ = _kernels(process)
  return loss(*_checked(log_score, x_t, x_0, sigma, process))


def _kernels(process: Relaxing) -> tuple[Callable[..., Array], ...]:
  for kind, kernels in _KERNELS.items():
    if isinstance(process, kind):
      return kernels
  known = ', '.join(kind.__name__ for kind in _KERNELS)
  raise TypeError(
    f'score entropy is not defined for {type(process).__name__}: use {known}'
  )


def _checked(log_score, x_t, x_0, sigma, process):
  shapes.require_tokens(x_t, 'x_t')
  shapes.require_tokens(x_0, 'x_0')
  shapes.require_last_axis(log_score, (process.num_states,), 'log_score')
  if x_t.shape != x_0.shape or log_score.shape[:-1] != x_t.shape:
    raise ValueError(
      f'log_score {log_score.shape}, x_t {x_t.shape} and x_0 {x_0.shape} do '
      'not describe the same tokens'
    )
  sigma = shapes.level_for(x_t, sigma, 'sigma')
  return numerics.as_float(log_score), x_t, x_0, sigma


def _absorbing(log_score, x_t, x_0, sigma):
  """sum_{y != x_0} s_y + r (e^u - 1 - u), r = 1 / (e^sigma - 1), if masked."""
  mask = log_score.shape[-1] - 1
  masked = x_t == mask
  log_score = log_score[..., :mask]
  target = jax.nn.one_hot(x_0, mask, dtype=bool)
  others = jnp.sum(jnp.where(target, 0, jnp.exp(log_score)), axis=-1)
  own = jnp.sum(jnp.where(target, log_score, 0), axis=-1)
  # A clean token has no loss; it may also have sigma = 0, kept out of here.
  sigma = jnp.where(masked, sigma, 1)
  far = sigma > _FAR
  near = jnp.where(far, 1, sigma)
  excess = numerics.exp_excess(
    own + numerics.log_expm1(near), jnp.exp(own) * jnp.expm1(near) - 1
  )
  # Far off r = e^-sigma, and r u goes to 0 with r.
  ratio = jnp.exp(-sigma)
  there = far & (ratio > 0)
  u = jnp.where(there, own + jnp.where(there, sigma, 0), 0)
  beyond = jnp.maximum(jnp.exp(own) - ratio * (1 + u), 0)
  at_target = jnp.where(far, beyond, excess / jnp.expm1(near))
  return jnp.where(masked, others + at_target, 0)


def _absorbing_slope(log_score, x_t, x_0, sigma):
  """d loss / d log_score: s_y, less r at y = x_0, where masked."""
  mask = log_score.shape[-1] - 1
  masked = (x_t == mask)[..., None]
  sigma = jnp.where(masked, shapes.expand(sigma, log_score), 1)
  far = sigma > _FAR
  em = jnp.expm1(jnp.where(far, 1, sigma))
  score = jnp.exp(log_score)
  target = jax.nn.one_hot(x_0, mask + 1, dtype=bool)
  data = shapes.along_last(jnp.arange(mask + 1) < mask, log_score)
  at_target = jnp.where(far, score - jnp.exp(-sigma), (score * em - 1) / em)
  slope = jnp.where(target, at_target, score)
  return jnp.where(masked & data, slope, 0)


def _uniform_ratios(num_states, x_t, x_0, sigma):
  """log r_y and 1 / r_y for y other than x_0 and x_t, `[..., 1]`, and at x_0.

  r_y = q(y | x_0) / q(x_t | x_0) is 1 / step at a clean token, else 1, but for
  y = x_0, where it is step = 1 + N / (e^sigma - 1).
  """
  log_step = jnp.logaddexp(0.0, jnp.log(num_states) - numerics.log_expm1(sigma))
  step = 1 + num_states * jnp.exp(-sigma) / -jnp.expm1(-sigma)
  clean = x_t == x_0
  log_ratio = jnp.where(clean, -log_step, 0)[..., None]
  inverse = jnp.where(clean, step, 1)[..., None]
  return (log_ratio, inverse), (log_step, 1 / step)


def _uniform(log_score, x_t, x_0, sigma):
  """(1/N) sum_{y != x_t} r_y (e^u_y - 1 - u_y), u_y = log(s_y / r_y)."""
  num_states = log_score.shape[-1]
  (log_ratio, inverse), (log_step, inverse_step) = _uniform_ratios(
    num_states, x_t, x_0, sigma
  )
  excess = numerics.exp_excess(
    log_score - log_ratio, jnp.exp(log_score) * inverse - 1
  )
  own = jax.nn.one_hot(x_t, num_states, dtype=bool)
  target = jax.nn.one_hot(x_0, num_states, dtype=bool)
  others = jnp.sum(jnp.where(own | target, 0, excess), axis=-1)
  back = jnp.sum(jnp.where(target, log_score, 0), axis=-1)
  at_target = numerics.exp_excess(
    back - log_step, jnp.exp(back) * inverse_step - 1
  )
  at_target = jnp.where(x_t == x_0, 0, at_target / inverse_step)
  return (others / inverse[..., 0] + at_target) / num_states


def _uniform_slope(log_score, x_t, x_0, sigma):
  """d loss / d log_score: (s_y - r_y) / N for y != x_t."""
  num_states = log_score.shape[-1]
  (_, inverse), (_, inverse_step) = _uniform_ratios(num_states, x_t, x_0, sigma)
  own = jax.nn.one_hot(x_t, num_states, dtype=bool)
  target = jax.nn.one_hot(x_0, num_states, dtype=bool)
  inverse_step = shapes.expand(inverse_step, log_score)
  inverse = jnp.where(target, inverse_step, inverse)
  slope = (jnp.exp(log_score) * inverse - 1) / inverse
  return jnp.where(own, 0, slope) / num_states


def _with_slope(value, slope):
  """Gives a loss its gradient in closed form, one array and no residuals.

  The derivative with respect to sigma, rarely asked for, is left to JAX.
  """
  function = jax.custom_jvp(value)

  def jvp(primals, tangents):
    log_score, x_t, x_0, sigma = primals
    by_score, _, _, by_sigma = tangents
    tangent = jnp.zeros(x_t.shape, log_score.dtype)
    if not isinstance(by_score, jax.custom_derivatives.SymbolicZero):
      tangent = tangent + jnp.sum(slope(*primals) * by_score, axis=-1)
    if not isinstance(by_sigma, jax.custom_derivatives.SymbolicZero):
      of_sigma = functools.partial(value, log_score, x_t, x_0)
      tangent = tangent + jax.jvp(of_sigma, (sigma,), (by_sigma,))[1]
    return function(*primals), tangent

  function.defjvp(jvp, symbolic_zeros=True)
  return function


# Loss of a token and its gradient with respect to log_score.
_KERNELS = {
  Absorbing: (_with_slope(_absorbing, _absorbing_slope), _absorbing_slope),
  Uniform: (_with_slope(_uniform, _uniform_slope), _uniform_slope),
}


@jax.custom_jvp
def _constant(sigma):
  return sigma


def _constant_jvp(primals, tangents):
  if not isinstance(tangents[0], jax.custom_derivatives.SymbolicZero):
    raise TypeError(
      'score_entropy_from_features does not differentiate sigma: for a learned '
      'schedule use score_entropy'
    )
  return primals[0], tangents[0]


_constant.defjvp(_constant_jvp, symbolic_zeros=True)


def score_entropy_from_features(
  h: Array,
  kernel: Array,
  bias: Array,
  x_t: Array,
  x_0: Array,
  sigma: ArrayLike,
  *,
  process: Relaxing,
  scale_by_sigma: bool = True,
  log_score_of: Callable[[Array, Array, Array], Array] | None = None,
  chunk: int = 1024,
) -> Array:
  """`score_entropy` of a linear head that never holds all the logits.

  Tokens go through the head in chunks that the backward pass computes again, so
  memory holds one chunk's logits at a time; under absorbing noise only masked
  tokens do (`head.of_features`).  Reverse-mode derivatives with respect to h,
  kernel and bias; sigma is not differentiated (an error says so).

  Args:
    h: `[..., length, features]`, what goes into the head; its dtype is that of
      the product, accumulated and continued in float32.
    kernel: `[features, num_states]`.
    bias: `[num_states]`.
    x_t: `[..., length]` int32.
    x_0: `[..., length]` int32.
    sigma: total noise, above 0; a scalar or of the tokens' rank.
    process: `Uniform` or `Absorbing`.
    scale_by_sigma: subtract log(e^sigma - 1) + log(num_states - 1) from the
      logits, as SEDD's absorbing network does.
    log_score_of: `(logits [batch, length, num_states], x_t [batch, length],
      sigma [batch]) -> log_score`, of each token by itself, where logits are
      turned into scores otherwise (`models.heads`); then without
      `scale_by_sigma`.
    chunk: tokens at a time.

  Returns:
    `[..., length]` in nats.

  Raises:
    ValueError: for shapes that do not fit, or both ways to scores at once.
    TypeError: where sigma is differentiated.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=4)
  >>> h, kernel, bias = jnp.ones((1, 2, 3)), jnp.zeros((3, 5)), jnp.zeros(5)
  >>> x_t, x_0 = jnp.array([[4, 1]]), jnp.array([[0, 1]])
  >>> sigma = jnp.log(2.0)
  >>> print(score_entropy_from_features(
  ...   h, kernel, bias, x_t, x_0, sigma, process=process
  ... ).round(2))
  [[1.39 0.  ]]
  """
  num_states = process.num_states
  if kernel.shape != (h.shape[-1], num_states) or bias.shape != (num_states,):
    raise ValueError(
      f'kernel {kernel.shape} and bias {bias.shape} do not map features of '
      f'{h.shape} to {num_states} states'
    )
  shapes.require_tokens(x_t, 'x_t')
  shapes.require_tokens(x_0, 'x_0')
  if h.shape[:-1] != x_t.shape or x_0.shape != x_t.shape:
    raise ValueError(
      f'h {h.shape}, x_t {x_t.shape} and x_0 {x_0.shape} do not describe the '
      'same tokens'
    )
  if scale_by_sigma and log_score_of is not None:
    raise ValueError('log_score_of is given: scale_by_sigma must be False')
  sigma = _constant(shapes.level_for(x_t, sigma, 'sigma'))
  sigma = jnp.broadcast_to(sigma, x_t.shape)
  value_fn, slope_fn = _kernels(process)

  def scores_of(logits, x_t, sigma):
    if log_score_of is not None:
      return log_score_of(logits[:, None], x_t[:, None], sigma)[:, 0]
    if scale_by_sigma:
      scale = numerics.log_expm1(sigma) + jnp.log(num_states - 1)
      logits = logits - scale[:, None]
    return logits

  def value_of(logits, x_t, x_0, sigma):
    return value_fn(scores_of(logits, x_t, sigma), x_t, x_0, sigma)

  def slope_of(logits, x_t, x_0, sigma):
    log_score, pull = jax.vjp(lambda x: scores_of(x, x_t, sigma), logits)
    return pull(slope_fn(log_score, x_t, x_0, sigma))[0]

  return head.of_features(
    value_of,
    slope_of,
    h,
    kernel,
    bias,
    (x_t, x_0, sigma),
    counted=x_t == process.mask if isinstance(process, Absorbing) else None,
    chunk=chunk,
  )


def score_entropy_exact(log_score: Array, ratio: Array, weight: Array) -> Array:
  """Score entropy against true ratios (arXiv 2310.16834, eq. 5).

  Args:
    log_score: `[..., num_states]`, log s.
    ratio: `[..., num_states]`, the true r, non-negative.
    weight: broadcasts to the same, w_y >= 0, and 0 on the own entry.

  Returns:
    `[...]`, sum_y w_y (s_y - r_y log s_y + r_y (log r_y - 1)), never negative.

  Raises:
    TypeError: for shapes that do not broadcast.

  >>> import jax.numpy as jnp
  >>> ratio = jnp.array([1.0, 2.0])
  >>> float(score_entropy_exact(jnp.log(ratio), ratio, jnp.array([0.0, 1.0])))
  0.0
  """
  log_score = numerics.as_float(log_score)
  ratio = numerics.as_float(ratio)
  present = ratio > 0
  safe = jnp.where(present, ratio, 1)
  score = jnp.exp(log_score)
  # s / r, less 1, as one product: their logarithms would cancel.
  excess = numerics.exp_excess(log_score - jnp.log(safe), score / safe - 1)
  term = jnp.where(present, safe * excess, score)
  return jnp.sum(jnp.where(weight > 0, weight * term, 0), axis=-1)


def implicit_score_entropy(
  score_fn: Callable[[Array, Array], Array],
  x: Array,
  sigma: Array,
  *,
  process: Relaxing,
) -> Array:
  """Implicit score entropy (arXiv 2310.16834, proposition 3.3), for teaching.

  sum_y Q[y, x] s(x)_y - Q[x, y] log s(y)_x over all neighbours y of x: its mean
  over x ~ p_sigma is that of the exact score entropy up to a constant.  It asks
  the network for every neighbour, length * num_states calls.

  Args:
    score_fn: `(x [batch, length], sigma [batch]) -> log_score`.
    x: `[batch, length]` int32, from the noisy marginal.
    sigma: `[batch]`, total noise.
    process: `Uniform` or `Absorbing`.

  Returns:
    `[batch]` in nats; may be negative.

  Raises:
    ValueError: for x that is no integer tokens `[batch, length]`.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Uniform(vocab_size=4)
  >>> flat = lambda x, sigma: jnp.zeros((*x.shape, 4))
  >>> x = jnp.array([[0, 3]])
  >>> print(implicit_score_entropy(flat, x, jnp.ones(1), process=process))
  [1.5]
  """
  shapes.require_tokens(x, 'x')
  if x.ndim != 2:
    raise ValueError(f'x must be [batch, length], not of shape {x.shape}')
  length, states = x.shape[1], process.num_states
  if not x.size:
    return jnp.zeros(x.shape[0], numerics.compute_dtype())
  # Both processes relax to a prior, Q[i, j] = prior_j for i != j.
  prior = process.prior_probs()
  away = ~jax.nn.one_hot(x, states, dtype=bool)
  into = jnp.where(away, prior[x][..., None], 0)
  log_score = numerics.as_float(score_fn(x, sigma))
  first = jnp.sum(into * jnp.exp(log_score), axis=(1, 2))

  def neighbour(place):
    position, symbol = place
    y = x.at[:, position].set(symbol)
    back = jnp.take_along_axis(
      score_fn(y, sigma)[:, position], x[:, position, None], axis=-1
    )[:, 0]
    weight = jnp.where(x[:, position] == symbol, 0, prior[symbol])
    return jnp.where(weight > 0, weight * numerics.as_float(back), 0)

  positions, symbols = jnp.divmod(jnp.arange(length * states), states)
  second = jax.lax.map(neighbour, (positions, symbols))
  return first - jnp.sum(second, axis=0)


def dwdse(
  score_fn: Callable[[Array, Array], Array],
  key: Array,
  x_0: Array,
  *,
  process: Relaxing,
  schedule: Continuous,
  t: ArrayLike | None = None,
  t_min: float = 1e-3,
) -> Array:
  """The training loss of SEDD, diffusion weighted denoising score entropy.

  One time a sequence, x_t ~ q(x_t | x_0), then rate(t) times the score entropy
  summed over the sequence (arXiv 2310.16834, algorithm 1 and theorem 3.6).

  Args:
    score_fn: `(x_t [batch, length], sigma [batch]) -> log_score
      [batch, length, num_states]`.
    key: one typed key; row i draws from fold_in(key, i).
    x_0: `[batch, length]` int32.
    process: `Uniform` or `Absorbing`.
    schedule: total noise and its rate.
    t: `[batch]` times or a scalar; low-discrepancy draws on [t_min, 1] unless
      given.
    t_min: the smallest time.

  Returns:
    `[batch]` in nats a sequence; its mean times (1 - t_min) is the integral in
    the likelihood bound.

  Raises:
    ValueError: for shapes that do not fit, or t_min outside (0, 1).

  >>> import jax
  >>> import jax.numpy as jnp
  >>> from sedd_jax import noise_schedules, processes
  >>> process = processes.Absorbing(vocab_size=27)
  >>> score_fn = lambda x_t, sigma: jnp.zeros((*x_t.shape, 28))
  >>> x_0 = jnp.zeros((2, 5), jnp.int32)
  >>> schedule = noise_schedules.LogLinear()
  >>> dwdse(
  ...   score_fn, jax.random.key(0), x_0, process=process, schedule=schedule
  ... ).shape
  (2,)
  """
  t, sigma, x_t = at_random_times(
    key, x_0, process=process, schedule=schedule, t=t, t_min=t_min
  )
  loss = score_entropy(
    score_fn(x_t, sigma), x_t, x_0, sigma[:, None], process=process
  )
  return schedule.rate(t) * jnp.sum(loss, axis=-1)


def at_random_times(
  key: Array,
  x_0: Array,
  *,
  process: Relaxing,
  schedule: Continuous,
  t: ArrayLike | None,
  t_min: float,
) -> tuple[Array, Array, Array]:
  """One time a sequence, its total noise, and x_t; see `dwdse`.

  Returns:
    t `[batch]`, sigma `[batch]` and x_t `[batch, length]`.

  Raises:
    ValueError: for shapes that do not fit, or t_min outside (0, 1).
  """
  shapes.require_tokens(x_0, 'x_0')
  if x_0.ndim != 2:
    raise ValueError(f'x_0 must be [batch, length], not of shape {x_0.shape}')
  if not 0 < t_min < 1:
    raise ValueError(f't_min must be in (0, 1), not {t_min}')
  batch = x_0.shape[0]
  index = jnp.arange(batch)
  if t is None:
    t = t_min + (1 - t_min) * times.low_discrepancy(key, index, batch)
  t = jnp.broadcast_to(numerics.as_float(t), (batch,))
  sigma = schedule.total(t)
  x_t = sample_noisy(
    keys_lib.example_keys(key, index), x_0, sigma, process=process
  )
  return t, sigma, x_t


def sample_noisy(
  keys: Array, x_0: Array, sigma: Array, *, process: Relaxing
) -> Array:
  """x_t ~ q(x_t | x_0) with one key and one level a sequence.

  Args:
    keys: typed keys `[batch]`.
    x_0: `[batch, length]` int32.
    sigma: `[batch]`.
    process: the noise process.

  Returns:
    int32 `[batch, length]`.

  >>> from sedd_jax import processes
  >>> keys, x_0 = jax.random.split(jax.random.key(0)), jnp.zeros((2, 3), int)
  >>> process = processes.Absorbing(vocab_size=4)
  >>> sample_noisy(keys, x_0, jnp.array([0.0, jnp.inf]), process=process)
  Array([[0, 0, 0],
         [4, 4, 4]], dtype=int32)
  """
  return jax.vmap(lambda key, x, level: process.sample(key, x, 0.0, level))(
    keys, x_0, sigma
  )
