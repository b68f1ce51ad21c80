"""SEDD-small with uniform noise on OpenWebText, the released code's recipe.

  python -m sedd_jax.main --config=configs/owt_uniform.py

Hardware: the paper trained on 8 A100 80 GB or 16 A100 40 GB.  Published, zero-
shot, SEDD protocol: LAMBADA 65.40, WikiText2 50.27, PTB 140.12, WikiText103
49.60, 1BW 101.37 (arXiv 2310.16834, table 1); trained by others, perhaps for
longer: validation perplexity at most 29.7 (arXiv 2506.10892, table 1).
"""

from sedd_jax import default_config


def get_config():
  """OpenWebText with uniform noise from sigma 1e-4 to 20."""
  config = default_config.get_config()
  config.process.name = 'uniform'
  config.schedule.name = 'geometric'
  config.eval.time_sampling = 'importance'
  return config
