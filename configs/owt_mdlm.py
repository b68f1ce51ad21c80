"""Masked diffusion on OpenWebText, with the network of SEDD-small.

  python -m sedd_jax.main --config=configs/owt_mdlm.py

Hardware: 8 GPUs of 80 GB.  Published: validation perplexity at most 23.21
(MDLM, arXiv 2406.07524, table 2), with batches of 512 and 1M steps.
"""

from sedd_jax import default_config


def get_config():
  """Continuous time, log-linear noise, GPT-2 tokens, length 1024."""
  config = default_config.get_config()
  config.system.name = 'masked_diffusion'
  config.training.update({'num_steps': 1_000_000, 'reduction': 'token'})
  config.training.time_sampling = 'low_discrepancy'
  config.eval.update({'max_sequences': 0, 'points': 2, 'batch_size': 64})
  config.sampling.update({'method': 'ancestral', 'steps': 1024})
  return config
