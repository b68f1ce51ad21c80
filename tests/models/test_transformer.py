"""The network against the original's numbers, and what it promises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax import losses, noise_schedules, processes
from sedd_jax.models import (
  DiffusionTransformer,
  embeddings,
  heads,
  pretrained,
  transformer,
)
from tests import golden_numbers

GRAPHS = ('absorb', 'uniform')
SMALL = dict(hidden_size=768, num_layers=12, num_heads=12, cond_size=128)
MEDIUM = dict(hidden_size=1024, num_layers=24, num_heads=16, cond_size=128)


def network_of(sizes, **fields):
  kept = ('num_states', 'hidden_size', 'num_layers', 'num_heads', 'cond_size')
  return DiffusionTransformer(**{key: sizes[key] for key in kept}, **fields)


def golden_network(graph, **fields):
  numbers = golden_numbers.load(f'sedd_model_{graph}')
  state = {
    name.removeprefix('sd/'): value
    for name, value in numbers.items()
    if name.startswith('sd/')
  }
  params, sizes = pretrained.from_state_dict(state)
  return network_of(sizes, **fields), params, numbers


def applied(model, params, *args, **kwargs):
  return jax.jit(functools.partial(model.apply, **kwargs))(
    {'params': params}, *args
  )


def is_block(module, _):
  return isinstance(module, transformer.Block)


def close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def keys_of(indices, seed=5):
  key = jax.random.key(seed)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(indices))


@pytest.fixture(scope='module')
def tiny():
  """A network whose parameters are all random: at init most would be zero."""
  model = DiffusionTransformer(
    num_states=9, hidden_size=16, num_layers=2, num_heads=2, cond_size=8
  )
  params = jax.jit(model.init)(
    jax.random.key(0), jnp.zeros((1, 4), jnp.int32), jnp.ones(1)
  )['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params
  )
  x_t = jnp.asarray(rng.integers(0, 9, (4, 6)), jnp.int32)
  sigma = jnp.asarray([1e-3, 0.3, 1.0, 6.9], jnp.float32)
  return model, params, x_t, sigma


# The original's numbers.


@pytest.mark.parametrize('scan_layers', [True, False])
@pytest.mark.parametrize('graph', GRAPHS)
def test_forward_equals_the_originals(graph, scan_layers):
  model, params, numbers = golden_network(graph, scan_layers=scan_layers)
  x_t, sigma = numbers['in/indices'], numbers['in/sigma']
  logits, state = applied(
    model, params, x_t, sigma, capture_intermediates=is_block
  )
  ((blocks, _),) = state['intermediates']['blocks']['__call__']
  for k in range(model.num_layers):
    close(blocks[k], numbers[f'act/block{k}'])
  close(logits, numbers['act/logits_raw'])
  scale = bool(numbers['cfg/scale_by_sigma'])
  assert scale == (graph == 'absorb')
  log_score = heads.log_score(logits, x_t, sigma, scale)
  close(log_score, numbers['out/log_score'])


def test_forward_is_float32_where_x64_is_enabled(x64):
  model, params, numbers = golden_network('absorb', dropout=0.0)
  sigma = numbers['in/sigma'].astype(np.float64)
  x_t = numbers['in/indices'].astype(np.int64)
  logits = applied(model, params, x_t, sigma, None, keys_of(range(4)))
  assert logits.dtype == jnp.float32
  close(logits, numbers['act/logits_raw'])
  log_score = heads.log_score(logits, jnp.asarray(x_t), sigma, True)
  assert log_score.dtype == jnp.float64
  close(log_score, numbers['out/log_score'])


@pytest.mark.parametrize('graph', GRAPHS)
def test_embeddings_equal_the_originals(graph):
  model, params, numbers = golden_network(graph)
  bound = model.bind({'params': params})
  sigma = jnp.asarray(numbers['in/sigma'])
  close(
    transformer.embeddings.sinusoidal(sigma, 256),
    numbers['act/timestep_embedding'],
  )
  close(bound.sigma_embed(sigma), numbers['act/sigma_map'])
  close(bound.embed(numbers['in/indices']), numbers['act/embed'])


@pytest.mark.parametrize('graph', GRAPHS)
def test_loss_and_gradients_equal_the_originals(graph):
  model, params, numbers = golden_network(graph, remat=True)
  if graph == 'absorb':
    process, schedule = (
      processes.Absorbing(vocab_size=27),
      noise_schedules.LogLinear(eps=1e-3),
    )
  else:
    process, schedule = (
      processes.Uniform(vocab_size=27),
      noise_schedules.Geometric(sigma_min=1e-4, sigma_max=20.0),
    )
  t, x_t, x_0 = (jnp.asarray(numbers[f'train/{n}']) for n in ('t', 'xt', 'x0'))
  sigma = schedule.total(t)

  def loss_fn(params):
    logits = applied(model, params, x_t, sigma)
    log_score = heads.log_score(logits, x_t, sigma, graph == 'absorb')
    each = losses.score_entropy(
      log_score, x_t, x_0, sigma[:, None], process=process
    )
    loss = schedule.rate(t) * jnp.sum(each, axis=-1)
    return jnp.mean(loss), (log_score, loss)

  (_, (log_score, loss)), grads = jax.jit(
    jax.value_and_grad(loss_fn, has_aux=True)
  )(params)
  close(log_score, numbers['train/log_score'])
  np.testing.assert_allclose(loss, numbers['train/loss'], rtol=1e-4)

  # The gradients are a tree like the parameters: the same map renames them.
  grads = pretrained.to_state_dict(grads, model.num_heads)
  norms = dict(zip(numbers['train/grad_names'], numbers['train/grad_l2']))
  sums = dict(zip(numbers['train/grad_names'], numbers['train/grad_sum']))
  assert set(norms) == set(grads) - {'rotary_emb.inv_freq'}
  for name, norm in norms.items():
    ours = grads[name].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=1e-4)
    # A sum cancels: it is good to the norm times the root of its terms.
    slack = 1e-4 * norm * np.sqrt(ours.size)
    np.testing.assert_allclose(ours.sum(), sums[name], atol=slack)
    full = numbers.get(f'train/grad/{name}')
    if full is not None:
      assert np.linalg.norm(ours - full) < 1e-4 * norm


@pytest.mark.parametrize(
  'sizes, count', [(SMALL, 169_627_218), (MEDIUM, 424_477_010)]
)
def test_published_parameter_counts(sizes, count):
  model = DiffusionTransformer(num_states=50_258, **sizes)
  params = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32), jnp.ones(1)
  )['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
  assert dtypes == {jnp.dtype('float32')}


# Initialisation.


def test_init_is_pytorchs_with_closed_gates():
  model = DiffusionTransformer(
    num_states=50, hidden_size=64, num_layers=2, num_heads=2, cond_size=32
  )
  x_t, sigma = jnp.full((2, 5), 49), jnp.array([0.1, 2.0])
  params = jax.jit(model.init)(jax.random.key(3), x_t, sigma)['params']
  fan_in = {
    'embed.embedding': 64,
    'sigma_embed.inner.kernel': 256,
    'sigma_embed.inner.bias': 256,
    'sigma_embed.outer.kernel': 32,
    'blocks.qkv.kernel': 64,
    'blocks.attention_out.kernel': 64,
    'blocks.mlp_in.kernel': 64,
    'blocks.mlp_in.bias': 64,
    'blocks.mlp_out.kernel': 256,
    'blocks.mlp_out.bias': 256,
  }
  for place, inputs in fan_in.items():
    values = params
    for key in place.split('.'):
      values = values[key]
    values, bound = np.asarray(values), 1 / np.sqrt(inputs)
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.9 * bound
    # A uniform distribution, not merely a bounded one.
    if values.size > 1000:
      assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    if place.startswith('blocks'):
      assert not np.array_equal(values[0], values[1])
  for place in ('blocks', 'head'):
    for leaf in jax.tree.leaves(params[place]['modulation']):
      assert not np.any(leaf)
  kernel, bias = heads.kernel_and_bias(params)
  assert not np.any(kernel) and not np.any(bias)
  assert np.all(params['blocks']['norm_1']['weight'] == 1)

  # So the first loss is that of equal probabilities.
  logits = applied(model, params, x_t, sigma)
  score = np.exp(heads.log_score(logits, x_t, sigma, True))[..., :49]
  expected = 1 / (49 * np.expm1([0.1, 2.0]))
  np.testing.assert_allclose(
    score, np.broadcast_to(expected[:, None, None], score.shape), rtol=1e-5
  )


def test_embeddings_may_have_a_row_in_common_at_the_start():
  tables = []
  for mean in (0.0, 2.0):
    embed = embeddings.TokenEmbedding(50, 64, mean)
    params = embed.init(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))
    tables.append(np.asarray(params['params']['embedding']))
  common = tables[1] - tables[0]
  np.testing.assert_allclose(common, common[:1].repeat(50, 0), atol=1e-7)
  assert 0.9 * 2 / 8 < np.abs(common).max() <= 2 / 8 + 1e-6
  assert not np.allclose(common[0], 2 * tables[0][0])
  model = DiffusionTransformer(
    num_states=5,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    cond_size=8,
    embedding_mean=2.0,
  )
  x_t = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(3), x_t, jnp.ones(1))['params']
  table = np.asarray(params['embed']['embedding'])
  assert np.abs(table.mean(0)).max() > 1 / 4


# One tree, however it is computed.


def test_scanned_unrolled_and_recomputed_agree(tiny):
  model, params, x_t, sigma = tiny
  valid = jnp.arange(6)[None] < jnp.array([[6], [4], [5], [1]])
  keys = keys_of(range(4))

  def run(**fields):
    variant = dataclasses.replace(model, dropout=0.3, **fields)

    def loss(params):
      logits = variant.apply({'params': params}, x_t, sigma, valid, keys)
      return jnp.mean(jnp.square(logits)), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return logits, grads

  logits, grads = run(scan_layers=True)
  assert min(jnp.abs(leaf).max() for leaf in jax.tree.leaves(grads)) > 0
  for fields in (
    dict(scan_layers=False),
    dict(scan_layers=True, remat=True),
    dict(scan_layers=False, remat=True),
  ):
    other_logits, other_grads = run(**fields)
    np.testing.assert_allclose(other_logits, logits, rtol=1e-5, atol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      other_grads,
      grads,
    )


def test_layout_of_parameters_does_not_depend_on_fields(tiny):
  model, *_ = tiny
  x_t, sigma = jnp.zeros((1, 4), jnp.int32), jnp.ones(1)

  def init(**fields):
    variant = dataclasses.replace(model, **fields)
    return jax.jit(variant.init)(jax.random.key(0), x_t, sigma)

  plain = init()
  for fields in (dict(scan_layers=False), dict(remat=True, dtype='bfloat16')):
    jax.tree.map(np.testing.assert_array_equal, init(**fields), plain)


def test_unrolled_layers_leave_no_loop_in_the_program(tiny):
  model, params, x_t, sigma = tiny

  def loops(scan_layers):
    variant = dataclasses.replace(model, scan_layers=scan_layers)
    grad = jax.grad(
      lambda params: variant.apply({'params': params}, x_t, sigma).sum()
    )
    return jax.jit(grad).lower(params).as_text().count('stablehlo.while')

  assert loops(False) == 0
  assert loops(True) > 0


@pytest.mark.slow
def test_rematerialisation_saves_memory():
  model = DiffusionTransformer(
    num_states=9, hidden_size=32, num_layers=6, num_heads=2, cond_size=8
  )
  x_t, sigma = jnp.zeros((4, 64), jnp.int32), jnp.ones(4)
  params = jax.eval_shape(model.init, jax.random.key(0), x_t, sigma)

  def temporaries(remat):
    variant = dataclasses.replace(model, remat=remat)
    grad = jax.grad(lambda params: variant.apply(params, x_t, sigma).sum())
    compiled = jax.jit(grad).lower(params).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(True) < 0.5 * temporaries(False)


def test_second_call_does_not_compile(tiny):
  model, params, x_t, sigma = tiny
  variant = dataclasses.replace(model, dropout=0.1)
  apply = jax.jit(
    lambda params, x_t, sigma, valid, keys: variant.apply(
      {'params': params}, x_t, sigma, valid, keys
    )
  )
  apply(params, x_t, sigma, x_t > 0, keys_of(range(4)))
  apply(params, x_t + 1, sigma * 2, x_t > 1, keys_of(range(4, 8)))
  assert apply._cache_size() == 1


# Padding.


def test_invalid_positions_are_not_seen(tiny):
  model, params, x_t, sigma = tiny
  valid = np.ones((4, 6), bool)
  valid[0, 4:] = valid[1, 0] = valid[2, 2:4] = False
  elsewhere = jnp.where(valid, x_t, (x_t + 3) % 9)
  logits, other, unmasked = (
    np.asarray(applied(model, params, x, sigma, v))
    for x, v in ((x_t, valid), (elsewhere, valid), (elsewhere, None))
  )
  np.testing.assert_allclose(other[valid], logits[valid], rtol=1e-6)
  assert np.abs(unmasked - logits)[0, :4].max() > 1e-3


def test_padding_at_the_end_equals_a_shorter_sequence(tiny):
  model, params, x_t, sigma = tiny
  valid = jnp.broadcast_to(jnp.arange(6)[None] < 4, (4, 6))
  padded = applied(model, params, x_t, sigma, valid)
  short = applied(model, params, x_t[:, :4], sigma)
  np.testing.assert_allclose(padded[:, :4], short, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_row_without_valid_positions_is_finite(tiny, dtype):
  model, params, x_t, sigma = tiny
  model = dataclasses.replace(model, dtype=dtype)
  valid = jnp.ones((4, 6), bool).at[1].set(False)

  def loss(params, valid):
    logits = applied(model, params, x_t, sigma, valid)
    return jnp.sum(jnp.square(logits)), logits

  (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    params, valid
  )
  assert np.all(np.isfinite(logits))
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
  full = applied(model, params, x_t, sigma)
  rest = np.array([0, 2, 3])
  np.testing.assert_allclose(logits[rest], full[rest], rtol=1e-4, atol=1e-4)


# Precision.


def test_bfloat16_is_close_and_ends_in_float32(tiny):
  model, params, x_t, sigma = tiny
  half = dataclasses.replace(model, dtype='bfloat16')
  exact = np.asarray(applied(model, params, x_t, sigma))
  logits, state = applied(
    half, params, x_t, sigma, capture_intermediates=is_block
  )
  ((blocks, _),) = state['intermediates']['blocks']['__call__']
  assert blocks.dtype == logits.dtype == jnp.float32
  error = np.linalg.norm(logits - exact) / np.linalg.norm(exact)
  assert 1e-4 < error < 2e-2
  features = applied(half, params, x_t, sigma, method='features')
  assert features.dtype == jnp.bfloat16


def test_products_of_the_head_are_not_rounded_to_bfloat16():
  rng = np.random.default_rng(0)
  features, kernel = (
    jnp.asarray(rng.normal(size=shape), 'bfloat16')
    for shape in ((2, 3, 16), (16, 9))
  )
  logits = heads.logits(features, kernel.astype('float32'), jnp.zeros(9))
  exact = np.asarray(features, np.float64) @ np.asarray(kernel, np.float64)
  np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)


def test_conditioning_is_not_computed_in_fewer_digits(tiny):
  """Where float32 products default to TF32 or bfloat16, these do not."""
  model, params, x_t, sigma = tiny
  half = dataclasses.replace(model, dtype='bfloat16')
  text = jax.jit(half.apply).lower({'params': params}, x_t, sigma).as_text()
  # Two layers on sigma, the modulation of the scanned block, that of the head.
  assert text.count('precision = [HIGHEST, HIGHEST]') == 4


def test_features_and_kernel_are_the_logits(tiny):
  model, params, x_t, sigma = tiny
  features = applied(model, params, x_t, sigma, method='features')
  kernel, bias = heads.kernel_and_bias(params)
  np.testing.assert_allclose(
    features @ kernel + bias[None, None],
    applied(model, params, x_t, sigma),
    rtol=1e-5,
    atol=1e-5,
  )


def test_small_noise_levels_are_told_apart_in_bfloat16(tiny):
  model, params, x_t, _ = tiny
  half = dataclasses.replace(model, dtype='bfloat16')
  # 0.3000 and 0.3005 are one number in bfloat16.
  levels = jnp.array([0.3, 0.3005])
  cond = half.bind({'params': params}).sigma_embed(levels)
  assert cond.dtype == jnp.float32
  assert jnp.abs(cond[0] - cond[1]).max() > 1e-5


# Dropout.


@pytest.mark.slow
def test_dropout_of_an_example_does_not_depend_on_the_batch(tiny):
  model, params, x_t, sigma = tiny
  model = dataclasses.replace(model, dropout=0.5)

  def logits(rows, indices):
    rows = jnp.asarray(rows)
    return np.asarray(
      applied(model, params, x_t[rows], sigma[rows], None, keys_of(indices))
    )

  whole = logits([0, 1, 2, 3], [0, 1, 2, 3])
  close(logits([2, 0], [2, 0]), whole[[2, 0]])
  # The same example under another index draws other noise.
  assert np.abs(logits([2], [7]) - whole[[2]]).max() > 1e-2
  twice = logits([1, 1], [1, 4])
  assert np.abs(twice[0] - twice[1]).max() > 1e-2


def test_no_keys_and_no_rate_are_no_dropout(tiny):
  model, params, x_t, sigma = tiny
  plain = applied(model, params, x_t, sigma)
  keyed = applied(model, params, x_t, sigma, None, keys_of(range(4)))
  np.testing.assert_array_equal(keyed, plain)
  dropping = dataclasses.replace(model, dropout=0.5)
  np.testing.assert_array_equal(applied(dropping, params, x_t, sigma), plain)


def test_layers_and_branches_draw_different_noise():
  block = transformer.Block(hidden_size=8, num_heads=2, dropout=0.5)
  h = jax.random.normal(jax.random.key(1), (1, 3, 8))
  cond = jnp.ones((1, 4))
  params = block.init(jax.random.key(0), h, jnp.int32(0), cond)
  modulation = params['params']['modulation']['linear']
  apply = jax.jit(block.apply)
  noise = {}
  for layer in (0, 1):
    for branch, gate in ((0, 2), (1, 5)):
      # One gate open, and the branch's output zero only where it is dropped.
      modulation['bias'] = jnp.zeros(48).at[8 * gate : 8 * gate + 8].set(1.0)
      out, _ = apply(params, h, jnp.int32(layer), cond, None, keys_of([0]))
      noise[layer, branch] = tuple(np.asarray(out == h).ravel().tolist())
  assert len(set(noise.values())) == 4


# Errors, before anything is compiled.


@pytest.mark.parametrize(
  'fields, arguments, message',
  [
    (dict(num_heads=3), {}, 'multiple of 2 \\* num_heads .* 16 with 3'),
    (dict(attention='cudn'), {}, "unknown attention 'cudn'; nearest: cudnn"),
    (dict(attention='cudnn'), {}, 'cudnn.* CUDA GPU'),
    ({}, dict(x_t=jnp.zeros((2, 4))), 'x_t must be integer tokens'),
    ({}, dict(sigma=jnp.ones((2, 1))), 'sigma \\(2, 1\\)'),
    ({}, dict(valid=jnp.ones((2, 1), bool)), 'valid \\(2, 1\\)'),
    ({}, dict(dropout_keys=jax.random.key(0)), 'one typed key for each row'),
  ],
)
def test_errors_name_the_offender(fields, arguments, message):
  model = DiffusionTransformer(
    **dict(num_states=9, hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
    | fields
  )
  arguments = {
    'x_t': jnp.zeros((2, 4), jnp.int32),
    'sigma': jnp.ones(2),
  } | arguments
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: model.init(jax.random.key(0), **arguments))
