"""SEDD with absorbing noise on text8, the released code's optimization.

  python -m sedd_jax.main --config=configs/text8_absorb.py

Hardware: the paper trained on 8 A100 80 GB or 16 A100 40 GB.  Published: at
most 1.39 bits per character on the test split (arXiv 2310.16834, table 2).
"""

from sedd_jax import default_config


def get_config():
  """The network of SEDD-small on sequences of 256 characters."""
  config = default_config.get_config()
  config.data.source = 'text8'
  config.data.tokenizer = 'text8'
  config.data.seq_len = 256
  config.training.num_steps = 1_000_000
  config.eval.split = 'test'
  config.eval.max_sequences = 0
  config.eval.points = 2
  config.eval.batch_size = 256
  return config
