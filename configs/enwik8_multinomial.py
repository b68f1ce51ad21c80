"""Multinomial diffusion on enwik8, the paper's noise and optimization.

  python -m sedd_jax.main --config=configs/enwik8_multinomial.py

Hardware: one GPU.  Published: 1.75 bits per byte on the test split (arXiv
2102.05379), with another network, of local and linear attention.
"""

from sedd_jax import default_config


def get_config():
  """T = 4000 steps on sequences of 320 bytes; a full transformer."""
  config = default_config.get_config()
  config.system.name = 'multinomial'
  config.process.name = 'uniform'
  config.schedule.name = 'step_betas'
  config.schedule.num_steps = 4000
  config.schedule.args.min_alpha = 0.001**0.5
  config.data.update({'source': 'enwik8', 'tokenizer': 'bytes', 'seq_len': 320})
  config.model.update({'hidden_size': 512, 'num_heads': 8, 'dropout': 0.0})
  config.training.update({'num_steps': 1_000_000, 'batch_size': 32})
  config.training.update({'reduction': 'token'})
  config.optimizer.update({'name': 'adam', 'learning_rate': 1e-4})
  config.optimizer.update({'warmup_steps': 0, 'clip_norm': 0.0})
  config.eval.update({'split': 'test', 'max_sequences': 0, 'points': 1})
  config.sampling.update({'method': 'ancestral', 'steps': 4000})
  return config
