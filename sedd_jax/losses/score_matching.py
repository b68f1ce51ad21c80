"""Score entropy in its exact, implicit and denoising forms.

Source: arXiv 2310.16834.  With true ratios r and scores s a token's loss is
sum_y Q[y, x_t] (s_y - r_y log s_y + r_y (log r_y - 1)), y != x_t: convex in s,
non-negative and zero at s = r.  Term by term it is r (e^u - 1 - u) with
u = log(s / r), and that is how it is computed: as a sum of terms none of which
can be negative, so that float32 survives near the optimum.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import numerics, shapes, times
from sedd_jax.noise_schedules import Continuous
from sedd_jax.processes import Absorbing, TokenProcess, Uniform


def score_entropy(
  log_score: Array,
  x_t: Array,
  x_0: Array,
  sigma: ArrayLike,
  *,
  process: TokenProcess,
) -> Array:
  """Denoising score entropy of each token (arXiv 2310.16834, theorem 3.4).

  The true ratios are those of q(x_t | x_0).  Unweighted: multiply by the
  schedule's `rate(t)` for the DWDSE integrand.  Absorbing noise counts masked
  tokens only.

  Args:
    log_score: `[..., length, num_states]`, log p_t(y) / p_t(x_t); the own entry
      is not read.
    x_t: `[..., length]` int32, noisy tokens.
    x_0: `[..., length]` int32, clean tokens.
    sigma: total noise of x_t, above 0; a scalar or of the tokens' rank.
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
  return _kernel(process)(*_checked(log_score, x_t, x_0, sigma, process))


def _kernel(process: TokenProcess) -> Callable[..., Array]:
  for kind, kernel in _KERNELS.items():
    if isinstance(process, kind):
      return kernel
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
  excess = numerics.exp_excess(
    own + numerics.log_expm1(sigma), jnp.exp(own) * jnp.expm1(sigma) - 1
  )
  return jnp.where(masked, others + excess / jnp.expm1(sigma), 0)


def _uniform(log_score, x_t, x_0, sigma):
  """(1/N) sum_{y != x_t} r_y (e^u_y - 1 - u_y), r_y = q(y|x_0) / q(x_t|x_0)."""
  num_states = log_score.shape[-1]
  # 1 + N / (e^sigma - 1) is q(x_0|x_0) / q(y|x_0), the one ratio there is.
  log_step = jnp.logaddexp(0.0, jnp.log(num_states) - numerics.log_expm1(sigma))
  step = 1 + num_states / jnp.expm1(sigma)
  clean = (x_t == x_0)[..., None]
  target = jax.nn.one_hot(x_0, num_states, dtype=bool)
  log_step = shapes.expand(log_step, log_score)
  step = shapes.expand(step, log_score)
  log_ratio = jnp.where(clean, -log_step, jnp.where(target, log_step, 0))
  inverse = jnp.where(clean, step, jnp.where(target, 1 / step, 1))
  excess = numerics.exp_excess(
    log_score - log_ratio, jnp.exp(log_score) * inverse - 1
  )
  away = ~jax.nn.one_hot(x_t, num_states, dtype=bool)
  return jnp.sum(jnp.where(away, excess / inverse, 0), axis=-1) / num_states


_KERNELS = {Absorbing: _absorbing, Uniform: _uniform}


def score_entropy_from_features(
  h: Array,
  kernel: Array,
  bias: Array,
  x_t: Array,
  x_0: Array,
  sigma: ArrayLike,
  *,
  process: TokenProcess,
  scale_by_sigma: bool = True,
  chunk: int = 1024,
) -> Array:
  """`score_entropy` of a linear head that never holds all the logits.

  Tokens go through the head in chunks that the backward pass computes again, so
  memory holds one chunk's logits at a time.

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
    chunk: tokens at a time.

  Returns:
    `[..., length]` in nats.

  Raises:
    ValueError: for shapes that do not fit.
  """
  if chunk < 1:
    raise ValueError(f'chunk must be at least 1, not {chunk}')
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
  sigma = jnp.broadcast_to(shapes.level_for(x_t, sigma, 'sigma'), x_t.shape)
  loss_kernel = _kernel(process)
  dtype = numerics.compute_dtype(h)

  # A function of everything it differentiates, cast inside: the gradient of
  # kernel and bias then adds up over chunks in their own dtype.
  @jax.checkpoint
  def of_chunk(kernel, bias, h, x_t, x_0, sigma):
    logits = jnp.dot(h, kernel.astype(h.dtype), preferred_element_type=dtype)
    logits = logits + bias[None]
    if scale_by_sigma:
      scale = numerics.log_expm1(sigma) + jnp.log(num_states - 1)
      logits = logits - scale[:, None]
    return loss_kernel(logits, x_t, x_0, sigma)

  count = x_t.size
  chunk = min(chunk, count)
  chunks = -(-count // chunk)

  def split(x, tail=()):
    flat = x.reshape((count, *tail))
    padding = [(0, chunks * chunk - count)] + [(0, 0)] * len(tail)
    return jnp.pad(flat, padding, mode='edge').reshape((chunks, chunk, *tail))

  loss = jax.lax.map(
    lambda args: of_chunk(kernel, bias, *args),
    (split(h, h.shape[-1:]), split(x_t), split(x_0), split(sigma)),
  )
  return loss.reshape(-1)[:count].reshape(x_t.shape)


def score_entropy_exact(log_score: Array, ratio: Array, weight: Array) -> Array:
  """Score entropy against true ratios (arXiv 2310.16834, eq. 5).

  Args:
    log_score: `[..., num_states]`, log s.
    ratio: `[..., num_states]`, the true r, non-negative.
    weight: broadcasts to the same, w_y >= 0, and 0 on the own entry.

  Returns:
    `[...]`, sum_y w_y (s_y - r_y log s_y + r_y (log r_y - 1)), never negative.

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
  process: TokenProcess,
) -> Array:
  """Implicit score entropy (arXiv 2310.16834, theorem 3.3), for teaching.

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

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Uniform(vocab_size=4)
  >>> flat = lambda x, sigma: jnp.zeros((*x.shape, 4))
  >>> x = jnp.array([[0, 3]])
  >>> print(implicit_score_entropy(flat, x, jnp.ones(1), process=process))
  [1.5]
  """
  length, states = x.shape[1], process.num_states
  # Both processes relax to a prior, Q[i, j] = prior_j for i != j.
  prior = process.prior_probs()
  away = ~jax.nn.one_hot(x, states, dtype=bool)
  into = jnp.where(away, prior[x][..., None], 0)
  first = jnp.sum(into * jnp.exp(score_fn(x, sigma)), axis=(1, 2))

  def neighbour(place):
    position, symbol = place
    y = x.at[:, position].set(symbol)
    back = jnp.take_along_axis(
      score_fn(y, sigma)[:, position], x[:, position, None], axis=-1
    )[:, 0]
    weight = jnp.where(x[:, position] == symbol, 0, prior[symbol])
    return jnp.where(weight > 0, weight * back, 0)

  positions, symbols = jnp.divmod(jnp.arange(length * states), states)
  second = jax.lax.map(neighbour, (positions, symbols))
  return first - jnp.sum(second, axis=0)


def dwdse(
  score_fn: Callable[[Array, Array], Array],
  key: Array,
  x_0: Array,
  *,
  process: TokenProcess,
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
    ValueError: for shapes that do not fit.

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
  shapes.require_tokens(x_0, 'x_0')
  if x_0.ndim != 2:
    raise ValueError(f'x_0 must be [batch, length], not of shape {x_0.shape}')
  batch = x_0.shape[0]
  index = jnp.arange(batch)
  if t is None:
    t = t_min + (1 - t_min) * times.low_discrepancy(key, index, batch)
  t = jnp.broadcast_to(numerics.as_float(t), (batch,))
  sigma = schedule.total(t)
  x_t = sample_noisy(
    keys_lib.example_keys(key, index), x_0, sigma, process=process
  )
  loss = score_entropy(
    score_fn(x_t, sigma), x_t, x_0, sigma[:, None], process=process
  )
  return schedule.rate(t) * jnp.sum(loss, axis=-1)


def sample_noisy(
  keys: Array, x_0: Array, sigma: Array, *, process: TokenProcess
) -> Array:
  """x_t ~ q(x_t | x_0) with one key and one level a sequence.

  Args:
    keys: typed keys `[batch]`.
    x_0: `[batch, length]` int32.
    sigma: `[batch]`.
    process: the noise process.

  Returns:
    int32 `[batch, length]`.
  """
  return jax.vmap(lambda key, x, level: process.sample(key, x, 0.0, level))(
    keys, x_0, sigma
  )
