"""Every field of a config: default, type, meaning and permitted values.

`get_config()` returns the defaults, the released code's recipe of SEDD-small
with absorbing noise on OpenWebText (arXiv 2310.16834, appendix C.3).  A recipe
in `configs/` changes what differs; `config_checks.validate` holds it to this
file.
"""

import importlib
import json
from typing import Any, NamedTuple

from ml_collections import config_dict


class Field(NamedTuple):
  """One field of the config.

  Attributes:
    default: its value in `get_config()`; sets the type.
    meaning: one sentence.
    permitted: a key of `RANGES`, a tuple of choices, or a table as
      `module:TABLE`, imported when it is needed; None for any value.
    custom: whether `module:Name` may stand for an entry of the table.
  """

  default: Any
  meaning: str
  permitted: str | tuple[str, ...] | None = None
  custom: bool = False


RANGES = {
  '> 0': lambda value: 0 < value < float('inf'),
  '> 1': lambda value: 1 < value < float('inf'),
  '>= 0': lambda value: 0 <= value < float('inf'),
  'in [0, 2**32)': lambda value: 0 <= value < 2**32,
  'in [0, 1)': lambda value: 0 <= value < 1,
  'in (0, 1)': lambda value: 0 < value < 1,
  'in [0, 1]': lambda value: 0 <= value <= 1,
  'in (0, 1]': lambda value: 0 < value <= 1,
}

# What a group whose settings depend on a name may hold besides its fields.
OPEN_GROUPS = {
  'system.args': 'Arguments of the system, as its file in systems/ names them.',
  'process.args': "Arguments of the process' constructor.",
  'schedule.args': "Arguments of the schedule's constructor.",
  'model.args': "Arguments of the network's constructor.",
  'task': 'Options of the further modes of a system.',
}

# Of their fields those that are text, also where it looks like a number.
TEXTS = tuple(
  f'task.{name}' for name in ('text', 'path', 'output', 'references', 'layout')
)

FIELDS: dict[str, Field] = {
  'seed': Field(
    0, 'Seed of parameters, data order, noise and samples.', 'in [0, 2**32)'
  ),
  'init_from': Field(
    '',
    'Weights to start from: a checkpoint file, folder or hub id; of a '
    'classifier the run that it is to guide.',
  ),
  'system.name': Field(
    'sedd', 'The text-diffusion system.', 'sedd_jax.systems:SYSTEMS', True
  ),
  'process.name': Field(
    'absorbing',
    'The noise on tokens.',
    'sedd_jax.processes:PROCESSES',
    True,
  ),
  'schedule.name': Field(
    'log_linear',
    'The amount of noise in time.',
    'sedd_jax.noise_schedules:SCHEDULES',
    True,
  ),
  'schedule.eps': Field(
    1e-3,
    'log_linear, cosine, polynomial: share of clean tokens at t = 1.',
    'in (0, 1)',
  ),
  'schedule.sigma_min': Field(1e-4, 'geometric: total noise at t = 0.', '> 0'),
  'schedule.sigma_max': Field(20.0, 'geometric: total noise at t = 1.', '> 0'),
  'schedule.num_steps': Field(
    1000, 'Schedules in steps: their number, T.', '> 1'
  ),
  'schedule.betas': Field(
    'cosine',
    'step_betas: the law of beta_t; reciprocal: 1 / (T - t + 1).',
    'sedd_jax.noise_schedules.step_betas:BETAS',
  ),
  'model.name': Field(
    'transformer', 'The network.', 'sedd_jax.models:MODELS', True
  ),
  'model.hidden_size': Field(768, 'Width of the residual stream.', '> 0'),
  'model.num_layers': Field(12, 'Transformer blocks.', '> 0'),
  'model.num_heads': Field(
    12, 'Attention heads; divides hidden_size into even parts.', '> 0'
  ),
  'model.cond_size': Field(
    128, 'Width of the embedding of the noise level.', '> 0'
  ),
  'model.dropout': Field(
    0.1, 'Dropout on the two branches of a block.', 'in [0, 1)'
  ),
  'model.dtype': Field(
    'bfloat16',
    'Type the blocks compute in; parameters and loss are float32.',
    ('float32', 'bfloat16'),
  ),
  'model.scan_layers': Field(
    True, 'Scan over the blocks: compiles faster, runs slower on CPU.'
  ),
  'model.remat': Field(
    False, 'Recompute the blocks in the backward pass to save memory.'
  ),
  'model.attention': Field(
    'auto',
    'Attention kernel; auto: cudnn where device and shapes allow it, else xla.',
    ('auto', 'xla', 'cudnn'),
  ),
  'data.source': Field(
    'openwebtext',
    'The corpus.',
    'sedd_jax.data.sources.corpora:SOURCES',
  ),
  'data.path': Field(
    '', "The corpus' file or folder; empty: the source's own default."
  ),
  'data.validation_path': Field(
    '', 'seq2seq: files of the validation split; empty: the end of data.path.'
  ),
  'data.test_path': Field('', 'seq2seq: files of the test split.'),
  'data.layout': Field(
    'joint',
    'seq2seq: source and target in one sequence, or each in its own, or the '
    'target alone.',
    'sedd_jax.data.paired.pair_layouts:LAYOUTS',
  ),
  'data.source_len': Field(
    0, 'seq2seq, layout split: tokens of a source; 0: data.seq_len.', '>= 0'
  ),
  'data.predict_padding': Field(
    True,
    'seq2seq: padding behind a target is predicted and counted, as in '
    'DiffuSeq; if not, it is neither attended nor counted.',
  ),
  'data.ordered': Field(
    False,
    "Whether the vocabulary's order means something, as that of levels does; "
    'noise between neighbours (ordinal_gaussian, band) needs it.',
  ),
  'data.statistics': Field(
    '',
    'Counts of tokens for noise that depends on them: the statistics.json of a '
    'run; empty: counted in the train split, and kept with the run.',
  ),
  'data.label': Field(
    '',
    'text_file, openwebtext: a field of .jsonl or .parquet with the labels of '
    'documents, or @file or @folder, the names of their files or folders; '
    'seq2seq: a field of the meanings that are the sources, or @meaning, all '
    'of them by turns, or @spans, parts of speech and phrases of the targets; '
    'empty: none.',
  ),
  'data.tagger': Field(
    'textblob',
    'data.label=@spans: what tags the words; spacy:PIPELINE is one of spaCy.',
    'sedd_jax.data.labelling.taggers:TAGGERS',
    True,
  ),
  'data.seq_len': Field(1024, 'Tokens a sequence.', '> 0'),
  'data.limit': Field(
    0, 'Tokens used at most, of seq2seq pairs; 0: all.', '>= 0'
  ),
  'data.tokenizer': Field(
    'gpt2',
    'text8 (a to z and space), bytes, gpt2, owner/name of the hub, or the path '
    "of a tokenizer.json or of a folder with one, GPT-2's encoder.json and "
    "vocab.bpe, BERT's vocab.txt, or words.txt (prepare train-words).",
  ),
  'data.validation_fraction': Field(
    0.05,
    'Share held out where the corpus has no split of its own.',
    'in (0, 1)',
  ),
  'data.test_fraction': Field(
    0.0,
    'Share of a test split behind that one, of such a corpus; 0: none.',
    'in [0, 1)',
  ),
  'training.num_steps': Field(400_000, 'Optimizer steps.', '>= 0'),
  'training.batch_size': Field(
    512, 'Sequences a step, over all devices and hosts.', '> 0'
  ),
  'training.accumulation': Field(
    1, 'Micro-batches a step; divides batch_size.', '> 0'
  ),
  'training.log_every': Field(
    100, 'Steps between lines of metrics.jsonl.', '> 0'
  ),
  'training.checkpoint_every': Field(
    10_000, 'Steps between checkpoints; 0: at the end only.', '>= 0'
  ),
  'training.eval_every': Field(
    10_000, 'Steps between bounds on the validation split; 0: none.', '>= 0'
  ),
  'training.sample_every': Field(
    50_000, 'Steps between printed samples; 0: none.', '>= 0'
  ),
  'training.reduction': Field(
    'sequence',
    'The loss is nats per sequence (as SEDD) or per token; the clip sees it.',
    ('sequence', 'token'),
  ),
  'training.ema_decay': Field(
    0.9999, 'Decay of the averaged parameters.', 'in [0, 1)'
  ),
  'training.t_min': Field(
    1e-3, 'Earliest time of loss, bound and sampler.', 'in (0, 1)'
  ),
  'training.time_sampling': Field(
    'iid',
    'How a batch draws its times: each apart, or evenly spread.',
    'sedd_jax.core.times:TIMES',
  ),
  'training.parallelism': Field(
    'pmap',
    'How a step is spread over devices: each holds the state, or a part of it.',
    ('pmap', 'fsdp'),
  ),
  'training.keep_checkpoints': Field(2, 'Newest checkpoints kept.', '> 0'),
  'training.keep_best': Field(
    True, 'Whether the state with the lowest validation is kept besides.'
  ),
  'training.loss_chunk': Field(
    1024,
    'Tokens whose logits exist at once in the loss and the bound, of sedd, '
    'autoregressive, and masked_diffusion in continuous time (others hold '
    'all); 0: all.',
    '>= 0',
  ),
  'training.label_dropout': Field(
    0.1,
    'data.label: share of sequences that are trained on without their labels, '
    'but of a classifier; 0: all have them, and sampling.label_scale is 1.',
    'in [0, 1)',
  ),
  'training.refresh_every': Field(
    0, 'Steps between calls of a system\'s "refresh"; 0: none.', '>= 0'
  ),
  'training.trackers': Field(
    '',
    'Where metrics go besides metrics.jsonl, by commas: tensorboard, wandb.',
  ),
  'training.profile': Field(
    '', "First and last step of a profiler's trace, as 10-20; empty: none."
  ),
  'training.peak_flops': Field(
    0.0,
    'FLOP/s of one device, for the MFU; 0: as its data sheet says, if known.',
    '>= 0',
  ),
  'training.compilation_cache': Field(
    '', 'Folder that keeps compiled programs between runs; empty: none.'
  ),
  'optimizer.name': Field(
    'adamw',
    "The optimizer; muon's other parameters are adamw's.",
    ('adamw', 'adam', 'muon', 'sgd'),
  ),
  'optimizer.learning_rate': Field(
    3e-4, 'The largest learning rate, that after the warm-up.', '> 0'
  ),
  'optimizer.beta1': Field(0.9, 'Adam: decay of the mean.', 'in [0, 1)'),
  'optimizer.beta2': Field(0.999, 'Adam: decay of the square.', 'in [0, 1)'),
  'optimizer.eps': Field(1e-8, 'Adam: added to the root.', '> 0'),
  'optimizer.weight_decay': Field(0.0, 'AdamW and Muon: weight decay.', '>= 0'),
  'optimizer.warmup_steps': Field(
    2500, 'Steps in which the learning rate rises linearly.', '>= 0'
  ),
  'optimizer.decay': Field(
    'none',
    'How the learning rate falls after the warm-up.',
    ('none', 'linear', 'cosine'),
  ),
  'optimizer.decay_steps': Field(
    0, 'Steps after which a decay has come to 0, warm-up included.', '>= 0'
  ),
  'optimizer.clip_norm': Field(
    1.0, 'Global norm that gradients are clipped to; 0: no clip.', '>= 0'
  ),
  'eval.split': Field(
    'validation', 'The split evaluated.', ('train', 'validation', 'test')
  ),
  'eval.checkpoint': Field(
    'last',
    'The checkpoint that is evaluated and sampled: last, or lowest validation.',
    ('last', 'best'),
  ),
  'eval.protocol': Field(
    'bound',
    'The whole bound, or by name what papers report: sedd and mdlm (the mean '
    'of the integrand), diffusion_bert and diffusion_lm (no bounds), loose (a '
    'spindle by the sentence).',
    ('bound', 'sedd', 'mdlm', 'loose', 'diffusion_bert', 'diffusion_lm'),
  ),
  'eval.max_sequences': Field(
    1024, 'Sequences evaluated at most; 0: the whole split.', '>= 0'
  ),
  'eval.points': Field(8, 'Times drawn a sequence.', '> 0'),
  'eval.chain_steps': Field(
    0,
    'Chains of tokens in steps: the bound is on the law of samples drawn in so '
    'many steps (sampling.steps), each of as many of the chain; 0: in all.',
    '>= 0',
  ),
  'eval.time_sampling': Field(
    'stratified',
    'How the times of the bound are drawn: spread evenly, by a density fitted '
    'to where its integrand is large, or not drawn but nodes of a quadrature.',
    ('stratified', 'importance', 'quadrature'),
  ),
  'eval.fit_batches': Field(
    4,
    'Batches of draws that fit the density of importance sampling, besides '
    'the last ones of a training in continuous time.',
    '>= 0',
  ),
  'eval.suite': Field(
    '',
    'Mode evaluate: published test sets in place of the split.',
    'sedd_jax.data.sets.evaluation_sets:NAMES',
  ),
  'eval.suite_path': Field(
    'data_cache/evaluation', "The folder of the suite's files."
  ),
  'eval.stride': Field(
    0,
    'eval.suite: 0: sequences as the suite packs them; else all of a set in '
    'windows so many tokens apart, what they share being told.',
    '>= 0',
  ),
  'eval.batch_size': Field(32, 'Sequences evaluated at once.', '> 0'),
  'eval.generation': Field(
    False, 'Mode evaluate: the quality of samples in place of the split.'
  ),
  'eval.judge': Field(
    '',
    'The model under which samples have their perplexity: the folder of an '
    "autoregressive run, or a GPT-2's folder or hub id; empty: none.",
  ),
  'eval.temperatures': Field(
    '',
    'eval.generation: temperatures of the sampler, by commas; empty: '
    'sampling.temperature.',
  ),
  'eval.steps': Field(
    '', 'The same: steps of the sampler, by commas; empty: sampling.steps.'
  ),
  'eval.mauve': Field(
    '',
    "eval.generation: the GPT-2 that gives MAUVE's features, a folder or hub "
    'id; empty: no MAUVE.',
  ),
  'eval.control': Field(
    '',
    'Mode evaluate: the success of control in place of the split: fields of '
    'the labels of sampling.classifier, pos, span and parse, and length, by '
    'commas; several at once joined by +, as in food+length.',
  ),
  'eval.targets': Field(
    50,
    'eval.control: targets of each, from the texts of the split; for each '
    'target sampling.num_samples samples.',
    '> 0',
  ),
  'eval.decoder_delta': Field(
    1e-6,
    'Uniform share mixed into the decoder at t_min.',
    'in (0, 1)',
  ),
  'sampling.method': Field(
    'tweedie',
    'The sampler: steps in time, masks revealed one by one, or edits.',
    'sedd_jax.samplers:NAMES',
  ),
  'sampling.steps': Field(128, 'Reverse steps.', '> 0'),
  'sampling.temperature': Field(
    1.0,
    'first_hitting, confidence, margin, entropy, remasking, nucleus: what '
    "logits are divided by; 1: the model's own law.",
    '> 0',
  ),
  'sampling.top_p': Field(
    1.0,
    'The same: draws among the likeliest symbols that hold this share; 1: all.',
    'in (0, 1]',
  ),
  'sampling.cached': Field(
    False,
    'tweedie, euler, ancestral, remasking of masks: no network call while '
    'nothing in the batch has changed; the network must not be told the time.',
  ),
  'sampling.corrector_steps': Field(
    0, 'tweedie, euler: steps of the corrector after each step.', '>= 0'
  ),
  'sampling.corrector_size': Field(
    1.0, 'Their length, in steps of the sampler.', '> 0'
  ),
  'sampling.remasking': Field(
    'cap',
    'remasking: a probability to be masked again of at most remask_strength '
    '(cap), that share of the largest (rescale), or cap with one stretch of '
    'steps at a share of 0.1 of masks (loop).',
    'sedd_jax.samplers.remasking:STRATEGIES',
  ),
  'sampling.remask_strength': Field(
    0.02, 'remasking: see sampling.remasking.', 'in (0, 1]'
  ),
  'sampling.eta': Field(
    0.0,
    'ddim: noise of the steps, from 0 (none) to 1 (as ancestral).',
    'in [0, 1]',
  ),
  'sampling.variance': Field(
    'small',
    'Vectors, ancestral: that of the posterior, or beta_t.',
    'sedd_jax.processes.gaussian:VARIANCES',
  ),
  'sampling.clamp': Field(
    0,
    'Vectors: predictions are replaced by the nearest embedding at this step '
    'of the chain and below; 0: never.',
    '>= 0',
  ),
  'sampling.noise_limit': Field(
    0.0,
    'Vectors: normal noise of the steps is cut off here, on both sides; 0: '
    'nowhere.',
    '>= 0',
  ),
  'sampling.block': Field(
    0,
    'Tokens drawn at once after the first data.seq_len, given those before, '
    'where sampling.length is more; 0: all at once.',
    '>= 0',
  ),
  'sampling.prompt_scale': Field(
    1.0,
    'Noise that masks: how much given text counts, as a power of its '
    'probability; 1: as the model has it.',
    '>= 0',
  ),
  'sampling.label': Field(
    '', 'data.label: the label that samples have; empty: none.'
  ),
  'sampling.label_scale': Field(
    1.0,
    'How much that label counts, as a power of its probability; 0: not at all, '
    '1: as the model has it.',
    '>= 0',
  ),
  'sampling.control': Field(
    '',
    'A label that samples have by sampling.classifier, as verse or '
    'field[value]; of vectors also of their words: NNP[0], NP[2:5], pos: DT * '
    'VBZ, parse: NP[0:2] VP[2:5]; several at once as a JSON list.',
  ),
  'sampling.classifier': Field(
    '',
    'The folder of a run that knows labels: of vectors one of system '
    'classifier or span_classifier, begun from this run; of tokens one of '
    'token_classifier; several by commas.',
  ),
  'sampling.guidance': Field(
    'exact',
    'Control of tokens: exact: the classifier is asked of every change of one '
    'token; first_order: its gradient says what they change.',
    'sedd_jax.systems.common.guides:GUIDANCE',
  ),
  'sampling.control_length': Field(
    0,
    'Vectors: tokens of the text, marks apart, by gradients that draw its end '
    'there; 0: as it comes.',
    '>= 0',
  ),
  'sampling.guidance_scale': Field(
    1.0,
    'Control: what the labels and the length count; 0: nothing, the samples '
    'are those without.',
    '>= 0',
  ),
  'sampling.fluency': Field(
    0.01, 'Control: weight of the distance to the mean of a step.', '>= 0'
  ),
  'sampling.control_steps': Field(
    3, 'Control: steps of Adagrad after each step of the chain.', '>= 0'
  ),
  'sampling.control_rate': Field(0.1, 'Control: their learning rate.', '> 0'),
  'sampling.control_reset': Field(
    True,
    'Control: Adagrad made anew for each of its steps, as in the released '
    'code: a step goes by signs; if not, Adagrad.',
  ),
  'sampling.control_until': Field(
    10, 'Control: steps of the chain below it are left alone.', '>= 0'
  ),
  'sampling.start': Field(
    'null',
    'diffuser: where revisions begin: with nothing, random tokens, the source, '
    'or a draft that is written at once.',
    'sedd_jax.samplers.edits:STARTS',
  ),
  'sampling.beam': Field(
    5, 'beam, beam_2d: hypotheses of an edit within a revision.', '> 0'
  ),
  'sampling.branches': Field(
    3, 'beam_2d: states that go on after a revision.', '> 0'
  ),
  'sampling.num_samples': Field(
    8, 'Samples drawn; with pairs, candidates for each.', '> 0'
  ),
  'sampling.length': Field(
    0, 'Tokens a sample; 0: as long as data.seq_len.', '>= 0'
  ),
  'sampling.prompt': Field(
    '', 'Text that is kept; {blank:12} in it is 12 free tokens.'
  ),
  'sampling.suffix': Field('', 'Text that every sample ends with.'),
  'sampling.contains': Field(
    '', 'Text that is somewhere in every sample; several as a JSON list.'
  ),
  'sampling.avoids': Field(
    '', 'Text that is nowhere in a sample; several as a JSON list.'
  ),
  'sampling.regex': Field(
    '', 'Regular expression that every sample matches as a whole.'
  ),
  'sampling.json_schema': Field(
    '', 'JSON schema that every sample satisfies: its path, or JSON text.'
  ),
  'sampling.ends': Field(
    'length',
    "Where the text of a sample ends: at its length, or at the tokenizer's end "
    'of text before.',
    ('length', 'separator'),
  ),
  'sampling.prompts': Field(
    '',
    'File of JSON lines, each num_samples samples with a prompt, suffix, '
    'contains, avoids, regex, json_schema, ends, label of its own.',
  ),
  'sampling.choice': Field(
    '',
    'mbr: of the samples of each prompt the one of least risk is marked, '
    'that nearest to the others by BLEU; empty: none.',
    ('', 'mbr'),
  ),
  'sampling.pairs': Field(
    '',
    'seq2seq: pairs whose targets are written, all, in their order: a split '
    '(train, validation, test) or files; empty: none.',
  ),
  'sampling.num_pairs': Field(
    0, 'The first so many of sampling.pairs; 0: all.', '>= 0'
  ),
  'sampling.batch_size': Field(8, 'Samples drawn at once.', '> 0'),
  'sampling.grid': Field(
    'uniform',
    'Times from 1 to t_min; reference: to 1e-5, as the released code.',
    'sedd_jax.samplers:GRIDS',
  ),
}


def get_config() -> config_dict.ConfigDict:
  """The defaults.

  Returns:
    A locked ConfigDict with the groups system, process, schedule, model, data,
    training, optimizer, eval, sampling and task, besides seed and init_from.
    The groups of `OPEN_GROUPS` are empty and take any field.

  >>> get_config().process.name
  'absorbing'
  """
  config = config_dict.ConfigDict()
  opened = [config_dict.ConfigDict() for _ in OPEN_GROUPS]
  values = {path: field.default for path, field in FIELDS.items()}
  for path, value in (values | dict(zip(OPEN_GROUPS, opened))).items():
    group, _, leaf = path.rpartition('.')
    if group and group not in config:
      config[group] = config_dict.ConfigDict()
    (config[group] if group else config)[leaf] = value
  config.lock()
  for path in OPEN_GROUPS:
    group, _, leaf = path.rpartition('.')
    (config[group] if group else config)[leaf].unlock()
  return config


def table(path: str) -> Any:
  """The choices or the table that a field's names come from; else empty.

  >>> table('model.dtype')
  ('float32', 'bfloat16')
  """
  permitted = FIELDS[path].permitted
  if permitted is None or isinstance(permitted, tuple):
    return permitted or ()
  module, colon, attribute = permitted.partition(':')
  return getattr(importlib.import_module(module), attribute) if colon else ()


def permitted_text(path: str) -> str:
  """The values that a field takes, in words; empty if any will do.

  >>> permitted_text('eval.protocol')
  'bound, sedd, mdlm, loose, diffusion_bert, diffusion_lm'
  """
  field = FIELDS[path]
  listed = ', '.join(table(path))
  if field.custom:
    listed += ', or module:Name'
  return listed or (field.permitted if isinstance(field.permitted, str) else '')


def describe() -> str:
  """All fields as a Markdown table, for the documentation."""
  rows = ['| field | default | meaning | permitted |', '|---|---|---|---|']
  for path, field in FIELDS.items():
    rows.append(
      f'| `{path}` | `{json.dumps(field.default)}` | {field.meaning} | '
      f'{permitted_text(path) or type(field.default).__name__} |'
    )
  rows += [f'| `{path}.*` | | {text} | |' for path, text in OPEN_GROUPS.items()]
  return '\n'.join(rows) + '\n'
