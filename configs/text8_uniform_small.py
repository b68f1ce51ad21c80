"""A small SEDD with uniform noise on text8: what two CPU cores can train.

  python -m sedd_jax.main --config=configs/text8_uniform_small.py

Hardware: two CPU cores; 4.1 M parameters, 5.12 M characters.  The recipe is
ours, for comparisons at equal size; figures are in docs/benchmarks.md.
"""

from sedd_jax import default_config


def get_config():
  """4 layers of width 256 on sequences of 256 characters."""
  config = default_config.get_config()
  config.data.update({'source': 'text8', 'tokenizer': 'text8', 'seq_len': 256})
  config.process.name = 'uniform'
  config.schedule.name = 'geometric'
  config.model.update(
    {'hidden_size': 256, 'num_layers': 4, 'num_heads': 8, 'cond_size': 128}
  )
  config.model.update(
    {'dropout': 0.0, 'dtype': 'float32', 'scan_layers': False}
  )
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 200})
  config.training.update(
    {'num_steps': 1250, 'batch_size': 16, 'log_every': 50, 'eval_every': 250}
  )
  config.training.update(
    {'checkpoint_every': 250, 'sample_every': 0, 'ema_decay': 0.999}
  )
  config.eval.update({'max_sequences': 128, 'points': 4})
  config.eval.time_sampling = 'importance'
  return config
