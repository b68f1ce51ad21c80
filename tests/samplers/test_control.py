"""Control by gradients: the reference's numbers, and what it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.noise_schedules import GaussianSteps
from sedd_jax.processes import Gaussian
from sedd_jax.samplers import control, gaussian
from tests import golden_numbers
from tests.two_words import TwoWords

GOLDEN = golden_numbers.load('diffusion_lm')


def classifier(x, step):
  del step
  logits = x.reshape(len(x), -1) @ GOLDEN['ctrl_C']
  log_probs = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(log_probs, GOLDEN['ctrl_y'][:, None], 1)[:, 0]


@pytest.mark.parametrize('fluency', [0.0005, 0.01, 0.1])
def test_golden_control(fluency):
  adjust = control.controlled([classifier], fluency=fluency)
  std, step = jnp.full((3, 1, 1), 0.37), jnp.full(3, 10)
  found = adjust(GOLDEN['p_sample'], GOLDEN['ctrl_mean'], std, step)
  expected = GOLDEN[f'ctrl_out_coef{fluency}_lr0.1']
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_golden_control_without_noise():
  adjust = control.controlled([classifier], fluency=0.01)
  std, step = jnp.zeros((3, 1, 1)), jnp.full(3, 10)
  found = adjust(GOLDEN['p_sample'], GOLDEN['ctrl_mean'], std, step)
  expected = GOLDEN['ctrl_out_sigma0']
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_adagrad_and_its_reset():
  def nats(x):
    return jnp.sum(jnp.square(x), axis=(1, 2))

  x = np.array([[[2.0, -0.5, 0.3]]], np.float32)
  found = control.descended(nats, x, steps=2, learning_rate=0.1)
  np.testing.assert_allclose(found, x - 0.2 * np.sign(x), rtol=1e-5)
  squares, y = np.zeros_like(x), x.copy()
  for _ in range(3):
    squares += (2 * y) ** 2
    y = y - 0.1 * 2 * y / np.sqrt(squares)
  found = control.descended(nats, x, learning_rate=0.1, reset=False)
  np.testing.assert_allclose(found, y, rtol=1e-5)


def test_rows_are_apart_controls_add_up_and_the_last_steps_are_left():
  def first(x, step):
    return jnp.sum(x, axis=(1, 2)) * step

  adjust = control.controlled([first, classifier], fluency=0.0, until=5)
  x, mean = GOLDEN['p_sample'], GOLDEN['ctrl_mean']
  std = jnp.ones((1, 1, 1))
  step = jnp.array([4, 5, 200])
  found = np.asarray(adjust(x, mean, std, step))
  np.testing.assert_array_equal(found[0], x[0])
  assert np.all(found[1] != x[1])
  # At 200 the other control is nothing beside the first.
  np.testing.assert_allclose(found[2], x[2] - 0.3, atol=1e-5)


def test_a_pinned_place_is_where_predictions_go():
  process = Gaussian.of(GaussianSteps(num_steps=20))

  def predict(x, step):
    del step
    return 0.9 * x

  target = jnp.full((2, 3, 4), 1.5)
  where = jnp.array([[False, True, False], [False, False, True]])
  wanted = control.pinned(predict, target, where)
  adjust = control.controlled(
    [wanted], fluency=0.0, steps=20, learning_rate=0.2, until=0
  )
  how = {'process': process, 'steps': 10}
  plain, found = (
    gaussian.sample(predict, jax.random.key(0), (2, 3, 4), adjust_fn=fn, **how)
    for fn in (None, adjust)
  )
  gap = np.abs(0.9 * np.asarray(found) - 1.5)
  assert gap[np.asarray(where)].max() < 0.25
  kept = ~np.asarray(where)
  # Of two programs, whose rounding may differ.
  np.testing.assert_allclose(found[kept], plain[kept], rtol=1e-5)


@pytest.mark.parametrize(
  'how', [{'fluency': -1.0}, {'learning_rate': 0.0}, {'steps': -1}]
)
def test_mistakes(how):
  with pytest.raises(ValueError, match='fluency and steps must be at least 0'):
    control.controlled([classifier], **how)


def drawn_of_two_words(guide=None, rows=400, **how):
  """How often the exact chain draws word 1 of share 0.3."""
  toy = TwoWords(Gaussian.of(GaussianSteps(num_steps=40)), 0.3)
  adjust = None
  if guide is not None:
    adjust = control.controlled([lambda x, t: guide(toy, x, t)], **how)

  @jax.jit
  def draw(key):
    return gaussian.sample(
      toy.predict,
      key,
      (rows, 1, 1),
      process=toy.process,
      variance='small',
      adjust_fn=adjust,
    )

  return float(np.mean(np.asarray(draw(jax.random.key(0))) > 0))


def wanting(word, strength=1.0):
  return lambda toy, x, t: -strength * toy.log_probs(x, t)[:, word]


def test_an_exact_classifier_makes_its_label_frequent():
  plain = drawn_of_two_words()
  assert abs(plain - 0.3) < 4 * np.sqrt(0.21 / 400)
  how = {'fluency': 0.01, 'until': 0}
  assert drawn_of_two_words(wanting(1), **how) == 1
  assert drawn_of_two_words(wanting(0), **how) == 0
  # Adagrad keeps the size of the gradient of all but its first step: with one
  # small step the frequency lies between.
  some = drawn_of_two_words(wanting(1), steps=1, learning_rate=0.01, **how)
  assert plain + 0.05 < some < 0.9
  # Held to the mean of the step, the wish counts less.
  held = drawn_of_two_words(wanting(1), fluency=1e4, until=0)
  assert held < 0.6
