"""Absorbing noise: a token is replaced by the mask and stays there."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import categorical, numerics, shapes
from sedd_jax.processes import base


def reveal_probs(
  x_hat: Array,
  alpha_bar_s: ArrayLike,
  alpha_bar_t: ArrayLike,
  final: ArrayLike = False,
) -> Array:
  """p(x_s = . | x_t = mask), each candidate revealed at its own rate.

  Where tokens are masked by schedules of their own, the posterior of a
  prediction is the mixture of those of the candidates v,

    p(x_s = v | mask) = x̂_v (a_s^v - a_t^v) / (1 - a_t^v),  a = alpha_bar,

  and what is left stays masked.

  Args:
    x_hat: `[..., vocab_size]`, probabilities of the clean symbol.
    alpha_bar_s: shares of signal at s, broadcasting to x_hat.
    alpha_bar_t: those at t, not above those at s.
    final: whether s = 0, a bool that broadcasts to x_hat.

  Returns:
    `[..., vocab_size + 1]`, the mask last.

  >>> print(reveal_probs(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.5]), 0.5))
  [0.5 0.  0.5]
  """
  x_hat = numerics.as_float(x_hat)
  s, t = (jnp.asarray(a, x_hat.dtype) for a in (alpha_bar_s, alpha_bar_t))
  return revealed_at(x_hat, reveal_rate(s, t, final))


def revealed_at(x_hat: Array, rate: Array) -> Array:
  """`reveal_probs` by the chances that candidates are revealed.

  Args:
    x_hat: `[..., vocab_size]`, probabilities of the clean symbol.
    rate: of `reveal_rate`, broadcasting to x_hat.

  Returns:
    `[..., vocab_size + 1]`, the mask last, exactly 0 where all rates are 1.
  """
  revealed = jnp.broadcast_to(x_hat * rate, x_hat.shape)
  stays = jnp.sum(x_hat * (1 - rate), axis=-1, keepdims=True)
  return jnp.concatenate([revealed, stays], axis=-1)


def reveal_rate(
  alpha_bar_s: Array, alpha_bar_t: Array, final: ArrayLike = False
) -> Array:
  """(alpha_bar_s - alpha_bar_t) / (1 - alpha_bar_t), of any shape.

  Where alpha_bar_t is 1, and so nothing masked, it is 0, but 1 where `final`:
  the data has no masks.
  """
  masked = 1 - alpha_bar_t
  some = masked > 0
  rate = (alpha_bar_s - alpha_bar_t) / jnp.where(some, masked, 1)
  return jnp.where(some, rate, jnp.asarray(final, rate.dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Absorbing(base.Relaxing):
  """q(x_t | x_0) = a delta_{x_0} + (1 - a) delta_mask, a = e^-(total noise).

  The mask is the last state, `vocab_size`.  Source: arXiv 2310.16834, eq. 16
  (Q^absorb); arXiv 2107.03006, appendix A.2.2.

  Attributes:
    vocab_size: the number of data symbols.

  >>> import jax.numpy as jnp
  >>> Absorbing(vocab_size=2).forward(jnp.array([0]), 0.0, jnp.inf).tolist()
  [[0.0, 0.0, 1.0]]
  """

  vocab_size: int = dataclasses.field(metadata={'static': True})

  def __post_init__(self):
    if self.vocab_size < 1:
      raise ValueError(
        f'Absorbing: vocab_size must be at least 1, not {self.vocab_size}'
      )

  @classmethod
  def examples(cls) -> tuple['Absorbing', ...]:
    """Instances for the contract tests."""
    return cls(vocab_size=1), cls(vocab_size=4)

  @property
  def num_states(self) -> int:
    """vocab_size + 1."""
    return self.vocab_size + 1

  @property
  def mask(self) -> int:
    """The absorbing state."""
    return self.vocab_size

  def prior_probs(self) -> Array:
    """All mass on the mask, `[num_states]`."""
    return jax.nn.one_hot(
      self.mask, self.num_states, dtype=numerics.compute_dtype()
    )

  def sample(
    self, key: Array, x: Array, start: ArrayLike, stop: ArrayLike
  ) -> Array:
    """A draw of x_stop: each token is masked with probability 1 - a.

    Args:
      key: one typed key.
      x: `[..., length]` int32.
      start: level of x.
      stop: level of the result.

    Returns:
      int32 `[..., length]`.
    """
    shapes.require_tokens(x, 'x')
    move = -jnp.expm1(-shapes.increment(start, stop, x))
    masks = categorical.bernoulli(key, move, x.shape)
    return jnp.where(masks, self.mask, x).astype(jnp.int32)

  def sample_prior(self, key: Array, shape: tuple[int, ...]) -> Array:
    """All masks, int32 of `shape`; draws nothing."""
    del key
    return jnp.full(shape, self.mask, jnp.int32)

  def prior_kl(self, x_0: Array, level: ArrayLike) -> Array:
    """KL(q(x_level | x_0) || all masked): infinite below level infinity.

    Args:
      x_0: int32 tokens `[..., length]` or a distribution with a last axis.
      level: total noise.

    Returns:
      `[..., length]`: infinity where a clean token can be left, else 0.
    """
    rows = self._as_distribution(x_0)
    clean = 1 - rows[..., self.mask]
    level = shapes.level_for(clean, level)
    return jnp.where((level < jnp.inf) & (clean > 0), jnp.inf, 0.0)
