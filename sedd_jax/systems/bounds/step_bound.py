"""The likelihood bound of a chain in steps whose network predicts x_0.

-log p(x_0) <= prior + sum over t = 2, ..., T of KL + reconstruction at t = 1,
for the law that `samplers.ancestral` draws from with as many steps: all of the
chain's, or a grid of them.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sedd_jax.core import keys as keys_lib
from sedd_jax.core import numerics
from sedd_jax.losses import variational
from sedd_jax.noise_schedules import Steps
from sedd_jax.processes import TokenProcess, posterior
from sedd_jax.samplers import ancestral
from sedd_jax.systems.base import Bound
from sedd_jax.systems.bounds import time_proposal
from sedd_jax.systems.common import parts

# Fields of a small chain in steps, for the systems' contract tests.
EXAMPLE = {
  'schedule.name': 'step_betas',
  'schedule.num_steps': 6,
  'sampling.method': 'ancestral',
}

# How the network's logits are read.
PARAMETRIZATIONS = ('x0', 'direct')


@dataclasses.dataclass(frozen=True)
class Chain:
  """A chain in steps and how its network is read.

  Attributes:
    process: the noise process.
    schedule: its levels in steps.
    decoder: 'posterior', theta_post also at the last step, or 'x0', the
      network's prediction itself.
    parametrization: 'x0': the logits are those of x_0; 'direct': those of
      x_{t-1} given x_t.
    jump: what `ancestral.jumps_from_the_prior` says; None to ask it, of a
      process that is not traced.
    strides: reverse steps that generation takes, each of as many of the
      chain's; None for all.
  """

  process: TokenProcess
  schedule: Steps
  decoder: str = 'posterior'
  parametrization: str = 'x0'
  jump: bool | None = None
  strides: int | None = None

  # What the trained objective without `hybrid` is logged as.
  objective: ClassVar[str] = 'bound'
  # Whether that objective bounds -log p, so that its bits are reported.
  objective_bounds: ClassVar[bool] = True
  # The names of `eval.protocol`.
  protocols: ClassVar[tuple[str, ...]] = ('bound',)

  def check(self) -> None:
    """Raises ValueError for an unknown name, or levels that are of tokens."""
    if getattr(self.schedule, 'needs_tokens', False):
      raise ValueError(
        f'{type(self.schedule).__name__} gives every token a level of its own: '
        'use system diffusion_bert'
      )
    for kind, value, known in (
      ('decoder', self.decoder, ancestral.DECODERS),
      ('parametrization', self.parametrization, PARAMETRIZATIONS),
    ):
      if value not in known:
        raise ValueError(f'unknown {kind} {value!r}: use {", ".join(known)}')

  def grid(self) -> np.ndarray:
    """The steps that generation visits, int `[strides + 1]`, from 0 to T."""
    direct = self.parametrization == 'direct'
    last = self.schedule.num_steps
    return ancestral.steps_of(last, self.strides, direct)[::-1]

  def before(self, step: Array) -> Array:
    """Where generation steps to from `step` of its grid, of its shape."""
    if self.strides is None:
      return step - 1
    grid = self.grid()
    below = np.zeros(self.schedule.num_steps + 1, np.int32)
    below[grid[1:]] = grid[:-1]
    return jnp.asarray(below)[step]

  def step_nats(
    self,
    logits: Array,
    x_t: Array,
    x_0: Array,
    step: Array,
    valid: Array | None = None,
  ) -> Array:
    """The bound's term of a step, `[batch, length]` in nats.

    Args:
      logits: `[batch, length, vocab_size]`.
      x_t: `[batch, length]` int32, drawn at `step`.
      x_0: `[batch, length]` int32.
      step: `[batch]`, t > 0 of the grid; at the first the term is the
        reconstruction's.
      valid: `[batch, length]` bool, not padding; None if there is none.

    Returns:
      KL(q(x_s | x_t, x_0) || p(x_s | x_t)), s being the step before t on the
      grid; at s = 0 -log p(x_0 | x_t).
    """
    before = self.before(step)
    s, t = (self.level_at(x_0, at, valid) for at in (before, step))
    if self.parametrization == 'direct':
      truth = posterior(self.process, x_t, x_0, s, t)
      return variational.divergence(
        truth, jax.nn.log_softmax(numerics.as_float(logits))
      )
    nats = variational.step_nats(logits, x_t, x_0, s, t, process=self.process)
    if self.decoder == 'posterior':
      return nats
    plain = variational.decoder_nats(logits, x_0)
    return jnp.where(before[:, None] == 0, plain, nats)

  def level_at(
    self, x_0: Array, step: Array, valid: Array | None = None
  ) -> Array:
    """Levels after `step [batch]`, of the tokens' rank."""
    del x_0, valid
    return self.schedule.level(step)[:, None]

  def reverse_fn(self) -> Callable[..., Array] | None:
    """What `samplers.ancestral` steps by in place of theta_post."""
    return None

  def distance_to_prior(self) -> float:
    """Nats a token between the end of the chain and what is started from."""
    return ancestral.distance_to_prior(self.process, self.schedule)

  def loss_nats(
    self,
    logits: Array,
    x_t: Array,
    x_0: Array,
    step: Array,
    valid: Array | None = None,
  ) -> Array:
    """What training minimises at a step: its term of the bound."""
    return self.step_nats(logits, x_t, x_0, step, valid)

  def noisy(
    self,
    keys: Array,
    x_0: Array,
    step: Array,
    kept: Array | None = None,
    valid: Array | None = None,
  ) -> Array:
    """A draw of x_t given x_0, int32 `[batch, length]`.

    Args:
      keys: typed keys `[batch]`, one an example.
      x_0: `[batch, length]` int32.
      step: `[batch]`, t.
      kept: `[batch, length]` bool, tokens outside the noise; none by default.
      valid: `[batch, length]` bool, not padding; None if there is none.
    """

    def one(key, tokens, level):
      return self.process.sample(key, tokens, 0.0, level)

    x_t = jax.vmap(one)(keys, x_0, self.level_at(x_0, step, valid))
    return x_t if kept is None else jnp.where(kept, x_0, x_t)

  def prior_nats(
    self,
    logits_fn: Callable[[Array, Array], Array],
    x_0: Array,
    kept: Array | None = None,
  ) -> Array:
    """KL between q(x_T | x_0) and what generation starts from.

    Where the chain ends short of its prior, the mask's infinite divergence is
    replaced by the step of the model that the sampler makes there.

    Args:
      logits_fn: `(x_t [batch, length], step [batch]) -> logits`.
      x_0: `[batch, length]` int32.
      kept: `[batch, length]` bool or None.

    Returns:
      `[batch, length]` in nats.
    """
    last = self.schedule.num_steps
    level = self.schedule.level(last)
    jump = self.jump
    if jump is None:
      jump = ancestral.jumps_from_the_prior(self.process, self.schedule)
    if not jump:
      return self.process.prior_kl(x_0, level)
    masked = jnp.full_like(x_0, self.process.num_states - 1)
    masked = masked if kept is None else jnp.where(kept, x_0, masked)
    logits = logits_fn(masked, jnp.full(len(x_0), last))
    hidden = jnp.full_like(x_0, self.process.num_states - 1)
    return variational.step_nats(
      logits, hidden, x_0, level, jnp.inf, process=self.process
    )


def bound(
  logits_fn: Callable[[Array, Array], Array],
  key: Array,
  x_0: Array,
  *,
  chain: Chain,
  index: Array,
  counted: Array | None = None,
  kept: Array | None = None,
  points: int = 1,
  times_by: str = 'stratified',
  proposal: time_proposal.Proposal | None = None,
  within: Array | None = None,
) -> Bound:
  """An unbiased estimate of the bound on -log p(x_0), one row a sequence.

  Sequences are independent but for `within`.  The reconstruction and the prior
  are estimated at every call, the K - 1 divergences between them by `points` of
  them, K being T or `chain.strides`; with points = K - 1 and stratified times
  each is taken once.

  Args:
    logits_fn: `(x_t [batch, length], step [batch]) -> logits [batch, length,
      vocab_size]`.
    key: one typed key; a sequence draws from fold_in(key, index).
    x_0: `[batch, length]` int32.
    chain: noise and decoder.
    index: `[batch]`, places in the evaluated split.
    counted: `[batch, length]` bool, tokens that count; all by default.
    kept: `[batch, length]` bool, tokens outside the noise; none by default.
    points: steps a sequence.
    times_by: 'stratified' or 'importance'; see `time_proposal.drawn`.
    proposal: where the divergences are large; uniform by default.
    within: `[batch]` in [0, 1), a sequence's place in the intervals of times;
      drawn from its key by default.

  Returns:
    Nats, counted tokens and terms 'diffusion', 'prior', 'reconstruction'; stats
    for `time_proposal.updated`.

  Raises:
    ValueError: for names or numbers that do not fit.
  """
  chain.check()
  if times_by == 'quadrature':
    raise ValueError(
      "a chain in steps has no quadrature; eval.time_sampling='stratified' "
      'with eval.points = num_steps - 1 sums over all of them'
    )
  grid = chain.grid()
  inner = len(grid) - 2
  valid, counted = counted, parts.counted(x_0, counted, kept)
  keys = keys_lib.example_keys(key, index)

  def total(nats):
    return jnp.sum(jnp.where(counted, nats, 0), axis=-1)

  def nats_at(place, step):
    place_keys = keys_lib.folded(keys, place)
    x_t = chain.noisy(place_keys, x_0, step, kept, valid)
    logits = logits_fn(x_t, step)
    return total(chain.step_nats(logits, x_t, x_0, step, valid))

  def integrand(place, u):
    place_in = jnp.minimum(jnp.floor(u * inner).astype(jnp.int32), inner - 1)
    return inner * nats_at(place, jnp.asarray(grid)[2 + place_in])

  diffusion, stats = time_proposal.integral(
    integrand, keys, points, times_by, proposal, within
  )
  prior = total(chain.prior_nats(logits_fn, x_0, kept))
  reconstruction = nats_at(points, jnp.full(len(x_0), grid[1]))
  terms = {
    'diffusion': diffusion,
    'prior': prior,
    'reconstruction': reconstruction,
  }
  return Bound(
    diffusion + prior + reconstruction,
    jnp.sum(counted, axis=-1).astype(diffusion.dtype),
    terms,
    stats,
  )
