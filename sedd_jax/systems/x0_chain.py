"""What all systems share whose network predicts x_0 in a chain of steps.

Loss, bound and sampler of multinomial diffusion and D3PM, which differ in the
chain, in the steps that are trained on, and in what is added to the bound.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from sedd_jax import samplers
from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, times
from sedd_jax.losses import variational
from sedd_jax.samplers import ancestral
from sedd_jax.systems import (
  base,
  parts,
  requests,
  step_bound,
  step_history,
  time_proposal,
)

METHODS = ('ancestral',)

# A step t is told to the network as this share of it, t / T.
_TIME_SCALE = 1000.0


def network_of(config: Any, chain: step_bound.Chain) -> tuple[Any, Any]:
  """The network, and `(params, valid, dropout_keys) -> logits_fn`.

  Args:
    config: the whole config.
    chain: noise and decoder.

  Returns:
    The Linen module, and what makes of parameters a function `(x_t [batch,
    length], step [batch]) -> logits [batch, length, vocab_size]`.
  """
  process, last = chain.process, chain.schedule.num_steps
  network = parts.make_network(config, process.num_states)

  def logits_of(params, valid=None, dropout_keys=None):
    def logits_fn(x_t, step):
      time = _TIME_SCALE / last * step.astype(jnp.float32)
      logits = network.apply({'params': params}, x_t, time, valid, dropout_keys)
      # Data never holds the mask, and the network is not asked for it.
      return logits[..., : process.vocab_size]

    return logits_fn

  return network, logits_of


def make(
  config: Any,
  chain: step_bound.Chain,
  *,
  importance: bool = False,
  hybrid: float = 0.0,
) -> base.System:
  """The system of a chain.

  Args:
    config: the whole config; reads model, training.time_sampling, eval and
      sampling.method.
    chain: noise and decoder.
    importance: draw the steps that are trained on by their losses.
    hybrid: weight of the cross entropy -log x̂_0(x_0) that each step's term of
      the loss gets besides (arXiv 2107.03006, eq. 5).

  Returns:
    The system, without tasks.

  Raises:
    ValueError: for names or numbers that do not fit; before compilation.
  """
  chain.check()
  parts.require_method(config, METHODS)
  if config.eval.time_sampling == 'quadrature':
    raise ValueError(
      "eval.time_sampling='quadrature' is for continuous time: a chain in "
      'steps takes stratified or importance'
    )
  last = chain.schedule.num_steps
  network, logits_of = network_of(config, chain)
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )

  def init(key):
    x_t, time = jnp.zeros((1, 2), jnp.int32), jnp.ones(1)
    params = network.init(key, x_t, time)['params']
    aux: dict[str, Any] = {'times': time_proposal.empty()}
    if importance:
      aux['history'] = step_history.empty(last)
    return params, aux

  def loss(params, aux, key, batch):
    x_0, valid, given = parts.of_batch(batch)
    index = batch['index']
    u = draw_times(key, index, batch['count'])
    if importance:
      step, weight = step_history.drawn(aux['history'], u)
    else:
      step = 1 + jnp.minimum(jnp.floor(u * last).astype(jnp.int32), last - 1)
      weight = jnp.full(u.shape, last, u.dtype)
    keys = keys_lib.example_keys(key, index)
    noise_keys = parts.folded(keys, 0)
    dropout_keys = parts.folded(keys, 1) if config.model.dropout else None
    x_t = chain.noisy(noise_keys, x_0, step, given)
    logits = logits_of(params, valid, dropout_keys)(x_t, step)
    counted = jnp.ones(x_0.shape, bool) if valid is None else valid
    counted = counted if given is None else counted & ~given

    def total(nats):
      return jnp.sum(jnp.where(counted, nats, 0), axis=-1)

    nats = total(chain.step_nats(logits, x_t, x_0, step))
    tokens = jnp.sum(counted, axis=-1).astype(nats.dtype)
    objective, terms = weight * nats, {}
    if hybrid:
      plain = weight * total(variational.decoder_nats(logits, x_0))
      terms = {'bound': (objective, tokens)}
      objective = objective + hybrid * plain
    stats = {'step': step, 'nats': nats} if importance else ()
    return base.Loss(objective, tokens, terms, stats)

  def update_aux(aux, stats):
    aux = dict(aux)
    if 'step' in stats:
      aux['history'] = step_history.updated(aux['history'], **stats)
    elif stats:
      aux['times'] = time_proposal.updated(aux['times'], **stats)
    return aux

  def bound(params, aux, key, batch):
    x_0, valid, given = parts.of_batch(batch)
    return step_bound.bound(
      logits_of(params, valid),
      key,
      x_0,
      chain=chain,
      index=batch['index'],
      counted=valid,
      kept=given,
      points=config.eval.points,
      times_by=config.eval.time_sampling,
      proposal=aux['times'],
    )

  @functools.partial(jax.jit, static_argnames=('steps', 'path'))
  def draw(params, keys, tokens, given, start, steps, path):
    return ancestral.sample(
      logits_of(params),
      keys,
      tokens.shape,
      process=chain.process,
      schedule=chain.schedule,
      steps=steps,
      tokens=tokens,
      given=given,
      start=start,
      decoder=chain.decoder,
      direct=chain.parametrization == 'direct',
      return_path=path,
    )

  def sample(params, aux, request):
    del aux
    requests.checked(request, METHODS, ('grid',), config.system.name)
    samplers.time_grids.strided(last, request.steps)
    jump = ancestral.jumps_from_the_prior(chain.process, chain.schedule)

    def of_batch(keys, tokens, given, start):
      return draw(
        params,
        keys,
        tokens,
        given,
        start,
        steps=request.steps,
        path=request.record_path,
      )

    return requests.in_batches(of_batch, request, request.steps + jump)

  return base.System(
    init=init, loss=loss, update_aux=update_aux, bound=bound, sample=sample
  )
