import dataclasses
import itertools
import json
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.training import checkpoint, loop, metrics, parallel, trackers
from sedd_jax.training import optimizer as optimizer_lib
from sedd_jax.training import state as state_lib
from tests.training import toys

DEVICES = 2


def train(workdir, system=toys.SYSTEM, optimizer=toys.ADAMW, **options):
  changes = {k: options.pop(k) for k in list(options) if k in FIELDS}
  return loop.train(
    system,
    toys.Dataset(),
    workdir=workdir,
    seed=0,
    training=toys.training(**changes),
    optimizer=optimizer,
    devices=options.pop('devices', jax.devices()[:DEVICES]),
    **options,
  )


FIELDS = vars(toys.training())


def lines(workdir):
  """metrics.jsonl without what depends on the clock, as text."""
  rows = list(metrics.read(workdir / 'metrics.jsonl'))
  for row in rows:
    assert set(row.pop('timing')) <= {'seconds', 'tokens_per_second', 'mfu'}
  return [json.dumps(row) for row in rows]


def to_bytes(state):
  def words(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()

  return [words(leaf) for leaf in jax.tree.leaves(state)]


def evaluate(params, aux, step):
  del aux
  return {'nats_per_token': float(jnp.sum(params['head'])), 'at': step}


def signalling(number, at):
  """The system, with a signal to this process after a step."""
  calls = itertools.count(1)

  def refresh(params, aux):
    del params
    if next(calls) == at:
      os.kill(os.getpid(), number)
    return aux

  return dataclasses.replace(toys.SYSTEM, refresh=refresh)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  """Ten steps in one go: the state's bytes and the lines."""
  workdir = tmp_path_factory.mktemp('straight')
  state = train(workdir, evaluate_fn=evaluate, eval_every=4)
  return to_bytes(state), lines(workdir)


def test_straight_run(straight):
  rows = [json.loads(line) for line in straight[1]]
  assert [row['step'] for row in rows] == [3, 4, 6, 8, 9, 10]
  assert [row['step'] for row in rows if 'validation' in row] == [4, 8]
  assert rows[1]['validation']['at'] == 4
  for row in rows:
    assert list(row)[:3] == ['step', 'loss', 'bpc']
    np.testing.assert_allclose(row['bpc'], row['loss'] / np.log(2) / 2)
    assert {'objective', 'grad_norm', 'learning_rate', 'terms'} <= set(row)
  np.testing.assert_allclose(rows[0]['learning_rate'], 0.05, rtol=1e-6)


def test_training_lowers_the_loss(tmp_path):
  train(tmp_path, num_steps=60, log_every=20)
  rows = [json.loads(line) for line in lines(tmp_path)]
  assert rows[-1]['loss'] < rows[0]['loss'] - 0.1


@pytest.mark.parametrize('stop', [5, 6, 8])
def test_restart_is_bit_identical(tmp_path, straight, stop):
  """Also in the middle of a window, and at a line with a validation."""
  options = {'evaluate_fn': evaluate, 'eval_every': 4}
  system = signalling(signal.SIGTERM, at=stop)
  with pytest.raises(SystemExit) as stopped:
    train(tmp_path, system, refresh_every=1, **options)
  assert stopped.value.code == 0
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == [stop]
  state = train(tmp_path, **options)
  assert to_bytes(state) == straight[0]
  assert lines(tmp_path) == straight[1]


def test_lines_after_the_checkpoint_are_made_again(tmp_path, straight):
  """As after kill -9: the newest checkpoint is older than the newest line."""
  options = {'evaluate_fn': evaluate, 'eval_every': 4, 'keep_checkpoints': 9}
  train(tmp_path, checkpoint_every=5, **options)
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == [5, 10]
    checkpoints.discard_after(5)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 11')
  state = train(tmp_path, **options)
  assert to_bytes(state) == straight[0]
  assert lines(tmp_path) == straight[1]


def test_damaged_newest_checkpoint(tmp_path, straight):
  options = {'evaluate_fn': evaluate, 'eval_every': 4}
  train(tmp_path, checkpoint_every=5, **options)
  newest = tmp_path / 'checkpoints' / '10' / checkpoint.MANIFEST
  newest.write_text('{}')
  state = train(tmp_path, **options)
  assert to_bytes(state) == straight[0]
  assert lines(tmp_path) == straight[1]
  # The damaged one has been replaced.
  assert 'files' in json.loads(newest.read_text())


def test_resume_on_other_devices_with_sgd(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  expected = train(whole, optimizer=toys.SGD)
  train(parts, optimizer=toys.SGD, num_steps=5, devices=jax.devices()[:8])
  state = train(parts, optimizer=toys.SGD, accumulation=2)
  for name, value in expected.params.items():
    np.testing.assert_allclose(state.params[name], value, rtol=1e-5, atol=1e-6)


def test_finished_run_is_recognised(tmp_path, capfd, straight):
  first = train(tmp_path)
  before = (tmp_path / 'metrics.jsonl').read_text()

  def unused(*args):
    raise AssertionError('a finished run trains no further')

  system = dataclasses.replace(toys.SYSTEM, loss=unused)
  again = train(tmp_path, system)
  assert to_bytes(again) == to_bytes(first) == straight[0]
  assert (tmp_path / 'metrics.jsonl').read_text() == before
  assert f'{tmp_path} is trained: 10 steps' in capfd.readouterr().err


def test_finished_run_can_be_extended(tmp_path, straight):
  train(tmp_path, num_steps=9)
  assert to_bytes(train(tmp_path)) == straight[0]


def test_ctrl_c_saves(tmp_path, straight):
  system = signalling(signal.SIGINT, at=4)
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, system, refresh_every=1)
  assert to_bytes(train(tmp_path)) == straight[0]


def test_handlers_are_put_back(tmp_path):
  before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
  train(tmp_path)
  after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
  assert after == before


def test_outside_the_main_thread(tmp_path, straight):
  results = []
  thread = threading.Thread(target=lambda: results.append(train(tmp_path)))
  thread.start()
  thread.join()
  assert to_bytes(results[0]) == straight[0]


def test_sigterm_during_evaluation(tmp_path, straight):
  """The evaluation is broken off, and made when the run goes on."""
  finished = []

  def interrupted(params, aux, step):
    if step == 8:
      os.kill(os.getpid(), signal.SIGTERM)
    finished.append(step)
    return evaluate(params, aux, step)

  with pytest.raises(SystemExit):
    train(tmp_path, evaluate_fn=interrupted, eval_every=4)
  assert finished == [4]
  state = train(tmp_path, evaluate_fn=evaluate, eval_every=4)
  assert to_bytes(state) == straight[0]
  assert lines(tmp_path) == straight[1]


def test_failing_evaluation_loses_no_steps(tmp_path, straight):
  def failing(params, aux, step):
    raise MemoryError('too large')

  with pytest.raises(MemoryError, match='too large'):
    train(tmp_path, evaluate_fn=failing, eval_every=4)
  state = train(tmp_path, evaluate_fn=evaluate, eval_every=4)
  assert to_bytes(state) == straight[0]
  assert lines(tmp_path) == straight[1]


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_non_finite_stops_the_run(tmp_path, bad):
  def loss(params, aux, key, batch):
    out = toys.loss(params, aux, key, batch)
    # `aux` is the number of the step.
    return out._replace(nats=out.nats + jnp.where(aux >= 6, bad, 0.0))

  system = dataclasses.replace(
    toys.SYSTEM,
    loss=loss,
    init=lambda key: (toys.init(key)[0], jnp.zeros(())),
    update_aux=lambda aux, stats: aux + 1,
  )
  with pytest.raises(loop.NonFiniteError) as stopped:
    train(tmp_path, system, checkpoint_every=2)
  text = str(stopped.value)
  assert 'at step 7:' in text
  assert 'first ' in text
  assert f'last good checkpoint: step 6 in {tmp_path}' in text
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == [4, 6]


def test_aux_does_not_depend_on_devices(tmp_path):
  system = toys.remembering(8)
  few = train(tmp_path / 'few', system, optimizer=toys.SGD)
  many = train(
    tmp_path / 'many',
    system,
    optimizer=toys.SGD,
    accumulation=2,
    devices=jax.devices()[:4],
  )
  np.testing.assert_allclose(few.aux, many.aux, rtol=1e-4)


@pytest.mark.parametrize('parallelism', ['pmap', 'fsdp'])
@pytest.mark.parametrize('begun', [False, True])
def test_refresh(tmp_path, parallelism, begun):
  def refresh(params, aux):
    assert isinstance(params['embed'], np.ndarray)
    return aux + 1

  system = dataclasses.replace(toys.remembering(8), refresh=refresh)
  system = dataclasses.replace(system, update_aux=lambda aux, stats: aux)
  params, _ = toys.SYSTEM.init(jax.random.key(0))
  state = train(
    tmp_path,
    system,
    refresh_every=4,
    parallelism=parallelism,
    initial_params=params if begun else None,
    devices=jax.devices()[:2],
  )
  # At steps 4 and 8, and at the start for parameters from elsewhere.
  np.testing.assert_array_equal(state.aux, np.full(8, 2.0 + begun))


@pytest.mark.parametrize('fails_at', [1, 2, 3])
def test_a_refresh_that_failed_is_made_when_the_run_goes_on(tmp_path, fails_at):
  """At the start, after 4 steps, after 8."""
  calls = itertools.count(1)

  def refresh(params, aux):
    del params
    if next(calls) == fails_at:
      raise RuntimeError('no neighbours')
    return aux + 1

  system = dataclasses.replace(
    toys.remembering(8), refresh=refresh, update_aux=lambda aux, stats: aux
  )
  params, _ = toys.SYSTEM.init(jax.random.key(0))
  how = {'refresh_every': 4, 'initial_params': params}
  with pytest.raises(RuntimeError, match='no neighbours'):
    train(tmp_path, system, **how)
  state = train(tmp_path, system, **how)
  np.testing.assert_array_equal(state.aux, np.full(8, 3.0))


def test_no_steps_from_parameters_of_elsewhere(tmp_path):
  system = dataclasses.replace(
    toys.remembering(8), refresh=lambda params, aux: aux + 1
  )
  params, _ = toys.SYSTEM.init(jax.random.key(0))
  how = {'num_steps': 0, 'initial_params': params}
  train(tmp_path / 'some', system, refresh_every=4, **how)
  state = train(tmp_path / 'some', system, refresh_every=4, **how)
  np.testing.assert_array_equal(state.aux, np.full(8, 1.0))
  # Every 0 steps is never.
  state = train(tmp_path / 'none', system, refresh_every=0, **how)
  np.testing.assert_array_equal(state.aux, np.full(8, 0.0))


def test_bits_are_those_of_the_named_term(tmp_path):
  def loss(params, aux, key, batch):
    made = toys.loss(params, aux, key, batch)
    terms = {'last': (2 * made.nats, made.weight), **made.terms}
    return made._replace(terms=terms)

  system = dataclasses.replace(toys.SYSTEM, loss=loss, bits_of='last')
  train(tmp_path, system, num_steps=3)
  (row,) = [json.loads(line) for line in lines(tmp_path)]
  np.testing.assert_allclose(row['terms']['last'], 2 * row['loss'], rtol=1e-6)
  np.testing.assert_allclose(row['bpc'], row['loss'] / np.log(2), rtol=1e-6)


def test_where_the_loss_is_no_likelihood_no_bits_are_told(tmp_path, capsys):
  system = dataclasses.replace(toys.SYSTEM, bits_of=None)
  train(tmp_path, system, num_steps=1)
  (row,) = [json.loads(line) for line in lines(tmp_path)]
  assert row['loss'] > 0 and 'bpc' not in row
  assert 'bpc' not in capsys.readouterr().err
  image = tmp_path / 'loss.png'
  assert metrics.plot_loss(tmp_path / 'metrics.jsonl', image)
  assert image.exists()


def test_samples(tmp_path):
  seen = []

  def sample(params, aux, step):
    del aux
    seen.append((step, float(jnp.sum(params['head']))))

  state = train(tmp_path, sample_fn=sample, sample_every=5)
  assert [step for step, _ in seen] == [5, 10]
  assert seen[-1][1] == float(jnp.sum(state.ema['head']))


def test_initial_params(tmp_path):
  params = toys.init(jax.random.key(9))[0]
  state = train(
    tmp_path,
    optimizer=toys.SGD | {'learning_rate': 1e-30},
    initial_params=params,
  )
  np.testing.assert_array_equal(state.params['embed'], params['embed'])


def test_record_is_stored(tmp_path):
  state = train(tmp_path, record={'config': {'seed': 0}})
  template = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state
  )
  read_only = checkpoint.Checkpoints(tmp_path / 'checkpoints', read_only=True)
  ema, _, step, record = read_only.restore_ema(template.params, template.aux)
  assert record['config'] == {'seed': 0}
  assert step == 10
  np.testing.assert_array_equal(ema['head'], state.ema['head'])


def scores(values, **more):
  """An evaluation that gives these values in turn."""
  left = iter(values)
  return lambda params, aux, step: {'nats_per_token': next(left), **more}


def best(workdir):
  with checkpoint.Checkpoints(workdir / 'best', read_only=True) as found:
    return found.newest()


def test_the_best_checkpoint_is_kept(tmp_path):
  options = {'eval_every': 2, 'checkpoint_every': 4}
  train(
    tmp_path,
    num_steps=6,
    evaluate_fn=scores([3.0, 1.0, 2.0]),
    **options,
  )
  assert best(tmp_path) == (4, {'nats_per_token': 1.0})
  # A run that goes on remembers what was reached.
  train(tmp_path, num_steps=10, evaluate_fn=scores([1.5, 0.5]), **options)
  assert best(tmp_path) == (10, {'nats_per_token': 0.5})
  template = parallel.abstract(
    state_lib.create(toys.init, optimizer_lib.make(**toys.ADAMW), 0)
  )
  with checkpoint.Checkpoints(tmp_path / 'best', read_only=True) as found:
    kept, _ = found.restore(template)
  with checkpoint.Checkpoints(
    tmp_path / 'checkpoints', read_only=True
  ) as found:
    last, _ = found.restore(template)
  assert to_bytes(kept) == to_bytes(last)


def test_a_new_run_forgets_the_best_of_another(tmp_path):
  options = {'eval_every': 2, 'num_steps': 2}
  train(tmp_path, evaluate_fn=scores([1.0]), **options)
  shutil.rmtree(tmp_path / 'checkpoints')
  train(tmp_path, evaluate_fn=scores([2.0]), **options)
  assert best(tmp_path) == (2, {'nats_per_token': 2.0})


def test_the_best_is_that_of_one_protocol(tmp_path):
  options = {'eval_every': 2}
  short = scores([1.0], protocol='sedd')
  train(tmp_path, num_steps=2, evaluate_fn=short, **options)
  whole = scores([3.0, 4.0], protocol='bound')
  train(tmp_path, num_steps=6, evaluate_fn=whole, **options)
  assert best(tmp_path) == (4, {'nats_per_token': 3.0, 'protocol': 'bound'})
  fewer = scores([5.0], protocol='bound', chain_steps=10)
  train(tmp_path, num_steps=8, evaluate_fn=fewer, **options)
  reached = {'nats_per_token': 5.0, 'protocol': 'bound', 'chain_steps': 10}
  assert best(tmp_path) == (8, reached)


def test_no_best_where_none_is_wanted(tmp_path):
  train(
    tmp_path,
    num_steps=2,
    eval_every=2,
    keep_best=False,
    evaluate_fn=scores([1.0]),
  )
  assert not (tmp_path / 'best').exists()


def test_profile(tmp_path):
  """A real trace, between the steps that were asked for."""
  train(tmp_path, num_steps=4, profile='2-3')
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_trackers_get_every_line(tmp_path, monkeypatch):
  rows = []

  class Tracker:
    package = 'json'

    def __init__(self, workdir, step, config):
      rows.append((workdir, step, config))

    def __enter__(self):
      return self

    def __exit__(self, *exc_info):
      rows.append('closed')

    def write(self, row):
      rows.append(row['step'])

  monkeypatch.setitem(trackers.TRACKERS, 'mine', Tracker)
  train(tmp_path, num_steps=6, trackers='mine', record={'seed': 0})
  assert rows == [(tmp_path, 0, {'seed': 0}), 3, 6, 'closed']


def test_mfu(tmp_path):
  train(tmp_path, flops_per_token=100.0, peak_flops=1e6)
  rows = list(metrics.read(tmp_path / 'metrics.jsonl'))
  timing = rows[-1]['timing']
  expected = timing['tokens_per_second'] * 100.0 / (1e6 * DEVICES)
  np.testing.assert_allclose(timing['mfu'], expected, atol=1e-3)


def test_mistakes_are_found_before_compiling(tmp_path):
  def unused(*args):
    raise AssertionError('nothing is traced')

  system = dataclasses.replace(toys.SYSTEM, init=unused, loss=unused)
  with pytest.raises(ValueError, match='9 sequences .*2 devices'):
    train(tmp_path, system, batch_size=9)
  with pytest.raises(ValueError, match='pmap'):
    train(tmp_path, system, parallelism='pmpa')
  assert not (tmp_path / 'checkpoints').exists()


def test_error_of_the_data_comes_through(tmp_path):
  class Broken(toys.Dataset):
    def train_batch(self, seed, step, indices, count):
      if step == 5:
        raise OSError('the file is gone')
      return super().train_batch(seed, step, indices, count)

  with pytest.raises(OSError, match='the file is gone'):
    loop.train(
      toys.SYSTEM,
      Broken(),
      workdir=tmp_path,
      seed=0,
      training=toys.training(),
      optimizer=toys.SGD,
    )


def test_prepare_is_applied_by_index(tmp_path):
  def prepare(seed, step, index, example):
    tokens = (example['tokens'] + seed + step + index) % toys.VOCAB
    return {**example, 'tokens': tokens.astype(np.int32)}

  batch = toys.batch(4)
  found = loop.prepared(prepare, 1, 2, batch)
  expected = (batch['tokens'] + 3 + np.arange(4)[:, None]) % toys.VOCAB
  np.testing.assert_array_equal(found['tokens'], expected)
  np.testing.assert_array_equal(found['valid'], batch['valid'])
  assert found['count'] == 4

  system = dataclasses.replace(toys.SYSTEM, prepare=prepare)
  train(tmp_path / 'prepared', system)
  train(tmp_path / 'plain')
  assert lines(tmp_path / 'prepared') != lines(tmp_path / 'plain')
