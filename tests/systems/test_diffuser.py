"""DiffusER: what it learns from, its loss by hand, and what it is asked for."""

import dataclasses
import re
import types

import jax
import numpy as np
import pytest

from sedd_jax import systems
from sedd_jax.data import tokenizers
from sedd_jax.data.paired import marked
from sedd_jax.processes import edit_arrays, edit_noise, edits
from sedd_jax.samplers import edits as edit_samplers
from sedd_jax.systems.editing import edit_requests
from sedd_jax.training import loop
from tests import compilations
from tests.systems import small

INFO = types.SimpleNamespace(vocab_size=3)
SOURCE = 4


# Without files, which no system reads.
PAIRS = {'data__source': 'seq2seq', 'data__layout': 'split'}


def config_of(**changes):
  fields = {
    'system__name': 'diffuser',
    'sampling__method': 'greedy',
    'data__seq_len': 4,
  }
  return small.config_of(**{**fields, **changes})


def system_of(**changes):
  return systems.make(config_of(**changes), INFO)


def example(seed=0, length=4, **more):
  rng = np.random.default_rng(seed)
  tokens = rng.integers(3, size=4).astype(np.int32)
  return {'tokens': tokens, 'valid': np.arange(4) < length, **more}


def read(prepared, vocab_size=3):
  """State and edit from the arrays of an example."""
  count = int(prepared['state_valid'].sum()) - 1
  x = tuple(prepared['state'][:count].tolist())
  spans, text = [], prepared['text']
  for number in range(1, prepared['text_slot'].max() + 1):
    inside = prepared['text_scored'] & (prepared['text_slot'] == number)
    spans.append(tuple(text[inside & (text < vocab_size)].tolist()))
  return x, edits.Edit(
    prepared['tags'][:count], prepared['inserts'][: count + 1] > 0, tuple(spans)
  )


def test_an_example_is_a_pure_function_of_its_place():
  prepare = system_of().prepare
  one, again = (prepare(1, 2, 3, example()) for _ in range(2))
  for name in one:
    np.testing.assert_array_equal(one[name], again[name])
  others = [prepare(*place, example()) for place in ((1, 2, 4), (1, 3, 3))]
  assert any(
    not np.array_equal(one[n], other[n]) for other in others for n in one
  )
  # Whatever rows a process has, they are the same.
  rows = [example(i) for i in range(4)]
  batch = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
  batch |= {'index': np.arange(4), 'count': np.array(4)}
  whole = loop.prepared(prepare, 1, 2, batch)
  half = {k: x[2:] if np.ndim(x) else x for k, x in batch.items()}
  half = loop.prepared(prepare, 1, 2, half)
  for name in ('state', 'tags', 'text', 'kept', 'time'):
    np.testing.assert_array_equal(half[name], whole[name][2:])


def test_examples_are_edits_back_to_the_text():
  """At the first step of noise to x_0 itself; steps are uniform."""
  make = {'system__args': {'num_steps': 3, 'null_share': 0.2}}
  prepare = system_of(**make).prepare
  times, nulls = [], 0
  for index in range(150):
    given = example(index, length=index % 5)
    x_0 = tuple(given['tokens'][given['valid']].tolist())
    found = prepare(0, 0, index, given)
    x_t, edit = read(found)
    assert len(x_t) <= 6
    if found['time'] == 1:
      assert edits.applied(x_t, edit) == x_0
    is_null = found['time'] == 3 and x_t == ()
    nulls += is_null and edits.applied(x_t, edit) == x_0
    times.append(found['time'])
    scored = found['tags_scored'].sum()
    assert scored == len(x_t) == found['inserts_scored'].sum() - 1
  counts = np.bincount(np.array(times, int), minlength=4)[1:]
  assert set(times) == {1, 2, 3}
  # 0.8 / 3 for each of three steps, and 0.2 more for the last.
  assert abs(counts[2] / 150 - 0.467) < 0.15
  assert nulls > 10


def test_marks_around_texts_are_not_edited():
  tokenizer = marked.Marked(tokenizers.make('text8'))
  info = types.SimpleNamespace(vocab_size=30, tokenizer=tokenizer)
  args = {'num_steps': 1, 'null_share': 0.0, 'source_length': SOURCE}
  system = systems.make(
    config_of(data__seq_len=6, system__args={**args, 'source_share': 0.5}), info
  )
  cls, sep, pad = tokenizer.cls, tokenizer.sep, tokenizer.pad
  found = [
    system.prepare(
      0,
      0,
      index,
      {
        'tokens': np.array([cls, 1, 2, 3, sep, pad]),
        'source': np.array([cls, 1, 3, sep]),
      },
    )
    for index in range(40)
  ]
  states = [read(one, 30) for one in found]
  assert {edits.applied(x, edit) for x, edit in states} == {(1, 2, 3)}
  assert (1, 3) in [x for x, _ in states]
  assert not {cls, sep, pad} & {token for x, _ in states for token in x}
  assert all(one['counted'] == 3 for one in found)


def test_no_marks_are_begun_with(monkeypatch):
  def begun(revise, states, times, **options):
    return states

  monkeypatch.setattr(edit_samplers, 'best', begun)
  states = edit_requests.chains(
    None,
    request(options={'start': 'source'}),
    1,
    edit_noise.EditNoise(vocab_size=9, excluded=(6, 7, 8)),
    np.arange(2),
    np.zeros((2, 4), np.int32),
    np.zeros((2, 4), bool),
    None,
    np.array([[6, 1, 3, 7, -1], [6, 0, 2, 4, 7]]),
  )
  assert states == [(1, 3), (0, 2, 4)]

  def held(revise, states, times, *, fixed, **options):
    return list(zip(states, fixed))

  monkeypatch.setattr(edit_samplers, 'best', held)
  states = edit_requests.chains(
    None,
    request(),
    1,
    edit_noise.EditNoise(vocab_size=9, excluded=(6, 7, 8)),
    np.arange(2),
    np.array([[6, 1, 3, 0], [6, 0, 0, 0]], np.int32),
    np.array([[True, True, True, False], [True, False, False, False]]),
    None,
    None,
  )
  assert states == [((1, 3), 2), ((), 0)]


def test_a_prompt_stays_and_a_source_is_begun_with():
  args = {'source_length': SOURCE, 'null_share': 0.0, 'source_share': 1.0}
  system = system_of(system__args=args)
  more = {
    'source': np.array([2, 1, 0, 0], np.int32),
    'source_valid': np.array([True, True, False, False]),
  }
  x_t, edit = read(system.prepare(0, 0, 0, example(**more)))
  assert x_t == (2, 1)
  assert edits.applied(x_t, edit) == tuple(example()['tokens'].tolist())
  given = np.array([True, True, False, False])
  plain = system_of(system__args={'num_steps': 2}).prepare
  for index in range(20):
    found = plain(0, 0, index, example(given=given))
    x_t, edit = read(found)
    assert x_t[:2] == tuple(example()['tokens'][:2].tolist())
    assert not np.any(edit.tags[:2]) and not np.any(edit.inserts[:2])
    assert not found['tags_scored'][:2].any()
    assert not found['inserts_scored'][:2].any()
  with pytest.raises(ValueError, match='beginning of a text only'):
    plain(0, 0, 0, example(given=~given))
  with pytest.raises(ValueError, match='the data has no source'):
    system.prepare(0, 0, 0, example())
  with pytest.raises(ValueError, match='sources of 3 tokens'):
    system.prepare(0, 0, 0, example(source=more['source'][:3]))


def test_spans_longer_than_the_text_are_told():
  """Four tokens and two marks have room in six places, and not in five."""
  cut = [
    system_of(system__args={'written': written, 'null_share': 1.0}).prepare(
      0, 0, 0, example()
    )['text_cut']
    for written in (5, 6)
  ]
  assert cut == [True, False]


@pytest.fixture(scope='module')
def made():
  system = system_of(sampling__steps=2, sampling__batch_size=2)
  return system, drawn(system, 0.3)[0]


def drawn(system, scale):
  """Parameters that are random, or zero; nothing is compiled for them."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda p: rng.normal(0, scale, p.shape).astype(p.dtype),
    jax.eval_shape(system.init, jax.random.key(0)),
  )


def request(**changes):
  fields = {'length': 4, 'seeds': [0, 1], 'method': 'greedy', 'steps': 2}
  return systems.Request(**{**fields, **changes})


def test_the_loss_of_flat_networks():
  """Every decision costs the logarithm of its alternatives."""
  system = system_of(system__args={'tag_weight': 2.0})
  params, aux = drawn(system, 0)
  rows = [example(i, length=4 - i % 2) for i in range(4)]
  batch = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
  batch |= {'index': np.arange(4), 'count': np.array(4)}
  batch = loop.prepared(system.prepare, 0, 0, batch)
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  symbols = batch['text_scored'].sum(-1)
  tags = batch['tags_scored'].sum(-1)
  flags = batch['inserts_scored'].sum(-1)
  expected = 2 * (tags * np.log(3) + flags * np.log(2)) + symbols * np.log(4)
  np.testing.assert_allclose(loss.nats, expected, rtol=1e-5)
  np.testing.assert_array_equal(loss.weight, [4, 3, 4, 3])
  np.testing.assert_array_equal(loss.terms['spans'][1], symbols)
  np.testing.assert_array_equal(loss.terms['cut'], [[0] * 4, [1] * 4])
  assert system.bound is None and system.bits_of is None


@pytest.mark.slow
@pytest.mark.parametrize(
  'how',
  [
    {'method': 'nucleus'},
    {'method': 'beam', 'options': {'beam': 4}},
    {'method': 'beam_2d', 'options': {'beam': 3, 'branches': 2}},
  ],
  ids=lambda how: how['method'],
)
def test_what_is_drawn_costs_what_the_loss_says(how):
  """The sampler, with its cache, and the loss see the same networks."""
  capacity, count = 10, 8
  system = system_of(
    system__args={'capacity': capacity, 'written': 3 * capacity + 2},
  )
  params, aux = drawn(system, 0.3)
  start = np.random.default_rng(0).integers(3, size=(count, 4))
  start[::2, 2:] = -1
  samples = system.sample(
    params,
    aux,
    request(
      length=capacity,
      seeds=range(count),
      **how,
      steps=1,
      start=start.astype(np.int32),
      record_path=True,
    ),
  )
  layout = edit_arrays.Layout(
    vocab_size=3, capacity=capacity, written=3 * capacity + 2
  )
  revisions = [history[0] for history in samples.history]
  rows = [layout.example(r.state, r.edit) for r in revisions]
  places = np.arange(layout.places)
  sizes = np.array([[len(r.state)] for r in revisions])
  batch = {
    **edit_arrays.stacked(rows),
    'tokens': np.zeros((count, 4), np.int32),
    'tags_scored': places < sizes,
    'inserts_scored': places <= sizes,
    'time': np.full(count, 12.0, np.float32),
    'counted': np.ones(count, np.float32),
    'index': np.arange(count),
  }
  loss = jax.jit(system.loss)(params, aux, jax.random.key(0), batch)
  # In a state that is full an end may be certain, which no loss knows of.
  free = samples.lengths < capacity
  assert free.sum() > count // 2
  found = np.array([r.log_prob for r in revisions])
  np.testing.assert_allclose(-found[free], loss.nats[free], rtol=1e-4)


def test_starts_and_lengths(made):
  system, params = made
  start = np.array([[0, 1, 2, 0], [2, 2, 2, 2]], np.int32)
  found = system.sample(
    params, (), request(start=start, record_path=True, batch_size=2)
  )
  for row, revisions in zip(start, found.history):
    assert revisions[0].state == tuple(row.tolist())
  null = system.sample(params, (), request(record_path=True, batch_size=2))
  for revisions in null.history:
    # The first revision puts something in, were it an empty span.
    assert revisions[0].state == () and revisions[0].edit.inserts.all()
  options = {'start': 'random'}
  drawn = system.sample(
    params, (), request(options=options, record_path=True, batch_size=2)
  )
  starts = [revisions[0].state for revisions in drawn.history]
  assert all(len(x) == 4 for x in starts) and starts[0] != starts[1]
  for samples in (found, null, drawn):
    assert samples.tokens.shape == (2, 4)
    assert np.all(samples.lengths <= 4)
    for row, length in zip(samples.tokens, samples.lengths):
      assert not row[length:].any()


def test_a_draft_is_revised(made):
  """A first revision at T writes it, from left to right, out of nothing."""
  system, params = made
  asked = request(record_path=True, batch_size=2)
  draft = dataclasses.replace(asked, options={'start': 'draft'})
  plain, drafted = (
    system.sample(params, (), x).history for x in (asked, draft)
  )
  for revisions, others in zip(drafted, plain):
    assert revisions[0].state == () and revisions[0].edit.inserts.all()
    # Null starts are told T once, drafts again for the draft's own revision.
    assert revisions[0].log_prob == pytest.approx(others[0].log_prob, rel=1e-5)
    assert len(revisions) <= 3
  assert max(map(len, drafted)) > 1


def test_one_program_whatever_the_length_of_samples(made):
  system, params = made
  system.sample(params, (), request(length=4))
  with compilations.heard() as compiled:
    for length in (3, 2, 1):
      system.sample(params, (), request(length=length))
  assert not compiled


def test_a_source_is_begun_with_and_seen():
  system = system_of(system__args={'source_length': SOURCE, 'num_steps': 2})
  params, aux = drawn(system, 0.5)
  more = {'source': np.array([[2, 1, 0, -1], [0, 1, 2, 2]], np.int32)}
  rows = [example(i, **{k: v[i] for k, v in more.items()}) for i in range(2)]
  batch = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
  batch['source_valid'] = batch['source'] >= 0
  batch |= {'index': np.arange(2), 'count': np.array(2)}
  batch = loop.prepared(system.prepare, 0, 0, batch)
  loss = jax.eval_shape(system.loss, params, aux, jax.random.key(0), batch)
  assert loss.nats.shape == (2,)

  def history(source, **changes):
    asked = request(
      source=source, steps=1, record_path=True, batch_size=2, **changes
    )
    return system.sample(params, aux, asked).history

  found = history(more['source'], options={'start': 'source'})
  assert [r[0].state for r in found] == [(2, 1, 0), (0, 1, 2, 2)]
  # The same states with other sources, and with none.
  start = more['source']
  others = history(start[::-1], start=start), history(None, start=start)
  for other in others:
    assert [r[0].state for r in other] == [r[0].state for r in found]
    assert other[1][0].log_prob != found[1][0].log_prob


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'options': {'start': 'middle'}}, "unknown sampling start 'middle'"),
    ({'options': {'start': 'source'}}, 'the request has no source'),
    ({'options': {'top_p': 0.5}}, 'are for nucleus'),
    ({'length': 9}, 'more than the 6 that a state may have'),
    ({'options': {'grid': 'reference'}}, 'must be uniform'),
    ({'given': np.array([[0, 1, 0, 0]] * 2) > 0}, 'beginning of a text only'),
    ({'start': np.zeros((2, 5), int)}, 'an initial state of 5 tokens'),
    ({'source': np.zeros((2, 5), int)}, 'takes no source'),
  ],
)
def test_requests_that_cannot_be(made, changes, told):
  system, _ = made
  with pytest.raises(ValueError, match=told):
    system.check_request(dataclasses.replace(request(), **changes))


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'sampling__method': 'tweedie'}, 'use greedy, beam, beam_2d, nucleus'),
    ({'model__name': 'bert'}, 'networks of its own'),
    ({'system__args': {'keep': 0.9}}, 'sum to 1'),
    ({'system__args': {'num_steps': 0}}, 'at least 1'),
    ({'system__args': {'distractors': 'batch'}}, 'uniform'),
    ({'system__args': {'null_share': 2.0}}, 'null_share'),
    ({'system__args': {'capacity': 3}}, 'data.seq_len 4 is more than the 3'),
    ({'system__args': {'written': 2}}, 'at least 1 and 3'),
    (PAIRS | {'data__layout': 'joint'}, "use 'split', or 'target'"),
    (PAIRS | {'data__layout': 'split'}, 'source_length=0, but .* 4 tokens'),
    (
      PAIRS | {'data__layout': 'target', 'system__args': {'source_length': 4}},
      'source_length=4, but sources have 0',
    ),
    (
      PAIRS | {'data__source_len': 6, 'system__args': {'source_length': 4}},
      'sources have 6 tokens',
    ),
  ],
)
def test_mistakes(changes, told):
  with pytest.raises(ValueError, match=told):
    system_of(**changes)


class Letters:
  """Encodes a to c."""

  def encode(self, text):
    return ['abc'.index(letter) for letter in text]

  def decode(self, ids):
    return ''.join('abc'[i] for i in ids)


def test_texts_are_revised(made, tmp_path):
  system, params = made
  path = tmp_path / 'texts.txt'
  path.write_text('abca\n\nabcabca\ncc\n')

  def revise(**options):
    return system.tasks['revise'](params, (), options, Letters())

  rows = revise(path=str(path)).rows
  assert [row['text'] for row in rows] == ['abca', '', 'abcabca', 'cc']
  assert [row['too_long'] for row in rows] == [False, False, True, False]
  for row in (rows[0], rows[1], rows[3]):
    first = row['history'][0]
    assert re.sub(r'\{\+.*?\+\}|\[-|-\]', '', first) == row['text']
    last = row['history'][-1]
    assert re.sub(r'\[-.*?-\]|\{\+|\+\}', '', last) == row['revised']
    assert row['log_prob'] < 0
  changed = {
    bias: [
      row['changed'] for row in revise(path=str(path), keep_bias=bias).rows
    ]
    for bias in (-99, 99)
  }
  assert changed == {-99: [True, True, False, True], 99: [False] * 4}
  for options, told in (
    ({'text': 'a', 'path': 'b'}, 'needs one of'),
    ({'txt': 'a'}, 'unknown option task.txt'),
    ({'text': 'abcabca'}, '7 tokens, more than the 6'),
    ({'path': str(tmp_path / 'none')}, 'none'),
    ({'text': 'a', 'begin': 13}, 'at most the 12'),
    ({'text': 'a', 'begin': 0}, 'above 0'),
    ({'text': 'a', 'keep_bias': 'x'}, "not 'x'"),
  ):
    with pytest.raises(systems.TaskError, match=told):
      revise(**options)


def test_revisions_begin_at_a_step(monkeypatch):
  def times_of(revise, states, times, **options):
    return times

  monkeypatch.setattr(edit_samplers, 'best', times_of)
  noise = edit_noise.EditNoise(vocab_size=3)
  told = [
    edit_requests.chains(
      *(None, request(options=options), 12, noise, np.arange(2)),
      *(np.zeros((2, 4), np.int32), np.zeros((2, 4), bool), None, None),
    )
    for options in ({}, {'begin': 3})
  ]
  assert told == [[12, 6], [3, 1.5]]


def test_random_tokens_come_as_often_as_in_the_corpus():
  """The third symbol is nowhere in the corpus, and does not come in."""
  info = types.SimpleNamespace(
    vocab_size=3, token_counts=lambda: np.array([9, 1, 0])
  )
  args = {'distractors': 'corpus', 'null_share': 0.0, 'num_steps': 1}
  seen = np.zeros(3, int)
  prepare = systems.make(config_of(system__args=args), info).prepare
  for index in range(200):
    row = prepare(0, 0, index, {'tokens': np.zeros(4, np.int32)})
    x_t, _ = read(row)
    seen += np.bincount(x_t, minlength=3)
  assert seen[1] and not seen[2]
  assert seen[0] > 5 * seen[1]
