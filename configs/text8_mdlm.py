"""Masked diffusion on text8, with the network and optimization of SEDD.

  python -m sedd_jax.main --config=configs/text8_mdlm.py

Hardware: 8 GPUs of 80 GB.  Published: at most 1.40 bits per character on the
test split (MDLM, arXiv 2406.07524; as the later papers report it), MD4 1.37
(arXiv 2406.04329, table 2).
"""

from sedd_jax import default_config


def get_config():
  """Continuous time, log-linear noise, sequences of 256 characters."""
  config = default_config.get_config()
  config.system.name = 'masked_diffusion'
  config.data.update({'source': 'text8', 'tokenizer': 'text8', 'seq_len': 256})
  config.training.update({'num_steps': 1_000_000, 'reduction': 'token'})
  config.training.time_sampling = 'low_discrepancy'
  config.eval.update({'split': 'test', 'max_sequences': 0, 'points': 2})
  config.eval.batch_size = 256
  config.sampling.update({'method': 'ancestral', 'steps': 256})
  return config
