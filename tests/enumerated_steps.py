"""A chain in steps on a small space, by explicit matrices in float64 numpy.

Nothing here calls the package: kernels are products of one-step matrices, the
posterior is Bayes' rule, and laws are enumerated over all sequences.
"""

import dataclasses
import functools

import numpy as np

from tests import oracles


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
  """A chain whose network's prediction of x_0 is a table.

  Attributes:
    matrices: `[T, n, n]`, row-stochastic; matrices[t - 1] leads to step t.
    prior: `[n]`, the law that generation starts from.
    vocab_size: data symbols, the first of the n.
    length: tokens.
    x_hat: `[T + 1, n ** length, length, vocab_size]`, entry t is the network's
      prediction at step t.
    jump: generation goes from the prior to step T by one step of the model,
      the network's at T.
    decoder: law of the last step, 'posterior' or 'x0', the network's own.
    direct: the table is of x_{t-1} and not of x_0.
  """

  matrices: np.ndarray
  prior: np.ndarray
  vocab_size: int
  length: int
  x_hat: np.ndarray
  jump: bool = False
  decoder: str = 'posterior'
  direct: bool = False

  @property
  def num_steps(self):
    return len(self.matrices)

  @property
  def num_states(self):
    return self.matrices.shape[-1]

  @functools.cached_property
  def states(self):
    return oracles.states(self.num_states, self.length)

  @functools.cached_property
  def data(self):
    """All sequences of data symbols."""
    return oracles.states(self.vocab_size, self.length)

  def kernel(self, s, t):
    """q(x_t = j | x_s = i), `[n, n]`."""
    result = np.eye(self.num_states)
    for matrix in self.matrices[s:t]:
      result = result @ matrix
    return result

  def token_posterior(self, weights, s, t):
    """Rows over x_s, proportional to q(x_t | x_s) (weights Q̄_s)(x_s).

    Args:
      weights: `[..., length, vocab_size]` of x_0.
      s: earlier step.
      t: later step, or None for infinite noise.

    Returns:
      `[states, ..., length, n]` for every noisy sequence, weights broadcast.
    """
    to_s = weights @ self.kernel(0, s)[: self.vocab_size]
    if t is None:
      joint = np.broadcast_to(to_s, np.broadcast_shapes(to_s.shape))
      return joint / joint.sum(-1, keepdims=True)
    # [n of x_t, n of x_s]
    back = self.kernel(s, t).T
    arrive = back[self.states]
    joint = arrive * to_s
    total = joint.sum(-1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), 0)

  def reverse(self, s, t):
    """p(x_s | x_t) on sequences, `[states, states]`."""
    if self.direct or (s == 0 and self.decoder == 'x0'):
      missing = self.num_states - self.vocab_size
      rows = np.pad(self.x_hat[t], [(0, 0), (0, 0), (0, missing)])
      return oracles.product_kernel(rows)
    return oracles.product_kernel(self.token_posterior(self.x_hat[t], s, t))

  def start(self):
    """p(x_T), `[states]`."""
    law = np.ones(1)
    for _ in range(self.length):
      law = np.kron(law, self.prior)
    if not self.jump:
      return law
    # At infinite noise x_T is independent of where it comes from.
    rows = self.token_posterior(self.x_hat[-1], self.num_steps, None)
    return law @ oracles.product_kernel(rows)

  def law(self, grid=None):
    """p(x_0) over data sequences; `grid` falls from T to 0."""
    grid = range(self.num_steps, -1, -1) if grid is None else grid
    law = self.start()
    for t, s in zip(grid[:-1], grid[1:]):
      law = law @ self.reverse(s, t)
    return law[oracles.index_of(self.data, self.num_states)]

  def bound(self, grid=None):
    """E over x_1..x_T of the bound on -log p(x_0), `[data sequences]`."""
    grid = list(range(self.num_steps, -1, -1) if grid is None else grid)
    total = []
    for x_0 in self.data:
      clean = np.eye(self.vocab_size)[x_0]

      def marginal(t, clean=clean):
        rows = clean @ self.kernel(0, t)[: self.vocab_size]
        return oracles.product_kernel(rows[None])[0]

      end = marginal(grid[0])
      nats = _kl(end, self.start())
      for t, s in zip(grid[:-1], grid[1:]):
        truth = oracles.product_kernel(self.token_posterior(clean, s, t))
        model = self.reverse(s, t)
        here = marginal(t)
        nats += sum(
          weight * _kl(q, p)
          for weight, q, p in zip(here, truth, model)
          if weight > 0
        )
      total.append(nats)
    return np.array(total)


def _kl(q, p):
  counts = q > 0
  if np.any(p[counts] == 0):
    return np.inf
  return float(np.sum(q[counts] * np.log(q[counts] / p[counts])))


def of(noise, betas, vocab_size, length, seed=0, jump=False, **how):
  """A chain of uniform or absorbing noise with a random network.

  Args:
    noise: 'uniform' or 'absorbing'.
    betas: `[T]`.
    vocab_size: data symbols.
    length: tokens.
    seed: of the network.
    jump: see `Chain`, also for what follows.
    **how: decoder, direct.
  """
  num_states = vocab_size + (noise == 'absorbing')
  prior = np.full(num_states, 1 / num_states)
  if noise == 'absorbing':
    prior = np.eye(num_states)[-1]
  matrices = relaxing(betas, prior)
  return of_matrices(matrices, prior, vocab_size, length, seed, jump, **how)


def relaxing(betas, prior):
  """Steps that replace a token with probability beta, `[T, n, n]`."""
  return np.array(
    [(1 - b) * np.eye(len(prior)) + b * prior[None] for b in betas]
  )


def of_matrices(matrices, prior, vocab_size, length, seed=0, jump=False, **how):
  """A chain of these matrices with a random network; see `Chain`."""
  num_states = len(prior)
  rng = np.random.default_rng(seed)
  shape = (len(matrices) + 1, num_states**length, length)
  x_hat = rng.dirichlet(np.ones(vocab_size), size=shape)
  return Chain(matrices, prior, vocab_size, length, x_hat, jump, **how)
