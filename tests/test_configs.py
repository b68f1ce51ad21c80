"""The shipped recipes: complete, short, documented, and the papers'."""

import ast
import functools
import pathlib

import jax
import numpy as np
import pytest

from sedd_jax import config_checks, experiments, flags
from sedd_jax.data.files import labels
from sedd_jax.data.tokenizers import words_file
from sedd_jax.training import loop, optimizer, state, step

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'
RECIPES = (
  *('quickstart', 'text8_absorb', 'text8_uniform', 'enwik8_absorb'),
  *('enwik8_uniform', 'owt_absorb', 'owt_uniform', 'owt_absorb_medium'),
  *('text8_absorb_small', 'text8_uniform_small', 'text8_multinomial'),
  *('text8_d3pm_absorb', 'text8_d3pm_uniform', 'text8_d3pm_nn'),
  *('enwik8_multinomial', 'lm1b_d3pm_absorb', 'toy_d3pm_gaussian'),
  *('text8_mdlm', 'owt_mdlm', 'text8_ar', 'owt_ar'),
  *('lm1b_diffusion_bert', 'text_file_diffusion_bert'),
  *('text_file_absorb_gpt2', 'text_file_mdlm_gpt2', 'text_file_ar_gpt2'),
  *('toy_diffuser', 'jfleg_diffuser'),
  *('e2e_diffusion_lm', 'roc_diffusion_lm', 'e2e_diffusion_lm_small'),
  *('qqp_diffuseq', 'simplification_diffuseq', 'qqp_diffuseq_small'),
  *('qqp_ar_small', 'qqp_diffuser_small', 'simplification_diffuser'),
  *('e2e_control_classifier', 'e2e_control_classifier_small', 'e2e_ar_small'),
  *('e2e_control_tags', 'e2e_control_tags_small'),
  'text_file_token_classifier',
)
# Those without a paper's recipe behind them.
OWN = (
  *('quickstart', 'text8_absorb_small', 'text8_uniform_small'),
  *('toy_d3pm_gaussian', 'text_file_diffusion_bert'),
  *('text_file_absorb_gpt2', 'text_file_mdlm_gpt2', 'text_file_ar_gpt2'),
  *('toy_diffuser', 'jfleg_diffuser', 'text_file_token_classifier'),
  *('e2e_diffusion_lm_small', 'e2e_control_classifier_small', 'e2e_ar_small'),
  'e2e_control_tags_small',
  *('qqp_diffuseq_small', 'qqp_ar_small', 'qqp_diffuser_small'),
  'simplification_diffuser',
)


def load(name):
  return flags.load(CONFIGS / f'{name}.py')


def test_the_recipes_are_those_of_the_folder():
  readme = (CONFIGS.parent / 'README.md').read_text()
  assert [name for name in RECIPES if name not in readme] == []
  assert {path.stem for path in CONFIGS.glob('*.py')} == set(RECIPES)
  assert flags.recipes() == sorted(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_is_valid_short_and_says_what_it_is_for(name):
  config_checks.validate(load(name))
  text = (CONFIGS / f'{name}.py').read_text()
  assert len(text.splitlines()) < 40
  told = ast.get_docstring(ast.parse(text))
  command = f'python -m sedd_jax.main --config=configs/{name}.py'
  assert command in told
  assert 'Hardware: ' in told
  if name not in OWN:
    assert 'Published' in told


RELEASED = [
  n for n in RECIPES if n not in OWN and load(n).system.name == 'sedd'
]


@pytest.mark.parametrize('name', RELEASED)
def test_the_optimization_of_sedd(name):
  config = load(name)
  assert config.training.batch_size == 512
  assert config.training.reduction == 'sequence'
  assert config.training.ema_decay == 0.9999
  assert config.training.t_min == 1e-3
  assert config.training.time_sampling == 'iid'
  assert config.optimizer.name == 'adamw'
  assert config.optimizer.learning_rate == 3e-4
  assert config.optimizer.weight_decay == 0
  assert config.optimizer.warmup_steps == 2500
  assert config.optimizer.clip_norm == 1
  assert config.model.dropout == 0.1
  assert config.model.cond_size == 128


@pytest.mark.parametrize(
  ('name', 'source', 'seq_len', 'num_steps'),
  [
    ('text8', 'text8', 256, 1_000_000),
    ('enwik8', 'enwik8', 320, 1_000_000),
    ('owt', 'openwebtext', 1024, 400_000),
  ],
)
def test_absorb_and_uniform_differ_in_the_noise(
  name, source, seq_len, num_steps
):
  absorb, uniform = load(f'{name}_absorb'), load(f'{name}_uniform')
  assert absorb.data.source == source
  assert absorb.data.seq_len == seq_len
  assert absorb.training.num_steps == num_steps
  assert set(config_checks.differences(absorb, uniform)) == {
    'process.name',
    'schedule.name',
    # The bound's integrand is concentrated under uniform noise.
    'eval.time_sampling',
  }
  assert (absorb.process.name, absorb.schedule.name) == (
    'absorbing',
    'log_linear',
  )
  assert (uniform.process.name, uniform.schedule.name) == (
    'uniform',
    'geometric',
  )
  assert uniform.schedule.sigma_min == 1e-4
  assert uniform.schedule.sigma_max == 20


def test_medium_is_the_small_one_enlarged():
  small, medium = load('owt_absorb'), load('owt_absorb_medium')
  assert config_checks.differences(small, medium) == {
    'model.hidden_size': (768, 1024),
    'model.num_layers': (12, 24),
    'model.num_heads': (12, 16),
    'training.accumulation': (1, 2),
  }


@pytest.mark.parametrize('name', ['mdlm', 'ar'])
def test_small_models_of_a_text_file_are_alike(name):
  absorb, other = (load(f'text_file_{n}_gpt2') for n in ('absorb', name))
  differ = config_checks.differences(absorb, other)
  assert {path.split('.')[0] for path in differ} <= {
    *('system', 'sampling', 'eval', 'training')
  }
  assert 'training.num_steps' not in differ
  assert 'training.batch_size' not in differ


def test_diffuseq_is_trained_as_published():
  qqp, simpler = load('qqp_diffuseq'), load('simplification_diffuseq')
  differ = config_checks.differences(qqp, simpler)
  assert {path for path in differ if not path.startswith('data.')} == {
    'training.num_steps',
    'optimizer.decay_steps',
  }
  assert (qqp.training.num_steps, simpler.training.num_steps) == (50000, 80000)
  for config in (qqp, simpler):
    assert config.data.seq_len == 128 and config.schedule.num_steps == 2000
    assert config.model.args.embedding_size == 128
    assert config.training.batch_size == 2048
    assert config.optimizer.clip_norm == 0
    # Every step clamps, with the large variance.
    assert config.sampling.clamp == config.sampling.steps == 2000
    assert config.sampling.variance == 'large'
    assert config.sampling.num_samples == 10
  small, yardstick = load('qqp_diffuseq_small'), load('qqp_ar_small')
  differ = config_checks.differences(small, yardstick)
  assert not {path for path in differ if path.startswith('data.')}


def test_two_systems_simplify_the_same_pairs():
  vectors, edited = (
    load(f'simplification_{n}') for n in ('diffuseq', 'diffuser')
  )
  differ = config_checks.differences(vectors, edited)
  assert [p for p in differ if p.startswith('data.')] == ['data.layout']
  assert edited.system.args.source_length == edited.data.seq_len
  # The paper's rates are the system's own.
  assert set(edited.system.args) == {'num_steps', 'source_length'}


@pytest.mark.parametrize('size', ['', '_small'])
@pytest.mark.parametrize('name', ['control_classifier', 'control_tags'])
def test_a_classifier_has_the_noise_and_the_texts_of_its_generator(name, size):
  generator = load(f'e2e_diffusion_lm{size}')
  classifier = load(f'e2e_{name}{size}')
  assert classifier.init_from == f'runs/e2e_diffusion_lm{size}'
  differ = config_checks.differences(generator, classifier)
  assert not [path for path in differ if path.startswith('schedule')]
  assert [path for path in differ if path.startswith('data')] == ['data.label']


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_makes_a_step(name, tiny_text, tmp_path):
  """Its own process, schedule, loss and optimizer on a shrunken shape."""
  config = load(name)
  config.model.update({'hidden_size': 16, 'num_layers': 1, 'num_heads': 2})
  config.model.cond_size = 8
  config.data.path = str(tiny_text)
  if config.data.source == 'text_file' and config.data.label:
    config.data.path = str(tmp_path / 'texts.jsonl')
    text = '{{"text": "a cat sat on a mat", "label": "{}"}}\n'
    lines = 20 * (text.format('a') + text.format('b'))
    pathlib.Path(config.data.path).write_text(lines)
  if config.data.source == 'seq2seq':
    config.data.path = str(tmp_path / 'pairs.jsonl')
    pair = '{{"src": "food[{}]", "trg": "sat a cat"}}\n'
    lines = 20 * (pair.format('a') + pair.format('b'))
    pathlib.Path(config.data.path).write_text(lines)
    if 'source_length' in config.system.args:
      config.system.args.source_length = 16
  else:
    config.data.source = 'text_file'
  config.data.update({'validation_path': '', 'test_path': ''})
  config.sampling.pairs = ''
  config.data.seq_len = 16
  if config.data.label == labels.SPANS:
    (tmp_path / 'words.txt').write_text(words_file({'sat': 1, 'cat': 1}, 0))
    config.data.tokenizer = str(tmp_path)
    config.data.tagger = 'tests.toy_tagger:tagger'
  elif config.data.tokenizer != 'text8':
    config.data.tokenizer = 'bytes'
  config.training.batch_size = 2
  config.training.accumulation = min(config.training.accumulation, 2)
  # A first step of a warm-up is below what float32 tells apart.
  config.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 0})
  config_checks.validate(config)
  experiment = experiments.Experiment(config)
  system = experiment.system
  updates = optimizer.make(**config.optimizer)
  # Drawn by numpy: what draws them takes as long to compile as the step.
  rng = np.random.default_rng(0)
  params, _ = jax.tree.map(
    lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype),
    jax.eval_shape(system.init, jax.random.key(0)),
  )
  # Noise may be part of it, which cannot be any numbers.
  aux = jax.jit(lambda key: system.init(key)[1])(jax.random.key(0))
  start = state.create(lambda key: (params, aux), updates, config.seed)
  make_step = functools.partial(
    step.train_step,
    system=system,
    optimizer=updates,
    reduction=config.training.reduction,
    ema_decay=config.training.ema_decay,
    axis=None,
    accumulation=config.training.accumulation,
  )
  batch = experiment.dataset.train_batch(config.seed, 0, np.arange(2), 2)
  if system.prepare is not None:
    batch = loop.prepared(system.prepare, config.seed, 0, batch)
  # It runs once: what makes it fast takes longer than it saves.
  compiled = (
    jax.jit(make_step)
    .lower(start, batch)
    .compile(compiler_options={'xla_backend_optimization_level': 0})
  )
  after, metrics = compiled(start, batch)
  assert metrics['finite'] and int(after.step) == 1
  # Guessing costs log 27 to log 256; a step of a chain stands for all of them.
  assert 0 < metrics['loss'] < 1000
  assert metrics['grad_norm'] > 0
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(after.params)
  )
  unmoved = {
    jax.tree_util.keystr(path)
    for (path, before), now in pairs
    if np.array_equal(before, now)
  }
  # A softmax does not heed what is added to all its logits.
  assert all("['key']['bias']" in path for path in unmoved), unmoved
