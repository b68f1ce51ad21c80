"""BERT's published weights as parameters of `Bert`.

A folder as the hub has it: `config.json`, `vocab.txt`, and the tensors of a
`BertForMaskedLM` in `model.safetensors` (or `pytorch_model.bin`).  Our
embedding has one row more, the mask's, which gets the row of [MASK]; [CLS] and
[SEP] become the network's own, and the type of the first segment is added to
the positions.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sedd_jax.models import state_dicts
from sedd_jax.models.bert import Bert
from sedd_jax.models.state_dicts import CONFIG, WEIGHTS, Params
from sedd_jax.models.tensor_files import PretrainedError

VOCABULARY = 'vocab.txt'
# Ids that tokenizers know under these names.
CLS, SEP, MASK = '[CLS]', '[SEP]', '[MASK]'

# The original's name to the place in our tree.  Kernels are transposed.
_TENSORS = {
  'bert.embeddings.word_embeddings.weight': 'embed.embedding',
  'bert.embeddings.position_embeddings.weight': 'positions',
  'bert.embeddings.LayerNorm.weight': 'norm.weight',
  'bert.embeddings.LayerNorm.bias': 'norm.bias',
  'cls.predictions.transform.dense.weight': 'head.transform.kernel',
  'cls.predictions.transform.dense.bias': 'head.transform.bias',
  'cls.predictions.transform.LayerNorm.weight': 'head.norm.weight',
  'cls.predictions.transform.LayerNorm.bias': 'head.norm.bias',
  'cls.predictions.bias': 'head.bias',
}
_LINEAR = {
  'attention.self.query': 'query',
  'attention.self.key': 'key',
  'attention.self.value': 'value',
  'attention.output.dense': 'attention_out',
  'intermediate.dense': 'mlp_in',
  'output.dense': 'mlp_out',
}
_NORMS = {'attention.output.LayerNorm': 'norm_1', 'output.LayerNorm': 'norm_2'}
_LAYERS = 'bert.encoder.layer.'
_WORDS = 'bert.embeddings.word_embeddings.weight'
_POSITIONS = 'bert.embeddings.position_embeddings.weight'
_TYPES = 'bert.embeddings.token_type_embeddings.weight'
_BIAS = 'cls.predictions.bias'
# Copies of the embedding and the bias, where a file has them.
_TIED = {
  'cls.predictions.decoder.weight': _WORDS,
  'cls.predictions.decoder.bias': _BIAS,
}
# For the other task of the pretraining, and numbers that are no parameters.
_IGNORED = (
  'bert.pooler.dense.weight',
  'bert.pooler.dense.bias',
  'bert.embeddings.position_ids',
  'cls.seq_relationship.weight',
  'cls.seq_relationship.bias',
)
# What `Bert` computes, and the config may not contradict.
_FIXED = {
  'hidden_act': 'gelu',
  'position_embedding_type': 'absolute',
  'layer_norm_eps': 1e-12,
  'is_decoder': False,
}


def _places(num_layers: int) -> dict[str, tuple[str, int | None]]:
  places: dict[str, tuple[str, int | None]] = {
    name: (place, None) for name, place in _TENSORS.items()
  }
  for i in range(num_layers):
    for name, place in _LINEAR.items():
      places[f'{_LAYERS}{i}.{name}.weight'] = (f'blocks.{place}.kernel', i)
      places[f'{_LAYERS}{i}.{name}.bias'] = (f'blocks.{place}.bias', i)
    for name, place in _NORMS.items():
      for part in ('weight', 'bias'):
        places[f'{_LAYERS}{i}.{name}.{part}'] = (f'blocks.{place}.{part}', i)
  return places


def _renamed(name: str) -> str:
  """The name today of a tensor that was named by TensorFlow."""
  for old, new in (('gamma', 'weight'), ('beta', 'bias')):
    if name.endswith(f'LayerNorm.{old}'):
      return name.removesuffix(old) + new
  return name


def _sizes(
  tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, Any]:
  """What the tensors and the config say about the network, held together."""
  for field, value in _FIXED.items():
    if config.get(field, value) != value:
      raise PretrainedError(
        f'{CONFIG} says {field} = {config[field]!r}; known here is {value!r}'
      )
  words = state_dicts.require(tensors, _WORDS)
  positions = state_dicts.require(tensors, _POSITIONS)
  inner = state_dicts.require(tensors, f'{_LAYERS}0.intermediate.dense.bias')
  for name, table in ((_WORDS, words), (_POSITIONS, positions)):
    if table.ndim != 2 or not table.size:
      raise PretrainedError(
        f'tensor {name!r} has shape {table.shape}, not two axes'
      )
  heads = config.get('num_attention_heads')
  if type(heads) is not int or heads < 1 or words.shape[1] % heads:
    raise PretrainedError(
      f'{CONFIG} says num_attention_heads = {heads!r}, which does not divide '
      f'the hidden size of {words.shape[1]}'
    )
  found = {
    'vocab_size': words.shape[0],
    'hidden_size': words.shape[1],
    'num_hidden_layers': state_dicts.count_layers(tensors, _LAYERS),
    'intermediate_size': inner.size,
    'max_position_embeddings': positions.shape[0],
  }
  for field, value in found.items():
    if config.get(field, value) != value:
      raise PretrainedError(
        f'{CONFIG} says {field} = {config[field]!r}, the tensors {value}'
      )
  return {
    'num_states': found['vocab_size'] + 1,
    'hidden_size': found['hidden_size'],
    'num_layers': found['num_hidden_layers'],
    'num_heads': heads,
    'mlp_size': found['intermediate_size'],
    'max_positions': found['max_position_embeddings'],
  }


def from_state_dict(
  tensors: Mapping[str, np.ndarray],
  config: Mapping[str, Any],
  vocabulary: Sequence[str],
) -> tuple[Params, dict[str, Any]]:
  """Our parameters from the tensors of a `BertForMaskedLM`.

  Args:
    tensors: name to array, as the transformers library names them.
    config: the model's config; `num_attention_heads` is needed.
    vocabulary: the tokens in the order of their ids.

  Returns:
    The parameters of a `Bert` with time 'none', as float32 numpy arrays, and
    its sizes: `num_states hidden_size num_layers num_heads mlp_size
    max_positions`.

  Raises:
    PretrainedError: for a tensor that is missing, unknown or of a wrong shape,
      an output matrix that is not the embedding, sizes that contradict the
      config or the vocabulary, or a vocabulary without [CLS], [SEP] or [MASK].
  """
  tensors = {_renamed(name): tensor for name, tensor in tensors.items()}
  sizes = _sizes(tensors, config)
  size = sizes['num_states'] - 1
  if len(vocabulary) != size:
    raise PretrainedError(
      f'{VOCABULARY} has {len(vocabulary)} tokens, the tensors {size}'
    )
  missing = [token for token in (CLS, SEP, MASK) if token not in vocabulary]
  if missing:
    raise PretrainedError(f'{VOCABULARY} has no token {missing[0]}')
  for name, original in _TIED.items():
    if name in tensors and not np.array_equal(
      tensors.pop(name), state_dicts.require(tensors, original)
    ):
      raise PretrainedError(
        f'tensor {name!r} is another than {original!r}; the two are one here'
      )
  types = state_dicts.require(tensors, _TYPES)
  if types.ndim != 2 or types.shape[1:] != (sizes['hidden_size'],):
    raise PretrainedError(f'tensor {_TYPES!r} has shape {types.shape}')

  places = _places(sizes['num_layers'])
  # Our own has the mask's row too.
  network = Bert(**{**sizes, 'num_states': size})
  shapes = state_dicts.shapes_of(network, places)
  params = state_dicts.to_params(tensors, places, shapes, (*_IGNORED, _TYPES))
  words, bias = params['embed']['embedding'], params['head']['bias']
  cls, sep, mask = (vocabulary.index(token) for token in (CLS, SEP, MASK))
  params['frame'] = words[[cls, sep]]
  params['embed']['embedding'] = np.concatenate([words, words[[mask]]])
  params['head']['bias'] = np.concatenate([bias, bias[[mask]]])
  params['positions'] = params['positions'] + np.asarray(types[0], np.float32)
  return params, sizes


def load_bert(path: str | os.PathLike) -> tuple[Params, dict[str, Any]]:
  """Reads a folder of BERT's weights; nothing in it is run.

  Args:
    path: a folder with `config.json`, `vocab.txt`, and `model.safetensors` or
      `pytorch_model.bin`; the file of weights in such a folder; or, where
      nothing of that name exists, a hub id 'owner/name'.

  Returns:
    Parameters and sizes, as `from_state_dict`.

  Raises:
    PretrainedError: in one line that names the file and what is wrong with it.
    OSError: for a file that cannot be opened.
  """
  file = state_dicts.located(
    path, (WEIGHTS, 'pytorch_model.bin'), (CONFIG, VOCABULARY, WEIGHTS)
  )
  for name in (CONFIG, VOCABULARY):
    if not file.with_name(name).is_file():
      raise PretrainedError(f'{file.parent} holds no {name}')
  try:
    text = _read(file.with_name(CONFIG))
    config = state_dicts.parsed_config(text, CONFIG)
    vocabulary = _read(file.with_name(VOCABULARY)).removesuffix('\n')
    return from_state_dict(
      state_dicts.read(file), config, vocabulary.split('\n')
    )
  except PretrainedError as error:
    if str(file) in str(error):
      raise
    raise PretrainedError(f'{file}: {error}') from error


def _read(path: pathlib.Path) -> str:
  try:
    return path.read_text('utf-8')
  except UnicodeDecodeError as error:
    raise PretrainedError(f'{path.name}: {error}') from error
