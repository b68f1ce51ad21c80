"""SEDD with absorbing noise on enwik8; the recipe is ours, after text8's.

  python -m sedd_jax.main --config=configs/enwik8_absorb.py

Hardware: 8 GPUs of 80 GB.  Published: no score-entropy or masked-diffusion
figure exists; for orientation, bits per byte: autoregressive 1.06, multinomial
diffusion 1.75 (arXiv 2102.05379).
"""

from sedd_jax import default_config


def get_config():
  """The network of SEDD-small on sequences of 320 bytes."""
  config = default_config.get_config()
  config.data.source = 'enwik8'
  config.data.tokenizer = 'bytes'
  config.data.seq_len = 320
  config.training.num_steps = 1_000_000
  config.eval.split = 'test'
  config.eval.max_sequences = 0
  config.eval.points = 2
  config.eval.batch_size = 256
  return config
