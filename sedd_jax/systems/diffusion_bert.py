"""DiffusionBERT (arXiv 2211.15029): masks by a spindle schedule.

Absorbing noise whose level at a token depends on how rare it is, and a network
that predicts x_0.  The bound is strict: a step back reveals each candidate at
the candidate's own rate, never at that of the true token.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax import noise_schedules
from sedd_jax.core import numerics
from sedd_jax.losses import variational
from sedd_jax.noise_schedules import Spindle
from sedd_jax.processes import Absorbing, reveal_rate, revealed_at
from sedd_jax.systems import base
from sedd_jax.systems.bounds import step_bound
from sedd_jax.systems.chains import x0_chain
from sedd_jax.systems.common import denoiser as denoiser_lib
from sedd_jax.systems.common import parts


@dataclasses.dataclass(frozen=True)
class SpindleChain(step_bound.Chain):
  """Absorbing noise by a spindle schedule.

  Attributes:
    protocol: of `protocols`.
    floor: under the mean of the sentence, p reveals with at least this share of
      the chance 1/t, and hides with at least this share of 1 - 1/t.
  """

  protocol: str = 'bound'
  floor: float = 0.01

  objective: ClassVar[str] = 'weighted_cross_entropy'
  objective_bounds: ClassVar[bool] = False
  protocols: ClassVar[tuple[str, ...]] = ('bound', 'loose', 'diffusion_bert')

  def check(self) -> None:
    """Raises ValueError for a protocol that does not go with the rest."""
    sentence = self.spindle.mean == 'sentence'
    if self.protocol == 'diffusion_bert' and self.strides is not None:
      raise ValueError(
        "eval.protocol='diffusion_bert' is of all steps of the chain"
      )
    if self.protocol == 'bound' and sentence:
      raise ValueError(
        "schedule.args.mean='sentence' has no strict bound, for p does not "
        "know the sentence: use mean='corpus', or eval.protocol='loose'"
      )
    if self.protocol == 'loose' and not sentence:
      raise ValueError(
        "eval.protocol='loose' is for schedule.args.mean='sentence'; under the "
        "mean of the corpus the bound is strict: eval.protocol='bound'"
      )

  @property
  def spindle(self) -> Spindle:
    """The schedule, as what it is."""
    assert isinstance(self.schedule, Spindle)
    return self.schedule

  def distance_to_prior(self) -> float:
    """At step T everything is masked."""
    return 0.0

  def _rate(self, s: Array, t: Array) -> Array:
    """Chances that p reveals candidates, `[..., 1, vocab_size]`."""
    final = (s == 0)[..., None, None]
    before, after = (self.spindle.alpha_bars(at)[..., None, :] for at in (s, t))
    rate = reveal_rate(before, after, final)
    if self.spindle.mean == 'corpus':
      return rate
    # Where p's rate and that of the sentence part, neither may be without the
    # other; 1/t is what all tokens have on average.
    base = (t - s)[..., None, None] / jnp.maximum(t, 1)[..., None, None]
    least, most = self.floor * base, 1 - self.floor * (1 - base)
    return jnp.where(final, 1, jnp.clip(rate, least, most))

  def level_at(
    self, x_0: Array, step: Array, valid: Array | None = None
  ) -> Array:
    """Levels of the tokens after `step [batch]`, `[batch, length]`."""
    return self.spindle.level(step[:, None], x_0, valid)

  def _masked(self, x_t: Array) -> Array:
    return x_t == self.process.num_states - 1

  def step_nats(
    self,
    logits: Array,
    x_t: Array,
    x_0: Array,
    step: Array,
    valid: Array | None = None,
  ) -> Array:
    """The term of a step in what the protocol reports, `[batch, length]`."""
    before = self.before(step)
    s, t = (self.level_at(x_0, at, valid) for at in (before, step))
    if self.protocol == 'diffusion_bert':
      beta = 1 / (self.schedule.num_steps - step + 1)
      return variational.base_transition_nats(
        logits, x_t, x_0, s, beta[:, None], process=self.process
      )
    masked = self._masked(x_t)
    rate = self._rate(before, step)
    if self.spindle.mean == 'corpus':
      # That of q is the true token's entry, to the last bit.
      return variational.reveal_nats(logits, masked, x_0, rate)
    own = reveal_rate(jnp.exp(-s), jnp.exp(-t), (before == 0)[:, None])
    return variational.reveal_nats(logits, masked, x_0, rate, own)

  def loss_nats(
    self,
    logits: Array,
    x_t: Array,
    x_0: Array,
    step: Array,
    valid: Array | None = None,
  ) -> Array:
    """Cross entropy by the true token's rate: the paper's, and no bound."""
    s, t = (self.level_at(x_0, at, valid) for at in (step - 1, step))
    return variational.step_nats(logits, x_t, x_0, s, t, process=self.process)

  def prior_nats(
    self, logits_fn: Any, x_0: Array, kept: Array | None = None
  ) -> Array:
    """0: the chain ends at its prior."""
    del logits_fn, kept
    return jnp.zeros(x_0.shape)

  def reverse_fn(self) -> Callable[..., Array]:
    """p(x_s = . | x_t), `[batch, length, num_states]`, at scalar steps."""

    def weights(logits: Array, x_t: Array, s: Array, t: Array) -> Array:
      x_hat = jax.nn.softmax(numerics.as_float(logits))
      revealed = revealed_at(x_hat, self._rate(s, t)[None])
      own = jax.nn.one_hot(x_t, revealed.shape[-1], dtype=revealed.dtype)
      return jnp.where(self._masked(x_t)[..., None], revealed, own)

    return weights


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  corpus = {**step_bound.EXAMPLE, 'schedule.name': 'spindle'}
  sentence = {
    'schedule.args.mean': 'sentence',
    'eval.protocol': 'loose',
    'model.name': 'bert',
    'model.args.time': 'prefix',
  }
  return corpus, {**corpus, **sentence}


def make(
  config: Any,
  data_info: Any,
  *,
  hybrid: float = 0.01,
  timed: bool = False,
  floor: float = 0.01,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size` and `token_counts`.
    hybrid: weight of the cross entropy -log x̂_0(x_0) beside each step's term of
      the loss.
    timed: whether the network is told the step; the paper's best is not.
    floor: see `SpindleChain`.

  Returns:
    The system.

  Raises:
    ValueError: other noise than absorbing, another schedule than spindle, or
      numbers that do not fit; before compilation.
  """
  if not 0 <= hybrid < float('inf'):
    raise ValueError(f'system.args.hybrid must be at least 0, not {hybrid}')
  process, schedule = parts.make_chain(config, data_info)
  parts.require_process(config, process, Absorbing)
  if not isinstance(schedule, noise_schedules.Spindle):
    raise ValueError(
      f'schedule.name {config.schedule.name!r} is not one of those of system '
      f'{config.system.name}: use spindle (schedule.args.strength=0 is 1 / (T '
      '- t + 1) for all tokens)'
    )
  denoiser = denoiser_lib.make(config, process, data_info, timed=timed)
  if not 0 < floor < 0.5:
    raise ValueError(f'system.args.floor must be in (0, 0.5), not {floor}')
  chain = SpindleChain(
    process, schedule, protocol=config.eval.protocol, floor=floor
  )
  return x0_chain.make(config, chain, denoiser, hybrid=hybrid)
