"""DiffuSeq (arXiv 2210.08933): what to write, given a source beside it.

Source and target lie in one sequence (`data.layout=joint`), and only the target
is noised: Diffusion-LM's chain with what is given outside the noise.  A length
is chosen by predicted padding.
"""

from typing import Any

from sedd_jax.systems import base
from sedd_jax.systems.chains import embedding_chain
from sedd_jax.systems.common import parts


def examples() -> tuple[dict[str, Any], ...]:
  """Fields of configs for the contract tests."""
  of_target = {
    'system.args.loss_on': 'target',
    'system.args.importance': False,
    'sampling.method': 'ddim',
  }
  as_released = {
    'system.args.loss_on': 'all',
    'sampling.clamp': 6,
    'sampling.variance': 'large',
  }
  return tuple(
    {**embedding_chain.EXAMPLE, **more} for more in (of_target, as_released)
  )


def make(
  config: Any,
  data_info: Any,
  *,
  loss_on: str = 'all',
  importance: bool = True,
) -> base.System:
  """The system of a config, for data with a vocabulary.

  Args:
    config: the whole config.
    data_info: has `vocab_size`.
    loss_on: the positions of the loss: 'target', as the paper's objective has
      it, or the source's too, 'all', as the released code.  Padding behind the
      target counts in both.
    importance: draw the steps that are trained on by their losses.

  Returns:
    The system.  Its bound is that of the target given the source, whatever
    the loss is on.

  Raises:
    ValueError: names and numbers that do not fit, and pairs that are not laid
      out in one sequence; before compilation.
  """
  parts.require_no_labels(config, data_info)
  if config.data.source == 'seq2seq' and config.data.layout != 'joint':
    raise ValueError(
      "system diffuseq has source and target in one sequence: data.layout='"
      f"joint', not {config.data.layout!r}"
    )
  return embedding_chain.make(
    config, data_info, loss_on=loss_on, importance=importance
  )
