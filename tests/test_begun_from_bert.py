"""DiffusionBERT begun from BERT's weights, as a user asks for it."""

import json

import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import main
from sedd_jax.models import bert_weights, tensor_files
from tests import golden_numbers
from tests.models import bert_reference

FIELDS = {
  'model.hidden_size': 16,
  'model.num_layers': 2,
  'model.num_heads': 2,
  'model.args.mlp_size': 40,
  'model.args.max_positions': 24,
  'model.args.time': 'prefix',
  'system.args.timed': True,
  'schedule.num_steps': 8,
  'data.seq_len': 16,
  'data.validation_fraction': 0.2,
  'training.num_steps': 2,
  'training.batch_size': 8,
  'training.eval_every': 0,
  'eval.max_sequences': 8,
  'eval.points': 1,
  'sampling.steps': 4,
  'sampling.length': 12,
  'sampling.num_samples': 2,
  'optimizer.learning_rate': 1e-9,
}


@pytest.mark.slow
def test_weights_and_words_of_one_folder(tmp_path):
  pytest.importorskip('tokenizers')
  folder, workdir = tmp_path / 'bert', tmp_path / 'run'
  folder.mkdir()
  golden = golden_numbers.load('bert')
  tensors = {k[3:]: golden[k] for k in golden if k.startswith('sd/')}
  tensor_files.write_safetensors(folder / 'model.safetensors', tensors)
  (folder / 'config.json').write_text('{"num_attention_heads": 2}')
  (folder / 'vocab.txt').write_text('\n'.join(bert_reference.VOCABULARY) + '\n')
  letters = np.random.default_rng(0).choice(list('ABCdefg'), 2000)
  lines = [
    json.dumps({'text': ' '.join(row)}) for row in letters.reshape(-1, 20)
  ]
  (tmp_path / 'text.jsonl').write_text('\n'.join(lines))
  main.main(
    [
      '--config=text_file_diffusion_bert',
      *(f'--config.{field}={value}' for field, value in FIELDS.items()),
      f'--config.data.path={tmp_path / "text.jsonl"}',
      f'--config.data.tokenizer={folder}',
      f'--config.init_from={folder}',
      f'--workdir={workdir}',
    ]
  )
  told = json.loads((workdir / 'evaluation.json').read_text())
  assert np.isfinite(told['nats_per_token']) and told['step'] == 2
  run = sj.load_run(workdir)
  assert run.tokenizer.vocab_size == len(bert_reference.VOCABULARY)
  # Sentences are packed with [SEP] between them.
  train = np.asarray(run.experiment.dataset.tokens('train'))
  assert (train == bert_reference.SEP).sum() == pytest.approx(80, abs=2)
  # The steps were too small to move the weights.
  weights, _ = bert_weights.load_bert(folder)
  np.testing.assert_allclose(
    run.params['embed']['embedding'], weights['embed']['embedding'], atol=1e-6
  )
