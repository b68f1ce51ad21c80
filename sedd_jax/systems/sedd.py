"""Score entropy discrete diffusion (arXiv 2310.16834), absorbing or uniform.

The network's logits are log scores, or under uniform noise also those of x_0,
of which scores are made; the loss is DWDSE at one time a sequence; sampling
reverses the chain by Tweedie or Euler steps.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from sedd_jax import losses, noise_schedules, samplers
from sedd_jax.core import names
from sedd_jax.losses import head
from sedd_jax.models import heads
from sedd_jax.processes import Absorbing, Uniform
from sedd_jax.processes import base as process_base
from sedd_jax.samplers import corrector, loop
from sedd_jax.systems import base
from sedd_jax.systems.bounds import score_bound, time_proposal
from sedd_jax.systems.common import (
  blocks,
  guides,
  parts,
  requests,
  unmasked,
  weights,
)

TASKS = ('export',)
PARAMETRIZATIONS = ('score', 'x0')


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  uniform = {'process.name': 'uniform', 'schedule.name': 'geometric'}
  return (
    {},
    uniform,
    {'sampling.method': 'first_hitting', 'system.args.timed': False},
    {**uniform, 'system.args.parametrization': 'x0'},
  )


# What a request may ask of steps in time.
OPTIONS = (
  *('grid', 'delta', 'cached', 'corrector_steps', 'corrector_size', 'block'),
  *guides.OPTIONS,
)


def make(
  config: Any,
  data_info: Any,
  *,
  timed: bool = True,
  parametrization: str = 'score',
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config; reads system, process, schedule, model, training
      (t_min, time_sampling, loss_chunk) and eval (points, protocol,
      decoder_delta).
    data_info: has `vocab_size`.
    timed: whether the network is told the noise.  Under absorbing noise the
      ratios depend on it by the factor 1 / (e^sigma - 1) alone, which is known
      (arXiv 2406.03736); a network that is not told can be `cached`.
    parametrization: 'score', the logits are log scores; or, under uniform
      noise, 'x0': what a position's x_0 is by the other ones, of which the
      scores follow in closed form (UDLM, arXiv 2412.10193).

  Returns:
    The system; its params are the network's, its aux the proposal for the times
    of the bound.

  Raises:
    ValueError: a process without scores, or names and arguments that do not
      fit; before compilation.
  """
  process = parts.make_process(config, data_info.vocab_size)
  if not isinstance(process, Uniform | Absorbing):
    raise ValueError(
      f'process.name {config.process.name!r} has no scores: system sedd takes '
      'uniform or absorbing'
    )
  schedule = parts.make_schedule(config, noise_schedules.Continuous)
  parts.require_protocol(config, score_bound.PROTOCOLS)
  labels = parts.labels_of(config, data_info)
  network = parts.make_network(
    config, process.num_states, num_labels=labels.number
  )
  # SEDD scales the output of its absorbing network only.
  scale_by_sigma = process_base.has_mask(process)
  methods = samplers.METHODS.keys()
  parts.require_method(
    config, (*methods, *(unmasked.METHODS if scale_by_sigma else ()))
  )
  if not scale_by_sigma and not getattr(network, 'timed', True):
    raise ValueError(
      'scores under uniform noise depend on its level, and model.name '
      f"{config.model.name!r} is not told it: use model.args.time='layer' or "
      "'prefix'"
    )
  if not scale_by_sigma and not timed:
    raise ValueError(
      'scores under uniform noise depend on its level: system.args.timed must '
      'be True'
    )
  if parametrization not in PARAMETRIZATIONS:
    raise ValueError(
      f'unknown system.args.parametrization {parametrization!r}; '
      f'{names.alternatives(parametrization, PARAMETRIZATIONS)}'
    )
  if scale_by_sigma and parametrization == 'x0':
    raise ValueError(
      "system.args.parametrization='x0' is for uniform noise; under absorbing "
      'noise it is system.name=masked_diffusion'
    )
  of_x0 = parametrization == 'x0'
  log_score_of = (
    heads.log_score_of_x0
    if of_x0
    else functools.partial(heads.log_score, scale_by_sigma=scale_by_sigma)
  )
  # A network with a field for it is told the noise where the field says so.
  told = getattr(network, 'timed', timed)
  t_min = config.training.t_min
  chunk = config.training.loss_chunk

  def init(key):
    x_t, sigma = jnp.zeros((1, 2), jnp.int32), jnp.ones(1)
    label = parts.told_label(x_t if labels.number else None)
    params = network.init(key, x_t, sigma, **label)['params']
    return params, time_proposal.empty()

  def applied(
    params, x_t, sigma, label=None, valid=None, dropout_keys=None, **how
  ):
    level = sigma if told else jnp.zeros_like(sigma)
    named = how | parts.told_label(label)
    return network.apply(
      {'params': params}, x_t, level, valid, dropout_keys, **named
    )

  def log_score_fn(params, valid=None, dropout_keys=None):
    def score_fn(x_t, sigma, label=None):
      logits = applied(params, x_t, sigma, label, valid, dropout_keys)
      return log_score_of(logits, x_t, sigma)

    return score_fn

  def score_entropy(params, x_t, x_0, sigma, valid, dropout_keys, label):
    if not chunk:
      log_score = log_score_fn(params, valid, dropout_keys)(x_t, sigma, label)
      return losses.score_entropy(
        log_score, x_t, x_0, sigma[:, None], process=process
      )
    features = applied(
      params, x_t, sigma, label, valid, dropout_keys, method='features'
    )
    return losses.score_entropy_from_features(
      features,
      *heads.kernel_and_bias(params),
      x_t,
      x_0,
      sigma[:, None],
      process=process,
      scale_by_sigma=scale_by_sigma,
      log_score_of=log_score_of if of_x0 else None,
      chunk=chunk,
    )

  loss = parts.continuous_loss(
    config,
    process,
    schedule,
    lambda params, x_t, x_0, t, *rest: score_entropy(
      params, x_t, x_0, schedule.total(t), *rest
    ),
    schedule.rate,
    labels,
  )

  def values_fn_of(params, valid, label):
    """What is made of the scores, a chunk of tokens at a time."""
    if not chunk:
      score_fn = log_score_fn(params, valid)
      return score_bound.whole(functools.partial(score_fn, label=label))

    def values_fn(value_fn, x_t, x_0, sigma):
      def of_logits(logits, x_t, x_0, sigma):
        log_score = log_score_of(logits[:, None], x_t[:, None], sigma)[:, 0]
        return value_fn(log_score, x_t, x_0, sigma)

      features = applied(params, x_t, sigma, label, valid, method='features')
      levels = jnp.broadcast_to(sigma[:, None], x_t.shape)
      return head.of_features(
        of_logits,
        None,
        features,
        *heads.kernel_and_bias(params),
        (x_t, x_0, levels),
        counted=x_t == process.mask if isinstance(process, Absorbing) else None,
        chunk=chunk,
      )

    return values_fn

  def bound(params, aux, key, batch):
    return score_bound.bound(
      values_fn_of(params, batch.get('valid'), parts.label_of(batch)),
      key,
      **parts.bound_arguments(config, batch),
      process=process,
      schedule=schedule,
      proposal=aux,
      t_min=t_min,
      delta=config.eval.decoder_delta,
      protocol=config.eval.protocol,
    )

  @functools.partial(
    jax.jit, static_argnames=('how', 'guided', 'cached', 'path')
  )
  def draw(params, keys, states, *, how, guided, cached, path):
    output_fn, score_of = log_score_fn(params), None
    if cached:
      # Scores depend on the noise, the logits that are kept do not.
      output_fn = logits_fn_of(params)
      score_of = functools.partial(heads.log_score, scale_by_sigma=True)
    return loop.follow(
      loop.plan(process, schedule, t_min=t_min, score_of=score_of, **dict(how)),
      guides.applied(output_fn, guided, states, process),
      keys,
      states['tokens'].shape,
      cached=cached,
      process=process,
      return_path=path,
      **requests.of_loop(states),
    )

  def logits_fn_of(params):
    """At a mask the scores are p(x_0), but for a factor."""
    return functools.partial(applied, params)

  def logits_of(params, **how):
    """The same at a time."""
    return lambda x_t, t, label=None: applied(
      params, x_t, schedule.total(t), label, **how
    )

  window = config.data.seq_len
  unmask = None
  if isinstance(process, Absorbing):
    unmask = unmasked.sampler(
      logits_of,
      process,
      schedule,
      t_min,
      window,
      functools.partial(logits_of, method='features') if chunk else None,
    )

  def check_request(request):
    if unmask is not None and request.method in unmasked.METHODS:
      unmasked.checked(
        request,
        'sedd',
        process,
        window=window,
        told=told,
        labels=labels,
      )
      return
    options = requests.checked(
      request, methods, OPTIONS, 'sedd', ['guides', 'label'], process
    )
    if not scale_by_sigma and options.get('cached'):
      raise ValueError(
        'sampling.cached: scores under uniform noise depend on its level, so '
        'what the network says of a state it says once'
      )
    requests.require_time_free(request, told)
    guides.checked(request, process, labels)
    blocks.block_of(request, window)
    corrector.require(
      options.get('corrector_steps', 0), options.get('corrector_size', 1.0)
    )

  def sample(params, aux, request):
    del aux
    check_request(request)
    if unmask is not None and request.method in unmasked.METHODS:
      return unmask(params, request)
    how = {
      'steps': request.steps,
      'method': request.method,
      'delta': config.eval.decoder_delta,
      **request.options,
    }
    cached = how.pop('cached', False)
    for name in ('block', *guides.OPTIONS):
      how.pop(name, None)
    of_batch = functools.partial(
      draw,
      params,
      how=tuple(sorted(how.items())),
      guided=guides.of_request(request),
      cached=cached,
      path=request.record_path,
    )
    return blocks.sampled(of_batch, request, process=process, window=window)

  export = weights.exporter(
    config, ('sedd',), 'absorbing' if scale_by_sigma else 'uniform', told
  )
  return base.System(
    init=init,
    loss=loss,
    update_aux=time_proposal.update_aux,
    bound=bound,
    sample=sample,
    check_request=check_request,
    score_fn=lambda params, aux: log_score_fn(params),
    # No released layout says that its logits are those of x_0.
    tasks={} if of_x0 else {'export': export},
    load_pretrained=(
      None if of_x0 else weights.sedd_loader(network, scale_by_sigma)
    ),
  )
