"""An autoregressive model, small, on the E2E reviews: the judge of fluency.

  python -m sedd_jax.main --config=configs/e2e_ar_small.py

Texts and tokens are those of e2e_diffusion_lm; as --config.eval.judge it scores
samples of runs on them.

Hardware: two CPU cores; 1.5 M parameters.
"""

from sedd_jax import default_config


def get_config():
  """4 layers of width 128 on sequences of 64 words."""
  config = default_config.get_config()
  config.system.name = 'autoregressive'
  config.model.update({'hidden_size': 128, 'num_layers': 4, 'num_heads': 4})
  config.model.update({'dtype': 'float32', 'scan_layers': False})
  config.data.update({'source': 'seq2seq', 'layout': 'target'})
  config.data.path = 'data_cache/e2e/trainset.csv'
  config.data.validation_path = 'data_cache/e2e/devset.csv'
  config.data.update({'tokenizer': 'data_cache/e2e_words', 'seq_len': 64})
  config.training.update({'num_steps': 4000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.training.update({'eval_every': 1000, 'sample_every': 0})
  config.training.update({'checkpoint_every': 500, 'log_every': 100})
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 100})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 4000})
  config.eval.max_sequences = 256
  config.sampling.method = 'autoregressive'
  return config
