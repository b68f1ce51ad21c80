"""What guides a run on your own text to the labels of its documents.

  python -m sedd_jax.main --config=configs/text_file_token_classifier.py \
      --config.data.path=reviews.jsonl --config.data.label=stars

It learns p(label) of noisy texts, for any run of SEDD or masked diffusion with
the same tokens and noise of the same kind (process.name), which need not know
of labels:

  python -m sedd_jax.main --mode=sample --workdir=RUN \
      --config.sampling.classifier=runs/text_file_token_classifier \
      --config.sampling.control=5 --config.sampling.guidance=first_order \
      --config.sampling.guidance_scale=4

Hardware: two CPU cores; 0.5 M parameters.
"""

from sedd_jax import default_config


def get_config():
  """2 layers of width 128 on sequences of 128 characters."""
  config = default_config.get_config()
  config.system.name = 'token_classifier'
  config.model.update({'name': 'token_classifier', 'cond_size': 64})
  config.model.update({'hidden_size': 128, 'num_layers': 2, 'num_heads': 4})
  config.model.update({'dtype': 'float32', 'scan_layers': False})
  config.model.args.update({'embedding_size': 64, 'max_positions': 128})
  config.data.update({'source': 'text_file', 'path': 'data_cache/text.jsonl'})
  config.data.update({'tokenizer': 'text8', 'seq_len': 128, 'label': 'label'})
  config.training.update({'num_steps': 1000, 'batch_size': 32})
  config.training.update({'log_every': 50, 'ema_decay': 0.995})
  config.training.update({'checkpoint_every': 250, 'eval_every': 0})
  config.training.sample_every = 0
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 50})
  return config
