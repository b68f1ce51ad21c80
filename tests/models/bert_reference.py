"""A tiny random BERT of the transformers library, with what it computes.

  python -m tests.models.bert_reference tests/golden/bert.npz

Needs the extra `parity`.
"""

import importlib
import pathlib
import sys
import tempfile

import numpy as np

VOCABULARY = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]', *'abcdefghijklmno']
PAD, CLS, SEP, _, MASK = range(5)
# Tokens of the two texts; the second is padded.
LENGTHS = (9, 6)


def folder(path: pathlib.Path, seed: int = 0):
  """Writes a model's folder as on the hub; every parameter is random.

  Args:
    path: the folder, made here.
    seed: of the parameters.

  Returns:
    The model, in torch.
  """
  torch = importlib.import_module('torch')
  transformers = importlib.import_module('transformers')
  torch.manual_seed(seed)
  config = transformers.BertConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=40,
    max_position_embeddings=24,
  )
  model = transformers.BertForMaskedLM(config).eval()
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      norm = 'LayerNorm' in name and name.endswith('weight')
      parameter.copy_(float(norm) + 0.3 * torch.randn(parameter.shape))
  path.mkdir(parents=True)
  model.save_pretrained(path)
  (path / 'vocab.txt').write_text('\n'.join(VOCABULARY) + '\n', 'utf-8')
  return model


def texts(seed: int = 0) -> np.ndarray:
  """Two texts with masks in them, `[2, 9]`, padding at the end."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(5, len(VOCABULARY), (len(LENGTHS), max(LENGTHS)))
  ids[rng.random(ids.shape) < 0.3] = MASK
  for row, length in zip(ids, LENGTHS):
    row[length:] = PAD
  return ids


def computed(model, ids: np.ndarray) -> dict[str, np.ndarray]:
  """Hidden states and logits of each text alone, [CLS] and [SEP] around it.

  Args:
    model: of `folder`.
    ids: `[2, 9]`.

  Returns:
    By text: `hidden/{i}` `[layers + 1, length + 2, hidden]` and `logits/{i}`
    `[length + 2, vocabulary]`.
  """
  torch = importlib.import_module('torch')
  arrays = {}
  for i, (row, length) in enumerate(zip(ids, LENGTHS)):
    text = torch.tensor([[CLS, *row[:length], SEP]])
    with torch.no_grad():
      out = model(input_ids=text, output_hidden_states=True)
    arrays[f'hidden/{i}'] = torch.cat(out.hidden_states).numpy()
    arrays[f'logits/{i}'] = out.logits[0].numpy()
  return arrays


def main(output: str) -> None:
  """Writes the arrays, the state dict with them under `sd/`."""
  with tempfile.TemporaryDirectory() as temporary:
    model = folder(pathlib.Path(temporary, 'bert'))
  arrays = {
    f'sd/{key}': value.numpy() for key, value in model.state_dict().items()
  }
  ids = texts()
  arrays |= {'ids': ids, **computed(model, ids)}
  np.savez_compressed(output, **arrays)


if __name__ == '__main__':
  main(*sys.argv[1:])
