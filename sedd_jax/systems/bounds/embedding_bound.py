"""The likelihood bound of Gaussian noise on embeddings, estimated.

The sum of `losses.embedding`, for the law that draws x_0 with noise and words
by the softmax; or the released code's sum, which is no bound.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.core import keys as keys_lib
from sedd_jax.losses import embedding, variational
from sedd_jax.processes import Gaussian, partial
from sedd_jax.systems import base
from sedd_jax.systems.bounds import time_proposal
from sedd_jax.systems.common import parts


def bound(
  predict_fn: Callable[[Array, Array], Array],
  rounding_fn: Callable[[Array], Array],
  clean: Array,
  key: Array,
  *,
  x_0: Array,
  index: Array,
  counted: Array | None,
  kept: Array | None,
  points: int,
  times_by: str,
  process: Gaussian,
  proposal: time_proposal.Proposal,
  variance: str,
  released: bool,
  within: Array | None = None,
) -> base.Bound:
  """The bound of `losses.embedding`, estimated; or the released code's sum.

  Args:
    predict_fn: `(x_t [batch, length, size], step [batch]) -> x̂_0`.
    rounding_fn: vectors to logits of tokens.
    clean: `[batch, length, size]`, embeddings of the tokens.
    key: one typed key; a sequence draws from fold_in(key, index).
    x_0: `[batch, length]` int32, the tokens.
    index: `[batch]`, places in the evaluated split.
    counted: `[batch, length]` bool, not padding, or None.
    kept: `[batch, length]` bool, outside the noise, or None.
    points: steps a sequence, of those from 2 to T.
    times_by: 'stratified' or 'importance'.
    process: the noise.
    proposal: where the divergences are large.
    variance: the model's.
    released: each step's term as the released code has it.
    within: `[batch]` in [0, 1), a sequence's place in the intervals of steps;
      drawn from its key by default.

  Returns:
    Nats, counted tokens, terms, and stats for `time_proposal.updated`.
  """
  tokens, inner = x_0, process.num_steps - 1
  counted = parts.counted(tokens, counted, kept)
  keys = keys_lib.example_keys(key, index)
  # Places: the points, the step 1, the times, x_0.
  vectors = clean + process.at('std', 1) * normal(keys, points + 2, clean)

  def noisy(place, step):
    noise = normal(keys, place, clean)
    if released:
      x_t = process.noised(vectors, step, noise)
    else:
      spread = embedding.variance_given_words(step, process=process)
      x_t = process.at('signal', step, clean) * clean
      x_t = x_t + jnp.sqrt(spread)[:, None, None] * noise
    return partial.kept(clean, x_t, kept)

  def nats_at(place, step):
    x_t = noisy(place, step)
    x_hat = predict_fn(x_t, step)
    how: dict[str, Any] = {'process': process, 'variance': variance}
    if released:
      each = embedding.released_step_nats(
        x_hat, x_t, vectors, clean, step, **how
      )
    else:
      each = embedding.step_nats(x_hat, x_t, clean, step, **how)
    return total(each, counted)

  def integrand(place, u):
    step = 2 + jnp.minimum(jnp.floor(u * inner).astype(jnp.int32), inner - 1)
    return inner * nats_at(place, step)

  diffusion, stats = time_proposal.integral(
    integrand, keys, points, times_by, proposal, within
  )
  prior = (
    embedding.released_prior_nats(vectors, process=process)
    if released
    else embedding.prior_nats(clean, process=process)
  )
  rounding = variational.decoder_nats(rounding_fn(vectors), tokens)
  terms = {
    'diffusion': diffusion,
    'prior': total(prior, counted),
    'reconstruction': nats_at(points, jnp.ones(len(tokens), jnp.int32)),
    'rounding': total(rounding, counted),
  }
  return base.Bound(
    sum(terms.values()),
    jnp.sum(counted, axis=-1).astype(diffusion.dtype),
    terms,
    stats,
  )


def normal(keys: Array, place: int | Array, like: Array) -> Array:
  """A standard normal draw of each example, `[batch, length, size]`."""
  return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:]))(
    keys_lib.folded(keys, place)
  )


def total(nats: Array, counted: Array) -> Array:
  """Sums over counted tokens: `[batch, length]` to `[batch]`."""
  return jnp.sum(jnp.where(counted, nats, 0), axis=-1)
