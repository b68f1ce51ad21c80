"""What guides Diffusion-LM on E2E by words: parts of speech, spans and parses.

  pip install 'sedd_jax[taggers]'
  python -m sedd_jax.main --config=configs/e2e_control_tags.py
  python -m sedd_jax.main --mode=sample --workdir=runs/e2e_diffusion_lm \
      --config.sampling.classifier=runs/e2e_control_tags \
      --config.sampling.control='pos: NNP VBZ DT JJ NN'

As e2e_control_classifier, with the tags of textblob.

Hardware: one GPU or 8 TPU devices; 87 M parameters.  Published, with other
taggers: success 90.0%, 93.8%, 86.0% (arXiv 2205.14217, table 2).
"""

from sedd_jax import default_config


def get_config():
  """BERT-base's blocks behind the time, all tags and phrases."""
  config = default_config.get_config()
  config.system.name = 'span_classifier'
  config.init_from = 'runs/e2e_diffusion_lm'
  config.schedule.update({'name': 'gaussian', 'num_steps': 2000})
  config.schedule.args.law = 'sqrt'
  config.model.update({'name': 'span_classifier', 'cond_size': 128})
  config.model.args.embedding_size = 16
  config.data.update({'source': 'seq2seq', 'layout': 'target'})
  config.data.label = '@spans'
  config.data.path = 'data_cache/e2e/trainset.csv'
  config.data.validation_path = 'data_cache/e2e/devset.csv'
  config.data.update({'tokenizer': 'data_cache/e2e_words', 'seq_len': 64})
  config.training.update({'num_steps': 20_000, 'batch_size': 64})
  config.training.update({'reduction': 'token', 'ema_decay': 0.999})
  config.optimizer.update({'learning_rate': 5e-5, 'warmup_steps': 1000})
  config.optimizer.update({'decay': 'linear', 'decay_steps': 20_000})
  return config
