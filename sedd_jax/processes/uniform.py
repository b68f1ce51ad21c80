"""Uniform noise: a token forgets itself and becomes any symbol."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics, shapes
from sedd_jax.processes import base


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Uniform(base.Relaxing):
  """q(x_t | x_0) = a delta_{x_0} + (1 - a) / N, a = e^-(total noise).

  Source: arXiv 2310.16834, eq. 15 (Q^uniform, divided by N as in the released
  code); arXiv 2102.05379, eq. 11.

  Attributes:
    vocab_size: N, the number of symbols; there is no mask.

  >>> import jax.numpy as jnp
  >>> Uniform(vocab_size=2).forward(jnp.array([0]), 0.0, jnp.inf).tolist()
  [[0.5, 0.5]]
  """

  vocab_size: int = dataclasses.field(metadata={'static': True})

  def __post_init__(self):
    if self.vocab_size < 2:
      raise ValueError(
        f'Uniform: vocab_size must be at least 2, not {self.vocab_size}'
      )

  @classmethod
  def examples(cls) -> tuple['Uniform', ...]:
    """Instances for the contract tests."""
    return cls(vocab_size=2), cls(vocab_size=5)

  @property
  def num_states(self) -> int:
    """The same as `vocab_size`."""
    return self.vocab_size

  def prior_probs(self) -> Array:
    """1 / N for every symbol, `[num_states]`."""
    return jnp.full(
      self.num_states, 1 / self.num_states, numerics.compute_dtype()
    )

  def sample_prior(self, key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform symbols, int32 of `shape`."""
    return jax.random.randint(key, shape, 0, self.num_states, jnp.int32)

  def prior_kl(self, x_0: Array, level: ArrayLike) -> Array:
    """KL(q(x_level | x_0) || uniform) in nats, `[..., length]`.

    With q = (1 + u) / N, u = a (N x_0 - 1), it is the mean over symbols of
    (1 + u) log(1 + u) - u, since the u sum to 0: no cancellation for small a.

    Args:
      x_0: int32 tokens `[..., length]` or a distribution with a last axis.
      level: total noise.

    Returns:
      `[..., length]`, about a^2 (N - 1) / 2 for small a.
    """
    rows = self._as_distribution(x_0)
    level = shapes.level_for(rows[..., 0], level)
    alpha_bar = jnp.exp(-level)
    if not shapes.is_tokens(x_0):
      u = shapes.expand(alpha_bar, rows) * (self.num_states * rows - 1)
      return jnp.mean(numerics.cramer(u), axis=-1)
    others = self.num_states - 1
    total = numerics.cramer(alpha_bar * others)
    total = total + others * numerics.cramer(-alpha_bar)
    return jnp.broadcast_to(total / self.num_states, x_0.shape)
