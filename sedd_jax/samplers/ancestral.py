"""The reverse of a chain in steps, by a network that predicts x_0.

p(x_s | x_t) = theta_post(x_t, x̂_0(x_t, t)), drawn step by step; several steps
of the chain can be taken at once, for q(x_s | x_t, x_0) is known for any s < t
(arXiv 2107.03006, appendix A.3).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.core import numerics
from sedd_jax.noise_schedules import Steps
from sedd_jax.processes import base
from sedd_jax.samplers import loop, time_grids
from sedd_jax.samplers.conditions import Tables

# The laws of the last step.
DECODERS = ('posterior', 'x0')


def distance_to_prior(process: base.TokenProcess, schedule: Steps) -> float:
  """The largest KL(q(x_T | x_0) || prior) of a symbol, in nats.

  Args:
    process: the noise process.
    schedule: its levels; concrete, not traced.
  """
  # One symbol stands for all where the kernel treats them alike.
  count = 1 if isinstance(process, base.Relaxing) else process.vocab_size
  # Also where the caller is being traced.
  with jax.ensure_compile_time_eval():
    level = schedule.level(schedule.num_steps)
    return float(jnp.max(process.prior_kl(jnp.arange(count), level)))


def jumps_from_the_prior(process: base.TokenProcess, schedule: Steps) -> bool:
  """Whether a step leads from the prior to the chain's last state.

  A mask's chain that ends with some signal left (alpha_bar_T > 0) does not end
  at its prior: KL(q(x_T | x_0) || all masked) is infinite.  The generative law
  then starts at infinite noise, and goes to step T by one step of the model.

  Args:
    process: the noise process.
    schedule: its levels; concrete, not traced.

  Returns:
    A Python bool.
  """
  if not base.has_mask(process):
    return False
  return distance_to_prior(process, schedule) == math.inf


def steps_of(num_steps: int, steps: int | None, direct: bool) -> np.ndarray:
  """The numbers of the steps that are taken, from num_steps down to 0.

  Args:
    num_steps: of the chain.
    steps: reverse steps, each of as many of the chain's; None for all.
    direct: the network is of x_(t-1), and takes no two at once.

  Returns:
    int `[steps + 1]`, strictly decreasing.

  Raises:
    ValueError: none, more steps than the chain has, or fewer for `direct`.
  """
  steps = num_steps if steps is None else steps
  if direct and steps != num_steps:
    raise ValueError(
      f'a network of x_(t-1) takes the {num_steps} steps of its chain one by '
      f'one, not {steps}'
    )
  return time_grids.strided(num_steps, steps)


def sample(
  logits_fn: Callable[[Array, Array], Array],
  key: Array,
  shape: tuple[int, int],
  *,
  process: base.TokenProcess,
  schedule: Steps,
  steps: int | None = None,
  tokens: Array | None = None,
  given: Array | None = None,
  start: Array | None = None,
  decoder: str = 'posterior',
  direct: bool = False,
  reverse_fn: Callable[..., Array] | None = None,
  jump: bool | None = None,
  condition: Tables | None = None,
  return_path: bool = False,
) -> Array:
  """Draws sequences by ancestral steps.

  Args:
    logits_fn: `(x_t [batch, length], step [batch]) -> logits of x̂_0
      [batch, length, vocab_size]`.
    key: one typed key (row i uses fold_in(key, i)), or one a row.
    shape: (batch, length).
    process: the noise process.
    schedule: its levels in steps.
    steps: reverse steps, each of as many of the chain's; all of them by
      default.
    tokens: `[batch, length]` int32, the prompt where `given`.
    given: `[batch, length]` bool, True where the result is clamped to `tokens`.
    start: `[batch, length]` int32, an initial state in place of a draw from the
      prior; not clamped.
    decoder: the law of the last step, 'posterior' (theta_post, as all others)
      or 'x0' (the network's prediction of x_0); as in the bound.
    direct: the logits are those of x_{t-1} given x_t, not of x_0; all steps of
      the chain are then taken one by one.
    reverse_fn: `(logits, x_t, s, t) -> weights [batch, length, num_states]` of
      x_s in place of theta_post, s < t being scalar steps; the chain is then
      taken to end at its prior.
    jump: what `jumps_from_the_prior` says; None to ask it, of a process that is
      not traced.
    condition: what the result satisfies besides, see `samplers.constrained`.
    return_path: return every state, not the last one alone.

  Returns:
    int32 `[batch, length]`, data symbols only; with return_path
    `[calls + 1, batch, length]`.  There are `steps` calls of logits_fn, and one
    more where `jumps_from_the_prior`.

  Raises:
    ValueError: more steps than the chain has, fewer for `direct`, an unknown
      decoder, or arguments that do not fit.

  >>> from sedd_jax import noise_schedules, processes
  >>> schedule = noise_schedules.StepBetas(num_steps=8)
  >>> flat = lambda x_t, step: jnp.zeros((*x_t.shape, 4))
  >>> sample(flat, jax.random.key(0), (2, 3), schedule=schedule,
  ...        process=processes.Uniform(vocab_size=4), steps=4).shape
  (2, 3)
  """
  planned = plan(
    process,
    schedule,
    steps=steps,
    decoder=decoder,
    direct=direct,
    reverse_fn=reverse_fn,
    jump=jump,
  )
  states, _ = loop.follow(
    planned,
    logits_fn,
    key,
    shape,
    process=process,
    tokens=tokens,
    given=given,
    start=start,
    condition=condition,
    return_path=return_path,
  )
  return states


def plan(
  process: base.TokenProcess,
  schedule: Steps,
  *,
  steps: int | None = None,
  decoder: str = 'posterior',
  direct: bool = False,
  reverse_fn: Callable[..., Array] | None = None,
  jump: bool | None = None,
) -> loop.Plan:
  """The steps of `sample`, which says what the arguments are.

  Args:
    process: the noise process.
    schedule: its levels in steps.
    steps: reverse steps; all of the chain's by default.
    decoder: the law of the last step, 'posterior' or 'x0'.
    direct: the logits are those of x_{t-1}.
    reverse_fn: in place of theta_post.
    jump: whether a step leads from the prior to the chain's end.

  Returns:
    The steps, at which the network is told their number.

  Raises:
    ValueError: numbers of steps that do not fit, or an unknown decoder.
  """
  grid = steps_of(schedule.num_steps, steps, direct)
  if decoder not in DECODERS:
    raise ValueError(f'unknown decoder {decoder!r}: use {", ".join(DECODERS)}')
  t, s = jnp.asarray(grid[:-1]), jnp.asarray(grid[1:])
  if reverse_fn is not None:
    reverse = reverse_fn
    return loop.Plan(
      (s, t),
      lambda of_step: of_step[1],
      lambda logits, x, of_step: reverse(logits, x, *of_step),
    )
  level_t, level_s = schedule.level(t), schedule.level(s)
  if jump is None:
    jump = jumps_from_the_prior(process, schedule)
  if jump:
    t = jnp.concatenate([t[:1], t])
    level_s = jnp.concatenate([level_t[:1], level_s])
    level_t = jnp.concatenate([jnp.full_like(level_t[:1], jnp.inf), level_t])

  def weights_of(logits, x, of_step):
    _, level, lower, last_step = of_step
    if direct:
      return jax.nn.softmax(numerics.as_float(logits))
    weights = jnp.exp(
      base.log_posterior(process, x, numerics.as_float(logits), lower, level)
    )
    if decoder == 'posterior':
      return weights
    plain = jax.nn.softmax(numerics.as_float(logits))
    missing = process.num_states - plain.shape[-1]
    plain = jnp.pad(plain, [(0, 0), (0, 0), (0, missing)])
    return jnp.where(last_step, plain, weights)

  inputs = t, level_t, level_s, jnp.arange(len(t)) == len(t) - 1
  return loop.Plan(inputs, lambda of_step: of_step[0], weights_of)
