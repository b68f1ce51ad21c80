"""Exact answers on spaces small enough to enumerate, in float64 numpy.

A space is all sequences of `length` symbols out of `num_states`; a law over it
is a vector in the order of `states`.
"""

import itertools

import numpy as np
import scipy.linalg
import scipy.stats


def rate_matrix(name, num_states):
  """Row-stochastic generator Q, Q[i, j] the rate from i to j."""
  if name == 'uniform':
    return np.full((num_states, num_states), 1 / num_states) - np.eye(
      num_states
    )
  if name == 'absorbing_uniform':
    # The share of the mask that the example has.
    share = 0.3
    prior = np.append(
      np.full(num_states - 1, (1 - share) / (num_states - 1)), share
    )
    return np.tile(prior, (num_states, 1)) - np.eye(num_states)
  if name != 'absorbing':
    raise ValueError(f'no rate matrix of {name!r} here: write it down')
  matrix = -np.eye(num_states)
  matrix[:, -1] += 1
  return matrix


def kernel(name, num_states, sigma):
  """q(x_sigma = j | x_0 = i) as a matrix exponential."""
  return scipy.linalg.expm(sigma * rate_matrix(name, num_states))


def states(num_states, length):
  """`[num_states ** length, length]`, all sequences."""
  return np.array(list(itertools.product(range(num_states), repeat=length)))


def index_of(sequences, num_states):
  """Places of sequences `[..., length]` in `states`."""
  weights = num_states ** np.arange(sequences.shape[-1])[::-1]
  return sequences @ weights


def joint_kernel(token_kernel, length):
  """The kernel of `length` independent tokens on the space of sequences."""
  joint = np.ones((1, 1))
  for _ in range(length):
    joint = np.kron(joint, token_kernel)
  return joint


def embed(data_law, vocab_size, num_states, length):
  """A law over data sequences as a law over sequences of states."""
  law = np.zeros(num_states**length)
  law[index_of(states(vocab_size, length), num_states)] = data_law
  return law


def true_log_score(law, num_states, length):
  """log p(y) / p(x) for every x and every y differing in one token.

  Args:
    law: `[num_states ** length]`, p.
    num_states: symbols.
    length: tokens.

  Returns:
    `[num_states ** length, length, num_states]`, own entries 0; where p(x) is 0
    the row is 0, where p(y) alone is 0 the entry is -1e3.
  """
  space = states(num_states, length)
  score = np.zeros((len(space), length, num_states))
  for position in range(length):
    for symbol in range(num_states):
      y = space.copy()
      y[:, position] = symbol
      p_y = law[index_of(y, num_states)]
      with np.errstate(divide='ignore', invalid='ignore'):
        ratio = np.log(p_y) - np.log(law)
      ratio = np.where(law > 0, np.maximum(ratio, -1e3), 0)
      score[:, position, symbol] = ratio
  own = np.eye(num_states, dtype=bool)[space]
  return np.where(own, 0, score)


def generator(rates, num_states, length):
  """The generator on sequences whose tokens jump one at a time.

  Args:
    rates: `[num_states ** length, length, num_states]`, rates out of each
      sequence; own entries are not read.
    num_states: symbols.
    length: tokens.

  Returns:
    `[num_states ** length] * 2`, rows summing to 0.
  """
  space = states(num_states, length)
  count = len(space)
  matrix = np.zeros((count, count))
  for position in range(length):
    for symbol in range(num_states):
      y = space.copy()
      y[:, position] = symbol
      away = space[:, position] != symbol
      rows = np.arange(count)[away]
      matrix[rows, index_of(y, num_states)[away]] += rates[
        rows, position, symbol
      ]
  return matrix - np.diag(matrix.sum(axis=1))


def product_kernel(token_probs):
  """The kernel on sequences of independent draws of each token.

  Args:
    token_probs: `[count, length, n]`, rows summing to 1.

  Returns:
    `[count, n ** length]`.
  """
  joint = np.ones((len(token_probs), 1))
  for position in range(token_probs.shape[1]):
    rows = token_probs[:, position]
    joint = (joint[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
  return joint


def gauss_legendre(low, high, nodes):
  """Places and weights of the quadrature on [low, high], `[nodes]` each."""
  x, w = np.polynomial.legendre.leggauss(nodes)
  half = (high - low) / 2
  return low + half * (x + 1), half * w


def chi_square_pvalue(counts, probs):
  """The p-value of counts under a law; impossible draws give 0.

  Args:
    counts: `[n]` how often each value came.
    probs: `[n]` its probability, not necessarily normalised.

  Returns:
    A p-value; 1 for a law with one possible value.
  """
  counts = np.asarray(counts, np.float64)
  probs = np.asarray(probs, np.float64)
  possible = probs > 0
  if counts[~possible].sum():
    return 0.0
  if possible.sum() == 1:
    return 1.0
  expected = probs[possible] / probs[possible].sum() * counts.sum()
  return scipy.stats.chisquare(counts[possible], expected).pvalue
