"""An autoregressive model, small, on pairs of questions.

  python -m sedd_jax.data.prepare train-tokenizer --pairs --vocab-size 4096 \
      --input data_cache/qqp/train.jsonl --output data_cache/qqp_bpe
  python -m sedd_jax.main --config=configs/qqp_ar_small.py
  python -m sedd_jax.main --config=configs/qqp_ar_small.py --mode=sample

It reads qqp_diffuseq_small's pairs in the same layout, and writes the target
behind the source: what DiffuSeq is to be held against.

Hardware: two CPU cores; 4.1 M parameters and 2.1 M of the vocabulary.
"""

from sedd_jax import default_config


def get_config():
  """4 causal layers of width 256 on sequences of 64 tokens."""
  config = default_config.get_config()
  config.system.name = 'autoregressive'
  config.model.update({'hidden_size': 256, 'num_layers': 4, 'num_heads': 8})
  config.model.update({'dtype': 'float32', 'scan_layers': False})
  config.data.update({'source': 'seq2seq', 'seq_len': 64})
  config.data.path = 'data_cache/qqp/train.jsonl'
  config.data.validation_path = 'data_cache/qqp/valid.jsonl'
  config.data.test_path = 'data_cache/qqp/test.jsonl'
  config.data.update({'tokenizer': 'data_cache/qqp_bpe', 'limit': 10_000})
  config.training.update({'num_steps': 3000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.training.update({'checkpoint_every': 500, 'eval_every': 250})
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 200})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 3000})
  config.eval.update({'max_sequences': 512, 'checkpoint': 'best'})
  config.sampling.update({'method': 'autoregressive', 'batch_size': 100})
  config.sampling.update({'pairs': 'test', 'num_samples': 10})
  return config
