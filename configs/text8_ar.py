"""The autoregressive yardstick on text8: the network of SEDD, causal.

  python -m sedd_jax.main --config=configs/text8_ar.py

Hardware: 8 GPUs of 80 GB.  Published: 1.23 bits per character on the test split
for a transformer of 12 layers (arXiv 2107.03006, table 1).
"""

from sedd_jax import default_config


def get_config():
  """Sequences of 256 characters, from left to right."""
  config = default_config.get_config()
  config.system.name = 'autoregressive'
  config.data.update({'source': 'text8', 'tokenizer': 'text8', 'seq_len': 256})
  config.training.update({'num_steps': 1_000_000, 'reduction': 'token'})
  config.eval.update({'split': 'test', 'max_sequences': 0})
  config.eval.batch_size = 256
  config.sampling.method = 'autoregressive'
  return config
