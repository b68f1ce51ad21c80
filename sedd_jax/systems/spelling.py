"""Spell checking by a chain of uniform noise (arXiv 2102.05379, section 6)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sedd_jax.core import names
from sedd_jax.systems import base

# Share of characters drawn at random that is reckoned with where none is told;
# of K symbols one in K of these is right all the same.
_ERROR_RATE = 0.05


def likeliest(logits: Array, tokens: Array, error_rate: ArrayLike) -> Array:
  """argmax over x_0 of x̂_0(x_0) q(tokens | x_0), q replacing at random.

  A step back is theta_post(x_t, x̂_0), which weighs x̂_0 by what x_t says of its
  own position.  Trained so, the best x̂_0 is the law of x_0 given the *other*
  positions, p(x_0 | x_t) / q(x_t | x_0) but for a constant, and what is written
  at the position is to be weighed in here too.

  Args:
    logits: `[..., num_symbols]` of x̂_0.
    tokens: `[...]`, what is written.
    error_rate: share of positions with a symbol drawn at random, in (0, 1]; at
      1 what is written at a position counts for nothing there.

  Returns:
    int32 `[...]`.

  >>> logits = jnp.log(jnp.array([[0.6, 0.3, 0.1], [0.98, 0.01, 0.01]]))
  >>> likeliest(logits, jnp.array([1, 1]), 0.3).tolist()
  [1, 0]
  >>> likeliest(logits, jnp.array([1, 1]), 1.0).tolist()
  [0, 0]
  """
  num_symbols = logits.shape[-1]
  # log of q(x | x) / q(x | y).
  kept = jnp.log1p((1 - error_rate) / error_rate * num_symbols)
  written = jax.nn.one_hot(tokens, num_symbols, dtype=logits.dtype)
  return jnp.argmax(logits + kept * written, axis=-1)


def checked(
  corrected: Callable[[Array, float], Array],
  options: Mapping[str, Any],
  tokenizer: Any,
  *,
  length: int,
  blind: bool,
) -> dict[str, Any]:
  """Corrects substituted characters.

  One pass: the text is taken for x_1, the data after one step of noise.
  Characters are replaced, never inserted or removed.

  Args:
    corrected: `(tokens [n, length], error_rate) -> tokens`, one pass of the
      network.
    options: `text`, or `path`, a file of text; for a blind network also
      `error_rate`, the share drawn at random, 0.05 by default; the released
      code's is 1.
    tokenizer: of the data.
    length: tokens of a sequence that the network was trained on.
    blind: whether the network predicts a position from the others alone (see
      `likeliest`).

  Returns:
    `text`, `corrected`, `marked` (changed characters as [old>new]) and
    `changes`, their number.

  Raises:
    TaskError: for options that do not fit, a file that cannot be read, or
      nothing to check.
    DataError: for text that the tokenizer cannot encode.
  """
  known = ['text', 'path', *(['error_rate'] if blind else [])]
  for name in options:
    if name not in known:
      raise base.TaskError(
        f'unknown option task.{name}; {names.alternatives(name, known)}'
      )
  error_rate = options.get('error_rate', _ERROR_RATE) if blind else 1.0
  if not isinstance(error_rate, int | float) or not 0 < error_rate <= 1:
    raise base.TaskError(f'task.error_rate must be in (0, 1], not {error_rate}')
  text = _text_of(options)
  tokens = np.asarray(tokenizer.encode(text), np.int32)
  if not len(tokens):
    raise base.TaskError('there is no text to check')
  # The last piece begins early enough to be whole; where the text is shorter
  # than a sequence, it is checked at its own length.
  size = min(length, len(tokens))
  starts = [*range(0, len(tokens) - size, size), len(tokens) - size]
  found = tokens.copy()
  for start in starts:
    piece = jnp.asarray(tokens[None, start : start + size])
    found[start : start + size] = np.asarray(corrected(piece, error_rate))[0]
  marked = ''.join(
    tokenizer.decode([new])
    if new == old
    else f'[{tokenizer.decode([old])}>{tokenizer.decode([new])}]'
    for old, new in zip(tokens.tolist(), found.tolist())
  )
  return {
    'text': tokenizer.decode(tokens),
    'corrected': tokenizer.decode(found),
    'marked': marked,
    'changes': int(np.sum(found != tokens)),
  }


def _text_of(options: Mapping[str, Any]) -> str:
  """The text that is to be checked."""
  text, path = options.get('text', ''), options.get('path', '')
  if bool(text) == bool(path):
    raise base.TaskError(
      'mode spellcheck needs one of --config.task.text=TEXT and '
      '--config.task.path=FILE'
    )
  if not path:
    return str(text)
  try:
    with open(path, encoding='utf-8') as file:
      return file.read().rstrip('\n')
  except (OSError, UnicodeDecodeError) as error:
    raise base.TaskError(f'task.path {path}: {error}') from error
