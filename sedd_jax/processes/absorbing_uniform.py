"""Absorbing mixed with uniform noise, as BERT corrupts text."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import categorical, numerics, shapes
from sedd_jax.processes import base


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AbsorbingUniform(base.Relaxing):
  """q(x_t | x_0) = a delta_{x_0} + (1 - a) prior, a = e^-(total noise).

  The prior has `mask_share` on the mask, the last state, and the rest spread
  over the data symbols: a step is alpha 1 e_m^T + beta 1 u^T + (1 - alpha -
  beta) I with alpha : beta the same at all steps.  A masked token may leave the
  mask again.  Source: arXiv 2107.03006, section 3.1 and A.2.6 (BERT).

  Attributes:
    vocab_size: the number of data symbols.
    mask_share: of moves that go to the mask, in (0, 1).

  >>> process = AbsorbingUniform(vocab_size=2, mask_share=0.5)
  >>> process.forward(jnp.array([0]), 0.0, jnp.inf).tolist()
  [[0.25, 0.25, 0.5]]
  """

  vocab_size: int = dataclasses.field(metadata={'static': True})
  mask_share: float = dataclasses.field(default=0.9, metadata={'static': True})

  def __post_init__(self):
    if self.vocab_size < 1:
      raise ValueError(
        'AbsorbingUniform: vocab_size must be at least 1, not '
        f'{self.vocab_size}'
      )
    if not 0 < self.mask_share < 1:
      raise ValueError(
        'AbsorbingUniform: mask_share must be between 0 and 1, not '
        f'{self.mask_share}; use absorbing or uniform at the ends'
      )

  @classmethod
  def examples(cls) -> tuple['AbsorbingUniform', ...]:
    """Instances for the contract tests."""
    return (cls(vocab_size=4, mask_share=0.3),)

  @property
  def num_states(self) -> int:
    """vocab_size + 1."""
    return self.vocab_size + 1

  @property
  def mask(self) -> int:
    """The last state."""
    return self.vocab_size

  def prior_probs(self) -> Array:
    """The limit, `[num_states]`."""
    dtype = numerics.compute_dtype()
    data = jnp.full(
      self.vocab_size, (1 - self.mask_share) / self.vocab_size, dtype
    )
    return jnp.append(data, jnp.asarray(self.mask_share, dtype))

  def sample_prior(self, key: Array, shape: tuple[int, ...]) -> Array:
    """A draw from the limit, int32 of `shape`."""
    mask_key, symbol_key = jax.random.split(key)
    masked = categorical.bernoulli(
      mask_key, jnp.asarray(self.mask_share), shape
    )
    symbols = jax.random.randint(symbol_key, shape, 0, self.vocab_size)
    return jnp.where(masked, self.mask, symbols).astype(jnp.int32)

  def prior_kl(self, x_0: Array, level: ArrayLike) -> Array:
    """KL(q(x_level | x_0) || prior) in nats, `[..., length]`.

    Args:
      x_0: int32 tokens `[..., length]` or a distribution with a last axis.
      level: total noise.
    """
    rows = self._as_distribution(x_0)
    kept = jnp.exp(-shapes.level_for(rows[..., 0], level))
    # q = prior (1 + d) with d = a (rows / prior - 1), of mean 0.
    prior = shapes.along_last(self.prior_probs(), rows)
    excess = shapes.expand(kept, rows) * (rows / prior - 1)
    return jnp.sum(prior * numerics.cramer(excess), axis=-1)
