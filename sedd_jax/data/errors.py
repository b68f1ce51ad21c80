"""The error of this room."""


class DataError(ValueError):
  """A fault of a corpus, a file or a tokenizer, told in one message.

  The message names the file, what is wrong with it and what to do; a program
  prints it without a traceback.
  """
