"""A small space with a known data law, its true scores and reverse laws."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

import sedd_jax as sj
from sedd_jax.systems.bounds import score_bound
from tests import oracles

PROCESSES = {
  'uniform': sj.processes.Uniform,
  'absorbing': sj.processes.Absorbing,
}


def _for_each_clean(cost, states, data):
  """Sums a cost over the tokens of each data and noisy sequence."""

  def total(x_0):
    clean = jnp.broadcast_to(x_0[None], states.shape)
    return jnp.sum(cost(states, clean), axis=-1)

  return jax.vmap(total)(data)


@jax.jit
def score_entropies(process, states, data, tables, sigmas):
  def at_level(table, sigma):
    return _for_each_clean(
      lambda x_t, x_0: sj.losses.score_entropy(
        table, x_t, x_0, sigma, process=process
      ),
      states,
      data,
    )

  return jax.vmap(at_level)(tables, sigmas)


@jax.jit
def _reconstructions(process, states, data, table, sigma, delta):
  return _for_each_clean(
    lambda x_t, x_0: score_bound.reconstruction_nats(
      process, x_t, x_0, table, sigma, delta=delta
    ),
    states,
    data,
  )


@jax.jit
def _reverse_rates(process, states, tables):
  return jax.vmap(
    lambda table: sj.processes.rates.reverse_rate(
      process, states, jnp.exp(table)
    )
  )(tables)


@functools.partial(jax.jit, static_argnames=('method', 'jumps'))
def _weights(process, schedule, states, table, t, s, *, method, jumps):
  of = sj.samplers.jump_probs if jumps else sj.samplers.reverse_probs
  return of(process, schedule, states, table, t, s, method=method)


_decoder = jax.jit(sj.samplers.tweedie.decoder_probs)


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
  """All sequences of a process on `vocab_size` symbols, and a law on data.

  A score table is `[states, length, num_states]` of log scores at one time;
  `wrong` is added to the true one everywhere but at the own entry.
  """

  name: str
  vocab_size: int
  length: int
  schedule: object
  seed: int = 0
  wrong: float = 0.0

  @functools.cached_property
  def process(self):
    return PROCESSES[self.name](vocab_size=self.vocab_size)

  @property
  def num_states(self):
    return self.process.num_states

  @functools.cached_property
  def data_law(self):
    rng = np.random.default_rng(self.seed)
    return rng.dirichlet(np.full(self.vocab_size**self.length, 4.0))

  @functools.cached_property
  def data(self):
    """`[vocab_size ** length, length]`."""
    return jnp.asarray(oracles.states(self.vocab_size, self.length))

  @functools.cached_property
  def states(self):
    """`[num_states ** length, length]`."""
    return jnp.asarray(oracles.states(self.num_states, self.length))

  @functools.cached_property
  def data_places(self):
    return oracles.index_of(np.asarray(self.data), self.num_states)

  def noising(self, sigma):
    """q(x_sigma | x_0) for each data sequence, `[data, states]`."""
    token = oracles.kernel(self.name, self.num_states, sigma)
    return oracles.joint_kernel(token, self.length)[self.data_places]

  def sigma(self, t):
    return float(self.schedule.total(t))

  def log_scores(self, ts):
    """The true log scores at each time, plus what makes them wrong.

    Args:
      ts: times `[n]`.

    Returns:
      `[n, states, length, num_states]`.
    """
    tables = np.stack(
      [
        oracles.true_log_score(
          self.data_law @ self.noising(self.sigma(t)),
          self.num_states,
          self.length,
        )
        for t in ts
      ]
    )
    if not self.wrong:
      return tables
    rng = np.random.default_rng(self.seed + 1)
    shift = self.wrong * rng.standard_normal(tables.shape[1:])
    own = np.eye(self.num_states, dtype=bool)[np.asarray(self.states)]
    return np.where(own, 0, tables + shift)

  def log_score(self, t):
    """`log_scores` at one time, `[states, length, num_states]`."""
    return self.log_scores([t])[0]

  def diffusion(self, t_min, nodes=80):
    """The integral of the bound over [t_min, 1], `[data]`."""
    # In log t, where the integrand of either schedule is smooth.
    log_t, weights = oracles.gauss_legendre(np.log(t_min), 0.0, nodes)
    ts = np.exp(log_t)
    sigmas = np.array([self.sigma(t) for t in ts])
    nats = np.asarray(
      score_entropies(
        self.process, self.states, self.data, self.log_scores(ts), sigmas
      )
    )
    reached = np.stack([self.noising(sigma) for sigma in sigmas])
    expected = np.sum(reached * nats, axis=-1)
    rates = np.asarray(self.schedule.rate(ts))
    return (weights * ts * rates) @ expected

  def reconstruction(self, t_min, delta):
    """The shipped decoder's term, `[data]`."""
    sigma = self.sigma(t_min)
    nats = np.asarray(
      _reconstructions(
        self.process,
        self.states,
        self.data,
        self.log_score(t_min),
        sigma,
        delta,
      )
    )
    reached = self.noising(sigma)
    # States that x_0 cannot lead to may cost infinity: they count nothing.
    return np.sum(reached * np.where(reached > 0, nats, 0), axis=-1)

  def joint_reconstruction(self, t_min):
    """-E log p(x_0 | x_t_min) with the true joint posterior, `[data]`."""
    reached = self.noising(self.sigma(t_min))
    posterior = reached * self.data_law[:, None]
    total = posterior.sum(0, keepdims=True)
    posterior = posterior / np.where(total > 0, total, 1)
    nats = -np.log(np.where(posterior > 0, posterior, 1))
    return np.sum(reached * nats, axis=-1)

  @property
  def prior_place(self):
    """The all-masked state."""
    return self.num_states**self.length - 1

  def prior(self):
    """The shipped prior term, `[data]`."""
    log_score = None
    if self.name == 'absorbing':
      table = self.log_score(1.0)[self.prior_place]
      log_score = jnp.broadcast_to(
        jnp.asarray(table)[None], (len(self.data), *table.shape)
      )
    nats = score_bound.prior_nats(
      self.process, self.schedule, self.data, log_score
    )
    return np.asarray(nats).sum(-1)

  def bound(self, t_min, delta):
    """The whole shipped bound in exact expectation, `[data]`."""
    return (
      self.prior() + self.diffusion(t_min) + self.reconstruction(t_min, delta)
    )

  def start(self):
    """The law the generative process starts from, `[states]`."""
    count = self.num_states**self.length
    if self.name == 'uniform':
      return np.full(count, 1 / count)
    return np.eye(count)[self.prior_place]

  def decoder(self, t, delta):
    """The shipped decoder at a time, `[states, length, vocab_size]`."""
    return np.asarray(
      _decoder(
        self.process, self.states, self.log_score(t), self.sigma(t), delta
      )
    )

  def jump(self, law):
    """From infinite noise to the level of t = 1, absorbing only."""
    if self.name == 'uniform':
      return law
    p_hat = self.decoder(1.0, 0.0)
    alpha_bar = float(self.schedule.alpha_bar(1.0))
    stay = np.full((*p_hat.shape[:2], 1), 1 - alpha_bar)
    rows = np.concatenate([alpha_bar * p_hat, stay], -1)
    return law @ oracles.product_kernel(rows)

  def generative_law(self, t_min, delta, steps=200):
    """The law of the continuous-time reverse process, `[data]`."""
    # The error of a step's middle is of second order, and so cancelled.
    coarse, fine = (
      self._law_of_steps(t_min, delta, n) for n in (steps // 2, steps)
    )
    return (4 * fine - coarse) / 3

  def _law_of_steps(self, t_min, delta, steps):
    # Steps even in log t, the exponential of the rates at their middle.
    grid = np.geomspace(1, t_min, steps + 1)
    middle = np.sqrt(grid[:-1] * grid[1:])
    rates = np.asarray(
      _reverse_rates(self.process, self.states, self.log_scores(middle))
    )
    steps_in_sigma = np.asarray(self.schedule.rate(middle)) * -np.diff(grid)
    law = self.jump(self.start())
    for rate, step in zip(rates, steps_in_sigma):
      generator = oracles.generator(rate, self.num_states, self.length)
      law = law @ scipy.linalg.expm(step * generator)
    return law @ oracles.product_kernel(self.decoder(t_min, delta))

  def sampler_law(self, steps, method, t_min, delta):
    """The law of `samplers.sample` with these many steps, `[data]`."""
    ts = np.asarray(sj.samplers.time_grids.uniform(steps, t_min))

    law = self.start()
    tables = self.log_scores(ts[:-1])
    for k, (t, s) in enumerate(zip(ts[:-1], ts[1:])):
      jumps = k == 0 and self.name == 'absorbing'
      weights = np.asarray(
        _weights(
          self.process,
          self.schedule,
          self.states,
          tables[k],
          t,
          s,
          method=method,
          jumps=jumps,
        )
      )
      total = weights.sum(-1, keepdims=True)
      rows = weights / np.where(total > 0, total, 1)
      law = law @ oracles.product_kernel(rows)
    return law @ oracles.product_kernel(self.decoder(t_min, delta))


def score_fn(space):
  """The scores of a space at any level, as float32 code asks for them.

  Args:
    space: a `Space`.

  Returns:
    `(x_t [batch, length], sigma [batch]) -> log_score`.
  """
  states, length = space.num_states, space.length
  prior = np.asarray(space.process.prior_probs(), np.float64)
  data = oracles.embed(space.data_law, space.vocab_size, states, length)
  rng = np.random.default_rng(space.seed + 1)
  shift = space.wrong * rng.standard_normal((states**length, length, states))
  places = states ** np.arange(length)[::-1]
  neighbours = np.empty((states**length, length, states), np.int64)
  for position in range(length):
    for symbol in range(states):
      y = np.array(space.states)
      y[:, position] = symbol
      neighbours[:, position, symbol] = y @ places

  def of_row(x, sigma):
    alpha = jnp.exp(-sigma)
    kernel = alpha * jnp.eye(states) + (1 - alpha) * prior[None]
    joint = jnp.ones((1, 1))
    for _ in range(length):
      joint = jnp.kron(joint, kernel)
    law = jnp.log(data @ joint)
    place = jnp.sum(x * places)
    ratio = law[jnp.asarray(neighbours)[place]] - law[place]
    ratio = jnp.maximum(ratio, -80.0) + jnp.asarray(shift)[place]
    return jnp.where(jax.nn.one_hot(x, states, dtype=bool), 0, ratio)

  return jax.vmap(of_row)
