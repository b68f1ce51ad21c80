"""What guides e2e_diffusion_lm_small by words: tags, spans and parses.

  pip install 'sedd_jax[taggers]'
  python -m sedd_jax.main --config=configs/e2e_control_tags_small.py

As e2e_control_classifier_small; sampling.control is 'NP[0:2]' or
'pos: NNP VBZ DT NN'.

Hardware: two CPU cores; 0.8 M parameters.
"""

from sedd_jax import default_config


def get_config():
  """3 layers of width 128 on sequences of 64 words."""
  config = default_config.get_config()
  config.system.name = 'span_classifier'
  config.init_from = 'runs/e2e_diffusion_lm_small'
  config.schedule.update({'name': 'gaussian', 'num_steps': 2000})
  config.schedule.args.law = 'sqrt'
  config.model.update({'name': 'span_classifier', 'cond_size': 128})
  config.model.update({'hidden_size': 128, 'num_layers': 3, 'num_heads': 4})
  config.model.update({'dtype': 'float32', 'scan_layers': False})
  config.model.args.update({'embedding_size': 16, 'max_positions': 64})
  config.data.update({'source': 'seq2seq', 'layout': 'target'})
  config.data.label = '@spans'
  config.data.path = 'data_cache/e2e/trainset.csv'
  config.data.validation_path = 'data_cache/e2e/devset.csv'
  config.data.update({'tokenizer': 'data_cache/e2e_words', 'seq_len': 64})
  config.training.update({'num_steps': 4000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.training.update({'checkpoint_every': 500, 'log_every': 100})
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 100})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 4000})
  return config
