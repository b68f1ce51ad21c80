"""DiffusER as a corrector of sentences: noise of edits on clean ones, undone.

  python -m sedd_jax.corrupting --input tune.tsv,validation.tsv \\
    --split-at '<::::>' --output data_cache/wikisplit.jsonl
  python -m sedd_jax.data.prepare train-tokenizer --pairs --vocab-size 4096 \\
    --input data_cache/wikisplit.jsonl --output data_cache/wikisplit_bpe
  python -m sedd_jax.main --config=configs/jfleg_diffuser.py

The .tsv are WikiSplit's, of which the clean sentences are read.  How those of
JFLEG are then revised and scored is in docs/systems.md (DiffusER).

Hardware: two CPU cores.  The recipe is ours; no figure is measured yet.
"""

from sedd_jax import default_config


def get_config():
  """T = 2 steps of few, short edits, 3 layers of 192 a network, 56 tokens."""
  config = default_config.get_config()
  config.system.name = 'diffuser'
  config.system.args.update({'num_steps': 2, 'mean_length': 1.0})
  rates = {'keep': 0.88, 'replace': 0.08, 'delete': 0.025, 'insert': 0.015}
  config.system.args.update(rates)
  config.system.args.update({'distractors': 'corpus', 'null_share': 0.0})
  config.system.args.update({'capacity': 72, 'written': 32})
  config.data.update({'source': 'seq2seq', 'layout': 'target', 'seq_len': 56})
  config.data.path = 'data_cache/wikisplit.jsonl'
  config.data.tokenizer = 'data_cache/wikisplit_bpe'
  config.model.update({'hidden_size': 192, 'num_layers': 3, 'num_heads': 6})
  config.model.update({'cond_size': 64, 'dropout': 0.1, 'dtype': 'float32'})
  config.training.update({'num_steps': 4000, 'batch_size': 32})
  config.training.update({'reduction': 'token', 'ema_decay': 0.998})
  config.training.update({'eval_every': 0, 'sample_every': 0})
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 200})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 4000})
  config.sampling.update({'method': 'beam', 'beam': 5, 'steps': 2})
  config.sampling.update({'start': 'random', 'batch_size': 32})
  return config
