"""Control of vectors by gradients (arXiv 2205.14217, section 5).

After each step back some steps of Adagrad make a state likelier under
controls, functions that give nats, and keep it near the mean of the step:

  sum of controls(x) + fluency * sum of (mean - x)^2 / std

It is no draw from a law of x given the control: no drift of a reversed
diffusion, and no noise in it.  The released code divides by the standard
deviation where the log density of the step has 2 variances, and by 1 where the
deviation is 0.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from sedd_jax.samplers import gaussian

# (x [batch, length, size], step [batch]) -> nats [batch].
Control = Callable[[Array, Array], Array]

_EPS = 1e-10


def descended(
  nats_fn: Callable[[Array], Array],
  x: Array,
  *,
  steps: int = 3,
  learning_rate: float = 0.1,
  reset: bool = True,
) -> Array:
  """x after steps of Adagrad (Duchi et al., 2011), each row by its own.

  Args:
    nats_fn: `(x [batch, length, size]) -> nats [batch]`, a row's of its own.
    x: `[batch, length, size]`.
    steps: their number.
    learning_rate: of each.
    reset: forget the squares after every step, as the released code does,
      which makes the optimizer anew each time: an entry then moves by
      learning_rate in the direction of its sign.  False: Adagrad.

  Returns:
    `[batch, length, size]`.

  >>> def nats(x):
  ...   return jnp.sum(x**2, axis=(1, 2))
  >>> x = jnp.ones((1, 1, 1))
  >>> [round(float(descended(nats, x, reset=r)[0, 0, 0]), 3) for r in (1, 0)]
  [0.7, 0.78]
  """
  gradient = jax.grad(lambda x: jnp.sum(nats_fn(x)))

  def descend(_, state):
    x, squares = state
    g = gradient(x)
    squares = jnp.square(g) + (0 if reset else squares)
    return x - learning_rate * g / (jnp.sqrt(squares) + _EPS), squares

  # A loop, not written out: the networks of the controls are compiled once.
  return jax.lax.fori_loop(0, steps, descend, (x, jnp.zeros_like(x)))[0]


def controlled(
  controls: Sequence[Control],
  *,
  fluency: float = 0.01,
  steps: int = 3,
  learning_rate: float = 0.1,
  reset: bool = True,
  until: int = 10,
) -> gaussian.Adjust:
  """What `gaussian.sample` takes as `adjust_fn`.

  Args:
    controls: their nats are added: several controls are composed.
    fluency: weight of the distance to the step's mean.
    steps: of Adagrad after each step back.
    learning_rate: of each.
    reset: see `descended`.
    until: states at steps of the chain below it are left as they are.

  Returns:
    `(x, mean, std, step) -> x`; the step, of the whole chain, is that of x,
    which is also what the controls are told.

  Raises:
    ValueError: for numbers out of range.
  """
  if fluency < 0 or not learning_rate > 0 or steps < 0:
    raise ValueError(
      'fluency and steps must be at least 0 and learning_rate above 0, not '
      f'{fluency}, {steps} and {learning_rate}'
    )

  def adjust(x: Array, mean: Array, std: Array, step: Array) -> Array:
    divisor = jnp.where(std > 0, std, 1)

    def nats(x):
      near = jnp.sum(jnp.square(mean - x) / divisor, axis=(1, 2))
      return sum(control(x, step) for control in controls) + fluency * near

    moved = descended(
      nats, x, steps=steps, learning_rate=learning_rate, reset=reset
    )
    return jnp.where((step >= until)[:, None, None], moved, x)

  return adjust


def pinned(
  predict_fn: Callable[[Array, Array], Array], vectors: Array, where: Array
) -> Control:
  """A control without a classifier: predictions of x_0 at some places.

  The end of a text at a place makes it as long as that.

  Args:
    predict_fn: `(x_t [batch, length, size], step [batch]) -> x̂_0`.
    vectors: `[batch, length, size]`, what is wanted where `where`.
    where: `[batch, length]` bool.

  Returns:
    The sum of squared distances there, as a control.
  """

  def nats(x, step):
    gap = jnp.square(predict_fn(x, step) - vectors)
    return jnp.sum(jnp.where(where[..., None], gap, 0), axis=(1, 2))

  return nats
