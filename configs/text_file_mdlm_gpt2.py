"""Masked diffusion, small, on GPT-2's tokens of your own text.

  python -m sedd_jax.data.prepare gpt2
  python -m sedd_jax.main --config=configs/text_file_mdlm_gpt2.py \
      --config.data.path=my_corpus.txt

The network and the tokens seen are those of text_file_absorb_gpt2.

Hardware: two CPU cores; 6.1 M parameters and 25.7 M of the vocabulary.
"""

from sedd_jax import default_config


def get_config():
  """6 layers of width 256 on sequences of 128 tokens."""
  config = default_config.get_config()
  config.system.name = 'masked_diffusion'
  config.data.update({'source': 'text_file', 'path': 'data_cache/text.txt'})
  config.data.update({'tokenizer': 'gpt2', 'seq_len': 128})
  config.model.update(
    {'hidden_size': 256, 'num_layers': 6, 'num_heads': 8, 'cond_size': 128}
  )
  config.model.update({'dropout': 0.0, 'dtype': 'float32'})
  config.model.scan_layers = False
  config.model.args.embedding_mean = 2.0
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 100})
  config.optimizer.update({'decay': 'cosine', 'decay_steps': 5000})
  config.training.update(
    {'num_steps': 5000, 'batch_size': 8, 'log_every': 100, 'eval_every': 1000}
  )
  config.training.update({'reduction': 'token', 'sample_every': 0})
  config.training.update({'checkpoint_every': 250, 'ema_decay': 0.999})
  config.training.time_sampling = 'low_discrepancy'
  config.eval.update({'max_sequences': 128, 'points': 4})
  # Chunks of masked tokens alone go through the head.
  config.training.loss_chunk = 128
  config.sampling.update({'method': 'ancestral', 'steps': 128})
  return config
