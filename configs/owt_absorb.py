"""SEDD-small with absorbing noise on OpenWebText, the released code's recipe.

  python -m sedd_jax.main --config=configs/owt_absorb.py

Hardware: the paper trained on 8 A100 80 GB or 16 A100 40 GB.  Published, zero-
shot, SEDD protocol: LAMBADA 50.92, WikiText2 41.84, PTB 114.24, WikiText103
40.62, 1BW 79.29 (arXiv 2310.16834, table 1); trained anew, perhaps for longer:
validation perplexity at most 24.10 (arXiv 2406.07524, table 2).
"""

from sedd_jax import default_config


def get_config():
  """The defaults are this recipe."""
  return default_config.get_config()
