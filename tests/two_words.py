"""Texts of one of two words under Gaussian noise, of which all is known."""

import jax
import jax.numpy as jnp
import numpy as np


class TwoWords:
  """Words 0 and 1 with the vectors -1 and 1 of width 1, one a text.

  x_0 has the noise of step 1 on it, so that x_t of a word is Gaussian with
  mean signal * vector and variance signal^2 std_1^2 + std_t^2.

  Attributes:
    process: the noise.
    share: p(word 1).
    vectors: `[2]`.
  """

  def __init__(self, process, share):
    self.process = process
    self.share = share
    self.vectors = np.array([-1.0, 1.0], np.float32)
    signal, std = (np.asarray(process.tables[n]) for n in ('signal', 'std'))
    self.signal = signal
    self.variance = signal**2 * std[1] ** 2 + std**2
    self.prior = np.log(share / (1 - share))

  def log_odds(self, x_t, step):
    """log p(word 1 | x_t) / p(word 0 | x_t), `[batch]`, x_t `[batch, 1, 1]`."""
    slope = jnp.asarray(2 * self.signal / self.variance, x_t.dtype)[step]
    return slope * x_t[:, 0, 0] + self.prior

  def log_probs(self, x_t, step):
    """log p(word | x_t), `[batch, 2]`."""
    odds = self.log_odds(x_t, step)
    return jnp.stack([jax.nn.log_sigmoid(-odds), jax.nn.log_sigmoid(odds)], -1)

  def predict(self, x_t, step):
    """E[x_0 | x_t], of x_t's shape."""
    signal, first = self.signal, float(self.process.tables['std'][1])
    gain = jnp.asarray(signal * first**2 / self.variance, x_t.dtype)[step]
    p = jax.nn.sigmoid(self.log_odds(x_t, step))
    found = 0.0
    for vector, share in zip(self.vectors, (1 - p, p)):
      at = jnp.asarray(signal, x_t.dtype)[step] * vector
      found += share * (vector + gain * (x_t[:, 0, 0] - at))
    return found[:, None, None]

  def entropy(self):
    """H(word | x_t) in nats, the mean over the steps 0 to T, by quadrature."""
    found = []
    for signal, variance in zip(self.signal, self.variance):
      std = np.sqrt(variance)
      x = np.linspace(-signal - 9 * std, signal + 9 * std, 4001)
      p = [
        share * np.exp(-((x - signal * vector) ** 2) / (2 * variance))
        for vector, share in zip(self.vectors, (1 - self.share, self.share))
      ]
      p = np.array(p) / np.sqrt(2 * np.pi * variance)
      post = p / np.maximum(p.sum(0), 1e-300)
      nats = -np.sum(p * np.log(np.maximum(post, 1e-300)), axis=0)
      found.append(np.trapezoid(nats, x))
    return float(np.mean(found))
