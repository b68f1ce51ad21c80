"""The autoregressive yardstick: the same network, causal.

Its loss is the exact -log p of the data, token by token from left to right;
where the others bound a likelihood, it has one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax.core import keys as keys_lib
from sedd_jax.losses import masked
from sedd_jax.models import heads
from sedd_jax.processes import Absorbing
from sedd_jax.samplers import autoregressive
from sedd_jax.systems import base
from sedd_jax.systems.common import parts, requests

METHODS = ('autoregressive',)


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  return ({'sampling.method': 'autoregressive'},)


def make(config: Any, data_info: Any) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config; reads model, training.loss_chunk, eval.protocol
      and sampling.method.
    data_info: has `vocab_size`.

  Returns:
    The system, without noise: process and schedule are not read.

  Raises:
    ValueError: names or numbers that do not fit; before compilation.
  """
  parts.require_method(config, METHODS)
  parts.require_protocol(config, ('bound',))
  parts.require_no_labels(config, data_info)
  vocab_size = data_info.vocab_size
  # One state more, which stands before the first token.
  first = vocab_size
  network = parts.make_network(config, vocab_size + 1, causal=True)
  if not getattr(network, 'causal', False):
    raise ValueError(
      f'model.name {config.model.name!r} is not causal: system autoregressive '
      'needs a network with the field "causal"'
    )
  missing = [m for m in ('decode', 'empty_cache') if not hasattr(network, m)]
  if missing:
    raise ValueError(
      f'model.name {config.model.name!r} has no method {missing[0]}: system '
      'autoregressive samples with a cache (see DiffusionTransformer)'
    )
  chunk = config.training.loss_chunk
  # Every token is predicted, as if all were masked.
  hidden = Absorbing(vocab_size=vocab_size)

  def init(key):
    x, level = jnp.zeros((1, 2), jnp.int32), jnp.zeros(1)
    return network.init(key, x, level)['params'], ()

  def token_nats(params, x_0, dropout_keys=None):
    """-log p of each token given those before, `[batch, length]`."""
    before = jnp.pad(x_0[:, :-1], [(0, 0), (1, 0)], constant_values=first)
    everywhere = jnp.full_like(x_0, hidden.mask)
    # Padding stands at the end: what is before a token is never padding.
    args = {'params': params}, before, jnp.zeros(len(x_0)), None, dropout_keys
    if not chunk:
      logits = network.apply(*args)
      return masked.cross_entropy(logits, everywhere, x_0, process=hidden)
    return masked.cross_entropy_from_features(
      network.apply(*args, method='features'),
      *heads.kernel_and_bias(params),
      everywhere,
      x_0,
      process=hidden,
      chunk=chunk,
    )

  def totals(batch, nats):
    x_0, valid, given = parts.of_batch(batch)
    counted = parts.counted(x_0, valid, given)
    total = jnp.sum(jnp.where(counted, nats, 0), axis=-1)
    return total, jnp.sum(counted, axis=-1).astype(total.dtype)

  def loss(params, aux, key, batch):
    del aux
    keys = keys_lib.example_keys(key, batch['index'])
    dropout_keys = keys_lib.folded(keys, 1) if config.model.dropout else None
    nats = token_nats(params, batch['tokens'], dropout_keys)
    return base.Loss(*totals(batch, nats))

  def bound(params, aux, key, batch):
    del aux, key
    nats, weight = totals(batch, token_nats(params, batch['tokens']))
    return base.Bound(nats, weight, {'nll': nats})

  @jax.jit
  def draw(params, keys, tokens, given):
    def logits_fn(x, cache, position):
      logits, cache = network.apply(
        {'params': params},
        x,
        jnp.zeros(len(x)),
        cache,
        position,
        method='decode',
      )
      return logits[:, :vocab_size], cache

    return autoregressive.sample(
      logits_fn,
      network.empty_cache(*tokens.shape),
      keys,
      tokens.shape,
      first=first,
      tokens=tokens,
      given=given,
    )

  def check_request(request):
    options = requests.checked(request, METHODS, ('grid',), config.system.name)
    requests.require_even(options.get('grid', 'uniform'))
    if request.start is not None:
      raise ValueError('system autoregressive starts from nothing')
    given = np.zeros((1, 1)) if request.given is None else request.given
    if np.any(np.diff(np.asarray(given, int), axis=-1) > 0):
      raise ValueError(
        'system autoregressive keeps the beginning of a text only: no blank '
        'may stand before given text'
      )

  def sample(params, aux, request):
    del aux
    check_request(request)

    def of_batch(keys, states):
      drawn = draw(params, keys, states['tokens'], states['given'])
      if request.record_path:
        places = np.arange(request.length)
        written = places < np.arange(request.length + 1)[:, None, None]
        drawn = np.where(written, drawn, first)
      return drawn, request.length

    return requests.in_batches(of_batch, request)

  return base.System(
    init=init,
    loss=loss,
    bound=bound,
    sample=sample,
    check_request=check_request,
  )
