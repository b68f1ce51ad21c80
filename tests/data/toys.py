"""Small things to test on."""

import json
import pathlib

from sedd_jax.data.tokenizers import byte_pairs

MERGES = (('t', 'h'), ('th', 'e'), ('\u0120', 'the'))


def tiny_bpe(folder, name='tiny', merges=MERGES):
  """A byte-level BPE of 256 bytes, a few merges and the end of text."""
  characters = byte_pairs.byte_characters()
  tokens = [characters[byte] for byte in range(256)]
  tokens += [''.join(pair) for pair in merges] + ['<|endoftext|>']
  folder = pathlib.Path(folder, name)
  folder.mkdir()
  (folder / 'encoder.json').write_text(
    json.dumps({token: index for index, token in enumerate(tokens)})
  )
  lines = ['#version: 0.2', *map(' '.join, merges)]
  (folder / 'vocab.bpe').write_text('\n'.join(lines) + '\n', 'utf-8')
  return folder
