"""What is in memory while a corpus is written, whatever its size."""

import concurrent.futures
import json
import tracemalloc

import pytest

from sedd_jax.data import streaming, tokenizers
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document
from sedd_jax.data.prepared import writer

RECIPE = streaming.Recipe(tokenizer='bytes')


class Counting:
  """A writer that only counts documents."""

  def __init__(self):
    self.place, self.written = None, 0

  def last(self, split):
    return None

  def append(self, split, tokens, num_characters, begins, named):
    self.written += len(begins)

  def record(self, place):
    self.place = place


@pytest.fixture
def threads(monkeypatch):
  """Threads in place of processes, which take seconds to begin."""

  def pool(workers, *how):
    del how
    return concurrent.futures.ThreadPoolExecutor(workers)

  monkeypatch.setattr(streaming.concurrent.futures, 'ProcessPoolExecutor', pool)
  tokenizer = tokenizers.make('bytes')
  monkeypatch.setattr(
    streaming,
    '_work',
    lambda batch: streaming.encoded(RECIPE, tokenizer, batch),
  )


@pytest.mark.parametrize('workers', [1, 2, 3])
def test_few_batches_are_read_ahead_of_what_is_written(
  tmp_path, monkeypatch, threads, workers
):
  (tmp_path / 'a.txt').write_text('')
  counting = Counting()
  ahead = []

  def read(paths, progress, **options):
    for number in range(200):
      # A batch is a document here.
      ahead.append(number + 1 - counting.written)
      yield Document('a.txt', 0, b'text of %d' % number)

  monkeypatch.setattr(documents, 'read_documents', read)
  monkeypatch.setattr(streaming, 'BATCH_BYTES', 1)
  streaming.write(
    counting, [tmp_path / 'a.txt'], RECIPE, tokenizers.make('bytes'), workers
  )
  assert counting.written == 200
  # Two are read before it is known whether processes are needed.
  at_most = 2 if workers == 1 else 2 * workers + 1
  assert max(ahead) == at_most
  # Enough for each process to have another one waiting.
  assert workers == 1 or min(ahead[20:]) > workers


def peak_of(folder, count):
  """Bytes at most while so many documents of a kilobyte are prepared."""
  path = folder / f'{count}.jsonl'
  with open(path, 'w') as stream:
    for number in range(count):
      stream.write(json.dumps(f'{number} ' * 200) + '\n')
  tokenizer = tokenizers.make('bytes')
  tracemalloc.start()
  try:
    with writer.Writer(
      folder / str(count),
      source='text_file',
      division='document',
      tokenizer=tokenizer,
      shard_bytes=2**16,
    ) as written:
      streaming.write(written, [path], RECIPE, tokenizer)
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


def test_eight_times_the_text_takes_no_more_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(streaming, 'BATCH_BYTES', 2**16)
  monkeypatch.setattr(streaming, 'RECORD_SECONDS', 0.0)
  monkeypatch.setattr(writer.os, 'fsync', lambda handle: None)
  # What is imported or kept for good is not counted.
  peak_of(tmp_path, 100)
  little, much = (peak_of(tmp_path, n) for n in (500, 4000))
  assert (tmp_path / '4000.jsonl').stat().st_size > 3 * much
  assert much < 1.3 * little
