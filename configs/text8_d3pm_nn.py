"""D3PM with noise between neighbours of an embedding space, on text8.

  python -m sedd_jax.main --config=configs/text8_d3pm_nn.py

Hardware: 8 TPU or GPU devices.  Published: at most 1.59 bits per character on
the test split with T = 1000 (arXiv 2107.03006, table 1), neighbours being those
of embeddings that were trained before.  Here they are those of the network's
own, made anew every 10,000 steps, or of process.args.embeddings=FILE.npy.
"""

from sedd_jax import default_config


def get_config():
  """T = 1000 steps by mutual information, k = 5, 12 layers of 768."""
  config = default_config.get_config()
  config.system.name = 'd3pm'
  config.process.name = 'nearest_neighbor'
  config.process.args.k = 5
  config.schedule.name = 'mutual_information'
  config.schedule.num_steps = 1000
  config.data.update({'source': 'text8', 'tokenizer': 'text8', 'seq_len': 256})
  config.training.update({'num_steps': 1_000_000, 'batch_size': 512})
  config.training.update({'reduction': 'token', 'refresh_every': 10_000})
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 10_000})
  config.eval.update({'split': 'test', 'max_sequences': 0, 'points': 1})
  config.sampling.update({'method': 'ancestral', 'steps': 1000})
  return config
