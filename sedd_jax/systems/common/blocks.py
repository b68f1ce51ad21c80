"""Texts longer than a network takes, block by block.

The first tokens, as many as the network was trained on, are drawn at once; then
block after block, each given the tokens right before it that still fit.  For a
law whose memory is not longer than these, and a sampler that is exact, that is
the law itself; else what stands further back is forgotten.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from sedd_jax.core import keys as keys_lib
from sedd_jax.processes import TokenProcess
from sedd_jax.systems import base
from sedd_jax.systems.common import requests


class View(NamedTuple):
  """What a network sees of a text at once, and what of it is new.

  Attributes:
    first: the first token seen.
    begin: the first token drawn.
    end: beyond the last one.
  """

  first: int
  begin: int
  end: int


def views(length: int, window: int, block: int) -> list[View]:
  """The views of a text, all of one size.

  Args:
    length: tokens of the text.
    window: tokens seen at once, at most length.
    block: tokens drawn at once after the first `window`.

  Returns:
    One view for each of the network's turns; the last block may be shorter.

  >>> [tuple(view) for view in views(7, 4, 2)]
  [(0, 0, 4), (2, 4, 6), (3, 6, 7)]
  """
  result = [View(0, 0, window)]
  while result[-1].end < length:
    begin = result[-1].end
    end = min(begin + block, length)
    result.append(View(end - window, begin, end))
  return result


def block_of(request: base.Request, window: int) -> int:
  """Tokens a block; 0 where the text is drawn at once.

  Args:
    request: what is asked for.
    window: tokens that the network sees at once.

  Returns:
    The option 'block', or 0 if there is none or the text fits.

  Raises:
    ValueError: a block that leaves nothing to stand before it, or conditions on
      a text in blocks: a block does not know what the others will be.
  """
  block = request.options.get('block', 0)
  if block and not 1 <= block < window:
    raise ValueError(
      f'sampling.block must be below the {window} tokens that the network sees '
      f'at once (data.seq_len), or 0 for none, not {block}'
    )
  if request.length <= window:
    return 0
  if block and request.conditions is not None:
    raise ValueError(
      'sampling.block: conditions (contains, avoids, regex, json_schema, ends) '
      'are on a text that is drawn at once: use sampling.block=0, or a length '
      f'of at most the {window} tokens of data.seq_len'
    )
  return block


def size_of(request: base.Request, window: int) -> int:
  """Tokens that are drawn at once."""
  return window if block_of(request, window) else request.length


def sampled(
  of_batch: Callable[[Any, dict[str, Any]], tuple[Any, Any]],
  request: base.Request,
  *,
  process: TokenProcess,
  window: int,
) -> base.Samples:
  """`requests.in_batches`, block by block where the request says so.

  What is given is kept everywhere, but not known to the blocks whose views end
  before it.

  Args:
    of_batch: as there, for tokens `[b, size_of(request, window)]`.
    request: what is asked for.
    process: gives the prior.
    window: tokens that the network sees at once.

  Returns:
    The samples; the path has the states of the first block, then of the second,
    and so on, what is not begun being as the prior has it.
  """
  block = block_of(request, window)
  if not block:
    return requests.in_batches(of_batch, request)
  turns = views(request.length, window, block)

  @jax.jit
  def of_prior(keys):
    return jax.vmap(lambda key: process.sample_prior(key, (request.length,)))(
      keys_lib.folded(keys, 0)
    )

  def whole(keys, states):
    tokens, given, start = (states[k] for k in ('tokens', 'given', 'start'))
    start = np.asarray(of_prior(keys) if start is None else start)
    x = np.where(given, tokens, start)
    path, total = [x], 0
    for number, (first, begin, end) in enumerate(turns):
      seen = slice(first, end)
      before = np.arange(first, end) < begin
      drawn, calls = of_batch(
        keys_lib.folded(keys, number + 1),
        {
          **states,
          'tokens': np.where(before, x[:, seen], tokens[:, seen]),
          'given': before | given[:, seen],
          'start': start[:, seen],
        },
      )
      drawn = np.asarray(drawn)
      drawn = drawn[1:] if request.record_path else drawn[None]
      after = np.repeat(x[None], len(drawn), axis=0)
      after[:, :, seen] = drawn
      path += list(after) if request.record_path else []
      x, total = after[-1], total + int(calls)
    return (np.stack(path) if request.record_path else x), total

  return requests.in_batches(whole, request)
