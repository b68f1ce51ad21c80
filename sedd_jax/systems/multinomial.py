"""Multinomial diffusion (arXiv 2102.05379): uniform noise in steps.

The network predicts x_0; a step back is theta_post(x_t, x̂_0).  Further mode:
spellcheck.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax import noise_schedules
from sedd_jax.processes import Uniform
from sedd_jax.systems import base, parts, step_bound, x0_chain

# Further modes of the program.
TASKS = ('spellcheck',)


def make(
  config: Any,
  data_info: Any,
  *,
  decoder: str = 'posterior',
  parametrization: str = 'x0',
  importance: bool = True,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`.
    decoder: 'posterior', as the released code, or 'x0', as the paper.
    parametrization: 'x0', or 'direct', the network's logits being those of
      x_{t-1} given x_t.
    importance: draw the steps that are trained on by their losses.

  Returns:
    The system.

  Raises:
    ValueError: another noise than uniform, or names and numbers that do not
      fit; before compilation.
  """
  process = parts.make_process(config, data_info.vocab_size)
  if not isinstance(process, Uniform):
    raise ValueError(
      f'process.name {config.process.name!r} is not one of those of system '
      'multinomial: use uniform'
    )
  schedule = parts.make_schedule(config, noise_schedules.Steps)
  chain = step_bound.Chain(process, schedule, decoder, parametrization)
  system = x0_chain.make(config, chain, importance=importance)
  _, logits_of = x0_chain.network_of(config, chain)

  @jax.jit
  def corrected(params, tokens):
    """argmax of the network's logits with the text taken for x_1."""
    logits = logits_of(params)(tokens, jnp.ones(len(tokens), jnp.int32))
    return jnp.argmax(logits, axis=-1)

  def spellcheck(params, aux, options, tokenizer):
    del aux
    return checked_spelling(
      lambda tokens: corrected(params, tokens),
      options,
      tokenizer,
      config.data.seq_len,
    )

  return dataclasses.replace(system, tasks={'spellcheck': spellcheck})


def checked_spelling(
  corrected: Any, options: Any, tokenizer: Any, length: int
) -> dict[str, Any]:
  """Corrects substituted characters (arXiv 2102.05379, section 6).

  One pass: the text is taken for x_1, the data after one step of noise.
  Characters are replaced, never inserted or removed.

  Args:
    corrected: `(tokens [n, length]) -> tokens`, one pass of the network.
    options: has `text`, or `path`, a file of text.
    tokenizer: of the data.
    length: tokens of a sequence that the network was trained on.

  Returns:
    `text`, `corrected`, `marked` (changed characters as [old>new]) and
    `changes`, their number.

  Raises:
    ValueError: neither or both of text and path, or text that the tokenizer
      cannot encode.
  """
  text, path = options.get('text', ''), options.get('path', '')
  if bool(text) == bool(path):
    raise ValueError(
      'mode spellcheck needs --config.task.text=TEXT or --config.task.path=FILE'
    )
  if path:
    with open(path, encoding='utf-8') as file:
      text = file.read().rstrip('\n')
  tokens = np.asarray(tokenizer.encode(text), np.int32)
  if not len(tokens):
    raise ValueError('there is no text to check')
  # The last piece begins early enough to be whole; where the text is shorter
  # than a sequence, it is checked at its own length.
  size = min(length, len(tokens))
  starts = [*range(0, len(tokens) - size, size), len(tokens) - size]
  found = tokens.copy()
  for start in starts:
    piece = np.asarray(
      corrected(jnp.asarray(tokens[None, start : start + size]))
    )
    found[start : start + size] = piece[0]
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
