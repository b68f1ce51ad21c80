"""What guides Diffusion-LM on E2E: the fields of the meanings, from noisy x_t.

  python -m sedd_jax.main --config=configs/e2e_control_classifier.py
  python -m sedd_jax.main --mode=sample --workdir=runs/e2e_diffusion_lm \
      --config.sampling.classifier=runs/e2e_control_classifier \
      --config.sampling.control='food[Chinese]'

Data and noise are those of e2e_diffusion_lm, whose run (init_from) gives the
embeddings; --mode=evaluate --config.eval.control=food tells the success.

Hardware: one GPU or 8 TPU devices; 87 M parameters.  Published: success 81.2%
at 2.55 nats a token under GPT-2 (arXiv 2205.14217, table 2); none of this one.
"""

from sedd_jax import default_config


def get_config():
  """BERT-base's blocks behind the time, all fields by turns."""
  config = default_config.get_config()
  config.system.name = 'classifier'
  config.init_from = 'runs/e2e_diffusion_lm'
  config.schedule.update({'name': 'gaussian', 'num_steps': 2000})
  config.schedule.args.law = 'sqrt'
  config.model.update({'name': 'vector_classifier', 'cond_size': 128})
  config.model.args.embedding_size = 16
  config.data.update({'source': 'seq2seq', 'layout': 'target'})
  config.data.label = '@meaning'
  config.data.path = 'data_cache/e2e/trainset.csv'
  config.data.validation_path = 'data_cache/e2e/devset.csv'
  config.data.update({'tokenizer': 'data_cache/e2e_words', 'seq_len': 64})
  config.training.update({'num_steps': 20_000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.optimizer.update({'learning_rate': 5e-5, 'warmup_steps': 1000})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 20_000})
  return config
