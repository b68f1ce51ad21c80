"""DiffusionBERT: the original's numbers, and a bound that is one."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import systems
from sedd_jax.losses import variational
from sedd_jax.models import tensor_files
from sedd_jax.noise_schedules import Spindle
from sedd_jax.samplers import ancestral
from sedd_jax.systems.bounds import step_bound
from sedd_jax.systems.diffusion_bert import SpindleChain
from tests import golden_numbers, oracles
from tests.models import bert_reference
from tests.systems import small

PROCESS = sj.processes.Absorbing(vocab_size=2)


def test_golden_losses_of_the_code(x64):
  """Its KL by the base transition and the true token's schedule."""
  golden = golden_numbers.load('diffusion_bert')
  process = sj.processes.Absorbing(vocab_size=11)
  x_0 = jnp.asarray(golden['x0'])
  for name, shares in (
    ('code', golden['code_alphabar'].astype(float)),
    ('abs', np.tile((1 - np.arange(9) / 8)[:, None, None], (1, 2, 6))),
  ):
    found = [
      variational.base_transition_nats(
        jnp.asarray(golden['x0_logits'][t], float),
        jnp.asarray(golden['xt'][t]),
        x_0,
        -np.log(shares[t]),
        1 / (8 - t),
        process=process,
      ).sum()
      for t in range(8)
    ]
    np.testing.assert_allclose(found, golden[f'loss_base_{name}'], rtol=1e-5)


def test_golden_weighted_cross_entropy(x64):
  """What is trained on: cross entropy by the true token's rate."""
  golden = golden_numbers.load('diffusion_bert')
  process = sj.processes.Absorbing(vocab_size=11)
  with np.errstate(divide='ignore'):
    levels = -np.log(np.maximum(golden['paper_alphabar_clipped'], 0))
  x_0 = jnp.asarray(golden['x0'])
  for t in range(1, 9):
    nats = variational.step_nats(
      jnp.asarray(golden['x0_logits'][t - 1][..., :11], float),
      jnp.asarray(golden['xt'][t - 1]),
      x_0,
      levels[t - 1],
      levels[t],
      process=process,
    )
    np.testing.assert_allclose(
      nats,
      golden['recommended_weighted_ce'][t - 1],
      rtol=1e-6,
      atol=1e-9,
    )


def spindle(measure, **how):
  """With these measures and a mean of 1 in place of those of a text."""
  how = {'num_steps': 4, 'strength': 0.3, **how}
  made = Spindle(np.ones(len(measure)), **how)
  return jax.tree.unflatten(
    jax.tree.structure(made), [np.asarray(measure, float), 1.0]
  )


def test_the_strict_bound_of_one_token_is_its_entropy(x64):
  """And that by the true token's rate is below it: no bound."""
  law, deviations = np.array([0.3, 0.7]), np.array([0.4, -0.6])
  schedule = spindle(1 / (1 - deviations), num_steps=8)
  chain = SpindleChain(PROCESS, schedule)
  shares = np.stack([schedule.alpha_bars(t) for t in range(9)])
  x_0, x_t = jnp.array([[0], [1]]), jnp.array([[2], [2]])
  strict = loose = 0.0
  for t in range(1, 9):
    hidden = law * (1 - shares[t])
    logits = jnp.tile(jnp.log(hidden / hidden.sum()), (2, 1, 1))
    step = jnp.full(2, t)
    strict += hidden @ chain.step_nats(logits, x_t, x_0, step)[:, 0]
    loose += hidden @ chain.loss_nats(logits, x_t, x_0, step)[:, 0]
  entropy = -law @ np.log(law)
  assert strict == pytest.approx(entropy, rel=1e-9)
  assert loose == pytest.approx(0.601413, abs=1e-6) and loose < entropy


class Enumerated:
  """Two tokens of two symbols, by plain numpy."""

  def __init__(self, schedule, seed=0):
    self.steps = schedule.num_steps
    with jax.enable_x64(True):
      self.shares = np.stack(
        [np.asarray(schedule.alpha_bars(t)) for t in range(self.steps + 1)]
      )
    self.states = oracles.states(3, 2)
    self.data = oracles.states(2, 2)
    rng = np.random.default_rng(seed)
    self.x_hat = rng.dirichlet(np.ones(2), size=(self.steps + 1, 9, 2))

  def rate(self, s, t):
    masked = 1 - self.shares[t]
    rate = (self.shares[s] - self.shares[t]) / np.where(masked > 0, masked, 1)
    # What cannot be masked at t is revealed at last.
    return np.where(masked > 0, rate, float(s == 0))

  def pairs(self, grid):
    """The steps (s, t), from the last to the first."""
    grid = range(self.steps, -1, -1) if grid is None else grid
    return list(zip(grid[1:], grid[:-1]))

  def reverse(self, s, t):
    """p(x_s | x_t) on sequences."""
    rows = np.zeros((9, 2, 3))
    for place, (state, position) in enumerate(
      itertools.product(range(9), range(2))
    ):
      del place
      symbol = self.states[state, position]
      if symbol < 2:
        rows[state, position, symbol] = 1
      else:
        revealed = self.x_hat[t, state, position] * self.rate(s, t)
        rows[state, position] = [*revealed, 1 - revealed.sum()]
    return oracles.product_kernel(rows)

  def law(self, grid=None):
    probs = np.eye(9)[8]
    for s, t in self.pairs(grid):
      probs = probs @ self.reverse(s, t)
    return probs[oracles.index_of(self.data, 3)]

  def bound(self, grid=None):
    """E over x_1..x_T of sum_t KL(q(x_s | x_t, x_0) || p), by sequence."""
    total = np.zeros(4)
    for index, x_0 in enumerate(self.data):
      for s, t in self.pairs(grid):
        p = self.reverse(s, t)
        for state, x_t in enumerate(self.states):
          if not all(a in (b, 2) for a, b in zip(x_t, x_0)):
            continue
          keep = self.shares[t][x_0]
          weight = np.prod(np.where(x_t == 2, 1 - keep, keep))
          if weight == 0:
            continue
          own = self.rate(s, t)[x_0]
          rows = np.zeros((1, 2, 3))
          for position in range(2):
            if x_t[position] < 2:
              rows[0, position, x_t[position]] = 1
            else:
              rows[0, position, x_0[position]] = own[position]
              rows[0, position, 2] = 1 - own[position]
          q = oracles.product_kernel(rows)[0]
          some = q > 0
          total[index] += weight * np.sum(
            q[some] * np.log(q[some] / p[state][some])
          )
    return total


def logits_fn_of(space):
  table = jnp.asarray(space.x_hat, jnp.float32)

  def logits_fn(x_t, step):
    return jnp.log(table[step, x_t[:, 0] * 3 + x_t[:, 1]])

  return logits_fn


# Shares of the first symbol are clipped to 0 from step 2 on, of the other one
# to 1 before step 4.
CLIPPED = spindle([3.0, 0.4], strength=1.0)


def test_shares_are_clipped_at_both_ends():
  first, second = Enumerated(CLIPPED).shares.T
  assert 0 < first[1] < 1 and np.all(first[2:] == 0)
  assert np.all(second[:4] == 1) and second[4] == 0


@pytest.mark.parametrize('strides', [None, 3])
@pytest.mark.parametrize(
  'schedule', [spindle([1.5, 0.7]), CLIPPED], ids=['free', 'clipped']
)
def test_the_bound_is_the_enumerated_one_and_above_the_law(schedule, strides):
  space = Enumerated(schedule)
  grid = None if strides is None else [4, 3, 1, 0]
  exact = space.bound(grid)
  assert np.all(exact + np.log(space.law(grid)) > -1e-12)
  repeats = 3000
  x_0 = jnp.asarray(np.repeat(space.data, repeats, axis=0), jnp.int32)
  chain = SpindleChain(PROCESS, schedule, strides=strides)
  if strides:
    assert chain.grid()[::-1].tolist() == grid
  result = jax.jit(
    lambda key, x_0: step_bound.bound(
      logits_fn_of(space),
      key,
      x_0,
      chain=chain,
      index=jnp.arange(len(x_0)),
      points=3,
    )
  )(jax.random.key(0), x_0)
  nats = np.asarray(result.nats, float).reshape(4, repeats)
  error = nats.std(axis=1) / np.sqrt(repeats)
  # Where shares are clipped nothing may be left to chance.
  assert np.all(np.abs(nats.mean(axis=1) - exact) < 4.5 * error + 1e-5)
  assert np.all(error < 0.05)


def test_the_floor_keeps_the_loose_figure_finite(x64):
  """Where the sentence's rate is clipped to 0 or 1 and p's is not."""
  schedule = spindle([3.0, 0.4], strength=1.0, mean='sentence')
  x_0 = jnp.asarray(list(itertools.product((0, 1), repeat=3)))
  x_t = jnp.full_like(x_0, 2)
  logits = jnp.log(jnp.tile(jnp.array([0.3, 0.7]), (*x_0.shape, 1)))

  def nats(floor):
    chain = SpindleChain(PROCESS, schedule, protocol='loose', floor=floor)
    steps = [
      chain.step_nats(logits, x_t, x_0, jnp.full(len(x_0), step))
      for step in range(1, 5)
    ]
    return np.asarray(steps)

  kept, small_floor, none = nats(1e-2), nats(1e-6), nats(0.0)
  assert np.all(np.isfinite(kept)) and np.all(np.isfinite(small_floor))
  assert not np.all(np.isfinite(none))
  # What would be infinite costs the more, the lower the floor.
  lost = ~np.isfinite(none)
  assert np.all(small_floor[lost] > kept[lost])


@pytest.mark.parametrize('num_steps', [8, 1000])
def test_the_loose_figure_is_strict_where_all_tokens_are_alike(num_steps, x64):
  """With strength 0 there is one schedule, whatever the mean."""
  chains = [
    SpindleChain(
      PROCESS,
      spindle([1.5, 0.7], num_steps=num_steps, strength=0.0, mean=mean),
      protocol=protocol,
    )
    for mean, protocol in (('corpus', 'bound'), ('sentence', 'loose'))
  ]
  step = jnp.arange(1, num_steps + 1)
  x_0 = jnp.zeros((num_steps, 1), jnp.int32)
  logits = jnp.log(jnp.tile(jnp.array([0.3, 0.7]), (num_steps, 1, 1)))
  strict, loose = (
    chain.step_nats(logits, jnp.full_like(x_0, 2), x_0, step)
    for chain in chains
  )
  np.testing.assert_allclose(loose, strict, rtol=1e-9, atol=1e-12)
  # And half of the masks are left halfway.
  reverse = chains[1].reverse_fn()
  stays = [
    reverse(logits[:1], jnp.array([[2]]), jnp.array(t - 1), jnp.array(t))[
      0, 0, -1
    ]
    for t in range(num_steps, num_steps // 2, -max(1, num_steps // 8))
  ]
  expected = [
    1 - 1 / t for t in range(num_steps, num_steps // 2, -max(1, num_steps // 8))
  ]
  np.testing.assert_allclose(stays, expected, rtol=1e-9)


def test_revealing_has_a_gradient_at_the_last_step():
  masked, x_0 = jnp.array([[True]]), jnp.array([[0]])
  slope = jax.grad(
    lambda x: variational.reveal_nats(
      x, masked, x_0, jnp.ones(2)[None, None]
    ).sum()
  )(jnp.zeros((1, 1, 2)))
  np.testing.assert_allclose(slope, [[[-0.5, 0.5]]])


@pytest.mark.parametrize(
  'schedule, steps, grid',
  [
    (spindle([1.5, 0.7]), 4, None),
    (spindle([1.5, 0.7]), 3, [4, 3, 1, 0]),
    (CLIPPED, 4, None),
  ],
  ids=['free', 'strided', 'clipped'],
)
def test_draws_have_the_enumerated_law(schedule, steps, grid):
  space = Enumerated(schedule)
  chain = SpindleChain(PROCESS, schedule)
  tokens = jax.jit(
    lambda key: ancestral.sample(
      logits_fn_of(space),
      key,
      (20_000, 2),
      process=PROCESS,
      schedule=schedule,
      steps=steps,
      reverse_fn=chain.reverse_fn(),
    )
  )(jax.random.key(0))
  counts = np.bincount(oracles.index_of(np.asarray(tokens), 2), minlength=4)
  law = space.law(grid)
  assert law.sum() == pytest.approx(1)
  assert oracles.chi_square_pvalue(counts, law) > 1e-4
  wrong = Enumerated(schedule, seed=1).law(grid)
  assert oracles.chi_square_pvalue(counts, 0.85 * law + 0.15 * wrong) < 1e-4


def test_reveal_probs_is_the_rate_of_each_candidate():
  x_hat = jnp.array([0.2, 0.5, 0.3])
  s, t = jnp.array([1.0, 0.9, 0.6]), jnp.array([1.0, 0.5, 0.6])
  probs = sj.processes.reveal_probs(x_hat, s, t)
  np.testing.assert_allclose(probs, [0, 0.5 * 0.8, 0, 0.2 + 0.1 + 0.3])
  # The data has no masks.
  last = sj.processes.reveal_probs(x_hat, jnp.ones(3), t, True)
  np.testing.assert_allclose(last, [0.2, 0.5, 0.3, 0], atol=1e-7)


def system_of(**changes):
  fields = {'schedule__name': 'spindle', **changes}
  return small.made(small.in_steps('diffusion_bert', 6, **fields))


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'schedule__args__mean': 'sentence', 'eval__protocol': 'loose'},
    {'schedule__args__form': 'code', 'eval__protocol': 'diffusion_bert'},
  ],
)
def test_loss_bound_and_samples(changes):
  system = system_of(**changes)
  params, aux = small.started(system)
  batch = small.batch_of(16)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  bound = jax.jit(system.bound)(params, aux, jax.random.key(1), batch)
  assert np.isfinite(loss.nats).all() and np.isfinite(bound.nats).all()
  assert loss.terms.keys() == {'weighted_cross_entropy'}
  # It is no bound: no bits a character are reported of it.
  assert system.bits_of is None
  request = systems.Request(
    length=6, seeds=range(3), method='ancestral', steps=3
  )
  samples = system.sample(params, aux, request)
  assert samples.calls == 3 and samples.tokens.max() < small.VOCAB


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    (dict(process__name='uniform'), 'diffusion_bert: use absorbing'),
    (dict(schedule__name='step_betas'), 'diffusion_bert: use spindle'),
    (dict(schedule__args__mean='sentence'), 'has no strict bound'),
    (dict(eval__protocol='loose'), "is for schedule.args.mean='sentence'"),
    (dict(eval__protocol='mdlm'), 'use bound, loose, diffusion_bert'),
    (
      dict(eval__protocol='diffusion_bert', eval__chain_steps=3),
      'eval.chain_steps=3: .* is of all steps of the chain',
    ),
    (dict(system__args__floor=0.7), r'floor must be in \(0, 0.5\)'),
    (dict(system__args__hybrid=-1.0), 'hybrid must be at least 0'),
    (dict(system__name='d3pm'), 'use system diffusion_bert'),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(ValueError, match=told):
    system_of(**changes)


def with_bert(tokens=20, name='diffusion_bert', **changes):
  """A system with the golden BERT's sizes, on so many tokens."""
  config = small.in_steps(
    name,
    4,
    **{
      'schedule__name': 'spindle',
      'model__name': 'bert',
      'model__hidden_size': 16,
      'model__num_layers': 2,
      'model__args__mlp_size': 40,
      'model__args__max_positions': 24,
      **changes,
    },
  )
  info = types.SimpleNamespace(
    vocab_size=tokens, token_counts=lambda: np.ones(tokens)
  )
  return systems.make(config, info)


@pytest.fixture(scope='module')
def bert_folder(tmp_path_factory):
  golden = golden_numbers.load('bert')
  folder = tmp_path_factory.mktemp('bert')
  tensors = {k[3:]: golden[k] for k in golden if k.startswith('sd/')}
  tensor_files.write_safetensors(folder / 'model.safetensors', tensors)
  (folder / 'config.json').write_text('{"num_attention_heads": 2}')
  (folder / 'vocab.txt').write_text('\n'.join(bert_reference.VOCABULARY))
  return folder


@pytest.mark.parametrize('time', ['none', 'layer', 'prefix'])
def test_weights_of_bert_start_a_system(bert_folder, time):
  system = with_bert(model__args__time=time)
  params = system.load_pretrained(bert_folder)
  wanted, aux = jax.jit(system.init)(jax.random.key(0))
  assert jax.tree.map(np.shape, params) == jax.tree.map(
    lambda leaf: leaf.shape, wanted
  )
  batch = {**small.batch_of(2), 'tokens': np.full((2, small.LENGTH), 7)}
  if time == 'layer':
    loss = jax.jit(system.loss)(params, aux, jax.random.key(1), batch)
    assert np.isfinite(loss.nats).all()


@pytest.mark.parametrize(
  'name,changes',
  [
    ('masked_diffusion', {'schedule__name': 'cosine'}),
    (
      'multinomial',
      {
        'process__name': 'uniform',
        'schedule__name': 'step_betas',
        'model__args__time': 'layer',
      },
    ),
  ],
)
def test_other_systems_begin_from_bert(bert_folder, name, changes):
  system = with_bert(name=name, **changes)
  params = system.load_pretrained(bert_folder)
  wanted, _ = jax.eval_shape(system.init, jax.random.key(0))
  assert jax.tree.map(np.shape, params) == jax.tree.map(
    lambda leaf: leaf.shape, wanted
  )


@pytest.mark.parametrize(
  'tokens,changes,message',
  [
    (19, {}, 'num_states = 21, the config makes it 20'),
    (20, {'model__args__mlp_size': None}, 'mlp_size = 40, .* makes it 64'),
    (20, {'model__hidden_size': 32}, 'hidden_size = 16, .* makes it 32'),
  ],
)
def test_weights_of_another_size(bert_folder, tokens, changes, message):
  with pytest.raises(ValueError, match=message):
    with_bert(tokens, **changes).load_pretrained(bert_folder)


def test_what_tells_the_time():
  for changes, message in (
    ({'system__args__timed': True}, "model.args.time='layer' or 'prefix'"),
    ({'model__args__max_positions': 7}, 'data.seq_len 6 is more than the 5'),
  ):
    with pytest.raises(ValueError, match=message):
      with_bert(**changes)
  with pytest.raises(ValueError, match='sampling.length 9 is more than the 8'):
    with_bert(model__args__max_positions=10, sampling__length=9)
  uniform = {'process__name': 'uniform', 'schedule__name': 'geometric'}
  with pytest.raises(ValueError, match='depend on its level'):
    small.made(small.config_of(model__name='bert', **uniform))
  with pytest.raises(ValueError, match='not causal'):
    small.made(
      small.config_of(
        system__name='autoregressive',
        model__name='bert',
        sampling__method='autoregressive',
      )
    )
