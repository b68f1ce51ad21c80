"""DiffuSeq, small, on pairs of questions.

  python -m sedd_jax.data.prepare train-tokenizer --pairs --vocab-size 4096 \
      --input data_cache/qqp/train.jsonl --output data_cache/qqp_bpe
  python -m sedd_jax.main --config=configs/qqp_diffuseq_small.py
  python -m sedd_jax.main --config=configs/qqp_diffuseq_small.py --mode=sample

The first 10,000 pairs; the noise of qqp_diffuseq, its network smaller.

Hardware: two CPU cores; 3.8 M parameters.
"""

from sedd_jax import default_config


def get_config():
  """4 layers of width 256, vectors of 64, sequences of 64 tokens."""
  config = default_config.get_config()
  config.system.name = 'diffuseq'
  config.system.args.update({'loss_on': 'all', 'importance': True})
  config.schedule.update({'name': 'gaussian', 'num_steps': 2000})
  config.model.name = 'embedding_bert'
  config.model.args.update({'embedding_size': 64, 'max_positions': 128})
  config.model.update({'hidden_size': 256, 'num_layers': 4, 'num_heads': 8})
  config.model.update({'dtype': 'float32', 'scan_layers': False})
  config.data.update({'source': 'seq2seq', 'seq_len': 64})
  config.data.path = 'data_cache/qqp/train.jsonl'
  config.data.validation_path = 'data_cache/qqp/valid.jsonl'
  config.data.test_path = 'data_cache/qqp/test.jsonl'
  config.data.update({'tokenizer': 'data_cache/qqp_bpe', 'limit': 10_000})
  config.training.update({'num_steps': 6000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.training.update({'checkpoint_every': 500, 'eval_every': 0})
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 200})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 6000})
  config.sampling.update({'method': 'ancestral', 'steps': 200})
  config.sampling.update({'clamp': 2000, 'batch_size': 100})
  config.sampling.update({'pairs': 'test', 'num_samples': 10})
  return config
