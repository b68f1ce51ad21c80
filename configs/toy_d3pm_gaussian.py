"""D3PM with discretised Gaussian noise on waves of letters, a toy.

  python -m sedd_jax.main --config=configs/toy_d3pm_gaussian.py

The data are ordered: a wave in 26 levels, a the lowest and z the highest.  The
run draws its samples as curves, samples.png.

Hardware: two CPU cores, a few minutes.  The recipe is ours.
"""

from sedd_jax import default_config


def get_config():
  """T = 100 steps, 2 layers of 128, sequences of 64 letters."""
  config = default_config.get_config()
  config.system.name = 'd3pm'
  config.process.name = 'ordinal_gaussian'
  config.schedule.name = 'step_betas'
  config.schedule.update({'num_steps': 100, 'betas': 'linear'})
  config.schedule.args.update({'first': 1e-3, 'last': 0.1})
  config.data.update({'source': 'waves', 'tokenizer': 'text8', 'seq_len': 64})
  config.data.ordered = True
  config.model.update({'hidden_size': 128, 'num_layers': 2, 'num_heads': 4})
  config.model.update({'cond_size': 64, 'dropout': 0.0, 'dtype': 'float32'})
  config.training.update({'num_steps': 2000, 'batch_size': 16})
  config.training.update({'reduction': 'token', 'ema_decay': 0.99})
  config.training.update({'log_every': 100, 'eval_every': 0, 'sample_every': 0})
  config.optimizer.update({'learning_rate': 2e-3, 'warmup_steps': 100})
  config.eval.update({'max_sequences': 128, 'points': 2})
  config.sampling.update({'method': 'ancestral', 'steps': 100})
  config.sampling.num_samples = 8
  return config
