"""The autoregressive yardstick on OpenWebText: SEDD-small's network, causal.

  python -m sedd_jax.main --config=configs/owt_ar.py

Hardware: 8 GPUs of 80 GB.  Published: validation perplexity 17.54 (MDLM, arXiv
2406.07524, table 2).
"""

from sedd_jax import default_config


def get_config():
  """GPT-2 tokens, length 1024, from left to right."""
  config = default_config.get_config()
  config.system.name = 'autoregressive'
  config.training.update({'num_steps': 1_000_000, 'reduction': 'token'})
  config.eval.update({'max_sequences': 0, 'batch_size': 64})
  config.sampling.method = 'autoregressive'
  return config
