"""DiffusionBERT on LM1B: masks by the spindle schedule, begun from BERT.

  python -m sedd_jax.main --config=configs/lm1b_diffusion_bert.py

BERT's config.json, vocab.txt and model.safetensors (of a cased BERT also
tokenizer_config.json) are in data_cache/bert-base-uncased, yours to bring
(--config.data.tokenizer and --config.init_from, '' to begin at random).  The
corpus is prepared in its published splits:

  python -m sedd_jax.data.prepare lm1b --as-is \\
    --tokenizer data_cache/bert-base-uncased

Sentences are packed, with [SEP] between them, where the paper pads each to 128
pieces; the clip is one of the norm, where the released code clips each entry at
5.  Hardware: one GPU or 8 TPU devices; 110 M parameters.  Published: perplexity
at most 63.78 a *word* by the paper's looser protocol (arXiv 2211.15029, table
1); the perplexity that an evaluation reports here is a piece's.
"""

from sedd_jax import default_config


def get_config():
  """T = 2048 steps, bert-base-uncased, no time, sequences of 128 pieces."""
  config = default_config.get_config()
  config.system.name = 'diffusion_bert'
  config.schedule.update({'name': 'spindle', 'num_steps': 2048})
  config.schedule.args.strength = 0.3
  config.model.name = 'bert'
  config.data.update({'source': 'lm1b'})
  config.data.update({'tokenizer': 'data_cache/bert-base-uncased'})
  config.data.seq_len = 128
  config.init_from = 'data_cache/bert-base-uncased'
  config.training.update({'num_steps': 1_900_000, 'batch_size': 32})
  config.optimizer.update({'learning_rate': 3e-6, 'warmup_steps': 10_000})
  config.eval.update({'max_sequences': 0, 'points': 1})
  config.sampling.update({'method': 'ancestral', 'steps': 128, 'length': 64})
  return config
