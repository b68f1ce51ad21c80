"""D3PM with absorbing noise on text8, the paper's noise and network size.

  python -m sedd_jax.main --config=configs/text8_d3pm_absorb.py

Hardware: 8 TPU or GPU devices.  Published: at most 1.45 bits per character on
the test split with T = 1000 (arXiv 2107.03006, table 1, lambda = 0.01).
"""

from sedd_jax import default_config


def get_config():
  """T = 1000 steps, 12 layers of 768, sequences of 256 characters."""
  config = default_config.get_config()
  config.system.name = 'd3pm'
  config.system.args.hybrid = 0.01
  config.process.name = 'absorbing'
  config.schedule.name = 'step_betas'
  config.schedule.update({'num_steps': 1000, 'betas': 'reciprocal'})
  config.schedule.args.min_alpha = 0.0
  config.data.update({'source': 'text8', 'tokenizer': 'text8', 'seq_len': 256})
  config.training.update({'num_steps': 1_000_000, 'batch_size': 512})
  config.training.update({'reduction': 'token'})
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 10_000})
  config.eval.update({'split': 'test', 'max_sequences': 0, 'points': 1})
  config.sampling.update({'method': 'ancestral', 'steps': 1000})
  return config
