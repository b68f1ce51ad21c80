"""DiffuSeq on Wiki-Auto: sentences made simpler.

  python -m sedd_jax.main --config=configs/simplification_diffuseq.py
  python -m sedd_jax.main --config=configs/simplification_diffuseq.py \
      --mode=sample

It differs from qqp_diffuseq in the pairs, which are yours to bring as well, and
in the number of updates.

Hardware: one GPU or 8 TPU devices; 91 M parameters.  Published: BLEU 0.3622,
ROUGE-L 0.5849, MBR of 10 (arXiv 2210.08933, table 1).
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
  config.data.path = 'data_cache/wiki_auto/train.jsonl'
  config.data.validation_path = 'data_cache/wiki_auto/valid.jsonl'
  config.data.test_path = 'data_cache/wiki_auto/test.jsonl'
  config.data.tokenizer = 'data_cache/bert-base-uncased'
  config.training.update({'num_steps': 80_000, 'batch_size': 2048})
  config.training.update({'accumulation': 8, 'reduction': 'token'})
  config.optimizer.update({'learning_rate': 1e-4, 'warmup_steps': 0})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 80_000})
  config.optimizer.clip_norm = 0.0
  config.sampling.update({'method': 'ancestral', 'steps': 2000})
  config.sampling.update({'clamp': 2000, 'variance': 'large'})
  config.sampling.update({'pairs': 'test', 'num_samples': 10})
  return config
