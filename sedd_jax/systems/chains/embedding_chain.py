"""What systems share that add Gaussian noise to learned embeddings.

Diffusion-LM and DiffuSeq: loss, bound and sampler of one chain on vectors.
What is given stands outside the noise: in training as the noisy embedding x_0,
in bound and samples as the clean one (as DiffuSeq does).

The guides of a request are controls by gradients (`vector_control`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import names, times
from sedd_jax.losses import embedding, variational
from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian, partial
from sedd_jax.processes import gaussian as gaussian_lib
from sedd_jax.samplers import clamps, gaussian
from sedd_jax.systems import base
from sedd_jax.systems.bounds import (
  embedding_bound,
  loss_window,
  step_history,
  time_proposal,
)
from sedd_jax.systems.common import parts, requests, vector_control

# How the network's output is read.
PARAMETRIZATIONS = ('x0', 'eps')
# The positions that a loss counts: those with noise, or the given ones too.
LOSS_ON = ('target', 'all')
PROTOCOLS = ('bound', 'diffusion_lm')

OPTIONS = ('grid', 'eta', 'variance', 'clamp', 'noise_limit')

# Fields of a small chain, for the systems' contract tests.
EXAMPLE = {
  'schedule.name': 'gaussian',
  'schedule.num_steps': 6,
  'model.name': 'embedding_bert',
  'model.args.embedding_size': 4,
  'sampling.method': 'ancestral',
}

# Steps are told to the network as 1000 (t - 1) / T (released code).
_TIME_SCALE = 1000.0

# Places of an example's noise, apart from its dropout, which has 1.
_FIRST, _DROPOUT, _NOISE = 0, 1, 2


def make(
  config: Any,
  data_info: Any,
  *,
  parametrization: str = 'x0',
  importance: bool = False,
  loss_on: str = 'target',
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`.
    parametrization: the network predicts 'x0' or the noise, 'eps'.
    importance: draw the steps that are trained on by their losses.
    loss_on: the positions of the loss: 'target', or what is given too, 'all'.

  Returns:
    The system.

  Raises:
    ValueError: names and numbers that do not fit; before compilation.
  """
  for kind, value, known in (
    ('parametrization', parametrization, PARAMETRIZATIONS),
    ('loss_on', loss_on, LOSS_ON),
  ):
    if value not in known:
      raise ValueError(f'unknown {kind} {value!r}: use {", ".join(known)}')
  parts.require_method(config, gaussian.METHODS)
  parts.require_protocol(config, PROTOCOLS)
  if config.eval.time_sampling == 'quadrature':
    raise ValueError(
      "eval.time_sampling='quadrature' is for continuous time: a chain in "
      'steps takes stratified or importance'
    )
  process = Gaussian.of(parts.make_schedule(config, GaussianSteps))
  last = process.num_steps
  try:
    gaussian_lib.spaced(last, config.sampling.steps)
    requests.require_even(config.sampling.grid)
  except ValueError as error:
    raise ValueError(f'sampling: {error}') from None
  network = parts.make_network(config, data_info.vocab_size, vectors=True)
  size = network.embedding_size
  draw_times = names.resolve(
    times.TIMES, config.training.time_sampling, 'time sampling'
  )

  def call(params, *args, method=None):
    return network.apply({'params': params}, *args, method=method)

  def output_of(params, x_t, step, valid=None, dropout_keys=None):
    time = _TIME_SCALE / last * (step - 1).astype(jnp.float32)
    return call(params, x_t.astype(jnp.float32), time, valid, dropout_keys)

  def predict_of(params, valid=None):
    """`(x_t, step) -> x̂_0`."""

    def predict(x_t, step):
      output = output_of(params, x_t, step, valid)
      if parametrization == 'x0':
        return output
      return process.x_0_of(x_t, output, step)

    return predict

  def init(key):
    params = network.init(key, jnp.zeros((1, 2, size)), jnp.ones(1))['params']
    aux: dict[str, Any] = {'times': time_proposal.empty()}
    if importance:
      aux['history'] = loss_window.empty(last)
    return params, aux

  def loss(params, aux, key, batch):
    tokens, valid, given = parts.of_batch(batch)
    index = batch['index']
    u = draw_times(key, index, batch['count'])
    # As the originals: the mean over steps, not their sum.
    if importance:
      step, weight = step_history.drawn(loss_window.probs(aux['history']), u)
      weight = weight / last
    else:
      step = 1 + jnp.minimum(jnp.floor(u * last).astype(jnp.int32), last - 1)
      weight = jnp.ones_like(u)
    keys = keys_lib.example_keys(key, index)
    dropout_keys = None
    if config.model.dropout:
      dropout_keys = keys_lib.folded(keys, _DROPOUT)
    clean = call(params, tokens, method='embedded')
    x_0 = clean + process.at('std', 1) * embedding_bound.normal(
      keys, _FIRST, clean
    )
    noise = embedding_bound.normal(keys, _NOISE, clean)
    x_t = partial.kept(x_0, process.noised(x_0, step, noise), given)
    output = output_of(params, x_t, step, valid, dropout_keys)
    if parametrization == 'x0':
      squares = embedding.denoising(output, x_0, clean, step)
    else:
      squares = embedding.denoising_noise(
        output, noise, x_t, clean, step, process=process
      )
    logits = call(params, x_0, method='rounding')
    counted = parts.counted(tokens, valid, given if loss_on != 'all' else None)
    terms = {
      'squares': squares,
      'remaining': embedding.remaining(x_0, process=process),
      'rounding': variational.decoder_nats(logits, tokens),
    }
    count = jnp.sum(counted, axis=-1).astype(squares.dtype)
    sums = {
      name: embedding_bound.total(each, counted) for name, each in terms.items()
    }
    whole = sum(sums.values())
    stats = {}
    if importance:
      mean = whole / jnp.maximum(count, 1)
      stats = {'step': step, 'losses': mean}
    return base.Loss(
      weight * whole,
      count,
      {name: (weight * each, count) for name, each in sums.items()},
      stats,
    )

  def update_aux(aux, stats):
    aux = dict(aux)
    if 'step' in stats:
      aux['history'] = loss_window.updated(aux['history'], **stats)
    elif stats:
      aux['times'] = time_proposal.updated(aux['times'], **stats)
    return aux

  released = config.eval.protocol == 'diffusion_lm'

  def bound(params, aux, key, batch):
    return embedding_bound.bound(
      predict_of(params, batch.get('valid')),
      functools.partial(call, params, method='rounding'),
      call(params, batch['tokens'], method='embedded'),
      key,
      **parts.bound_arguments(config, batch),
      process=process,
      proposal=aux['times'],
      variance='large' if released else 'small',
      released=released,
    )

  @functools.partial(
    jax.jit, static_argnames=('steps', 'method', 'options', 'scale', 'path')
  )
  def draw(params, keys, states, guides, steps, method, options, scale, path):
    options = dict(options)
    tokens, given = states['tokens'], states['given']
    table = call(params, method='table')
    clamp = options.get('clamp', 0)
    predict = predict_of(params)
    embedded = functools.partial(call, params, method='embedded')
    pinned = states['pinned']
    states = gaussian.sample(
      predict,
      keys,
      (*tokens.shape, size),
      process=process,
      steps=steps,
      method=method,
      eta=options.get('eta', 0.0),
      variance=options.get('variance', 'small'),
      clamp_fn=(lambda x: clamps.clamped(x, table)) if clamp else None,
      clamp_from=clamp,
      noise_limit=options.get('noise_limit') or None,
      vectors=embedded(tokens),
      keep=given,
      adjust_fn=vector_control.adjust(
        guides, scale, options, pinned, predict, embedded
      ),
      return_path=path,
    )

    def rounded(x):
      found = jnp.argmax(call(params, x, method='rounding'), axis=-1)
      return jnp.where(given, tokens, found).astype(jnp.int32)

    return jax.lax.map(rounded, states) if path else rounded(states)

  def check_request(request):
    options = requests.checked(
      request,
      gaussian.METHODS,
      (*OPTIONS, *vector_control.OPTIONS),
      config.system.name,
      ['guides', 'pinned'],
    )
    requests.require_even(options.get('grid', 'uniform'))
    if request.start is not None:
      raise ValueError(
        f'system {config.system.name} starts from noise on vectors, not from '
        'tokens: a request has no start'
      )
    vector_control.check(request, options)
    gaussian_lib.spaced(last, request.steps)
    gaussian.require(
      request.method,
      options.get('eta', 0.0),
      options.get('variance', 'small'),
      options.get('noise_limit') or None,
    )

  def sample(params, aux, request):
    del aux
    check_request(request)

    def of_batch(keys, states):
      drawn = draw(
        params,
        keys,
        {name: states.get(name) for name in ('tokens', 'given', 'pinned')},
        states.get('guides', ()),
        steps=request.steps,
        method=request.method,
        options=tuple(sorted(request.options.items())),
        scale=float(request.guidance_scale),
        path=request.record_path,
      )
      return drawn, request.steps

    return requests.in_batches(of_batch, request)

  return base.System(
    init=init,
    loss=loss,
    bits_of=None,
    update_aux=update_aux,
    bound=bound,
    sample=sample,
    check_request=check_request,
    dimensions=size,
  )
