"""Cross entropies of edits: what is done to each token, and what is put in.

DiffusER, arXiv 2210.16886, section 2.2: -log p_tag(e_t | x_t) and
-log p_gen(x_{t-1} | x_t, e_t), summed by their decisions.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import numerics

NUM_TAGS = 3
# Logits a place: of the tags, and of nothing or something put in before it.
NUM_LOGITS = NUM_TAGS + 2


def log_tag_probs(
  logits: Array, keep_bias: ArrayLike = 0.0
) -> tuple[Array, Array]:
  """Log probabilities of the tag of a place and of the flag before it.

  Args:
    logits: `[..., 5]` of the tagger.
    keep_bias: nats that KEEP and nothing put in are likelier by, before both
      laws are normalised: a confidence bias (arXiv 2005.12592, section 5).

  Returns:
    `[..., 3]` of KEEP, REPLACE, DELETE, and `[..., 2]` of False, True.

  >>> tags, _ = log_tag_probs(jnp.zeros(5), jnp.log(2.0))
  >>> print(jnp.exp(tags))
  [0.5  0.25 0.25]
  """
  logits = numerics.as_float(logits)
  logits = logits.at[..., jnp.array([0, NUM_TAGS])].add(keep_bias)
  return (
    jax.nn.log_softmax(logits[..., :NUM_TAGS]),
    jax.nn.log_softmax(logits[..., NUM_TAGS:]),
  )


def tag_nats(logits: Array, tags: Array, inserts: Array) -> tuple[Array, Array]:
  """-log p of the tag of each place and of the flag before it.

  Args:
    logits: `[..., places, 5]`.
    tags: `[..., places]` int32, from 0 to 2.
    inserts: `[..., places]` int32, 0 or 1.

  Returns:
    Nats of the tags and of the flags, `[..., places]` each.

  Raises:
    ValueError: for shapes that do not fit.

  >>> tags, flags = tag_nats(jnp.zeros((1, 5)), jnp.array([2]), jnp.array([1]))
  >>> print(tags.round(4), flags.round(4))
  [1.0986] [0.6931]
  """
  if (
    not logits.shape
    == (*tags.shape, NUM_LOGITS)
    == (
      *inserts.shape,
      NUM_LOGITS,
    )
  ):
    raise ValueError(
      f'logits {logits.shape}, tags {tags.shape} and inserts {inserts.shape} '
      f'do not fit: [..., places, {NUM_LOGITS}] and [..., places]'
    )
  log_tags, log_inserts = log_tag_probs(logits)
  return _nats_of(log_tags, tags), _nats_of(log_inserts, inserts)


def span_nats(logits: Array, text: Array) -> Array:
  """-log p of each symbol of the spans' text given those before.

  Args:
    logits: `[..., length, vocab_size + 1]`, at a place those of the next one;
      the last symbol is the end of a span.
    text: `[..., length]` int32; where it is a marker (vocab_size + 1), and at
      the first place, the result means nothing but is finite.

  Returns:
    `[..., length]`.

  Raises:
    ValueError: for shapes that do not fit.

  >>> nats = span_nats(jnp.zeros((1, 3, 4)), jnp.array([[4, 1, 3]]))
  >>> print(nats.round(4)[0, 1:])
  [1.3863 1.3863]
  """
  if logits.shape[:-1] != text.shape:
    raise ValueError(
      f'logits {logits.shape} and text {text.shape} do not fit: '
      '[..., length, symbols] and [..., length]'
    )
  log_probs = jax.nn.log_softmax(numerics.as_float(logits))
  before = jnp.roll(log_probs, 1, axis=-2)
  return _nats_of(before, jnp.minimum(text, logits.shape[-1] - 1))


def _nats_of(log_probs: Array, found: Array) -> Array:
  own = jnp.take_along_axis(log_probs, found[..., None], axis=-1)
  return -own[..., 0]
