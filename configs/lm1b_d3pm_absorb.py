"""D3PM with absorbing noise on LM1B, the paper's noise and network size.

  python -m sedd_jax.main --config=configs/lm1b_d3pm_absorb.py

The corpus is prepared in its published splits, with a vocabulary of 8192 pieces
that is yours to bring (or `prepare train-tokenizer`):

  python -m sedd_jax.data.prepare lm1b --as-is --tokenizer data_cache/pieces

Sentences are packed.  Hardware: 8 TPU or GPU devices.  Published: perplexity at
most 76.9 a *word* of the test split with T = 1000 (arXiv 2107.03006, table 2);
the perplexity that an evaluation reports here is a piece's.
"""

from sedd_jax import default_config


def get_config():
  """T = 1000 steps, 12 layers of 768, sequences of 128 pieces."""
  config = default_config.get_config()
  config.system.name = 'd3pm'
  config.system.args.hybrid = 0.01
  config.process.name = 'absorbing'
  config.schedule.name = 'step_betas'
  config.schedule.update({'num_steps': 1000, 'betas': 'reciprocal'})
  config.schedule.args.min_alpha = 0.0
  config.data.update({'source': 'lm1b', 'tokenizer': 'data_cache/pieces'})
  config.data.seq_len = 128
  config.training.update({'num_steps': 1_000_000, 'batch_size': 512})
  config.training.update({'reduction': 'token'})
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 10_000})
  config.eval.update({'max_sequences': 0, 'points': 1})
  config.sampling.update({'method': 'ancestral', 'steps': 1000})
  return config
