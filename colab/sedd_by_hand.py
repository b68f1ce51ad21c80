# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Score entropy by hand
#
# `sedd_jax` is also a set of pure functions for JAX code that is not its own.
# Here a network written in plain `jax.numpy` learns the ratios of a law over
# short sequences. The law can be enumerated, so that everything learned is held
# against the truth. The equations are those of
# [arXiv 2310.16834](https://arxiv.org/abs/2310.16834), with rows where the
# paper has columns. The package must be installed; `quickstart` shows how.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import sedd_jax as sj

SMALL = bool(os.environ.get('SEDD_JAX_NOTEBOOK_SMALL'))  # as in the tests
V, L = 5, 3  # symbols, and tokens of a sequence
STEPS = 2000 if SMALL else 10_000
BATCH = 256 if SMALL else 512
HIDDEN = 64 if SMALL else 128
DRAWS = 4_000 if SMALL else 40_000

# %% [markdown]
# ## A law
#
# Three tokens, each of which depends on the one before:
# $p_0(x) = \pi(x^1)\,P(x^1, x^2)\,P(x^2, x^3)$. A table of $5^3$ numbers.

# %%
first = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
step = 0.55 * np.roll(np.eye(V), 1, axis=1) + 0.2 * np.eye(V) + 0.25 / V
p_0 = np.einsum('a,ab,bc->abc', first, step, step)
print(f'{p_0.size} sequences of probability {p_0.min():.1g} to {p_0.max():.1g}')

# %% [markdown]
# ## Noise
#
# Each token for itself follows a Markov chain, $\frac{d p_t}{dt} = \sigma(t)\,
# p_t Q$ (eq. 1). Absorbing noise turns a token into the mask, and the mask
# stays: after a total noise $\bar\sigma(t) = \int_0^t \sigma$ a token is still
# clean with probability $e^{-\bar\sigma(t)}$. The schedule gives
# $\bar\sigma$ (`total`) and $\sigma$ (`rate`), the process the kernels
# $q(x_t \mid x_0)$, and from these the noisy law follows by a sum over all
# $x_0$:
# $$p_t(x) = \sum_{x_0} p_0(x_0) \prod_i q_t(x^i \mid x_0^i).$$

# %%
process = sj.processes.Absorbing(vocab_size=V)
schedule = sj.noise_schedules.LogLinear(eps=1e-3)
S = process.num_states  # the data's symbols, and the mask as the last state


def noisy_law(t):
  """p_t of all sequences of states, `[S, S, S]`."""
  kernel = process.forward(jnp.arange(V), 0.0, schedule.total(t))
  return np.einsum('abc,ai,bj,ck->ijk', p_0, kernel, kernel, kernel)


# %% [markdown]
# ## Ratios
#
# The chain runs backwards at the rates $\frac{p_t(y)}{p_t(x)}\, Q(y, x)$
# (eq. 3), for sequences $x$ and $y$ that differ in one token. These ratios, the
# *concrete score*, are all that has to be learned: $s_\theta(x, t)_y \approx
# p_t(y) / p_t(x)$. For each state, position and symbol, the truth:

# %%
states = np.indices((S,) * L).reshape(L, -1).T  # [S^L, L], in order


def true_log_score(t):
  """log p_t(y) / p_t(x), `[S^L, L, S]`."""
  law = noisy_law(t)
  here = law[tuple(states.T)]
  there = np.empty((len(states), L, S))
  for position in range(L):
    for symbol in range(S):
      y = states.copy()
      y[:, position] = symbol
      there[:, position, symbol] = law[tuple(y.T)]
  return np.log(there) - np.log(here)[:, None, None]


# %% [markdown]
# ## A network
#
# Any function `score_fn(x_t, sigma) -> log_score` with the shapes `[batch, L]`,
# `[batch]` and `[batch, L, S]` will do; here two hidden layers over all tokens
# at once. At a mask the true ratio is
# $\frac{1}{e^{\bar\sigma} - 1}\, p_0(x_0^i = y \mid \text{tokens seen})$: its
# large range in time is known, so the network need not learn it (appendix C.2).


# %%
def init(key):
  sizes = [(L * S + 1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, L * S)]
  keys = jax.random.split(key, len(sizes))
  return [
    (jax.random.normal(k, shape) / np.sqrt(shape[0]), jnp.zeros(shape[1]))
    for k, shape in zip(keys, sizes)
  ]


def log_score(params, x_t, sigma):
  tokens = jax.nn.one_hot(x_t, S).reshape(len(x_t), L * S)
  h = jnp.concatenate([tokens, jnp.exp(-sigma)[:, None]], axis=1)
  for weight, bias in params[:-1]:
    h = jax.nn.gelu(h @ weight + bias)
  weight, bias = params[-1]
  logits = (h @ weight + bias).reshape(len(x_t), L, S)
  return logits - jnp.log(jnp.expm1(sigma))[:, None, None]


# %% [markdown]
# ## The loss
#
# Score entropy (eq. 5) is zero where scores are ratios, and positive elsewhere.
# The denoising form (theorem 3.4) puts the known ratios of
# $q_t(\cdot \mid x_0)$ in place of those of $p_t$ and has the same minimiser:
# $$\mathbb E_{t, x_0, x_t}\; \sigma(t) \sum_y Q(y, x_t) \Big( s_y -
# \tfrac{q_t(y \mid x_0)}{q_t(x_t \mid x_0)} \log s_y + \text{const} \Big).$$
# `losses.dwdse` draws $t$ and $x_t$ and gives this for each sequence, in nats;
# over $t$ it integrates to a bound on $-\log p(x_0)$ (theorem 3.6). All of the
# training is a scan over keys.

# %%
optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))
table = jnp.log(jnp.asarray(p_0.ravel()))


def draw_data(key):
  index = jax.random.categorical(key, table, shape=(BATCH,))
  return jnp.stack(jnp.unravel_index(index, p_0.shape), axis=-1)


def loss_fn(params, key, x_0):
  def score_fn(x_t, sigma):
    return log_score(params, x_t, sigma)

  nats = sj.losses.dwdse(score_fn, key, x_0, process=process, schedule=schedule)
  return nats.mean()


@jax.jit
def train(params, keys):
  def update(carry, key):
    params, opt_state = carry
    data_key, loss_key = jax.random.split(key)
    loss, grads = jax.value_and_grad(loss_fn)(
      params, loss_key, draw_data(data_key)
    )
    updates, opt_state = optimizer.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), loss

  carry = params, optimizer.init(params)
  (params, _), losses = jax.lax.scan(update, carry, keys)
  return params, losses


init_key, train_key, sample_key = jax.random.split(jax.random.key(0), 3)
params, losses = train(init(init_key), jax.random.split(train_key, STEPS))

# %% [markdown]
# The loss is a bound but for the ends of the integral, so that on average it
# comes down to the entropy of $p_0$ and no further:

# %%
entropy = -np.sum(p_0 * np.log(p_0))
plt.plot(np.convolve(losses, np.ones(50) / 50, 'valid'), label='loss')
plt.axhline(entropy, color='black', lw=1, label='entropy of $p_0$')
plt.xlabel('step')
plt.ylabel('nats a sequence')
plt.legend()
plt.show()

# %% [markdown]
# ## Learned ratios against true ones
#
# Each point is a state with masks, one of its masked positions and a symbol to
# put there.

# %%
correlations = {}
for t in (0.2, 0.5, 0.8):
  sigma = jnp.full(len(states), schedule.total(t))
  learned = np.asarray(log_score(params, jnp.asarray(states), sigma))
  masked = states == S - 1
  x = true_log_score(t)[masked][:, :V].ravel()
  y = learned[masked][:, :V].ravel()
  correlations[t] = np.corrcoef(x, y)[0, 1]
  plt.plot(x, y, '.', ms=4, label=f't = {t}')
ends = np.array(plt.xlim())
plt.plot(ends, ends, color='black', lw=1)
plt.xlabel('log of the true ratio')
plt.ylabel('log of the learned ratio')
plt.legend()
plt.show()
print('correlations:', {t: round(float(c), 4) for t, c in correlations.items()})

# %% [markdown]
# ## Samples
#
# `samplers.sample` starts from masks and reverses the chain by Tweedie steps
# (theorem 4.2), which for every token turn the scores into a law of its next
# state. The frequencies of the sequences are held against $p_0$; the
# total variation is half the sum of the differences.


# %%
@jax.jit
def draw(params, key):
  return sj.samplers.sample(
    lambda x_t, sigma: log_score(params, x_t, sigma),
    key,
    (DRAWS, L),
    process=process,
    schedule=schedule,
    steps=64,
  )


drawn = np.asarray(draw(params, sample_key))
counts = np.zeros_like(p_0)
np.add.at(counts, tuple(drawn.T), 1)
frequency = counts / DRAWS

ranked = np.argsort(-p_0.ravel())
plt.bar(range(p_0.size), frequency.ravel()[ranked], color='0.7', label='drawn')
plt.step(range(p_0.size), p_0.ravel()[ranked], where='mid', label='$p_0$')
plt.xlabel('sequence, by probability')
plt.ylabel('probability')
plt.legend()
plt.show()

marginals = p_0.sum((1, 2)), p_0.sum((0, 2)), p_0.sum((0, 1))
alone = np.einsum('a,b,c->abc', *marginals)
exact = np.random.default_rng(0).multinomial(DRAWS, p_0.ravel()) / DRAWS
variation = {
  'samples': 0.5 * np.abs(frequency - p_0).sum(),
  'as many exact draws': 0.5 * np.abs(exact - p_0.ravel()).sum(),
  'tokens drawn apart': 0.5 * np.abs(alone - p_0).sum(),
}
print('total variation from p_0:')
for name, value in variation.items():
  print(f'  {name}: {value:.3f}')
