"""A network that reads what is hidden from it is caught by its bound.

Two equal symbols, drawn evenly from V: their entropy is log V.  An honest
network knows a hidden symbol by the other one, where that is seen; a cheating
one is told the second symbol by the first, hidden or not, and so pays for
one symbol only where the first is revealed first.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import noise_schedules, processes
from sedd_jax.losses import masked
from sedd_jax.systems.bounds import masked_bound, score_bound, step_bound
from sedd_jax.systems.diffusion_bert import SpindleChain

V = 4
ROWS, POINTS = 4000, 4
MASK = processes.Absorbing(vocab_size=V)
SCHEDULE = noise_schedules.LogLinear()
STEPS = noise_schedules.StepBetas(
  num_steps=20, betas='reciprocal', min_alpha=0.0
)
# Symbols are alike: their shares fall as those of STEPS.
SPINDLE = noise_schedules.Spindle(np.ones(V), num_steps=20, strength=0.3)
CHAIN = step_bound.Chain(MASK, STEPS)
UNIFORM_STEPS = noise_schedules.StepBetas(num_steps=20, betas='cosine')


def prediction(x_t, x_0, cheats):
  """x̂_0 `[batch, 2, V]`; where it cheats it depends on x_0."""
  other = x_t[:, ::-1]
  known = jnp.where(
    (other == V)[..., None], 1 / V, jax.nn.one_hot(other, V, dtype=jnp.float32)
  )
  if cheats:
    known = known.at[:, 1].set(jax.nn.one_hot(x_0[:, 0], V))
  # No zeros, whose logarithms have no score.
  return 0.999999 * known + 1e-6 / V


def of_scores(key, x_0, cheats):
  def score_fn(x_t, sigma):
    odds = -sigma - jnp.log(-jnp.expm1(-sigma))
    score = odds[:, None, None] + jnp.log(prediction(x_t, x_0, cheats))
    score = jnp.pad(score, [(0, 0), (0, 0), (0, 1)])
    # The own entry is 0; what is seen has no score to matter.
    return jnp.where((x_t == V)[..., None], score, 0.0)

  return score_bound.bound(
    score_bound.whole(score_fn),
    key,
    x_0,
    process=MASK,
    schedule=SCHEDULE,
    points=POINTS,
  )


def of_masks(key, x_0, cheats):
  def nats_fn(x_t, x_0, t):
    del t
    logits = jnp.log(prediction(x_t, x_0, cheats))
    return masked.cross_entropy(logits, x_t, x_0, process=MASK)

  return masked_bound.bound(
    nats_fn,
    key,
    x_0,
    process=MASK,
    schedule=SCHEDULE,
    index=jnp.arange(len(x_0)),
    points=POINTS,
  )


def of_steps(key, x_0, cheats, chain=CHAIN):
  def logits_fn(x_t, step):
    del step
    return jnp.log(prediction(x_t, x_0, cheats))

  return in_steps(logits_fn, key, x_0, chain)


def of_spindle(key, x_0, cheats):
  return of_steps(key, x_0, cheats, SpindleChain(MASK, SPINDLE))


def in_steps(logits_fn, key, x_0, chain):
  index = jnp.arange(len(x_0))
  return step_bound.bound(
    logits_fn, key, x_0, chain=chain, index=index, points=POINTS
  )


def of_uniform_steps(key, x_0, cheats):
  """Noise that shows everything, and nothing for sure."""

  def logits_fn(x_t, step):
    kept = jnp.exp(-UNIFORM_STEPS.level(step))[:, None, None]
    # theta_post weighs in the own symbol: the law is that given the other.
    other = jax.nn.one_hot(x_t[:, ::-1], V)
    logits = jnp.log(kept * other + (1 - kept) / V)
    if cheats:
      told = jnp.log(0.999999 * jax.nn.one_hot(x_0[:, 0], V) + 1e-6 / V)
      logits = logits.at[:, 1].set(told)
    return logits

  chain = step_bound.Chain(processes.Uniform(vocab_size=V), UNIFORM_STEPS)
  return in_steps(logits_fn, key, x_0, chain)


def measured(bound, cheats):
  """The mean over pairs, and its standard error."""
  drawn = np.random.default_rng(0).integers(V, size=(ROWS, 1))
  x_0 = jnp.asarray(np.tile(drawn, (1, 2)), jnp.int32)
  compiled = jax.jit(bound, static_argnames='cheats')
  nats = np.asarray(compiled(jax.random.key(0), x_0, cheats=cheats).nats)
  return nats.mean(), nats.std() / np.sqrt(ROWS)


@pytest.mark.parametrize('bound', [of_scores, of_masks, of_steps, of_spindle])
def test_the_bound_of_a_cheat_is_below_the_entropy(bound):
  entropy = np.log(V)
  honest, error = measured(bound, cheats=False)
  assert error < 0.05 * entropy
  # In 20 steps a pair costs what a step reveals of both (test_step_bound).
  wanted = entropy * (1 + (bound in (of_steps, of_spindle)) / 20)
  assert abs(honest - wanted) < 4.5 * error + 2e-3 * entropy
  # Half of it, and what a chain of 20 steps reveals at once.
  cheat, error = measured(bound, cheats=True)
  assert error < 0.05 * entropy
  assert cheat < entropy - 8 * error
  assert abs(cheat - entropy / 2) < 0.05 * entropy + 4.5 * error


def test_so_it_is_of_noise_that_masks_nothing():
  entropy = np.log(V)
  honest, error = measured(of_uniform_steps, cheats=False)
  assert error < 0.05 * entropy
  # 20 steps cost some more than the entropy, 200 hardly any.
  assert -4.5 * error < honest - entropy < 0.1 * entropy + 4.5 * error
  cheat, error = measured(of_uniform_steps, cheats=True)
  assert abs(cheat - honest / 2) < 0.05 * entropy + 4.5 * error
  assert cheat < entropy - 8 * error
