"""DiffusionBERT's schedule: what says little is masked last (2211.15029)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import names, numerics, trees
from sedd_jax.noise_schedules import base


def _of_paper(counts: np.ndarray) -> tuple[np.ndarray, float]:
  """H = -log frequency in nats, and its mean over the corpus."""
  frequencies = (counts + 1) / (counts + 1).sum()
  information = -np.log(frequencies)
  return information, float(counts @ information / counts.sum())


def _of_code(counts: np.ndarray) -> tuple[np.ndarray, float]:
  """log(count + 1) over its largest value, and its mean over the corpus."""
  weights = np.log(counts + 1)
  weights = weights / weights.max()
  return weights, float(counts @ weights / counts.sum())


FORMS = {'paper': _of_paper, 'code': _of_code}
MEANS = ('corpus', 'sentence')


@trees.register
@dataclasses.dataclass(frozen=True, eq=False, init=False, repr=False)
class Spindle(base.Steps):
  """A level for each token, by how rare it is.

  alpha_bar_t^i = 1 - t/T + strength sin(pi t/T) d_i, clipped to [0, 1], with

    d_i = mean(H) / H_i - 1    (form 'paper', eq. 8; H_i = -log frequency)
    d_i = w_i - mean(w)        (form 'code'; w_i = log(count + 1) / largest)

  so that rare tokens are masked before frequent ones.  The released code caps
  the share at 0.999 from step 1 on, and so does form 'code'.  Clipped, the
  share never rises: a frequent token's starts above 1, a rare one's ends below
  0.  At T everything is masked.

  Attributes:
    measure: `[vocab_size]`, H or w; 0 where a token counts in no mean.
    corpus_mean: its mean over the corpus.
    num_steps: T.
    strength: lambda; 0 is beta_t = 1 / (T - t + 1) for all.
    form: 'paper' or 'code'.
    mean: over the 'corpus', or over each 'sentence', as the paper; the latter
      makes p's levels depend on what p cannot know (docs/systems.md).
  """

  measure: Any
  corpus_mean: Any
  num_steps: int = dataclasses.field(metadata={'static': True})
  strength: float = dataclasses.field(metadata={'static': True})
  form: str = dataclasses.field(metadata={'static': True})
  mean: str = dataclasses.field(metadata={'static': True})

  # Levels are those of tokens.
  needs_tokens = True

  def __init__(
    self,
    counts: ArrayLike,
    num_steps: int = 1000,
    strength: float = 0.3,
    form: str = 'paper',
    mean: str = 'corpus',
  ):
    """Measures the tokens.

    Args:
      counts: `[vocab_size]`, occurrences of each token in the corpus.
      num_steps: T.
      strength: lambda, at least 0.
      form: of `FORMS`.
      mean: of `MEANS`.

    Raises:
      ValueError: for arguments that do not fit.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not (counts >= 0).all() or not counts.sum():
      raise ValueError('Spindle: counts must be those of a text, [vocab_size]')
    if num_steps < 2:
      raise ValueError(
        f'Spindle: num_steps must be at least 2, not {num_steps}'
      )
    if not 0 <= strength < np.inf:
      raise ValueError(f'Spindle: strength must be at least 0, not {strength}')
    if mean not in MEANS:
      raise ValueError(
        f'Spindle: unknown mean {mean!r}: use {", ".join(MEANS)}'
      )
    measure, corpus_mean = names.resolve(FORMS, form, 'form')(counts)
    values = (measure, corpus_mean, num_steps, strength, form, mean)
    for field, value in zip(dataclasses.fields(self), values, strict=True):
      object.__setattr__(self, field.name, value)

  @classmethod
  def examples(cls) -> tuple['Spindle', ...]:
    """Instances for the contract tests."""
    counts = np.array([500, 100, 20, 3, 1])
    return (
      cls(counts, num_steps=8),
      cls(counts, num_steps=20, strength=1.0),
      cls(counts, num_steps=8, form='code', mean='sentence'),
    )

  def __eq__(self, other: object) -> bool:
    """Whether all fields are equal."""
    return trees.same(self, other)

  # Compared by value, with an array among the values.
  __hash__ = None  # type: ignore[assignment]

  def _deviation(
    self, tokens: Array | None, valid: Array | None = None
  ) -> Array:
    """d of tokens `[..., length]`, or of the vocabulary where None."""
    table = jnp.asarray(self.measure, numerics.compute_dtype())
    measure = table if tokens is None else table[tokens]
    mean = jnp.asarray(self.corpus_mean, table.dtype)
    if self.mean == 'sentence' and tokens is not None:
      counted = measure > 0 if valid is None else (measure > 0) & valid
      total = jnp.sum(jnp.where(counted, measure, 0), axis=-1, keepdims=True)
      mean = total / jnp.maximum(
        jnp.sum(counted, axis=-1, keepdims=True), 1
      ).astype(table.dtype)
    if self.form == 'code':
      return measure - mean
    return mean / jnp.where(measure > 0, measure, 1) - 1

  def _share(self, step: ArrayLike, deviation: Array) -> Array:
    step = jnp.asarray(step, deviation.dtype)
    t = step / self.num_steps
    raw = 1 - t + self.strength * jnp.sin(jnp.pi * t) * deviation
    share = jnp.clip(raw, 0, 0.999 if self.form == 'code' else 1)
    # Exactly, whatever rounding makes of the sine.
    share = jnp.where(step == 0, 1, share)
    return jnp.where(step == self.num_steps, 0, share)

  def alpha_bars(self, step: ArrayLike) -> Array:
    """Shares of signal left of every symbol, `[..., vocab_size]`.

    Under the corpus's mean, whatever `mean` says: of candidates there is no
    sentence.

    Args:
      step: integers in [0, num_steps], any shape.
    """
    deviation = self._deviation(None)
    step = jnp.asarray(step)[..., None]
    return self._share(step, deviation.reshape((1,) * (step.ndim - 1) + (-1,)))

  def level(
    self,
    step: ArrayLike,
    tokens: Array | None = None,
    valid: Array | None = None,
  ) -> Array:
    """Total noise of each token after so many steps, `[..., length]`.

    Args:
      step: integers in [0, num_steps]; a scalar, or of the tokens' rank.
      tokens: `[..., length]` int32, clean tokens.
      valid: `[..., length]` bool, those that the sentence's mean is over; all
        by default.

    Returns:
      -log alpha_bar; infinite where nothing is left.

    Raises:
      ValueError: without tokens.
    """
    if tokens is None:
      raise ValueError(
        'Spindle: levels are those of tokens, and none are given'
      )
    deviation = self._deviation(tokens, valid)
    step = jnp.asarray(step)
    if step.ndim not in (0, tokens.ndim):
      raise ValueError(
        f'step has shape {step.shape} for tokens of shape {tokens.shape}: give '
        'a scalar or the rank of the tokens'
      )
    step = step.reshape((1,) * (tokens.ndim - step.ndim) + step.shape)
    return -jnp.log(self._share(step, deviation))
