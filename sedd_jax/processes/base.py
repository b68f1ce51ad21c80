"""What a noise process on tokens is, and the posterior derived from it."""

import abc
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import categorical, numerics, shapes


class TokenProcess(Protocol):
  """A Markov chain on the symbols of a vocabulary, run on each token alone.

  Matrices are row-stochastic, Q[i, j] = q(x_stop = j | x_start = i).  A level
  says how far the chain has run; it is a scalar or broadcasts against the
  tokens `[..., length]`.  `x` is integer tokens `[..., length]` or, where said,
  a distribution `[..., length, n]` with n one of `vocab_size`, `num_states`.

  Attributes:
    vocab_size: data symbols.
    num_states: symbols of the chain, vocab_size plus one where there is a mask.
  """

  vocab_size: int

  @property
  def num_states(self) -> int:
    """Symbols of the chain."""
    raise NotImplementedError(type(self).__name__)

  @abc.abstractmethod
  def forward(self, x: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """Row q(x_stop = . | x_start = x), `[..., length, num_states]`.

    A distribution x gives the mixture of rows.
    """

  @abc.abstractmethod
  def backward(self, y: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """Column q(x_stop = y | x_start = .), `[..., length, num_states]`."""

  @abc.abstractmethod
  def sample(
    self, key: Array, x: Array, start: ArrayLike, stop: ArrayLike
  ) -> Array:
    """A draw of x_stop given x_start = x, int32 `[..., length]`."""

  @abc.abstractmethod
  def sample_prior(self, key: Array, shape: tuple[int, ...]) -> Array:
    """A draw from the chain's limit, int32 of `shape`."""

  @abc.abstractmethod
  def prior_kl(self, x_0: Array, level: ArrayLike) -> Array:
    """KL(q(x_level | x_0) || prior) in nats, `[..., length]`, as it is."""

  def _as_distribution(self, x: Array) -> Array:
    """Rows over all states `[..., length, num_states]` of tokens or of rows."""
    if shapes.is_tokens(x):
      return jax.nn.one_hot(x, self.num_states, dtype=numerics.compute_dtype())
    shapes.require_last_axis(x, (self.vocab_size, self.num_states), 'x')
    x = numerics.as_float(x)
    missing = self.num_states - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])

  def log_forward(
    self, log_x: Array, start: ArrayLike, stop: ArrayLike
  ) -> Array:
    """log of `forward` for a distribution given by its log probabilities."""
    return numerics.log_or_nothing(self.forward(jnp.exp(log_x), start, stop))

  def log_backward(self, y: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """log of `backward`."""
    return numerics.log_or_nothing(self.backward(y, start, stop))


def posterior(
  process: TokenProcess, x_t: Array, x_0: Array, s: ArrayLike, t: ArrayLike
) -> Array:
  """theta_post: q(x_s = . | x_t, x_0), proportional to forward * backward.

  For a distribution x_0 this is theta_post(x_t, x̂_0) of arXiv 2102.05379
  (eq. 13), equal to the p_theta of D3PM (arXiv 2107.03006, eq. 4).  It is not
  the mixture of posteriors over x_0.

  Args:
    process: the noise process.
    x_t: `[..., length]` int32, noisy tokens.
    x_0: `[..., length]` int32 clean tokens, or `[..., length, n]` floating.
    s: level of the earlier, cleaner state.
    t: level of x_t, at least s; arrays are not checked for that.

  Returns:
    `[..., length, num_states]`; a zero row where x_t cannot come from x_0.

  Raises:
    ValueError: for shapes or levels that do not fit.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> masked, clean = jnp.array([[2]]), jnp.array([[1]])
  >>> print(posterior(process, masked, clean, jnp.log(2.0), jnp.inf))
  [[[0.  0.5 0.5]]]
  """
  shapes.require_tokens(x_t, 'x_t')
  _require_same_tokens(x_t, x_0)
  joint = process.forward(x_0, 0.0, s) * process.backward(x_t, s, t)
  return numerics.safe_normalize(joint)[0]


def log_posterior(
  process: TokenProcess,
  x_t: Array,
  log_x_0: Array,
  s: ArrayLike,
  t: ArrayLike,
) -> Array:
  """log theta_post from logits of x̂_0, accurate for thousands of steps.

  Args:
    process: the noise process.
    x_t: `[..., length]` int32.
    log_x_0: `[..., length, n]` logits of the clean symbol; normalised here.
    s: level of the earlier, cleaner state.
    t: level of x_t, at least s.

  Returns:
    `[..., length, num_states]` normalised log probabilities; a row of -inf
    where x_t cannot come from x_0.

  Raises:
    ValueError: for shapes or levels that do not fit.

  >>> import jax.numpy as jnp
  >>> from sedd_jax import processes
  >>> process = processes.Absorbing(vocab_size=2)
  >>> masked, logits = jnp.array([[2]]), jnp.zeros((1, 1, 2))
  >>> logs = log_posterior(process, masked, logits, jnp.log(2.0), jnp.inf)
  >>> print(jnp.exp(logs).round(3))
  [[[0.25 0.25 0.5 ]]]
  """
  shapes.require_tokens(x_t, 'x_t')
  _require_same_tokens(x_t, log_x_0)
  log_x_0 = jax.nn.log_softmax(numerics.as_float(log_x_0))
  joint = process.log_forward(log_x_0, 0.0, s)
  joint = joint + process.log_backward(x_t, s, t)
  # Kept out of the arithmetic, so that its gradient is no NaN.
  impossible = jnp.all(jnp.isneginf(joint), axis=-1, keepdims=True)
  return jnp.where(
    impossible, -jnp.inf, jax.nn.log_softmax(jnp.where(impossible, 0, joint))
  )


def _require_same_tokens(x_t: Array, x_0: Array) -> None:
  shape = jnp.shape(x_0) if shapes.is_tokens(x_0) else jnp.shape(x_0)[:-1]
  if shape != jnp.shape(x_t):
    raise ValueError(
      f'x_0 of shape {jnp.shape(x_0)} does not go with x_t of shape '
      f'{jnp.shape(x_t)}'
    )


def has_mask(process: TokenProcess) -> bool:
  """True where the last state is a mask that data never holds."""
  return process.num_states > process.vocab_size


class Relaxing(TokenProcess):
  """A process whose kernel forgets x at one rate and falls to one prior.

  q(x_stop = . | x_start = x) = a delta_x + (1 - a) prior, a = e^-(stop-start),
  which is expm((stop - start) Q) for Q = 1 prior^T - I.  The level is the total
  noise in [0, infinity].
  """

  def prior_probs(self) -> Array:
    """The limit, `[num_states]`."""

    raise NotImplementedError(type(self).__name__)

  def _log_move(self, start, stop, tokens):
    """log a and log(1 - a) for a step between two levels."""
    step = shapes.increment(start, stop, tokens)
    return -step, jnp.log(-jnp.expm1(-step))

  def sample(
    self, key: Array, x: Array, start: ArrayLike, stop: ArrayLike
  ) -> Array:
    """A draw of x_stop: with probability 1 - a a fresh state of the prior.

    Args:
      key: one typed key.
      x: `[..., length]` int32.
      start: level of x.
      stop: level of the result.

    Returns:
      int32 `[..., length]`.
    """
    shapes.require_tokens(x, 'x')
    whether_key, where_key = jax.random.split(key)
    move = -jnp.expm1(-shapes.increment(start, stop, x))
    moves = categorical.bernoulli(whether_key, move, x.shape)
    fresh = self.sample_prior(where_key, x.shape)
    return jnp.where(moves, fresh, x).astype(jnp.int32)

  def forward(self, x: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """Row a x + (1 - a) prior, `[..., length, num_states]`."""
    rows = self._as_distribution(x)
    step = shapes.increment(start, stop, rows[..., 0])
    step = shapes.expand(step, rows)
    prior = shapes.along_last(self.prior_probs(), rows)
    return jnp.exp(-step) * rows - jnp.expm1(-step) * prior

  def backward(self, y: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """Column a [. = y] + (1 - a) prior(y), `[..., length, num_states]`."""
    shapes.require_tokens(y, 'y')
    own = self._as_distribution(y)
    step = shapes.expand(shapes.increment(start, stop, y), own)
    arrive = self.prior_probs()[y][..., None]
    return jnp.exp(-step) * own - jnp.expm1(-step) * arrive

  def log_forward(
    self, log_x: Array, start: ArrayLike, stop: ArrayLike
  ) -> Array:
    """log of `forward` for log probabilities, `[..., length, num_states]`."""
    shapes.require_last_axis(log_x, (self.vocab_size, self.num_states), 'log_x')
    missing = self.num_states - log_x.shape[-1]
    log_x = jnp.pad(
      log_x,
      [(0, 0)] * (log_x.ndim - 1) + [(0, missing)],
      constant_values=-jnp.inf,
    )
    keep, move = self._log_move(start, stop, log_x[..., 0])
    return numerics.logaddexp(
      shapes.expand(keep, log_x) + log_x,
      shapes.expand(move, log_x)
      + shapes.along_last(jnp.log(self.prior_probs()), log_x),
    )

  def log_backward(self, y: Array, start: ArrayLike, stop: ArrayLike) -> Array:
    """log of `backward`, `[..., length, num_states]`."""
    log_own = jnp.log(self._as_distribution(y))
    keep, move = self._log_move(start, stop, y)
    return numerics.logaddexp(
      shapes.expand(keep, log_own) + log_own,
      shapes.expand(move, log_own) + jnp.log(self.prior_probs())[y][..., None],
    )
