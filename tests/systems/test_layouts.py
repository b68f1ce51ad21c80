"""Whole systems train alike on any layout.

Of devices, of the state over them, of a batch in micro-batches.
tests/training/test_parallel.py goes through all of them with a small system.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.systems.bounds import step_history
from sedd_jax.training import optimizer, parallel, state, step
from tests.systems import small


def sedd():
  system = small.made(small.config_of(model__dropout=0.3))
  return system, *small.started(system)


def multinomial():
  """Past its warm-up, so that what was seen says which steps are drawn."""
  system = small.made(small.in_steps('multinomial', 4, process__name='uniform'))
  params, aux = small.started(system)
  history = step_history.StepHistory(
    jnp.array([1.0, 100.0, 4.0, 900.0]), jnp.full(4, 20.0)
  )
  return system, params, {**aux, 'history': history}


@pytest.mark.slow
@pytest.mark.parametrize('made', [sedd, multinomial])
def test_training_is_the_same_on_any_layout(made):
  system, params, aux = made()
  updates = optimizer.make('sgd', learning_rate=1e-3)

  def trained(name, devices, accumulation):
    layout = parallel.make(name, jax.devices()[:devices])
    train_step = layout.compile_step(
      functools.partial(
        step.train_step,
        system=system,
        optimizer=updates,
        reduction='sequence',
        ema_decay=0.9,
        axis=layout.axis,
        accumulation=accumulation,
      )
    )
    current = layout.place(state.create(system.init, updates, 0, params, aux))
    found = []
    for number in range(3):
      current, metrics = train_step(
        current, layout.put(small.batch_of(8, number))
      )
      found.append(float(metrics['loss']))
    return found, layout.whole((current.params, current.aux))

  one, expected = trained('pmap', 1, 1)
  if made is multinomial:
    moved = expected[1]['history'].squares - aux['history'].squares
    assert np.any(moved != 0)
  for layout in (('pmap', 8, 1), ('fsdp', 4, 2)):
    several, other = trained(*layout)
    np.testing.assert_allclose(several, one, rtol=1e-5)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      other,
      expected,
    )
