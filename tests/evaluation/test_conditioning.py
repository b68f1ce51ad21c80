"""Conditions on texts, from a config's fields to samples of every system."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from sedd_jax.data import tokenizers
from sedd_jax.evaluation import conditioning, generate
from sedd_jax.samplers import conditions
from sedd_jax.systems import base
from sedd_jax.systems.common import requests
from tests.systems import small

TEXT8 = tokenizers.make('text8')


def accepted(text, **asked):
  found = conditioning.condition(TEXT8, **asked)
  return found.automaton.accepted(TEXT8.encode(text))


def test_texts():
  assert accepted('xaby', contains='ab')
  assert not accepted('xayb', contains=['ab', 'y'])
  assert accepted('abcabd', contains='["abd", "ca"]', avoids='dd')
  assert not accepted('abcabd', contains='["abd", "ca"]', avoids='["x", "bca"]')
  # A space ends a text of text8.
  assert accepted('ab cde', contains='b', ends='separator')
  assert not accepted('a bcde', contains='b', ends='separator')
  assert conditioning.condition(TEXT8) is None
  with pytest.raises(ValueError, match="something in them, not ''"):
    conditioning.texts_of('["a", ""]', 'contains')
  assert conditioning.texts_of('[a') == ['[a']


@pytest.mark.parametrize(
  ('asked', 'told'),
  [
    ({'contains': 'Rome'}, "contains 'Rome': character 'R' at offset 0"),
    ({'contains': 'abcdefg'}, "of 6 tokens satisfies contains 'abcdefg'"),
    (
      {'contains': '["ab", "cd"]', 'avoids': '["x", "b"]'},
      "satisfies contains 'ab' and avoids 'b'",
    ),
    ({'contains': '["abc", "def", "gh"]'}, "contains 'abc' and contains 'def'"),
    ({'contains': 'ab', 'prompt': 'xxxxx'}, "'ab' and the given tokens"),
    (
      {'contains': 'ab', 'prompt': '{blank:3}', 'suffix': 'xxx', 'avoids': 'a'},
      "contains 'ab' and avoids 'a'",
    ),
    ({'suffix': 'a', 'ends': 'separator'}, 'ask for it by regex'),
    ({'contains': 'a b', 'ends': 'separator'}, 'satisfies contains'),
    ({'ends': 'eos'}, "unknown ends 'eos'; known: length, separator"),
    ({'json_schema': '/none/such.json'}, 'json_schema: [Errno 2]'),
  ],
)
def test_mistakes_are_told_before_anything_is_compiled(asked, told):
  with pytest.raises(ValueError) as error:
    generate.request(TEXT8, length=6, seeds=[0], **asked)
  assert told in str(error.value) and '\n' not in str(error.value)


def test_a_tokenizer_whose_tokens_are_no_bytes(tmp_path):
  (tmp_path / 'vocab.txt').write_text('[UNK]\na\nb\n##b\n')
  words = tokenizers.make(str(tmp_path))
  has = conditioning.condition(words, contains='ab', avoids='b')
  assert has.automaton.accepted([1, 3, 1])
  assert not has.automaton.accepted([1, 3, 2])
  with pytest.raises(ValueError, match="separator': the tokenizer has no end"):
    conditioning.condition(words, ends='separator')


def test_files_of_prompts(tmp_path):
  path = tmp_path / 'prompts.jsonl'
  path.write_text('{"prompt": "a"}\n\n{"contains": ["b", "c"]}\n')
  assert conditioning.read_prompts(path) == [
    {'prompt': 'a'},
    {'contains': ['b', 'c']},
  ]
  for text, told in (
    ('', 'has no lines'),
    ('{"prompt": "a"}\n{', 'line 2: no JSON: '),
    ('[1]', 'line 1: no JSON object'),
    ('[' * 100_000, 'line 1: no JSON: '),
    ('{"prompt": 3}', 'line 1: prompt takes text, not 3'),
    ('{"avoids": ["a", 3]}', 'line 1: avoids takes texts with something'),
    ('{"contain": "a"}', "line 1: unknown 'contain'; nearest: contains"),
  ):
    path.write_text(text)
    with pytest.raises(ValueError, match='prompts') as error:
      conditioning.read_prompts(path)
    assert told in str(error.value)


def test_requests_are_joined():
  def of(seed, **asked):
    return generate.request(TEXT8, length=3, seeds=[seed], **asked)

  both = generate.joined([of(0, prompt='a'), of(1, contains='b'), of(2)])
  assert both.seeds == (0, 1, 2)
  assert both.given.tolist() == [[True, False, False], [False] * 3, [False] * 3]
  assert both.tokens[0, 0] == 1
  assert [found is None for found in both.conditions] == [True, False, True]
  plain = generate.joined([of(0), of(1)])
  assert plain.tokens is None and plain.conditions is None


def test_texts_and_tokens_go_together():
  """A condition of tokens, its template too, besides those of texts."""
  size = TEXT8.vocab_size
  tokens = conditions.template([0, 0, 5], [False, False, True], size)
  request = generate.request(
    TEXT8,
    length=3,
    seeds=[0, 1],
    prompt='a',
    contains='b',
    condition=tokens & conditions.avoids([3], size),
  )
  assert request.tokens.tolist() == [[1, 0, 5]] * 2
  assert request.given.tolist() == [[True, False, True]] * 2
  assert request.conditions[0] is request.conditions[1]
  found = request.conditions[0].automaton
  assert found.accepted([1, 2, 5]) and not found.accepted([1, 3, 2])
  with pytest.raises(ValueError, match="'b' and contains 'cc' and the given"):
    generate.request(
      TEXT8, length=3, seeds=[0], contains=['b', 'cc'], condition=tokens
    )
  bound = generate.request(TEXT8, length=3, seeds=[0], condition=tokens)
  assert bound.conditions is None and bound.given.tolist()[0][2]


def asked_of(length=small.LENGTH, **options):
  """Three rows: a condition, another one with an end, and none."""
  size = small.VOCAB
  has = conditions.contains([1, 2, 1], size) & conditions.avoids([3], size)
  ends = conditions.ends(0, size) & conditions.contains([5], size)
  return base.Request(
    length=length,
    seeds=(0, 1, 2, 3),
    conditions=(has, ends, None, has),
    batch_size=2,
    **options,
  )


@pytest.mark.parametrize(
  ('fields', 'method'),
  [
    ({'process__name': 'uniform'}, 'tweedie'),
    ({'system__name': 'masked_diffusion'}, 'ancestral'),
    ({'system__name': 'masked_diffusion'}, 'first_hitting'),
    ({'system__name': 'multinomial'}, 'ancestral'),
  ],
)
def test_every_system_with_noise(fields, method):
  if fields.get('system__name') == 'multinomial':
    config = small.in_steps('multinomial', 4, process__name='uniform')
  else:
    config = small.config_of(**fields, sampling__method=method)
  system = small.made(config)
  params, aux = small.started(system)
  request = asked_of(method=method, steps=4)
  system.check_request(request)
  samples = system.sample(params, aux, request)
  requests.require_satisfied(samples, request)
  ended = samples.tokens[1].tolist().index(0)
  assert samples.lengths.tolist() == [6, ended, 6, 6]
  assert samples.tokens.max() < small.VOCAB


def wants_three(x_t, level):
  """A guide against the first condition, which avoids 3."""
  return 9.0 * jnp.sum(x_t == 3, axis=-1) * jnp.exp(-0.01 * level)


@pytest.mark.parametrize(
  ('fields', 'options'),
  [
    ({}, {'corrector_steps': 2, 'corrector_size': 3.0, 'cached': True}),
    ({'process__name': 'uniform'}, {'corrector_steps': 1}),
    (
      {'system__name': 'masked_diffusion', 'sampling__method': 'remasking'},
      {'remasking': 'rescale', 'remask_strength': 0.9, 'cached': True},
    ),
    (
      {'system__name': 'masked_diffusion', 'sampling__method': 'ancestral'},
      {'prompt_scale': 2.0, 'block': 4},
    ),
  ],
  ids=['corrector', 'corrector of uniform', 'remasking', 'guided'],
)
def test_every_option_of_samplers(fields, options):
  """Cached or not, with a guide where it can be, and given tokens."""
  if 'cached' in options and 'system__name' not in fields:
    fields = {**fields, 'system__args__timed': False}
  config = small.config_of(**fields)
  system = small.made(config)
  given = np.zeros((4, small.LENGTH), bool)
  given[:, 2] = True
  request = asked_of(
    method=config.sampling.method,
    steps=4,
    tokens=np.full((4, small.LENGTH), 2, np.int32),
    given=given,
    guides=() if options.get('cached') else (wants_three,),
    options=options,
  )
  system.check_request(request)
  params, aux = small.started(system)
  samples = system.sample(params, aux, request)
  requests.require_satisfied(samples, request)
  assert np.all(samples.tokens[:, 2] == 2)
  if 'cached' in options:
    plain = dataclasses.replace(request, options={**options, 'cached': False})
    np.testing.assert_array_equal(
      samples.tokens, system.sample(params, aux, plain).tokens
    )
  else:
    # Where nothing else is asked, the guide has its way.
    free = np.arange(small.LENGTH) != 2
    assert np.all(samples.tokens[2][free] == 3)


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'sampling__method': 'first_hitting'},
    {'system__name': 'masked_diffusion', 'sampling__method': 'ancestral'},
    {'system__name': 'masked_diffusion', 'sampling__method': 'remasking'},
  ],
)
def test_blocks_take_no_conditions(fields):
  config = small.config_of(**fields)
  system = small.made(config)
  request = asked_of(
    length=small.LENGTH + 1,
    method=config.sampling.method,
    options={'block': 4},
  )
  with pytest.raises(ValueError, match=r'^sampling\.block: conditions .*the 6'):
    system.check_request(request)
  # What is drawn at once has them.
  system.check_request(dataclasses.replace(request, length=small.LENGTH))
  system.check_request(dataclasses.replace(request, options={}))
  system.check_request(dataclasses.replace(request, conditions=None))


def test_requests_that_are_refused():
  system = small.made(
    small.config_of(
      system__name='autoregressive', sampling__method='autoregressive'
    )
  )
  with pytest.raises(ValueError, match='autoregressive takes no conditions'):
    system.check_request(asked_of(method='autoregressive'))
  system = small.made(small.config_of())
  start = np.zeros((4, small.LENGTH), np.int32)
  with pytest.raises(ValueError, match='initial state do not go together'):
    system.check_request(asked_of(start=start))
  few = base.Request(length=6, seeds=(0, 1), conditions=(None,))
  with pytest.raises(ValueError, match='1 conditions for 2 sequences'):
    system.check_request(few)
  wrong = base.Samples(np.zeros((4, 6), np.int32), np.full(4, 6))
  with pytest.raises(RuntimeError, match='does not impose conditions'):
    requests.require_satisfied(wrong, asked_of())


def test_from_the_command_line(copied, tmp_path, capsys):
  """A file of prompts, through main to samples.jsonl."""
  from sedd_jax import main

  path = tmp_path / 'prompts.jsonl'
  lines = [{'prompt': 'the '}, {'prompt': '', 'contains': ['rome', 'cat']}]
  path.write_text('\n'.join(map(json.dumps, lines)))
  main.main(
    [
      '--config=quickstart',
      '--mode=sample',
      f'--workdir={copied}',
      f'--config.sampling.prompts={path}',
    ]
  )
  rows = [
    json.loads(line)
    for line in (copied / 'samples.jsonl').read_text().splitlines()
  ]
  assert [row['seed'] for row in rows] == [0, 1, 2, 3]
  assert all(row['text'].startswith('the ') for row in rows[:2])
  for row in rows[2:]:
    assert 'rome' in row['text'] and 'cat' in row['text']
    assert row['contains'] == ['rome', 'cat'] and row['prompt'] == ''
  assert 'samples of several prompts:' in capsys.readouterr().out
