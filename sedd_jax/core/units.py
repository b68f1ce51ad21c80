"""Units of likelihood: nats inside, other units where numbers are reported."""

import math


def bits_per_character(
  nats_per_token: float, num_tokens: int, num_characters: int
) -> float:
  """Bits a character (or byte) of the text that the tokens encode.

  Args:
    nats_per_token: the loss.
    num_tokens: tokens of the split (`DataInfo.num_tokens`).
    num_characters: characters or bytes of the same text.

  Returns:
    nats / ln 2 * tokens / characters.

  >>> round(bits_per_character(math.log(2), 100, 400), 12)
  0.25
  """
  return nats_per_token / math.log(2) * num_tokens / num_characters
