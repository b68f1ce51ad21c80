"""What all systems share whose network predicts x_0 in a chain of steps.

Loss, bound and sampler of multinomial diffusion, D3PM, DiffusionBERT and masked
diffusion in steps, which differ in the chain, in the steps that are trained on,
and in what is added to the bound.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, numerics, times
from sedd_jax.losses import variational
from sedd_jax.processes import Absorbing, tabulated
from sedd_jax.samplers import ancestral, guidance, loop
from sedd_jax.systems import base
from sedd_jax.systems.bounds import step_bound, step_history, time_proposal
from sedd_jax.systems.common import denoiser as denoiser_lib
from sedd_jax.systems.common import guides, parts, requests

METHODS = ('ancestral',)

# Nats a token that the end of a chain may be from its prior.
_FAR = 0.1


class Noise(NamedTuple):
  """Tables of a chain as arguments of its programs, kept in the system's aux.

  As constants they would be in every compiled program.

  Attributes:
    first: the tables at the start, a pytree of arrays.
    chain_of: the chain of such tables, in traced code too.
    refreshed: `(params) -> tables`, on the host, where they change while the
      system learns.
  """

  first: Any
  chain_of: Callable[[Any], step_bound.Chain]
  refreshed: Callable[[Any], Any] | None = None


def _tables_of(chain: step_bound.Chain) -> Noise | None:
  """The tables of a chain's process, or None where it has a closed form."""
  if not isinstance(chain.process, tabulated.Products):
    return None
  leaves, structure = jax.tree.flatten(chain.process)
  dtype = numerics.compute_dtype()

  def chain_of(leaves):
    process = jax.tree.unflatten(structure, leaves)
    return dataclasses.replace(chain, process=process)

  return Noise([jnp.asarray(leaf, dtype) for leaf in leaves], chain_of)


def make(
  config: Any,
  chain: step_bound.Chain,
  denoiser: denoiser_lib.Denoiser,
  *,
  importance: bool = False,
  hybrid: float = 0.0,
  noise: Noise | None = None,
) -> base.System:
  """The system of a chain.

  Args:
    config: the whole config; reads model.dropout, training.time_sampling, eval
      and sampling.
    chain: noise and decoder.
    denoiser: the chain's network.
    importance: draw the steps that are trained on by their losses.
    hybrid: weight of the cross entropy -log x̂_0(x_0) that each step's term of
      the loss gets besides (arXiv 2107.03006, eq. 5).
    noise: tables of the chain where they change while the system learns.

  Returns:
    The system, without tasks.

  Raises:
    ValueError: for names or numbers that do not fit; before compilation.
  """
  chain.check()
  parts.require_method(config, METHODS)
  parts.require_protocol(config, chain.protocols, in_steps=True)
  strides = config.eval.chain_steps or None
  try:
    bounded = dataclasses.replace(chain, strides=strides)
    bounded.check()
    bounded.grid()
  except ValueError as error:
    raise ValueError(f'eval.chain_steps={strides}: {error}') from None
  if config.eval.time_sampling == 'quadrature':
    raise ValueError(
      "eval.time_sampling='quadrature' is for continuous time: a chain in "
      'steps takes stratified or importance'
    )
  noise = noise or _tables_of(chain)
  last = chain.schedule.num_steps
  distance = chain.distance_to_prior()
  if _FAR < distance < math.inf:
    raise ValueError(
      f'after {last} steps the noise is {distance:.3g} nats a token from the '
      f'law that samples start from, above {_FAR}: more noise is needed '
      '(schedule.num_steps, schedule.betas, schedule.args)'
    )

  def logits_of(params, valid=None, dropout_keys=None):
    logits_fn = denoiser.logits_of(params, valid, dropout_keys)
    return lambda x_t, step, *label: logits_fn(x_t, step / last, *label)

  # Decided here, where no table is traced.
  jump = distance == math.inf
  chain = dataclasses.replace(chain, jump=jump)

  def chain_of(aux):
    if noise is None:
      return chain
    return dataclasses.replace(noise.chain_of(aux['noise']), jump=jump)

  direct = chain.parametrization == 'direct'
  try:
    ancestral.steps_of(last, config.sampling.steps, direct)
    requests.require_even(config.sampling.grid)
  except ValueError as error:
    raise ValueError(f'sampling: {error}') from None
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )

  def init(key):
    params = denoiser.init(key)
    aux: dict[str, Any] = {'times': time_proposal.empty()}
    if importance:
      aux['history'] = step_history.empty(last)
    if noise is not None:
      aux['noise'] = noise.first
    return params, aux

  def loss(params, aux, key, batch):
    x_0, valid, given = parts.of_batch(batch)
    index = batch['index']
    u = draw_times(key, index, batch['count'])
    if importance:
      p = step_history.probs(aux['history'])
      step, weight = step_history.drawn(p, u)
    else:
      step = 1 + jnp.minimum(jnp.floor(u * last).astype(jnp.int32), last - 1)
      weight = jnp.full(u.shape, last, u.dtype)
    keys = keys_lib.example_keys(key, index)
    noise_keys = keys_lib.folded(keys, 0)
    dropout_keys = keys_lib.folded(keys, 1) if config.model.dropout else None
    current = chain_of(aux)
    label = parts.trained_label(
      denoiser.labels, keys_lib.folded(keys, 2), batch
    )
    x_t = current.noisy(noise_keys, x_0, step, given, valid)
    logits = logits_of(params, valid, dropout_keys)(x_t, step, label)
    counted = parts.counted(x_0, valid, given)

    def total(nats):
      return jnp.sum(jnp.where(counted, nats, 0), axis=-1)

    nats = total(current.loss_nats(logits, x_t, x_0, step, valid))
    tokens = jnp.sum(counted, axis=-1).astype(nats.dtype)
    objective, terms = weight * nats, {}
    if hybrid:
      plain = weight * total(variational.decoder_nats(logits, x_0))
      terms = {chain.objective: (objective, tokens)}
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
    logits_fn, label = (
      logits_of(params, batch.get('valid')),
      parts.label_of(batch),
    )
    return step_bound.bound(
      lambda x_t, step: logits_fn(x_t, step, label),
      key,
      **parts.bound_arguments(config, batch),
      chain=dataclasses.replace(chain_of(aux), strides=strides),
      proposal=aux['times'],
    )

  @functools.partial(jax.jit, static_argnames=('steps', 'scale', 'path'))
  def draw(params, aux, keys, states, steps, scale, path):
    current = chain_of(aux)
    planned = ancestral.plan(
      current.process,
      current.schedule,
      steps=steps,
      decoder=chain.decoder,
      direct=direct,
      reverse_fn=current.reverse_fn(),
      jump=jump,
    )
    logits_fn, label = logits_of(params), states.get('label')
    # At masks it is the prediction that is guided, not how many are revealed.
    by_step = not isinstance(current.process, Absorbing)
    if by_step and label is not None and scale not in (0, 1):
      planned = guidance.of_steps(planned, scale)
      network_fn: Any = guidance.both(logits_fn, label)
    else:
      network_fn = guidance.by_label(logits_fn, label, scale)
    drawn, _ = loop.follow(
      planned,
      network_fn,
      keys,
      states['tokens'].shape,
      process=current.process,
      return_path=path,
      **requests.of_loop(states),
    )
    return drawn

  def check_request(request):
    options = requests.checked(
      request,
      METHODS,
      ('grid', 'label_scale'),
      config.system.name,
      ['label'],
      chain.process,
    )
    requests.require_even(options.get('grid', 'uniform'))
    guides.checked(request, chain.process, denoiser.labels)
    ancestral.steps_of(last, request.steps, direct)

  def sample(params, aux, request):
    check_request(request)

    def of_batch(keys, states):
      drawn = draw(
        params,
        aux,
        keys,
        states,
        steps=request.steps,
        scale=guides.of_request(request).label_scale,
        path=request.record_path,
      )
      return drawn, request.steps + jump

    return requests.in_batches(of_batch, request)

  refresh = None
  if noise is not None and noise.refreshed is not None:
    refreshed = noise.refreshed

    def refresh(params, aux):
      return dict(aux, noise=refreshed(params))

  bits_of = None
  if chain.objective_bounds:
    bits_of = chain.objective if hybrid else ''

  return base.System(
    init=init,
    loss=loss,
    bits_of=bits_of,
    update_aux=update_aux,
    refresh=refresh,
    bound=bound,
    sample=sample,
    check_request=check_request,
    load_pretrained=denoiser.load_pretrained,
  )
