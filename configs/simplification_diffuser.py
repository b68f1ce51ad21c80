"""DiffusER on Wiki-Auto: sentences made simpler, by edits of the source.

  python -m sedd_jax.main --config=configs/simplification_diffuser.py
  python -m sedd_jax.main --config=configs/simplification_diffuser.py \\
      --mode=sample

The pairs are simplification_diffuseq's; WikiSplit's .tsv do as well.  Revisions
begin with the source: 45 % of the examples learn its edit to the target
(system.args.source_share of those that null_share leaves), 10 % to write the
target from nothing, the others to undo noise.

Hardware: one GPU or 8 TPU devices; two networks of 6 layers of width 512, as
the paper's.  The recipe is ours: DiffusER (arXiv 2210.16886) has no figure for
these pairs, and none of ours is measured yet.
"""

from sedd_jax import default_config


def get_config():
  """T = 12 steps, the paper's rates, spans of 3 tokens, 128 tokens a side."""
  config = default_config.get_config()
  config.system.name = 'diffuser'
  config.system.args.update({'num_steps': 12, 'source_length': 128})
  config.model.update({'hidden_size': 512, 'num_layers': 6, 'num_heads': 8})
  config.model.dropout = 0.3
  config.data.update({'source': 'seq2seq', 'seq_len': 128, 'layout': 'split'})
  config.data.path = 'data_cache/wiki_auto/train.jsonl'
  config.data.validation_path = 'data_cache/wiki_auto/valid.jsonl'
  config.data.test_path = 'data_cache/wiki_auto/test.jsonl'
  config.data.tokenizer = 'data_cache/bert-base-uncased'
  config.training.update({'num_steps': 80_000, 'batch_size': 256})
  config.training.update({'reduction': 'token', 'eval_every': 0})
  config.optimizer.update({'learning_rate': 3e-4, 'warmup_steps': 4000})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 80_000})
  config.sampling.update({'method': 'beam_2d', 'beam': 5, 'branches': 3})
  config.sampling.update({'steps': 12, 'start': 'source', 'batch_size': 32})
  config.sampling.update({'pairs': 'test', 'num_samples': 1})
  return config
