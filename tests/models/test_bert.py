"""BERT's encoder: the transformers library's numbers, and the time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.models import Bert, bert_weights, heads, tensor_files
from tests import golden_numbers
from tests.models import bert_reference as reference

CONFIG = {'num_attention_heads': 2}
SMALL = {'num_states': 12, 'hidden_size': 8, 'num_layers': 2, 'num_heads': 2}


@pytest.fixture(scope='module')
def golden():
  return golden_numbers.load('bert')


@pytest.fixture(scope='module')
def tensors(golden):
  return {k[3:]: golden[k] for k in golden if k.startswith('sd/')}


def ours(ids):
  """Tokens with our mask, and where there is text."""
  x_t = np.where(ids == reference.MASK, len(reference.VOCABULARY), ids)
  valid = np.arange(ids.shape[1]) < np.array(reference.LENGTHS)[:, None]
  return jnp.asarray(x_t, jnp.int32), jnp.asarray(valid)


def require_equal(params, sizes, ids, expected):
  """Hidden states and logits; padding changes nothing."""
  network, (x_t, valid) = Bert(**sizes), ours(ids)
  args = {'params': params}, x_t, jnp.zeros(2), valid
  hidden = jax.jit(lambda *a: network.apply(*a, method='_trunk'))(*args, None)
  logits = jax.jit(network.apply)(*args)
  known = len(reference.VOCABULARY)
  for i, length in enumerate(reference.LENGTHS):
    for found, name in ((hidden, 'hidden'), (logits[..., :known], 'logits')):
      want = expected[f'{name}/{i}']
      want = (want[-1] if name == 'hidden' else want)[1:-1]
      np.testing.assert_allclose(
        found[i, :length], want, rtol=1e-4, atol=1e-5, err_msg=name
      )
  # Our mask is what the vocabulary's [MASK] was.
  np.testing.assert_allclose(
    logits[..., -1], logits[..., reference.MASK], rtol=1e-5, atol=1e-5
  )


def test_logits_equal_those_of_transformers(golden, tensors):
  params, sizes = bert_weights.from_state_dict(
    tensors, CONFIG, reference.VOCABULARY
  )
  require_equal(params, sizes, golden['ids'], golden)


def test_folders_that_transformers_writes(tmp_path):
  """The live library, another seed."""
  pytest.importorskip('transformers')
  model = reference.folder(tmp_path / 'bert', seed=1)
  ids = reference.texts(seed=1)
  params, sizes = bert_weights.load_bert(tmp_path / 'bert')
  require_equal(params, sizes, ids, reference.computed(model, ids))


def written(folder, tensors, config=CONFIG, vocabulary=reference.VOCABULARY):
  folder.mkdir()
  tensor_files.write_safetensors(folder / 'model.safetensors', tensors)
  (folder / 'config.json').write_text(json.dumps(config), 'utf-8')
  (folder / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n', 'utf-8')
  return folder


def test_names_and_tensors_of_the_released_file(tmp_path, tensors):
  """gamma and beta, the pretraining's other head, one matrix less."""
  released = {
    name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace(
      'LayerNorm.bias', 'LayerNorm.beta'
    ): tensor
    for name, tensor in tensors.items()
    if 'decoder' not in name
  }
  released['bert.pooler.dense.weight'] = np.zeros((16, 16), np.float32)
  released['cls.seq_relationship.bias'] = np.zeros(2, np.float32)
  folder = written(tmp_path / 'bert', released)
  expected, sizes = bert_weights.from_state_dict(
    tensors, CONFIG, reference.VOCABULARY
  )
  found, _ = bert_weights.load_bert(folder)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  wanted = jax.eval_shape(
    Bert(**sizes).init, jax.random.key(0), jnp.zeros((1, 2), int), jnp.zeros(1)
  )['params']
  assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, wanted)


LAYER = 'bert.encoder.layer.1.'
BAD = [
  ({LAYER + 'output.dense.bias': None}, {}, 'no tensor .*layer.1.output'),
  ({LAYER + 'output.dense.bias': np.zeros(3)}, {}, r'has shape \(3,\)'),
  ({'bert.encoder.norm': np.zeros(3)}, {}, "unknown tensor 'bert.encoder.norm"),
  ({'cls.predictions.decoder.bias': np.zeros(20)}, {}, 'is another than'),
  ({}, {'num_attention_heads': 3}, 'num_attention_heads = 3'),
  ({}, {'num_attention_heads': None}, 'num_attention_heads = None'),
  ({}, {'hidden_size': 32}, 'hidden_size = 32, the tensors 16'),
  ({}, {'hidden_act': 'relu'}, "hidden_act = 'relu'; known here is 'gelu'"),
]


@pytest.mark.parametrize('changes,fields,message', BAD)
def test_weights_that_do_not_fit(tensors, changes, fields, message):
  changed = {**tensors, **changes}
  changed = {k: v for k, v in changed.items() if v is not None}
  with pytest.raises(tensor_files.PretrainedError, match=message):
    bert_weights.from_state_dict(
      changed, {**CONFIG, **fields}, reference.VOCABULARY
    )


def test_folders_that_do_not_fit(tmp_path, tensors):
  words = reference.VOCABULARY
  without_mask = ['x' if word == '[MASK]' else word for word in words]
  for name, vocabulary, message in (
    ('short', words[:-1], 'vocab.txt has 19 tokens, the tensors 20'),
    ('maskless', without_mask, r'no token \[MASK\]'),
  ):
    folder = written(tmp_path / name, tensors, vocabulary=vocabulary)
    with pytest.raises(tensor_files.PretrainedError, match=message) as caught:
      bert_weights.load_bert(folder)
    assert str(folder) in str(caught.value)
  (folder / 'vocab.txt').unlink()
  with pytest.raises(tensor_files.PretrainedError, match='holds no vocab.txt'):
    bert_weights.load_bert(folder)
  with pytest.raises(tensor_files.PretrainedError, match='does not exist'):
    bert_weights.load_bert(tmp_path / 'nowhere')


def started(time, seed=0):
  """A small network, its parameters as at the start, and tokens."""
  network = Bert(**SMALL, time=time, max_positions=10)
  x_t = jnp.arange(12).reshape(2, 6)
  params = jax.jit(network.init)(jax.random.key(seed), x_t, jnp.zeros(2))
  return network, params['params'], x_t


def randomised(params):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32), params
  )


def test_the_time_is_told_by_layers_or_a_token():
  logits = {}
  for time in ('none', 'layer', 'prefix'):
    network, params, x_t = started(time)
    apply = jax.jit(network.apply)

    def at(params, *times, apply=apply, x_t=x_t):
      return apply({'params': params}, x_t, jnp.array(times))

    # A network that was just begun, or loaded, does not hear it.
    np.testing.assert_array_equal(at(params, 1.0, 2.0), at(params, 5.0, 3.0))
    logits[time] = at(randomised(params), 1.0, 2.0)
    later = at(randomised(params), 1.0, 900.0)
    np.testing.assert_array_equal(later[0], logits[time][0])
    heard = np.abs(later[1] - logits[time][1]).max()
    assert heard == 0 if time == 'none' else heard > 1e-3
    assert network.timed == (time != 'none')
    assert logits[time].shape == (2, 6, 12)
  assert np.abs(logits['prefix'] - logits['layer']).max() > 1e-3


@pytest.mark.parametrize('time', ['none', 'prefix'])
def test_padding_equals_a_shorter_text(time):
  network, params, x_t = started(time)
  params = {'params': randomised(params)}
  apply = jax.jit(network.apply)
  short = apply(params, x_t[:, :4], jnp.ones(2))
  valid = jnp.arange(6)[None] < jnp.full((2, 1), 4)
  long = apply(params, x_t, jnp.ones(2), valid)
  np.testing.assert_allclose(long[:, :4], short, rtol=1e-5, atol=1e-6)


def test_features_and_the_embedding_are_the_logits():
  network, params, x_t = started('layer')
  params = randomised(params)
  args = {'params': params}, x_t, jnp.ones(2)
  features = jax.jit(lambda *a: network.apply(*a, method='features'))(*args)
  np.testing.assert_allclose(
    heads.logits(features, *heads.kernel_and_bias(params)),
    jax.jit(network.apply)(*args),
    rtol=1e-5,
    atol=1e-6,
  )


def test_gradients_however_it_is_computed():
  """Scanned, written out, with remat; in bfloat16 near."""
  _, params, x_t = started('layer')
  params = randomised(params)
  valid = jnp.arange(6)[None] < jnp.array([[6], [4]])

  def gradient(**how):
    network = Bert(**SMALL, time='layer', max_positions=10, **how)

    def total(params):
      logits = network.apply({'params': params}, x_t, jnp.ones(2), valid)
      return jnp.sum(jnp.where(valid[..., None], jnp.sin(logits), 0))

    return jax.jit(jax.grad(total))(params)

  expected = gradient()
  norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(expected)))
  for leaf in jax.tree.leaves(expected):
    assert np.abs(leaf).max() > 0
  for how, bound in (
    ({'scan_layers': False}, 1e-5),
    ({'remat': True}, 1e-5),
    ({'dtype': 'bfloat16'}, 0.05),
  ):
    far = jax.tree.map(
      lambda a, b: np.sum((a - b) ** 2), gradient(**how), expected
    )
    assert np.sqrt(sum(jax.tree.leaves(far))) < bound * norm, how


def test_dropout_draws_by_example():
  network = Bert(**SMALL, dropout=0.5)
  _, params, x_t = started('none')
  params = {**params, 'positions': jnp.zeros((512, 8))}
  x_t, keys = x_t[:1].repeat(3, axis=0), jax.random.split(jax.random.key(0), 3)
  apply = jax.jit(network.apply)
  found = apply({'params': params}, x_t, jnp.zeros(3), None, keys)
  assert np.abs(found[0] - found[1]).max() > 1e-3
  moved = apply({'params': params}, x_t, jnp.zeros(3), None, keys[::-1])
  np.testing.assert_allclose(found, moved[::-1], rtol=1e-5, atol=1e-6)


def test_sizes_that_do_not_fit():
  x_t, time = jnp.zeros((1, 6), int), jnp.zeros(1)

  def begun(**fields):
    return Bert(**{**SMALL, **fields}).init(jax.random.key(0), x_t, time)

  with pytest.raises(ValueError, match='6 tokens are more than the 4'):
    begun(max_positions=6)
  with pytest.raises(ValueError, match='more than the 3'):
    begun(max_positions=6, time='prefix')
  with pytest.raises(ValueError, match="unknown time 'layers'; nearest: layer"):
    begun(time='layers')
  with pytest.raises(ValueError, match='multiple of num_heads'):
    begun(num_heads=3)


def test_published_parameter_count():
  """109,514,298 of BertForMaskedLM with 30,522 words.

  Ours has the mask's row and bias more, and [CLS] and [SEP]; it lacks the two
  types of segments.
  """
  network = Bert(30_523, 768, 12, 12)
  params = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 2), int), jnp.zeros(1)
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == 109_514_298 + 768 + 1 + 2 * 768 - 2 * 768
