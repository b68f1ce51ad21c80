"""A process from outside the package that has no scores."""

import dataclasses

from sedd_jax import processes


@dataclasses.dataclass(frozen=True)
class Other(processes.TokenProcess):
  """Named in a config; never asked for anything."""

  vocab_size: int
  forward = backward = sample = sample_prior = prior_kl = None

  @property
  def num_states(self):
    return self.vocab_size
