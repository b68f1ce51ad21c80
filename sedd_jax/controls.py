"""Control of a run's samples: by classifiers, other runs, and by length."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sedd_jax import runs, systems
from sedd_jax.core import atomic, names
from sedd_jax.data.files import labels as data_labels
from sedd_jax.data.labelling import meanings, spans, taggers
from sedd_jax.data.paired import marked
from sedd_jax.default_config import FIELDS
from sedd_jax.evaluation import (
  conditioning,
  control,
  generate,
  judges,
  likelihood,
  report,
  tagged_words,
)
from sedd_jax.systems.common import guides, vector_control


def asked(sampling: Any) -> dict[str, Any]:
  """What a config's group `sampling` asks of control, for a sample's line."""
  wanted = {
    'control': conditioning.texts_of(sampling.control, 'sampling.control'),
    'control_length': sampling.control_length,
  }
  return {name: value for name, value in wanted.items() if value}


def settings(sampling: Any) -> dict[str, Any]:
  """How a config's group `sampling` guides, for figures of what is drawn.

  Args:
    sampling: the group.

  Returns:
    Its classifiers, the strength, and the options that are not the default.
  """
  told = {name: sampling[name] for name in ('classifier', 'guidance_scale')}
  return told | _options(sampling)


def _options(sampling: Any) -> dict[str, Any]:
  """What a request asks of control; those of vectors are not of tokens."""
  return {
    name: sampling[name]
    for name in ('guidance', *vector_control.OPTIONS)
    if sampling[name] != FIELDS[f'sampling.{name}'].default
  }


class Controls:
  """What a run's samples can be controlled by.

  Attributes:
    labels: those that its classifiers know, each with the classifier's place.
  """

  def __init__(self, run: runs.Run, folders: str = ''):
    """Reads the classifiers.

    Args:
      run: the generator.
      folders: of runs of systems classifier, span_classifier and
        token_classifier, by commas; or none.

    Raises:
      ValueError: another run, one of another noise, width or embeddings than
        the generator's, and a label that two of them know.
    """
    self.run = run
    paths = [path.strip() for path in folders.split(',') if path.strip()]
    self._classifiers = [_read(path, run) for path in paths]
    self.labels: dict[str, int] = {}
    for place, (path, one) in enumerate(zip(paths, self._classifiers)):
      for label in one.experiment.info.labels:
        if label in self.labels:
          raise ValueError(
            f'sampling.classifier: {paths[self.labels[label]]} and {path} both '
            f'know label {label!r}'
          )
        self.labels[label] = place
    # That of words and phrases: two of them know the same labels.
    self._of_spans = next(
      (
        place
        for place, one in enumerate(self._classifiers)
        if one.config.data.label == data_labels.SPANS
      ),
      None,
    )

  @property
  def fields(self) -> list[str]:
    """The fields of the labels, and what whole parses are called."""
    found = dict.fromkeys(map(meanings.field_of, self.labels))
    parse = [] if self._of_spans is None else [spans.PARSE]
    return [field for field in found if field] + parse

  def tagger(self) -> taggers.Tagger:
    """What tagged the texts of the classifier of words and phrases.

    Raises:
      ValueError: its library is not installed.
    """
    assert self._of_spans is not None
    return taggers.make(self._classifiers[self._of_spans].config.data.tagger)

  def applied(
    self,
    request: systems.Request,
    wanted: Sequence[Sequence[str]],
    lengths: Sequence[int] | None = None,
  ) -> systems.Request:
    """A request with controls, by the run's config (`sampling`).

    Args:
      request: what is asked for besides.
      wanted: labels, of each sequence those that it is to have at once, those
        of words and phrases as `spans.read` takes them.
      lengths: tokens of each text without its marks, or None.

    Returns:
      The request, checked.

    Raises:
      ValueError: an unknown label, two of one field, words that there are not
        or that contradict each other, a length that does not fit, and a system
        that takes no control.
    """
    sampling = self.run.config.sampling
    of_texts, of_spans = self._read(wanted)
    found = self._guides(of_texts)
    if any(of_spans):
      room = request.length - 2
      words = lengths or [room] * len(of_spans)
      found.append(self._span_guide(of_spans, [min(n, room) for n in words]))
    for guide in found:
      self._require_room(guide, request)
    controlled = dataclasses.replace(
      request,
      guides=(*request.guides, *found),
      pinned=self._pinned(request.length, lengths),
      guidance_scale=sampling.guidance_scale,
      options={**request.options, **_options(sampling)},
    )
    check = self.run.experiment.system.check_request
    if check is not None:
      check(controlled)
    return controlled

  def _require_room(
    self, guide: guides.OfLabels, request: systems.Request
  ) -> None:
    """Raises ValueError where a classifier does not take texts so long."""
    length = request.length
    if request.options.get('block'):
      length = min(length, self.run.config.data.seq_len)
    table = guide.aux.get('embedding')
    x_t = jax.ShapeDtypeStruct((len(guide.label), length), np.int32)
    level = jax.ShapeDtypeStruct((len(guide.label),), np.float32)
    if table is not None:
      shape = (*x_t.shape, table.shape[1])
      x_t = jax.ShapeDtypeStruct(shape, np.float32)
    try:
      jax.eval_shape(guide, x_t, level)
    except ValueError as error:
      raise ValueError(f'sampling.classifier: {error}') from error

  def _read(
    self, wanted: Sequence[Sequence[str]]
  ) -> tuple[list[list[str]], list[list[spans.Fact]]]:
    """Labels of the rows, and facts on their words."""
    of_texts, of_spans = [], []
    for own in wanted:
      facts = {x: self._facts(x) for x in own}
      of_texts.append([x for x in own if facts[x] is None])
      of_spans.append([fact for x in own for fact in facts[x] or ()])
      self._require_known(of_texts[-1])
    return of_texts, of_spans

  def _facts(self, label: str) -> list[spans.Fact] | None:
    """What a label says of words, None where it is one of texts."""
    if self._of_spans is None or label in self._texts:
      return None
    if label in self.labels:
      raise ValueError(
        f'control {label!r} says nothing of where: write NNP[0] for a word, '
        'NP[2:5] for a phrase'
      )
    return spans.read(label)

  @property
  def _texts(self) -> list[str]:
    """The labels of texts."""
    return [x for x, place in self.labels.items() if place != self._of_spans]

  def _span_guide(
    self, wanted: Sequence[Sequence[spans.Fact]], words: Sequence[int]
  ) -> guides.OfLabels:
    """The guide of facts on the words of the rows."""
    assert self._of_spans is not None
    one = self._classifiers[self._of_spans]
    log_label = one.experiment.system.log_label
    assert log_label is not None
    label = spans.numbered(wanted, one.experiment.info.labels, words)
    return guides.OfLabels(one.params, one.aux, label, log_label)

  def _guides(self, wanted: Sequence[Sequence[str]]) -> list[guides.OfLabels]:
    """A guide of each classifier for its first label of the rows, and so on."""
    numbers: list[list[list[int]]] = [[] for _ in self._classifiers]
    for own in wanted:
      for place, one in enumerate(self._classifiers):
        known = one.experiment.info.labels
        numbers[place].append(
          [known.index(x) for x in own if self.labels[x] == place]
        )
    found = []
    for one, rows in zip(self._classifiers, numbers):
      log_label = one.experiment.system.log_label
      assert log_label is not None
      for k in range(max(map(len, rows))):
        label = [row[k] if k < len(row) else -1 for row in rows]
        found.append(
          guides.OfLabels(
            one.params, one.aux, np.array(label, np.int32), log_label
          )
        )
    return found

  def _require_known(self, labels: Sequence[str]) -> None:
    for label in labels:
      if label not in self.labels:
        told = (
          names.alternatives(label, self._texts)
          if self.labels
          else 'no classifier is given (sampling.classifier)'
        )
        raise ValueError(f'unknown control label {label!r}; {told}')
    places = [(self.labels[x], meanings.field_of(x)) for x in labels]
    for place, label in zip(places, labels):
      if places.count(place) > 1:
        raise ValueError(
          f'control {label!r}: a text has one label of a field, and '
          f'{len(labels)} are asked for: {", ".join(labels)}'
        )

  def _pinned(
    self, length: int, lengths: Sequence[int] | None
  ) -> np.ndarray | None:
    """Where texts of such lengths have their ends."""
    if lengths is None:
      return None
    tokenizer, data = self.run.tokenizer, self.run.config.data
    if not isinstance(tokenizer, marked.Marked) or data.layout != 'target':
      raise ValueError(
        'sampling.control_length is for texts that [SEP] ends: '
        "data.source='seq2seq' with data.layout='target'"
      )
    if not 1 <= min(lengths) <= max(lengths) <= length - 2:
      raise ValueError(
        f'sampling.control_length: a sample of {length} tokens has room for '
        f'texts of 1 to {length - 2}, not {min(lengths)} to {max(lengths)}'
      )
    pinned = np.full((len(lengths), length), -1, np.int32)
    pinned[np.arange(len(lengths)), 1 + np.asarray(lengths)] = tokenizer.sep
    return pinned


def _read(folder: str, run: runs.Run) -> runs.Run:
  """A classifier of a generator's noisy texts.

  Raises:
    ValueError: no such run, or one that does not fit.
  """
  try:
    found = runs.load_run(folder)
    system = found.experiment.system
    if system.frozen is None or system.log_label is None:
      raise ValueError(
        f'system {found.config.system.name!r} says nothing of labels: a '
        'control needs a run of system classifier, span_classifier or '
        'token_classifier'
      )
    if not judges.same_ids(found.tokenizer, run.tokenizer):
      raise ValueError(
        f'its tokens are those of {found.config.data.tokenizer!r}, and those '
        f'of the run of {run.config.data.tokenizer!r}'
      )
    taken = system.frozen(run.config, run.params)
    for name, array in taken.items():
      if not np.array_equal(array, found.aux[name]):
        raise ValueError(
          f'its {name} is not that of the run that it is to guide, but of '
          f'{found.config.init_from} when it was trained: train it again with '
          'init_from of this run'
        )
  except ValueError as error:
    raise ValueError(f'sampling.classifier: {folder}: {error}') from error
  return found


def of_config(run: runs.Run, request: systems.Request) -> systems.Request:
  """A request with the controls of the run's config, or as it is.

  Args:
    run: the generator.
    request: what is asked for besides.

  Raises:
    ValueError: see `Controls`.
  """
  wanted = asked(run.config.sampling)
  if not wanted:
    return request
  count = len(request.seeds)
  length = wanted.get('control_length')
  return Controls(run, run.config.sampling.classifier).applied(
    request,
    [wanted.get('control', [])] * count,
    [length] * count if length else None,
  )


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Samples under targets of a split, and the same without.

  Attributes:
    run: the generator.
    plain: the request without control, for the most samples of a kind.
    kinds: of `control.kinds`.
    wanted: for each kind the targets.
    requests: for each kind its request.
    judge: of the fluency, or None.
    tagger: of controls of words and phrases, or None.
  """

  run: runs.Run
  plain: systems.Request
  kinds: Sequence[tuple[str, ...]]
  wanted: Sequence[Sequence[control.Target]]
  requests: Sequence[systems.Request]
  judge: judges.Judge | None
  tagger: tagged_words.Words | None


def planned(run: runs.Run) -> Evaluation:
  """What `eval.control` asks for, checked before anything is drawn.

  Raises:
    ValueError: see `Controls`, `control.kinds` and `control.targets`.
  """
  config, dataset = run.config, run.experiment.dataset
  built = Controls(run, config.sampling.classifier)
  found = control.kinds(config.eval.control, built.fields)
  each = config.sampling.num_samples
  tagger = None
  if any(part in spans.KINDS for kind in found for part in kind):
    tagger = tagged_words.Words(built.tagger(), run.tokenizer)
  wanted = [
    control.targets(
      dataset, config.eval.split, kind, config.eval.targets, tagger
    )
    for kind in found
  ]
  most = each * max(map(len, wanted))
  plain = run.experiment.request(most)
  requests = []
  for kind, own in zip(found, wanted):
    rows = [target for target in own for _ in range(each)]
    lengths = None
    if control.LENGTH in kind:
      lengths = [target[control.LENGTH] for target in rows]
    some = dataclasses.replace(plain, seeds=plain.seeds[: len(rows)])
    labels = [control.labels_of(target) for target in rows]
    requests.append(built.applied(some, labels, lengths))
  judge = None
  if config.eval.judge:
    judge = runs.judge(config.eval.judge)
    judges.require_readable(judge, run.tokenizer)
  return Evaluation(run, plain, found, wanted, requests, judge, tagger)


def evaluate(
  plan: Evaluation, workdir: pathlib.Path, circumstances: Mapping[str, Any]
) -> None:
  """Draws, measures, writes control.json, .md and .jsonl, and prints.

  Args:
    plan: of `planned`.
    workdir: the folder.
    circumstances: what is told besides.
  """
  run, config = plan.run, plan.run.config
  figures = functools.partial(
    control.figures,
    tokenizer=run.tokenizer,
    judge=plan.judge,
    tagger=plan.tagger,
  )
  each = config.sampling.num_samples
  unguided = run.draw(plan.plain).tokens
  rows, told = [], []
  for kind, own, request in zip(plan.kinds, plan.wanted, plan.requests):
    drawn = run.draw(request)
    name = '+'.join(kind)
    targets = [target for target in own for _ in range(each)]
    told.append(
      {
        'kind': name,
        'num_targets': len(own),
        'controlled': figures(drawn.tokens, targets),
        'unguided': figures(unguided[: len(targets)], targets),
      }
    )
    lines = generate.rows(drawn, run.tokenizer, request, kind=name)
    for line, ids, target in zip(lines, drawn.tokens, targets):
      found = control.successes(ids, run.tokenizer, target, plan.tagger)
      rows.append({**line, 'target': dict(target), 'success': found})
  sampling = config.sampling
  result = {
    'step': run.step,
    'split': config.eval.split,
    'judge': plan.judge.name if plan.judge else None,
    'samples_per_target': each,
    'method': plan.plain.method,
    'steps': plan.plain.steps,
    **settings(sampling),
    'controls': told,
    'data': control.fluency(_texts(plan), run.tokenizer, plan.judge),
    **circumstances,
  }
  table = control.table(workdir.name, result)
  report.write_json(workdir / 'control.json', result)
  atomic.write_text(workdir / 'control.md', table)
  report.write_jsonl(workdir / 'control.jsonl', rows)
  print(f'{table}see {workdir}', flush=True)


def _texts(plan: Evaluation) -> list[np.ndarray]:
  """As many texts of the split as there are samples."""
  dataset, split = plan.run.experiment.dataset, plan.run.config.eval.split
  places = likelihood.evaluated_indices(
    dataset.num_sequences(split), len(plan.plain.seeds)
  )
  return list(dataset.eval_batch(split, places, len(places))['tokens'])
