"""DiffusER, small, on pairs of questions: the source is edited.

  python -m sedd_jax.data.prepare train-tokenizer --pairs --vocab-size 4096 \
      --input data_cache/qqp/train.jsonl --output data_cache/qqp_bpe
  python -m sedd_jax.main --config=configs/qqp_diffuser_small.py
  python -m sedd_jax.main --config=configs/qqp_diffuser_small.py --mode=sample

The pairs are qqp_diffuseq_small's, and revisions begin with the source.

Hardware: two CPU cores; 4.2 M parameters and 3.2 M of vocabularies.
"""

from sedd_jax import default_config


def get_config():
  """T = 6 steps, 2 layers of width 256 a network, 32 tokens a side."""
  config = default_config.get_config()
  config.system.name = 'diffuser'
  config.system.args.update({'num_steps': 6, 'source_length': 32})
  config.model.update({'hidden_size': 256, 'num_layers': 2, 'num_heads': 8})
  config.model.update({'dtype': 'float32', 'scan_layers': False})
  config.data.update({'source': 'seq2seq', 'seq_len': 32})
  config.data.layout = 'split'
  config.data.path = 'data_cache/qqp/train.jsonl'
  config.data.validation_path = 'data_cache/qqp/valid.jsonl'
  config.data.test_path = 'data_cache/qqp/test.jsonl'
  config.data.update({'tokenizer': 'data_cache/qqp_bpe', 'limit': 10_000})
  config.training.update({'num_steps': 4000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.training.update({'checkpoint_every': 500, 'eval_every': 0})
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 200})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 4000})
  config.sampling.update({'method': 'nucleus', 'steps': 6, 'top_p': 0.9})
  config.sampling.update({'start': 'source', 'batch_size': 100})
  config.sampling.update({'pairs': 'test', 'num_samples': 10})
  return config
