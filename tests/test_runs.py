"""A stored run as functions."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sedd_jax as sj
from sedd_jax import (
  config_checks,
  default_config,
  experiments,
  run_folders,
  runs,
)
from sedd_jax.data import prepare
from sedd_jax.evaluation import likelihood
from sedd_jax.training import checkpoint, optimizer, state
from tests import tiny


@pytest.fixture(scope='module')
def run(trained):
  return sj.load_run(trained)


def test_what_a_run_has(run, tiny_text):
  assert run.step == tiny.NUM_STEPS
  assert run.config.data.seq_len == tiny.SEQ_LEN and run.config.is_locked
  tokens = run.tokens('validation')
  assert tokens.shape == (tiny.VALIDATION_SEQUENCES * tiny.SEQ_LEN,)
  assert run.tokenizer.decode(tokens) == tiny_text.read_text()[-len(tokens) :]
  with pytest.raises(ValueError, match="no split 'test'"):
    run.tokens('test')


def test_parameters_are_the_averaged_ones(run, trained):
  """Not the last ones, which are stored beside them."""
  system = run.experiment.system
  updates = optimizer.make(**run.config.optimizer)
  template = jax.eval_shape(
    functools.partial(state.create, system.init, updates, 0)
  )
  folder = checkpoint.Checkpoints(trained / 'checkpoints', read_only=True)
  restored, _ = folder.restore(template)
  jax.tree.map(np.testing.assert_array_equal, run.params, restored.ema)
  # On the device, so that no call moves them there again.
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(run.params))
  gap = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), run.params, restored.params
  )
  assert max(jax.tree.leaves(gap)) > 1e-3


def test_bound_is_the_evaluation(run, trained):
  """The whole split by hand: the same noise, and each sequence's own times."""
  result = likelihood.evaluate(
    run.experiment.compiled_bound,
    run.params,
    run.aux,
    run.experiment.dataset,
    split='validation',
    spread=False,
  )
  tokens = run.tokens('validation').reshape(-1, tiny.SEQ_LEN)
  bound = run.bound(tokens)
  assert bound.nats.shape == (tiny.VALIDATION_SEQUENCES,)
  np.testing.assert_array_equal(bound.weight, tiny.SEQ_LEN)
  mean = float(jnp.mean(bound.nats)) / tiny.SEQ_LEN
  assert mean == pytest.approx(result['nats_per_token'], rel=1e-5)
  for name, value in result['terms'].items():
    term = float(jnp.mean(bound.terms[name])) / tiny.SEQ_LEN
    assert term == pytest.approx(value, rel=1e-4)
  other = run.bound(tokens, seed=1)
  assert not np.allclose(other.nats, bound.nats)
  # The program spreads the times over the sequences.
  spread = json.loads((trained / 'evaluation.json').read_text())
  apart = abs(spread['nats_per_token'] - mean)
  errors = [told['standard_error'] for told in (spread, result)]
  assert 0 < apart < 4 * np.hypot(*errors) and errors[0] < errors[1]


def test_bound_wants_sequences(run):
  with pytest.raises(ValueError, match=r'tokens must be \[batch, length\]'):
    run.bound(jnp.zeros(4, jnp.int32))


def test_score_fn_draws_what_the_run_draws(run):
  """The pure sampler with the run's score, and the run's own."""
  keys = jax.vmap(jax.random.key)(np.arange(4, dtype=np.uint32))
  tokens = sj.samplers.sample(
    run.score_fn,
    keys,
    (4, tiny.SEQ_LEN),
    process=sj.processes.Absorbing(vocab_size=27),
    schedule=sj.noise_schedules.LogLinear(),
    steps=4,
  )
  np.testing.assert_array_equal(tokens, run.sample(4).tokens)


def test_score_fn_may_be_compiled(run):
  draw = functools.partial(
    sj.samplers.sample,
    run.score_fn,
    shape=(2, tiny.SEQ_LEN),
    process=sj.processes.Absorbing(vocab_size=27),
    schedule=sj.noise_schedules.LogLinear(),
    steps=2,
  )
  np.testing.assert_array_equal(
    jax.jit(draw)(jax.random.key(0)), draw(jax.random.key(0))
  )


def test_score_fn_is_a_log_score(run):
  x_t = jnp.full((2, tiny.SEQ_LEN), 27).at[0, 0].set(3)
  sigma = jnp.array([0.5, 2.0])
  log_score = run.score_fn(x_t, sigma)
  assert log_score.shape == (2, tiny.SEQ_LEN, 28)
  own = jnp.take_along_axis(log_score, x_t[..., None], -1)
  np.testing.assert_array_equal(own, 0)


def test_samples_depend_on_their_seeds_alone(run):
  """In a batch of three as alone, in any order, again and again."""
  together = run.sample(3).tokens
  np.testing.assert_array_equal(together, run.sample(3).tokens)
  for seed in range(3):
    alone = run.sample(seeds=[seed]).tokens
    np.testing.assert_array_equal(alone, together[[seed]])
  turned = run.sample(seeds=[2, 0, 1]).tokens
  np.testing.assert_array_equal(turned, together[[2, 0, 1]])
  assert len(np.unique(together, axis=0)) == 3
  # More than a batch of four.
  np.testing.assert_array_equal(run.sample(6).tokens[:3], together)


def test_samples_keep_what_is_given(run):
  samples = run.sample(2, prompt='the {blank:4} of', suffix='rome')
  assert samples.tokens.shape == (2, tiny.SEQ_LEN)
  assert samples.tokens.max() < 27
  for tokens in samples.tokens:
    text = run.tokenizer.decode(tokens)
    assert text[:4] == 'the ' and text[8:11] == ' of' and text[12:] == 'rome'


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({'prompt': 'Rome'}, "character 'R'"),
    ({'prompt': 'a' * 17}, 'take 17 tokens'),
    ({'method': 'tweedy'}, "unknown sampling method 'tweedy'"),
    ({'options': {'gird': 1}}, "unknown sampling option 'gird'"),
    (
      {'options': {'temperature': 0.5}},
      "option 'temperature': sampling.method 'tweedie' takes grid, ",
    ),
  ],
)
def test_mistakes_in_a_request(run, options, told):
  with pytest.raises(ValueError, match=told):
    run.sample(1, **options)


def test_a_system_without_a_function_says_so(run):
  class Bare:
    bound = sample = score_fn = None

  experiment = experiments.Experiment(run.config, read=False)
  experiment.system = Bare()
  bare = runs.Run(experiment, (), (), 0)
  tokens = jnp.zeros((1, 4), jnp.int32)
  with pytest.raises(ValueError, match="'sedd' has no likelihood"):
    bare.bound(tokens)
  with pytest.raises(ValueError, match="'sedd' draws no samples"):
    bare.sample(1)
  with pytest.raises(ValueError, match="'sedd' has no score"):
    bare.score_fn(tokens, jnp.ones(1))


def test_text_is_read_when_it_is_asked_for(run):
  experiment = experiments.Experiment(run.config, read=False)
  assert experiment.info.vocab_size == 27 and not experiment.info.num_tokens
  assert 'dataset' not in vars(experiment)
  assert experiment.dataset.info.num_tokens['train'] == 3840


def test_no_run_and_no_checkpoint(tmp_path, trained):
  with pytest.raises(ValueError, match='no run in .*config.json'):
    sj.load_run(tmp_path)
  (tmp_path / 'config.json').write_text((trained / 'config.json').read_text())
  with pytest.raises(ValueError, match='no checkpoint in .*: train the run'):
    sj.load_run(tmp_path)


def test_what_may_differ_when_a_run_goes_on(trained):
  stored = (trained / 'config.json').read_text()
  read = functools.partial(config_checks.from_json, stored)
  run_folders.require_same(read(), trained)
  allowed = read()
  allowed.training.num_steps = 99
  allowed.training.accumulation = 2
  allowed.model.remat = True
  allowed.eval.points = 3
  allowed.sampling.prompt = 'a'
  allowed.data.path = 'moved.txt'
  run_folders.require_same(allowed, trained)
  for group, field, value in (
    ('training', 'batch_size', 16),
    ('training', 't_min', 1e-2),
    ('optimizer', 'clip_norm', 2.0),
    ('schedule', 'eps', 1e-2),
    ('data', 'seq_len', 8),
  ):
    changed = read()
    changed[group][field] = value
    with pytest.raises(config_checks.ConfigError) as error:
      run_folders.require_same(changed, trained)
    assert f'{group}.{field} (' in str(error.value)
    assert f'now {value!r})' in str(error.value)


def test_weights_that_do_not_fit_are_named():
  have = {'a': np.zeros(2), 'b': np.zeros((3, 4))}
  run_folders.require_same_shapes(have, dict(have), 'there')
  with pytest.raises(ValueError, match=r"there has \['b'\] of shape \(3, 4\)"):
    run_folders.require_same_shapes(have, {**have, 'b': np.zeros(3)}, 'there')
  with pytest.raises(ValueError, match=r"\['c'\] of shape None"):
    run_folders.require_same_shapes(have, {**have, 'c': np.zeros(3)}, 'there')


def test_weights_of_another_parametrization_are_refused(run, tmp_path):
  """Their shapes are the same, and what they give is something else."""

  def refuses(config):
    (tmp_path / 'config.json').write_text(config_checks.to_json(config))
    run_folders.require_same_meaning(tmp_path, run.config)

  before = config_checks.from_json(config_checks.to_json(run.config))
  refuses(before)
  before.system.args.parametrization = 'score'
  refuses(before)
  before.system.args.parametrization = 'x0'
  with pytest.raises(ValueError, match="parametrization='x0', and .* 'score'"):
    refuses(before)


def test_a_hub_folder_with_a_config_is_no_run(run, tmp_path):
  """Its config.json is another one: the system's own reader gets it."""
  (tmp_path / 'config.json').write_text('{}')
  config = config_checks.from_json(config_checks.to_json(run.config))
  config.init_from = str(tmp_path)
  experiment = experiments.Experiment(config, read=False)
  with pytest.raises(ValueError, match='holds none of model.safetensors'):
    experiment.initial_params()


def test_other_tokens_of_the_same_text_are_another_run(tmp_path):
  """The text's files are the same; the split, or the tokenizer, is not."""
  text = tmp_path / 'text.jsonl'
  lines = [{'text': f'the text of document {i}'} for i in range(300)]
  text.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  trained = tmp_path / 'trained'
  assert not prepare.main(
    ['train-tokenizer', '--input', str(text), '--output', str(trained)]
    + ['--vocab-size', '270']
  )

  def files_of(name, tokenizer, *more):
    folder = tmp_path / name
    asked = ['--input', str(text), '--output', str(folder), *more]
    asked += ['--tokenizer', tokenizer]
    assert not prepare.main(['text_file', *asked])
    config = default_config.get_config()
    config.data.update({'source': 'text_file', 'path': str(folder)})
    config.data.update({'seq_len': 8, 'tokenizer': tokenizer})
    return experiments.Experiment(config).files

  plain = ['bytes', '--split-by', 'document']
  first = files_of('a', *plain, '--validation-fraction', '0.1')
  again = files_of('b', *plain, '--validation-fraction', '0.1')
  run_folders.require_same_files(first, again)
  for other in (
    files_of('c', *plain, '--validation-fraction', '0.3'),
    files_of('d', str(trained)),
  ):
    assert other[0] == first[0]
    with pytest.raises(config_checks.ConfigError) as error:
      run_folders.require_same_files(first, other)
    # What is the same is not told.
    assert 'manifest.json (sha256 ' in str(error.value)
    assert 'text.jsonl' not in str(error.value)
  # Text that is read as it is may be prepared now.
  raw = [file for file in first if file['name'] != 'manifest.json']
  run_folders.require_same_files(raw, first)
