"""Texts block by block: exact for a law with a short memory."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import systems
from sedd_jax.samplers import unmasking
from sedd_jax.systems import base
from sedd_jax.systems.common import blocks, requests
from tests import oracles
from tests.systems import small

WINDOW, LENGTH, MASK = 3, 5, 2
PROCESS = sj.processes.Absorbing(vocab_size=2)
SCHEDULE = sj.noise_schedules.LogLinear()
FIRST = np.array([0.25, 0.75])
# With FIRST as its stationary law.
MOVES = np.array([[0.1, 0.9], [0.3, 0.7]])


def law_of_text(length):
  """Of a stationary chain of symbols, `[2 ** length]`."""
  texts = oracles.states(2, length)
  steps = MOVES[texts[:, :-1], texts[:, 1:]].prod(-1)
  return FIRST[texts[:, 0]] * steps


def exact_logits():
  """log p(x_i | what is seen) of `WINDOW` tokens of the chain."""
  texts, law = oracles.states(2, WINDOW), law_of_text(WINDOW)
  table = np.full((3**WINDOW, WINDOW, 2), 0.5)
  for place, seen in enumerate(itertools.product(range(3), repeat=WINDOW)):
    fits = np.all((texts == seen) | (np.array(seen) == MASK), axis=-1)
    for i in range(WINDOW):
      weights = np.array([law[fits & (texts[:, i] == v)].sum() for v in (0, 1)])
      table[place, i] = weights / weights.sum()
  logs = jnp.log(jnp.asarray(np.maximum(table, 1e-30), jnp.float32))
  powers = 3 ** np.arange(WINDOW)[::-1]
  return lambda x_t, t: logs[jnp.sum(x_t * powers[None], axis=-1)]


def sampled(request):
  @jax.jit
  def of_batch(keys, states):
    drawn = unmasking.sample(
      exact_logits(),
      keys,
      states['tokens'].shape,
      process=PROCESS,
      schedule=SCHEDULE,
      return_path=request.record_path,
      **requests.of_loop(states),
    )
    return drawn, WINDOW

  return blocks.sampled(of_batch, request, process=PROCESS, window=WINDOW)


def request_of(count, block, **changes):
  return base.Request(
    length=LENGTH, seeds=range(count), options={'block': block}, **changes
  )


@pytest.mark.parametrize('block, turns', [(1, 3), (2, 2)])
def test_a_chain_of_symbols_is_continued_exactly(block, turns):
  samples = sampled(request_of(20_000, block))
  assert samples.tokens.shape == (20_000, LENGTH)
  assert samples.calls == turns * WINDOW
  counts = np.bincount(oracles.index_of(samples.tokens, 2), minlength=32)
  law = law_of_text(LENGTH)
  assert law.sum() == pytest.approx(1)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  apart = np.kron(law_of_text(WINDOW), law_of_text(LENGTH - WINDOW))
  assert oracles.chi_square_pvalue(counts, apart) < 1e-4


def test_the_path_rows_and_what_is_given():
  tokens = np.tile(np.array([[0, 0, 0, 0, 1]], np.int32), (3, 1))
  given = np.zeros((3, LENGTH), bool)
  given[:, [0, 4]] = True
  request = request_of(
    3, 2, tokens=tokens, given=given, batch_size=3, record_path=True
  )
  samples = sampled(request)
  # The start, and three states of each of two views.
  assert samples.path.shape == (7, 3, LENGTH) and samples.calls == 6
  np.testing.assert_array_equal(samples.path[-1], samples.tokens)
  assert np.all(samples.path[:, :, 0] == 0) and np.all(samples.path[:, :, 4])
  # What is drawn stays, and the second view begins where the first has ended.
  assert np.all(samples.path[3][:, :3] != MASK)
  assert np.all(samples.path[3][:, 3] == MASK)
  alone = sampled(
    dataclasses.replace(
      request, seeds=[2], tokens=tokens[:1], given=given[:1], batch_size=1
    )
  )
  np.testing.assert_array_equal(samples.tokens[2], alone.tokens[0])


def test_blocks_draw_apart():
  """The keys of two blocks differ: their tokens are not copies."""
  samples = sampled(request_of(200, 1))
  assert len({tuple(row) for row in samples.tokens[:, 3:].tolist()}) == 4


@pytest.mark.parametrize(
  'fields',
  [
    {'system.name': 'sedd'},
    {
      'system.name': 'masked_diffusion',
      'sampling.method': 'ancestral',
      'sampling.cached': True,
    },
  ],
)
def test_a_system_samples_beyond_its_length(fields):
  config = small.example_of({**fields, 'sampling.block': 4})
  system = small.made(config)
  params, aux = small.started(system)
  options = {'block': 4}
  if config.sampling.cached:
    options['cached'] = True
  request = systems.Request(
    length=13,
    seeds=[3, 4, 5],
    method=config.sampling.method,
    steps=3,
    batch_size=2,
    options=options,
  )
  together = system.sample(params, aux, request)
  assert together.tokens.shape == (3, 13)
  assert together.tokens.min() >= 0 and together.tokens.max() < small.VOCAB
  # Three views of 6 tokens, and 3 steps and one more for each.
  assert 3 <= together.calls <= 12
  if not config.sampling.cached:
    assert together.calls == 12
  alone = system.sample(params, aux, dataclasses.replace(request, seeds=[5]))
  np.testing.assert_array_equal(together.tokens[2], alone.tokens[0])
  # A text that fits is drawn at once, as without the option.
  short = dataclasses.replace(request, length=6)
  plain = dataclasses.replace(short, options={**options, 'block': 0})
  np.testing.assert_array_equal(
    system.sample(params, aux, short).tokens,
    system.sample(params, aux, plain).tokens,
  )
  for block in (6, -1):
    wrong = dataclasses.replace(request, options={'block': block})
    with pytest.raises(ValueError, match=f'below the 6 tokens .* not {block}'):
      system.check_request(wrong)


def test_a_network_with_so_many_positions():
  """Its places are enough for what it sees at once."""
  fields = {
    'system__name': 'masked_diffusion',
    'sampling__method': 'ancestral',
    'model__name': 'bert',
    'model__args__max_positions': 9,
    'sampling__length': 40,
  }
  with pytest.raises(ValueError, match='sampling.length 40 is more than'):
    small.made(small.config_of(**fields))
  assert small.made(small.config_of(**fields, sampling__block=2)).sample
