"""SEDD-medium with absorbing noise on OpenWebText, the released code's recipe.

  python -m sedd_jax.main --config=configs/owt_absorb_medium.py

Hardware: the paper trained on 8 A100 80 GB or 16 A100 40 GB, accumulating; the
released code takes two micro-batches a step.  Published, zero-shot, SEDD
protocol: LAMBADA 42.77, WikiText2 31.04, PTB 87.12, WikiText103 29.98, 1BW
61.19 (arXiv 2310.16834, table 1).
"""

from sedd_jax import default_config


def get_config():
  """OpenWebText with 24 layers of width 1024."""
  config = default_config.get_config()
  config.model.hidden_size = 1024
  config.model.num_layers = 24
  config.model.num_heads = 16
  config.training.accumulation = 2
  return config
