"""Score entropy discrete diffusion (arXiv 2310.16834), absorbing or uniform.

The network's logits are log scores; the loss is DWDSE at one time a sequence;
sampling reverses the chain by Tweedie or Euler steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sedd_jax import losses, samplers
from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, times
from sedd_jax.models import heads, pretrained
from sedd_jax.processes import base as process_base
from sedd_jax.systems import base, parts, score_bound, time_proposal


def make(config: Any, data_info: Any) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config; reads system, process, schedule, model, training
      (t_min, time_sampling, loss_chunk) and eval (points, protocol,
      decoder_delta).
    data_info: has `vocab_size`.

  Returns:
    The system; its params are the network's, its aux the proposal for the times
    of the bound.

  Raises:
    ValueError: a process without scores, or names and arguments that do not
      fit; before compilation.
  """
  process = parts.make_process(config, data_info.vocab_size)
  if not isinstance(process, process_base.Relaxing):
    raise ValueError(
      f'process.name {config.process.name!r} has no scores: system sedd takes '
      'uniform or absorbing'
    )
  schedule = parts.make_schedule(config)
  network = parts.make_network(config, process.num_states)
  # SEDD scales the output of its absorbing network only.
  scale_by_sigma = process_base.has_mask(process)
  t_min = config.training.t_min
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )
  chunk = config.training.loss_chunk

  def init(key):
    x_t, sigma = jnp.zeros((1, 2), jnp.int32), jnp.ones(1)
    return network.init(key, x_t, sigma)['params'], time_proposal.empty()

  def log_score_fn(params, valid=None, dropout_keys=None):
    def score_fn(x_t, sigma):
      logits = network.apply(
        {'params': params}, x_t, sigma, valid, dropout_keys
      )
      return heads.log_score(logits, x_t, sigma, scale_by_sigma)

    return score_fn

  def score_entropy(params, x_t, x_0, sigma, valid, dropout_keys):
    if not chunk:
      log_score = log_score_fn(params, valid, dropout_keys)(x_t, sigma)
      return losses.score_entropy(
        log_score, x_t, x_0, sigma[:, None], process=process
      )
    features = network.apply(
      {'params': params}, x_t, sigma, valid, dropout_keys, method='features'
    )
    return losses.score_entropy_from_features(
      features,
      *heads.kernel_and_bias(params),
      x_t,
      x_0,
      sigma[:, None],
      process=process,
      scale_by_sigma=scale_by_sigma,
      chunk=chunk,
    )

  def loss(params, aux, key, batch):
    del aux
    x_0, valid, given = _parts_of(batch)
    index = batch['index']
    t = t_min + (1 - t_min) * draw_times(key, index, batch['count'])
    sigma = schedule.total(t)
    keys = keys_lib.example_keys(key, index)
    noise_keys, dropout_keys = _fold(keys, 0), _fold(keys, 1)
    x_t = losses.sample_noisy(noise_keys, x_0, sigma, process=process)
    x_t = x_t if given is None else jnp.where(given, x_0, x_t)
    if not config.model.dropout:
      dropout_keys = None
    nats = score_entropy(params, x_t, x_0, sigma, valid, dropout_keys)
    counted = jnp.ones(x_0.shape, bool) if valid is None else valid
    counted = counted if given is None else counted & ~given
    total = schedule.rate(t) * jnp.sum(jnp.where(counted, nats, 0), axis=-1)
    return base.Loss(total, jnp.sum(counted, axis=-1).astype(total.dtype))

  def update_aux(aux, stats):
    # Training has no stats: the proposal serves the bound.
    return time_proposal.updated(aux, **stats) if stats else aux

  def bound(params, aux, key, batch):
    x_0, valid, given = _parts_of(batch)
    return score_bound.bound(
      log_score_fn(params, valid),
      key,
      x_0,
      process=process,
      schedule=schedule,
      index=batch['index'],
      counted=valid,
      kept=given,
      points=config.eval.points,
      times_by=config.eval.time_sampling,
      proposal=aux,
      t_min=t_min,
      delta=config.eval.decoder_delta,
      protocol=config.eval.protocol,
    )

  @functools.partial(
    jax.jit, static_argnames=('steps', 'method', 'grid', 'delta', 'path')
  )
  def draw(
    params, keys, tokens, given, start, steps, method, grid, delta, path
  ):
    return samplers.sample(
      log_score_fn(params),
      keys,
      tokens.shape,
      process=process,
      schedule=schedule,
      steps=steps,
      method=method,
      tokens=tokens,
      given=given,
      start=start,
      t_min=t_min,
      grid=grid,
      delta=delta,
      return_path=path,
    )

  def sample(params, aux, request):
    del aux
    options = dict(request.options)
    grid = options.pop('grid', 'uniform')
    delta = options.pop('delta', config.eval.decoder_delta)
    if options:
      raise ValueError(
        f'unknown sampling option {next(iter(options))!r}: use grid, delta'
      )
    unused = {
      'source': request.source,
      'label': request.label,
      'guides': request.guides or None,
    }
    if given := [name for name, value in unused.items() if value is not None]:
      raise ValueError(f'system sedd takes no {given[0]} in a request')
    if request.method not in samplers.METHODS:
      raise ValueError(
        f'unknown sampling method {request.method!r}: use '
        f'{", ".join(samplers.METHODS)}'
      )

    def of_batch(keys, tokens, given, start):
      return draw(
        params,
        keys,
        tokens,
        given,
        start,
        steps=request.steps,
        method=request.method,
        grid=grid,
        delta=delta,
        path=request.record_path,
      )

    return _in_batches(of_batch, request)

  return base.System(
    init=init,
    loss=loss,
    update_aux=update_aux,
    bound=bound,
    sample=sample,
    score_fn=lambda params, aux: log_score_fn(params),
    load_pretrained=functools.partial(
      _load_pretrained,
      network=network,
      scale_by_sigma=scale_by_sigma,
    ),
  )


def _parts_of(batch):
  return batch['tokens'], batch.get('valid'), batch.get('given')


def _fold(keys, place):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, place)


def _in_batches(
  of_batch: Callable[..., jax.Array], request: base.Request
) -> base.Samples:
  """Runs a request in batches of one shape, the last one padded."""
  count, length = len(request.seeds), request.length
  # One compiled shape, whatever the request's size.
  size = request.batch_size or count
  seeds = np.asarray(request.seeds, np.uint32)
  tokens, given = request.tokens, request.given
  if tokens is None:
    tokens, given = np.zeros((count, length), np.int32), None
  if given is None:
    given = np.zeros((count, length), bool)
  results: list[np.ndarray] = []
  path = None
  for first in range(0, count, size):
    # Rows beyond the last are drawn again from row 0, and dropped.
    rows = np.arange(first, first + size)
    rows = np.where(rows < count, rows, 0)
    keys = jax.vmap(jax.random.key)(seeds[rows])
    start = None if request.start is None else request.start[rows]
    drawn = np.asarray(of_batch(keys, tokens[rows], given[rows], start))
    drawn = drawn[..., : min(size, count - first), :]
    if request.record_path:
      # Of all sequences they would fill the memory.
      path = drawn if path is None else path
      drawn = drawn[-1]
    results.append(drawn)
  return base.Samples(
    tokens=np.concatenate(results),
    lengths=np.full(count, length, np.int32),
    path=path,
    calls=request.steps + 1,
  )


def _load_pretrained(path, *, network, scale_by_sigma):
  """Parameters from a checkpoint in the released code's layout."""
  params, sizes = pretrained.load_sedd(path)
  wanted = {
    'num_states': network.num_states,
    'hidden_size': network.hidden_size,
    'num_layers': network.num_layers,
    'num_heads': network.num_heads,
    'cond_size': network.cond_size,
    'scale_by_sigma': scale_by_sigma,
  }
  for name, value in wanted.items():
    if sizes[name] is not None and sizes[name] != value:
      raise ValueError(
        f'{path} has {name} = {sizes[name]}, the config makes it {value}'
      )
  return params
