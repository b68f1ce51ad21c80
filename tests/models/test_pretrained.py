"""SEDD's released weights: what is read, what is refused, the round trip."""

import collections
import importlib.machinery
import json
import pickle
import sys
import types
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from sedd_jax.models import pretrained, tensor_files, torch_file
from tests import golden_numbers

Error = tensor_files.PretrainedError


def state_dict(graph='absorb'):
  return {
    name.removeprefix('sd/'): value
    for name, value in golden_numbers.load(f'sedd_model_{graph}').items()
    if name.startswith('sd/')
  }


SIZES = {
  'num_states': 28,
  'hidden_size': 64,
  'num_layers': 2,
  'num_heads': 4,
  'cond_size': 32,
  'scale_by_sigma': True,
  'process': 'absorbing',
  'layout': 'sedd',
}
UNKNOWN = {'scale_by_sigma': None, 'process': None}
# As the hub's repositories have it, shortened to what concerns the network.
CONFIG = {
  'tokens': 27,
  'graph': {'type': 'absorb', 'file': 'data', 'report_all': False},
  'noise': {'type': 'loglinear', 'sigma_min': 1e-4, 'sigma_max': 20},
  'model': {
    'name': 'small',
    'type': 'ddit',
    'hidden_size': 64,
    'cond_dim': 32,
    'length': 32,
    'n_blocks': 2,
    'n_heads': 4,
    'scale_by_sigma': True,
    'dropout': 0.1,
  },
}


def same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


# A writer of torch's format that needs no torch.


class Name(str):
  """A global name, `module.name`, written but never imported."""

  def __call__(self):
    """`save_reduce` insists on a callable."""


class Storage:
  """A reference to a record of the archive."""

  def __init__(self, key, kind, count):
    self.pid = ('storage', Name(f'torch.{kind}'), key, 'cpu', count)


class Tensor:
  """A tensor that will be written with the given layout."""

  def __init__(self, data, shape=None, stride=None, offset=0, count=None):
    self.data = np.asarray(data, order='C')
    steps = np.array(self.data.strides) // self.data.itemsize
    self.shape = self.data.shape if shape is None else shape
    self.stride = tuple(steps.tolist()) if stride is None else stride
    self.offset = offset
    self.count = self.data.size if count is None else count


KINDS = {
  'float64': 'DoubleStorage',
  'float32': 'FloatStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
  'int64': 'LongStorage',
}


class Writer(pickle._Pickler):
  """Writes protocol 2 as `torch.save` does."""

  dispatch = dict(pickle._Pickler.dispatch)

  def __init__(self, file):
    super().__init__(file, protocol=2)
    self.records = []

  def persistent_id(self, obj):
    return obj.pid if isinstance(obj, Storage) else None

  def save_name(self, name):
    module, _, attribute = name.rpartition('.')
    self.write(pickle.GLOBAL + f'{module}\n{attribute}\n'.encode())

  def save_tensor(self, tensor):
    kind = KINDS[tensor.data.dtype.name]
    storage = Storage(str(len(self.records)), kind, tensor.count)
    self.records.append(tensor.data.tobytes())
    arguments = (storage, tensor.offset, tensor.shape, tensor.stride, False)
    self.save_reduce(
      Name('torch._utils._rebuild_tensor_v2'),
      (*arguments, collections.OrderedDict()),
    )

  dispatch[Name] = save_name
  dispatch[Tensor] = save_tensor


def write_torch(path, content):
  with zipfile.ZipFile(path, 'w') as archive:
    with archive.open('archive/data.pkl', 'w') as file:
      writer = Writer(file)
      writer.dump(content)
    archive.writestr('archive/byteorder', 'little')
    for i, record in enumerate(writer.records):
      archive.writestr(f'archive/data/{i}', record)
    archive.writestr('archive/version', '3\n')
  return path


def tensors_of(state):
  """A state dict as torch pickles it: ordered, with `_metadata` beside it."""
  ordered = collections.OrderedDict((k, Tensor(v)) for k, v in state.items())
  ordered._metadata = collections.OrderedDict({'': {'version': 1}})
  return ordered


def training_checkpoint(state, shift, prefix=''):
  """What the original's training writes; its mean is `shift` off the model."""
  shadow = [
    Tensor(value + np.float32(shift))
    for name, value in state.items()
    if name != 'rotary_emb.inv_freq'
  ]
  adam = {'step': Tensor(np.float32(3)), 'exp_avg': Tensor(np.zeros(4))}
  return {
    'optimizer': {'state': {0: adam}, 'param_groups': [{'lr': 3e-4}]},
    'model': tensors_of({prefix + k: v for k, v in state.items()}),
    'ema': {'decay': 0.9999, 'num_updates': 3, 'shadow_params': shadow},
    'step': 3,
  }


def shifted(params, shift):
  return jax.tree.map(lambda p: p + np.float32(shift), params)


# Reading.


@pytest.fixture(scope='module')
def ours():
  return pretrained.from_state_dict(state_dict(), CONFIG)


def test_parameters_are_stacked_and_transposed(ours):
  params, sizes = ours
  state = state_dict()
  assert sizes == SIZES
  kernel = params['blocks']['qkv']['kernel']
  assert kernel.shape == (2, 64, 192)
  for i in range(2):
    np.testing.assert_array_equal(
      kernel[i], state[f'blocks.{i}.attn_qkv.weight'].T
    )
  np.testing.assert_array_equal(
    params['head']['kernel'], state['output_layer.linear.weight'].T
  )


@pytest.mark.parametrize('nested', [False, True])
def test_folder_as_on_the_hub(tmp_path, ours, nested):
  tensor_files.write_safetensors(tmp_path / 'model.safetensors', state_dict())
  config = {'config': CONFIG} if nested else CONFIG
  (tmp_path / 'config.json').write_text(json.dumps(config))
  for path in (tmp_path, str(tmp_path), tmp_path / 'model.safetensors'):
    params, sizes = pretrained.load_sedd(path)
    same(params, ours[0])
    assert sizes == SIZES


def test_npz_without_a_config(tmp_path, ours):
  np.savez(tmp_path / 'weights.npz', **state_dict())
  params, sizes = pretrained.load_sedd(tmp_path / 'weights.npz')
  same(params, ours[0])
  assert sizes == SIZES | UNKNOWN


@pytest.mark.parametrize('suffix', ['.pt', '.pth', '.bin'])
def test_state_dict_in_a_torch_file(tmp_path, ours, suffix):
  path = write_torch(tmp_path / f'weights{suffix}', tensors_of(state_dict()))
  params, sizes = pretrained.load_sedd(path)
  same(params, ours[0])
  assert sizes == SIZES | UNKNOWN


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_training_checkpoint_and_its_mean(tmp_path, ours, prefix):
  (tmp_path / 'checkpoints-meta').mkdir()
  path = tmp_path / 'checkpoints-meta' / 'checkpoint.pth'
  write_torch(path, training_checkpoint(state_dict(), 0.5, prefix))
  params, _ = pretrained.load_sedd(tmp_path)
  same(params, shifted(ours[0], 0.5))
  params, _ = pretrained.load_sedd(path, use_ema=False)
  same(params, ours[0])


def test_training_checkpoint_without_a_mean(tmp_path, ours):
  content = training_checkpoint(state_dict(), 0.5)
  del content['ema']
  path = write_torch(tmp_path / 'checkpoint.pth', content)
  same(pretrained.load_sedd(path)[0], ours[0])


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
  state = {name: value.astype(dtype) for name, value in state_dict().items()}
  tensor_files.write_safetensors(tmp_path / 'model.safetensors', state)
  write_torch(tmp_path / 'model.pt', tensors_of(state))
  expected, _ = pretrained.from_state_dict(
    {name: value.astype(np.float32) for name, value in state.items()}
  )
  for name in ('model.safetensors', 'model.pt'):
    params, _ = pretrained.load_sedd(tmp_path / name)
    same(params, expected)
    assert params['head']['bias'].dtype == np.float32


# Writing.


@pytest.mark.parametrize('name', ['folder', 'sedd-v1.5', 'weights.npz'])
@pytest.mark.parametrize('graph', ['absorb', 'uniform'])
def test_round_trip_is_exact(tmp_path, name, graph):
  params, sizes = pretrained.from_state_dict(state_dict(graph))
  absorb = graph == 'absorb'
  sizes |= {
    'scale_by_sigma': absorb,
    'process': 'absorbing' if absorb else 'uniform',
  }
  pretrained.save_sedd(tmp_path / name, params, sizes)
  again, sizes_again = pretrained.load_sedd(tmp_path / name)
  same(again, params)
  assert sizes_again == sizes
  # Over itself, too: the old file is replaced.
  pretrained.save_sedd(tmp_path / name, shifted(params, 1), sizes)
  same(pretrained.load_sedd(tmp_path / name)[0], shifted(params, 1))


def test_state_dict_round_trip_in_the_originals_order(ours):
  state = state_dict()
  again = pretrained.to_state_dict(ours[0], 4)
  assert list(again) == list(state)
  frequencies = 'rotary_emb.inv_freq'
  np.testing.assert_allclose(
    again.pop(frequencies), state.pop(frequencies), rtol=1e-6
  )
  same(again, state)


def test_written_config_is_what_the_original_reads(tmp_path, ours):
  pretrained.save_sedd(
    tmp_path,
    *ours,
    {'noise': CONFIG['noise'], 'model': {'length': 32, 'dropout': 0.1}},
  )
  config = json.loads((tmp_path / 'config.json').read_text())
  for group, fields in CONFIG.items():
    if not isinstance(fields, dict):
      assert config[group] == fields
      continue
    for field in set(fields) - {'file', 'report_all', 'name'}:
      assert config[group][field] == fields[field]


def test_files_are_read_by_the_safetensors_library(tmp_path, ours):
  library = pytest.importorskip('safetensors.numpy')
  pretrained.save_sedd(tmp_path, *ours)
  same(
    library.load_file(tmp_path / 'model.safetensors'),
    pretrained.to_state_dict(ours[0], 4),
  )
  library.save_file(state_dict(), tmp_path / 'theirs.safetensors')
  same(
    tensor_files.read_safetensors(tmp_path / 'theirs.safetensors'),
    state_dict(),
  )


def test_save_refuses(tmp_path, ours):
  params, sizes = ours
  with pytest.raises(ValueError, match='must be a folder or end in .npz'):
    pretrained.save_sedd(tmp_path / 'weights.pt', params, sizes)
  with pytest.raises(ValueError, match="need 'num_heads'"):
    pretrained.save_sedd(tmp_path, params, {})
  with pytest.raises(ValueError, match="'absorb'; nearest: absorbing"):
    pretrained.save_sedd(tmp_path, params, sizes | {'process': 'absorb'})
  with pytest.raises(ValueError, match="'w': no safetensors dtype complex64"):
    tensor_files.write_safetensors(
      tmp_path / 'x.safetensors', {'w': np.zeros(2, np.complex64)}
    )


# Errors name the offender.


def without(name):
  return {key: value for key, value in state_dict().items() if key != name}


FREQUENCIES = 'rotary_emb.inv_freq'


@pytest.mark.parametrize(
  'tensors, config, message',
  [
    (without('sigma_map.mlp.2.bias'), {}, "no tensor 'sigma_map.mlp.2.bias'"),
    (
      without('blocks.1.mlp.0.bias') | {'blocks.1.mlp.0.bais': np.zeros(256)},
      {},
      "no tensor 'blocks.1.mlp.0.bias'; unknown here, nearest: .*0.bais",
    ),
    ({}, {}, "no tensor 'vocab_embed.embedding'"),
    (
      {
        key.replace('blocks.1.', 'blocks.7.'): value
        for key, value in state_dict().items()
      },
      {},
      "no tensor 'blocks.1.norm1.weight'",
    ),
    (
      state_dict() | {'lm_head.weight': np.zeros((28, 64), np.float32)},
      {},
      "unknown tensor 'lm_head.weight' \\(1 in all\\)",
    ),
    (
      state_dict() | {'blocks.0.mlp.2.bias': np.zeros(65, np.float32)},
      {},
      "'blocks.0.mlp.2.bias' has shape \\(65,\\), not \\(64,\\)",
    ),
    (
      state_dict() | {'vocab_embed.embedding': np.zeros(28, np.float32)},
      {},
      "'vocab_embed.embedding' has shape \\(28,\\)",
    ),
    (
      state_dict() | {'output_layer.linear.bias': np.zeros(28, np.int64)},
      {},
      "'output_layer.linear.bias' holds int64",
    ),
    *(
      (
        state_dict()
        | {'output_layer.linear.bias': np.array([value] + 27 * [0.0])},
        {},
        "'output_layer.linear.bias' has numbers that are not finite",
      )
      for value in (np.nan, np.inf)
    ),
    (
      state_dict() | {FREQUENCIES: np.linspace(1, 0, 8)},
      {},
      "'rotary_emb.inv_freq' is not 10000\\^",
    ),
    (
      state_dict() | {FREQUENCIES: np.ones(7)},
      {},
      "'rotary_emb.inv_freq' has shape \\(7,\\)",
    ),
    (without(FREQUENCIES), {}, 'the number of heads is unknown'),
    (
      without(FREQUENCIES),
      {'model': {'n_heads': 3}},
      'n_heads = 3, which does not divide',
    ),
    (
      state_dict(),
      {'model': {'n_heads': 8}},
      'says model.n_heads = 8, the tensors 4',
    ),
    (
      state_dict(),
      {'model': {'n_blocks': 12}},
      'says model.n_blocks = 12, the tensors 2',
    ),
    (
      state_dict(),
      {'graph': {'type': 'absorbing'}},
      "unknown graph.type 'absorbing'; nearest: absorb",
    ),
    (
      state_dict(),
      {'model': {'scale_by_sigma': 'yes'}},
      "must be true or false, not 'yes'",
    ),
  ],
)
def test_wrong_tensors_and_configs(tensors, config, message):
  with pytest.raises(Error, match=message):
    pretrained.from_state_dict(tensors, config)


def test_heads_come_from_the_config_where_frequencies_are_missing():
  _, sizes = pretrained.from_state_dict(without(FREQUENCIES), CONFIG)
  assert sizes == SIZES


@pytest.mark.parametrize(
  'header, data, message',
  [
    (b'{"w": 1}', b'', "tensor 'w' needs dtype, shape and data_offsets"),
    (b'[]', b'', 'no JSON object'),
    (b'{', b'', 'no JSON'),
    (b'{"w": 1, "w": 2}', b'', "has 'w' twice"),
    (('F32', [2], [0, 8]), bytes(7), "truncated: tensor 'w' ends at byte 8"),
    (('F32', [2], [0, 8]), bytes(9), '1 bytes at the end belong to no tensor'),
    (('F32', [3], [0, 8]), bytes(8), "'w' of shape \\[3\\] and dtype F32"),
    (('F32', [2], [8, 0]), bytes(8), 'does not fill its -8 bytes'),
    (('F32', [2], [4, 12]), bytes(12), "'w' begins at byte 4"),
    (('F32', [-2], [0, 8]), bytes(8), "'w' has shape \\[-2\\]"),
    (('F32', [2.0], [0, 8]), bytes(8), "'w' has shape \\[2.0\\]"),
    (('F32', [2], [0, 8, 9]), bytes(8), "'w' has offsets \\[0, 8, 9\\]"),
    (('F8', [8], [0, 8]), bytes(8), "'w' has dtype 'F8'; known: F64, F32"),
    (('F32', [2**40, 4], [0, 0]), bytes(8), 'does not fill its 0 bytes'),
    (('F32', [0, 2**80], [0, 0]), b'', "'w' has shape \\[0, "),
  ],
)
def test_damaged_safetensors(tmp_path, header, data, message):
  if isinstance(header, tuple):
    keys = ('dtype', 'shape', 'data_offsets')
    header = json.dumps({'w': dict(zip(keys, header))}).encode()
  path = tmp_path / 'model.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + data)
  with pytest.raises(Error, match=message) as caught:
    pretrained.load_sedd(path)
  assert str(path) in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'\0' * 7, b'\xff' * 64])
def test_no_safetensors_at_all(tmp_path, content):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(content)
  with pytest.raises(Error, match='truncated or no safetensors file'):
    pretrained.load_sedd(path)


def test_npz_with_objects_or_cut_short(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, **{'w': np.array([{}], object)})
  with pytest.raises(Error, match="array 'w': Object arrays"):
    pretrained.load_sedd(path)
  np.savez(path, **state_dict())
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(Error, match='weights.npz: truncated or no npz file'):
    pretrained.load_sedd(path)
  np.save(tmp_path / 'one.npy', np.zeros(3))
  (tmp_path / 'one.npy').rename(path)
  with pytest.raises(Error, match='no npz file'):
    pretrained.load_sedd(path)


class Calls:
  """Pickles to a call of any function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize('function', ['touch', 'eval', 'getattr', 'dtype'])
def test_pickles_call_nothing(tmp_path, function, protocol):
  target = tmp_path / 'made'
  attacks = {
    'touch': (Calls(target.touch), 'builtins.getattr|__builtin__|pathlib'),
    'eval': (Calls(eval, f'open({str(target)!r}, "w")'), 'eval'),
    'getattr': (Calls(getattr, 1, 'real'), 'getattr'),
    'dtype': (Calls(np.dtype, 'f4'), "'numpy.dtype'"),
  }
  attack, name = attacks[function]
  path = tmp_path / 'weights.pt'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a/data.pkl', pickle.dumps({'w': attack}, protocol))
  with pytest.raises(Error, match=f'asks for .*({name})') as caught:
    pretrained.load_sedd(path)
  assert 'not allowed' in str(caught.value)
  assert not target.exists()


def test_pickles_change_nothing_they_are_given(tmp_path):
  # GLOBAL, a state, BUILD: sets attributes of whatever the name stands for.
  pickled = b'\x80\x02ctorch\nFloatStorage\n}U\x04nameU\x04evils b.'
  path = tmp_path / 'weights.pt'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a/data.pkl', pickled.replace(b's b', b'sb'))
  with pytest.raises(Error, match='damaged pickle: AttributeError'):
    pretrained.load_sedd(path)


@pytest.mark.parametrize(
  'content, message',
  [
    ([1, 2], 'neither a state dict nor a training checkpoint, but a list'),
    ({'w': 1.5}, "entry 'w' is no tensor but a float"),
    ({'weights': {}}, "entry 'weights' is no tensor but a dict"),
    ({'w': Tensor(np.zeros(3), shape=(4,))}, 'reaches beyond the 3 elements'),
    ({'w': Tensor(np.zeros(3), offset=1)}, 'reaches beyond the 3 elements'),
    ({'w': Tensor(np.zeros(3), stride=(2,))}, 'reaches beyond the 3 elements'),
    ({'w': Tensor(np.zeros(3), shape=(9,), stride=(0,))}, 'beyond the 3'),
    ({'w': Tensor(np.zeros(3), count=4)}, 'has 24 bytes, not 32'),
    ({'w': Tensor(np.zeros(0), (0, 2**80), (0, 0))}, 'impossible layout'),
    ({'w': Tensor(np.zeros(3), stride=(-1,))}, 'impossible layout'),
    ({'w': Tensor(np.zeros(3), offset=-1)}, 'impossible layout'),
    ({'w': Tensor(np.zeros(3), stride=(1, 1))}, 'impossible layout'),
  ],
)
def test_wrong_torch_files(tmp_path, content, message):
  path = write_torch(tmp_path / 'weights.pt', content)
  with pytest.raises(Error, match=message) as caught:
    pretrained.load_sedd(path)
  assert str(path) in str(caught.value)


def test_records_that_lie_about_their_size(tmp_path):
  path = write_torch(tmp_path / 'weights.pt', {'w': Tensor(np.zeros(3))})
  with zipfile.ZipFile(path) as archive:
    records = {name: archive.read(name) for name in archive.namelist()}
  records['archive/data/0'] = bytes(8)
  with zipfile.ZipFile(path, 'w') as archive:
    for name, data in records.items():
      archive.writestr(name, data)
    archive.getinfo('archive/data/0').file_size = 24
  with pytest.raises(Error, match="data/0' is damaged: 8 of 24 bytes"):
    pretrained.load_sedd(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in records.items():
      archive.writestr(name, data)
  with pytest.raises(Error, match="byteorder' is compressed"):
    pretrained.load_sedd(path)


def test_mean_that_does_not_fit(tmp_path):
  content = training_checkpoint(state_dict(), 0)
  content['ema']['shadow_params'].pop()
  path = write_torch(tmp_path / 'checkpoint.pth', content)
  with pytest.raises(Error, match='29 shadow_params for 30 parameters'):
    pretrained.load_sedd(path)
  content['ema'] = {}
  write_torch(path, content)
  with pytest.raises(Error, match="'ema' has no list 'shadow_params'"):
    pretrained.load_sedd(path)


def test_truncated_or_old_torch_file(tmp_path):
  path = write_torch(tmp_path / 'weights.pt', tensors_of(state_dict()))
  path.write_bytes(path.read_bytes()[:5000])
  with pytest.raises(Error, match='truncated, or not a zip archive'):
    pretrained.load_sedd(path)


def test_layouts_of_tensors(tmp_path):
  data = np.arange(12.0)
  path = write_torch(
    tmp_path / 'x.pt',
    {
      'turned': Tensor(data, (3, 2), (1, 4), 1),
      'scalar': Tensor(np.float32(7)),
      'empty': Tensor(np.zeros((0, 3), np.float32)),
      'repeated': Tensor(data, (2, 3), (0, 1), 4),
      'whole': Tensor(np.array([2**40])),
    },
  )
  with torch_file.TorchFile(path) as file:
    arrays = {name: file.array(t) for name, t in file.content.items()}
  np.testing.assert_array_equal(arrays['turned'], [[1, 5], [2, 6], [3, 7]])
  assert arrays['scalar'].shape == () and arrays['scalar'] == 7
  assert arrays['empty'].shape == (0, 3)
  np.testing.assert_array_equal(arrays['repeated'], [[4, 5, 6]] * 2)
  assert arrays['whole'].tolist() == [2**40]


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_damage_is_reported_or_harmless(tmp_path, suffix):
  """Bytes flipped at random raise our error, if any."""
  path = tmp_path / f'weights{suffix}'
  state = {'a': np.arange(6.0).reshape(2, 3), 'b': np.float32(3)}
  if suffix == '.pt':
    write_torch(path, tensors_of(state))
  else:
    tensor_files.write_safetensors(path, {k: np.array(state[k]) for k in state})
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  refused = 0
  for _ in range(400):
    damaged = bytearray(whole)
    for place in rng.integers(0, len(whole), rng.integers(1, 4)):
      damaged[place] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      if suffix == '.pt':
        with torch_file.TorchFile(path) as file:
          tensors = jax.tree.leaves(
            file.content,
            is_leaf=lambda x: isinstance(x, torch_file.TorchTensor),
          )
          for tensor in tensors:
            if isinstance(tensor, torch_file.TorchTensor):
              file.array(tensor)
      else:
        for tensor in tensor_files.read_safetensors(path).values():
          tensor.sum()
    except Error as error:
      assert str(path) in str(error)
      refused += 1
  assert refused > 100


# Where the weights are.


def test_paths_that_lead_nowhere(tmp_path):
  with pytest.raises(Error, match="nowhere' does not exist"):
    pretrained.load_sedd(tmp_path / 'nowhere')
  with pytest.raises(Error, match='holds none of model.safetensors'):
    pretrained.load_sedd(tmp_path)
  (tmp_path / 'weights.h5').touch()
  with pytest.raises(Error, match='ends in none of .safetensors, .npz'):
    pretrained.load_sedd(tmp_path / 'weights.h5')
  np.savez(tmp_path / 'w.npz', **state_dict(), **{'config.json': '{'})
  with pytest.raises(Error, match='w.npz: config.json is no JSON'):
    pretrained.load_sedd(tmp_path / 'w.npz')


def test_hub_id_without_the_library(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(Error, match=r"pip install 'sedd_jax\[hub\]'"):
    pretrained.load_sedd('louaaron/sedd-small')


def test_hub_id(tmp_path, monkeypatch, ours):
  pretrained.save_sedd(tmp_path, *ours)
  asked = []

  def hf_hub_download(repo_id, filename):
    if repo_id != 'someone/sedd':
      raise OSError('no such\nrepository')
    asked.append(filename)
    return str(tmp_path / filename)

  hub = types.ModuleType('huggingface_hub')
  hub.hf_hub_download = hf_hub_download
  hub.__spec__ = importlib.machinery.ModuleSpec('huggingface_hub', None)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  params, sizes = pretrained.load_sedd('someone/sedd')
  same(params, ours[0])
  assert sizes == SIZES
  assert set(asked) == {'config.json', 'model.safetensors'}
  with pytest.raises(Error, match='did not give it: OSError: no such repos'):
    pretrained.load_sedd('someone/else')


# Against torch itself, where it is installed.


def test_files_of_torch_itself(tmp_path, ours):
  torch = pytest.importorskip('torch')
  state = collections.OrderedDict(
    (name, torch.from_numpy(value.copy()))
    for name, value in state_dict().items()
  )
  torch.save(state, tmp_path / 'plain.pt')
  same(pretrained.load_sedd(tmp_path / 'plain.pt')[0], ours[0])

  parameters = {
    name: torch.nn.Parameter(value)
    for name, value in state.items()
    if name != FREQUENCIES
  }
  optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
  sum(p.sum() for p in parameters.values()).backward()
  optimizer.step()
  checkpoint = {
    'optimizer': optimizer.state_dict(),
    'model': {'module.' + name: value for name, value in state.items()},
    'ema': {
      'decay': 0.9999,
      'num_updates': 1,
      'shadow_params': [p.detach().clone() + 0.5 for p in parameters.values()],
    },
    'step': 1,
  }
  torch.save(checkpoint, tmp_path / 'checkpoint.pth')
  stepped, _ = pretrained.load_sedd(tmp_path / 'checkpoint.pth', use_ema=False)
  means, _ = pretrained.load_sedd(tmp_path / 'checkpoint.pth')
  same(means, shifted(stepped, 0.5))
  half = {
    name: value.detach().bfloat16().transpose(0, -1)
    for name, value in state.items()
  }
  torch.save(half, tmp_path / 'half.pt')
  with torch_file.TorchFile(tmp_path / 'half.pt') as file:
    for name, tensor in file.content.items():
      np.testing.assert_array_equal(
        file.array(tensor).astype(np.float32), half[name].float().numpy()
      )
