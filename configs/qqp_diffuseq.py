"""DiffuSeq on pairs of questions (QQP): paraphrases.

  python -m sedd_jax.main --config=configs/qqp_diffuseq.py
  python -m sedd_jax.main --config=configs/qqp_diffuseq.py --mode=sample

DiffuSeq's train.jsonl, valid.jsonl and test.jsonl, and BERT's vocab.txt, are
yours to bring to data_cache.  The loss is on all positions, as released.

Hardware: one GPU or 8 TPU devices; 91 M parameters.  Published: BLEU 0.2413,
ROUGE-L 0.5880, MBR of 10 (arXiv 2210.08933, table 1).
"""

from sedd_jax import default_config


def get_config():
  """T = 2000 steps of sqrt, vectors of 128, BERT-base's blocks."""
  config = default_config.get_config()
  config.system.name = 'diffuseq'
  config.system.args.update({'loss_on': 'all', 'importance': True})
  config.schedule.update({'name': 'gaussian', 'num_steps': 2000})
  config.schedule.args.law = 'sqrt'
  config.model.update({'name': 'embedding_bert', 'cond_size': 128})
  config.model.args.embedding_size = 128
  config.data.update({'source': 'seq2seq', 'seq_len': 128})
  config.data.path = 'data_cache/qqp/train.jsonl'
  config.data.validation_path = 'data_cache/qqp/valid.jsonl'
  config.data.test_path = 'data_cache/qqp/test.jsonl'
  config.data.tokenizer = 'data_cache/bert-base-uncased'
  config.training.update({'num_steps': 50_000, 'batch_size': 2048})
  config.training.update({'accumulation': 8, 'reduction': 'token'})
  config.optimizer.update({'learning_rate': 1e-4, 'warmup_steps': 0})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 50_000})
  config.optimizer.clip_norm = 0.0
  config.sampling.update({'method': 'ancestral', 'steps': 2000})
  config.sampling.update({'clamp': 2000, 'variance': 'large'})
  config.sampling.update({'pairs': 'test', 'num_samples': 10})
  return config
