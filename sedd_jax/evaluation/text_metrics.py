"""What samples say of themselves, token by token, MAUVE and BERTScore.

None of them is a quality by itself: a repetitive sample is likely under any
judge, and a random one is diverse.  They are told together.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Of distinct-n, and of the n-grams whose repetition is counted.
DISTINCT = (1, 2, 3, 4)
REPEATED = 4
# The network of DiffuSeq's BERTScore (arXiv 2210.08933).
BERT_SCORE_MODEL = 'microsoft/deberta-xlarge-mnli'


def unigram_entropy(sequences: Sequence[np.ndarray]) -> float:
  """Entropy of the tokens within a sample, the mean over samples.

  -sum over v of f(v) log f(v), with f(v) the share of token v among those of
  the sample.  Repetitive samples are low in it (arXiv 2409.02908, section 5).

  Args:
    sequences: tokens `[length]` of each sample, at least one a sample.

  Returns:
    Nats; at most the log of a sample's length.

  >>> tokens = [np.array([0, 1, 2, 3]), np.array([5, 5, 5, 5])]
  >>> round(unigram_entropy(tokens), 4)
  0.6931
  """
  found = []
  for tokens in sequences:
    _, counts = np.unique(tokens, return_counts=True)
    shares = counts / counts.sum()
    found.append(-np.sum(shares * np.log(shares)))
  return float(np.mean(found))


def distinct(sequences: Sequence[np.ndarray], n: int) -> float | None:
  """Distinct n-grams of all samples over all their n-grams.

  After arXiv 1510.03055, section 5, which divides by the number of tokens.
  It falls with the number of samples and with their length: only equal numbers
  compare.

  Args:
    sequences: tokens `[length]` of each sample.
    n: tokens of an n-gram; none reaches over two samples.

  Returns:
    In (0, 1]; None where no sample has n tokens.

  >>> distinct([np.array([1, 1, 2]), np.array([1, 2])], 2)
  0.6666666666666666
  """
  grams = [_grams(tokens, n) for tokens in sequences if len(tokens) >= n]
  if not grams:
    return None
  found = np.concatenate(grams)
  return len(np.unique(found, axis=0)) / len(found)


def repetition(sequences: Sequence[np.ndarray], n: int) -> float | None:
  """Share of a sample's n-grams that repeat one of it, the mean over samples.

  1 - (distinct n-grams of a sample) / (its n-grams): seq-rep-n of arXiv
  1908.04319, section 6.

  Args:
    sequences: tokens `[length]` of each sample.
    n: tokens of an n-gram.

  Returns:
    In [0, 1); None where no sample has n tokens, and samples that have not are
    left out.

  >>> round(repetition([np.array([1, 1, 1, 1]), np.array([1, 2, 3])], 2), 4)
  0.3333
  """
  grams = [_grams(tokens, n) for tokens in sequences if len(tokens) >= n]
  if not grams:
    return None
  shares = [1 - len(np.unique(found, axis=0)) / len(found) for found in grams]
  return float(np.mean(shares))


def _grams(tokens: np.ndarray, n: int) -> np.ndarray:
  return np.lib.stride_tricks.sliding_window_view(np.asarray(tokens), n)


def diversity(sequences: Sequence[np.ndarray]) -> dict[str, float | None]:
  """Entropy, distinct-n and repetition of samples, by name.

  Args:
    sequences: tokens `[length]` of each sample, at least one a sample.

  Returns:
    unigram_entropy, distinct_1 to distinct_4, repetition_4.
  """
  found: dict[str, float | None] = {
    'unigram_entropy': unigram_entropy(sequences)
  }
  for n in DISTINCT:
    found[f'distinct_{n}'] = distinct(sequences, n)
  found[f'repetition_{REPEATED}'] = repetition(sequences, REPEATED)
  return found


def mauve_library() -> Any:
  """The library of MAUVE.

  Raises:
    ValueError: it is not installed.
  """
  try:
    return importlib.import_module('mauve')
  except ModuleNotFoundError as error:
    raise ValueError(
      f'eval.mauve needs {error.name}, which is not installed: pip install '
      "'sedd_jax[mauve]'"
    ) from error


def mauve(
  texts: Sequence[str], references: Sequence[str], features: str, length: int
) -> float:
  """MAUVE of samples against text (arXiv 2102.01454), by the authors' library.

  Area under the divergence curve of two histograms of clustered features, with
  the library's settings.  It depends on the features' model and on the number
  of texts, and a few of them say nothing: papers take thousands.

  Args:
    texts: samples.
    references: as many texts of people.
    features: the GPT-2 that gives the features, a folder or hub id.
    length: tokens of that model that are read of a text.

  Returns:
    In (0, 1].

  Raises:
    ValueError: the library is not installed, cannot read its model, or gives no
      number, as of too few texts.
  """
  library = mauve_library()
  try:
    result = library.compute_mauve(
      p_text=list(references),
      q_text=list(texts),
      featurize_model_name=features,
      max_text_length=length,
      verbose=False,
    )
  # The library's own errors, and those of a missing model or network.
  except Exception as error:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(f'eval.mauve {features!r}: {text}') from error
  found = float(result.mauve)
  if not math.isfinite(found):
    raise ValueError(
      f'eval.mauve {features!r}: it is {found} of {len(texts)} samples'
    )
  return found


def bert_score_library() -> Any:
  """The library of BERTScore.

  Raises:
    ValueError: it is not installed.
  """
  try:
    return importlib.import_module('bert_score')
  except ModuleNotFoundError as error:
    raise ValueError(
      f'BERTScore needs {error.name}, which is not installed: pip install '
      "'sedd_jax[bertscore]'"
    ) from error


def bert_score(
  texts: Sequence[str],
  references: Sequence[Sequence[str]],
  model: str = BERT_SCORE_MODEL,
) -> float:
  """Mean F1 of BERTScore (arXiv 1904.09675), by the authors' library.

  Neither rescaled nor weighted by rarity; figures of two models do not compare.

  Args:
    texts: what is scored.
    references: of each; the best of them counts.
    model: the hub id of the network, DiffuSeq's by default.

  Raises:
    ValueError: the library is not installed.
  """
  _, _, f1 = bert_score_library().score(
    list(texts), [list(own) for own in references], model_type=model
  )
  return float(f1.mean())
