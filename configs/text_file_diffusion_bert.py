"""A small DiffusionBERT on a text file of your own, begun at random.

  python -m sedd_jax.main --config=configs/text_file_diffusion_bert.py \
      --config.data.path=my_corpus.txt

The text is read as letters a to z and spaces, rare ones masked first.  With
--config.data.tokenizer=FOLDER its words are BERT's pieces, and with
--config.init_from=FOLDER a small BERT of this size is the start (256 wide, 4
layers, 4 heads; FOLDER holds vocab.txt, config.json, model.safetensors).

Hardware: two CPU cores; 3.4 M parameters and 256 for each piece.
"""

from sedd_jax import default_config


def get_config():
  """T = 256 steps, 4 layers of width 256, sequences of 128 letters."""
  config = default_config.get_config()
  config.system.name = 'diffusion_bert'
  config.schedule.update({'name': 'spindle', 'num_steps': 256})
  config.data.update({'source': 'text_file', 'path': 'data_cache/text.txt'})
  config.data.update({'tokenizer': 'text8', 'seq_len': 128})
  config.model.update(
    {'name': 'bert', 'hidden_size': 256, 'num_layers': 4, 'num_heads': 4}
  )
  config.model.update(
    {'dropout': 0.0, 'dtype': 'float32', 'scan_layers': False}
  )
  config.training.update({'num_steps': 1250, 'batch_size': 32})
  config.training.update({'log_every': 50, 'eval_every': 250})
  config.training.update(
    {'checkpoint_every': 250, 'sample_every': 0, 'ema_decay': 0.999}
  )
  config.optimizer.update({'learning_rate': 5e-4, 'warmup_steps': 200})
  config.eval.update({'max_sequences': 64, 'points': 4})
  config.sampling.update({'method': 'ancestral', 'steps': 64, 'length': 64})
  return config
