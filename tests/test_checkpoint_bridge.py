"""Published layouts by one command: sampled, evaluated, trained, written."""

import json

import jax
import numpy as np
import pytest

from sedd_jax import main, runs
from sedd_jax.models import pretrained, tensor_files
from tests import golden_numbers, tiny
from tests.models import test_masked_weights as radd


def published(folder, kind):
  """A checkpoint with random weights, as the hub has it."""
  if kind == 'radd':
    tensors = radd.radd_tensors()
    config = {'tokens': 27, 'model': {'cond_dim': 8, 'n_heads': radd.HEADS}}
  else:
    golden = golden_numbers.load('sedd_model_absorb')
    tensors = {k[3:]: golden[k] for k in golden if k.startswith('sd/')}
    # Computed from the width of a head, not kept.
    del tensors['rotary_emb.inv_freq']
    config = {'tokens': 27, 'graph': {'type': 'absorb'}}
    config['model'] = {'n_heads': 4, 'scale_by_sigma': True}
  if kind == 'mdlm':
    tensors = {f'backbone.{name}': tensors[name] for name in tensors}
    config = {'model_type': 'mdlm', 'vocab_size': 28, 'n_heads': 4}
    config |= {'hidden_dim': 64, 'cond_dim': 32, 'n_blocks': 2}
    config['time_conditioning'] = False
  folder.mkdir()
  tensor_files.write_safetensors(folder / 'model.safetensors', tensors)
  (folder / 'config.json').write_text(json.dumps(config))
  return tensors


SIZES = {
  **dict.fromkeys(
    ('sedd', 'mdlm'),
    {'hidden_size': 64, 'num_layers': 2, 'num_heads': 4, 'cond_size': 32},
  ),
  'radd': {
    'hidden_size': radd.SIZE,
    'num_layers': radd.LAYERS,
    'num_heads': radd.HEADS,
    'cond_size': 8,
  },
}


def flags_of(kind, text, folder, **fields):
  fields = {f'model.{k}': v for k, v in SIZES[kind].items()} | fields
  if kind != 'sedd':
    fields |= {'system.name': 'masked_diffusion'}
    fields |= {'sampling.method': 'ancestral'}
  fields['init_from'] = folder
  return [
    *tiny.arguments(text),
    *(f'--config.{path}={value}' for path, value in fields.items()),
  ]


@pytest.mark.parametrize('kind', ['sedd', 'mdlm', 'radd'])
def test_written_again_bit_by_bit(kind, tiny_text, tmp_path, capsys):
  tensors = published(tmp_path / 'hub', kind)
  argv = flags_of(kind, tiny_text, tmp_path / 'hub')
  argv += [f'--workdir={tmp_path / "run"}', '--mode=export']
  layout = [] if kind == 'sedd' else [f'--config.task.layout={kind}']
  main.main([*argv, *layout, f'--config.task.path={tmp_path / "out"}'])
  told = json.loads(capsys.readouterr().out)
  assert told['layout'] == kind
  found = tensor_files.read_safetensors(tmp_path / 'out/model.safetensors')
  for name, tensor in tensors.items():
    assert found[name].tobytes() == tensor.tobytes(), name
  more = {name.removeprefix('backbone.') for name in found.keys() - tensors}
  assert more <= {'rotary_emb.inv_freq'}
  config = json.loads((tmp_path / 'out/config.json').read_text())
  if kind == 'mdlm':
    read = json.loads((tmp_path / 'hub/config.json').read_text())
    more = {'model_length': tiny.SEQ_LEN, 'dropout': 0.0}
    assert config == read | more
    return
  assert config['tokens'] == 27 and config['noise']['type'] == 'loglinear'
  assert config['model']['length'] == tiny.SEQ_LEN
  if kind == 'radd':
    # What its network reads of a config besides.
    assert config['model']['dtype'] == 'float32'
    assert config['model']['use_checkpoint'] is False
  assert not list((tmp_path / 'out').glob('*.part'))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['sedd', 'mdlm', 'radd'])
def test_sampled_evaluated_and_trained(kind, tiny_text, tmp_path, capsys):
  published(tmp_path / 'hub', kind)
  small = {
    'eval.max_sequences': 32,
    'sampling.prompt': '',
    'training.eval_every': 0,
    'training.sample_every': 0,
  }
  argv = flags_of(kind, tiny_text, tmp_path / 'hub', **small)
  argv += [f'--workdir={tmp_path / "run"}']
  main.main([*argv, '--mode=sample'])
  main.main([*argv, '--mode=evaluate'])
  before = json.loads((tmp_path / 'run/evaluation.json').read_text())
  assert before['step'] == 0
  main.main([*argv, f'--config.training.num_steps={tiny.NUM_STEPS}'])
  after = json.loads((tmp_path / 'run/evaluation.json').read_text())
  assert after['nats_per_token'] < before['nats_per_token']
  export = [f'--workdir={tmp_path / "run"}', '--mode=export']
  main.main([*export, f'--config.task.path={tmp_path / "out"}'])
  capsys.readouterr()
  _, sizes = pretrained.load_sedd(tmp_path / 'out')
  assert sizes['layout'] == ('sedd' if kind == 'sedd' else 'mdlm')


@pytest.mark.parametrize(
  ('kind', 'fields', 'told'),
  [
    (
      'sedd',
      {'data.tokenizer': 'bytes'},
      'num_states = 28, the config makes it 257 (data.tokenizer)',
    ),
    (
      'radd',
      {'data.tokenizer': 'bytes'},
      'num_states = 28, the config makes it 257 (data.tokenizer)',
    ),
    ('sedd', {'model.cond_size': 8}, 'cond_size = 32, the config makes it 8'),
  ],
)
def test_weights_that_do_not_fit(
  kind, fields, told, tiny_text, tmp_path, capsys
):
  published(tmp_path / 'hub', kind)
  argv = flags_of(kind, tiny_text, tmp_path / 'hub', **fields)
  with pytest.raises(SystemExit):
    main.main([*argv, f'--workdir={tmp_path / "run"}', '--mode=sample'])
  assert told in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('kind', 'as_kind', 'told'),
  [
    ('sedd', 'radd', 'is told the noise: use system.name=sedd'),
    ('radd', 'sedd', 'layout of RADD, a masked diffusion: use system.name='),
  ],
)
def test_the_weights_of_another_system(
  kind, as_kind, told, tiny_text, tmp_path, capsys
):
  published(tmp_path / 'hub', kind)
  argv = flags_of(as_kind, tiny_text, tmp_path / 'hub')
  with pytest.raises(SystemExit):
    main.main([*argv, f'--workdir={tmp_path / "run"}', '--mode=sample'])
  assert told in capsys.readouterr().err


def test_bare_weights_of_sedd_are_no_masked_diffusion(
  tiny_text, tmp_path, capsys
):
  golden = golden_numbers.load('sedd_model_absorb')
  tensors = {k[3:]: golden[k] for k in golden if k.startswith('sd/')}
  file = tmp_path / 'bare.safetensors'
  tensor_files.write_safetensors(file, tensors)
  fields = {f'model.{k}': v for k, v in SIZES['sedd'].items()}
  argv = flags_of('mdlm', tiny_text, file, **fields)
  with pytest.raises(SystemExit):
    main.main([*argv, f'--workdir={tmp_path / "run"}', '--mode=sample'])
  assert 'bare.safetensors is SEDD, whose network' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ([], 'mode export needs --config.task.path=FOLDER'),
    (
      ['path=x', 'layout=radd'],
      "not written in the layout 'radd'; known: sedd",
    ),
    (['path=x', 'pth=y'], 'unknown option task.pth; nearest: path'),
  ],
)
def test_mistakes_of_an_export(trained, capsys, options, told):
  argv = [f'--workdir={trained}', '--mode=export']
  with pytest.raises(SystemExit):
    main.main([*argv, *(f'--config.task.{option}' for option in options)])
  assert told in capsys.readouterr().err


def test_what_has_no_layout_is_not_written(tiny_text, tmp_path, capsys):
  """A network of masked diffusion that is told the time."""
  run = f'--workdir={tmp_path / "run"}'
  fields = ['system.name=masked_diffusion', 'system.args.timed=true']
  fields += ['sampling.method=ancestral', 'training.num_steps=1']
  main.main(
    [*tiny.arguments(tiny_text), *(f'--config.{x}' for x in fields), run]
  )
  with pytest.raises(SystemExit):
    main.main([run, '--mode=export', f'--config.task.path={tmp_path / "out"}'])
  told = (
    "'masked_diffusion' has no mode 'export' with system.args {'timed': True}"
  )
  assert told in capsys.readouterr().err


def test_averaged_parameters_are_written(trained, tmp_path, capsys):
  main.main(
    [
      f'--workdir={trained}',
      '--mode=export',
      f'--config.task.path={tmp_path / "out"}',
    ]
  )
  run = runs.load_run(trained)
  params, sizes = pretrained.load_sedd(tmp_path / 'out')
  assert sizes['process'] == 'absorbing' and sizes['scale_by_sigma']
  np.testing.assert_array_equal(
    params['head']['kernel'], run.params['head']['kernel']
  )
  told = json.loads(capsys.readouterr().out)
  assert told['parameters'] == sum(x.size for x in jax.tree.leaves(run.params))


def test_weights_that_are_there_stay(trained, tmp_path, capsys):
  kept = tmp_path / 'config.json'
  kept.write_text('another one')
  argv = [f'--workdir={trained}', '--mode=export']
  argv += [f'--config.task.path={tmp_path}']
  with pytest.raises(SystemExit):
    main.main(argv)
  assert f'{kept}: there already' in capsys.readouterr().err
  assert [x.name for x in tmp_path.iterdir()] == ['config.json']
  main.main([*argv, '--config.task.overwrite=true'])
  pretrained.load_sedd(tmp_path)


def test_a_network_that_is_not_told_the_noise_is_written_so(
  tiny_text, tmp_path
):
  published(tmp_path / 'hub', 'sedd')
  untold = {'system.args.timed': False}
  argv = flags_of('sedd', tiny_text, tmp_path / 'hub', **untold)
  export = ['--mode=export', f'--config.task.path={tmp_path / "out"}']
  main.main([*argv, f'--workdir={tmp_path / "run"}', *export])
  found = tensor_files.read_safetensors(tmp_path / 'out/model.safetensors')
  assert not found['sigma_map.mlp.0.weight'].any()
