"""Megabytes of text a second that preparation turns into tokens.

  python benchmarks/prepare.py --input prose.txt.xz --tokenizers text8,FOLDER \\
    --workers 1,2 --output benchmarks/results/prepare.json

Prepares the first bytes of a text again and again, by each tokenizer and number
of processes, to a temporary folder; prints a table and writes JSON.  The text
is cut into documents by its own lines `<|endoftext|>`, and is written out plain
first, so that what is measured is the reader of plain text, the tokenizer and
the writer, not the decompression.  With several processes
the time until the first batch came back, in which they begin, is left out of
the rate, and so is that batch; it has a column of its own.  On a machine with
other load the rate by CPU seconds says what a core would give.
"""

import argparse
import json
import os
import pathlib
import platform
import tempfile
import time

from sedd_jax.data import streaming, tokenizers
from sedd_jax.data.files import documents
from sedd_jax.data.prepared import writer


def plain(folder: str, path: str, size: int) -> pathlib.Path:
  """The first documents of a text as a plain file.

  Args:
    folder: of the file.
    path: of the text, as `prepare` takes it.
    size: bytes of the documents at least, if it has so many.
  """
  written = pathlib.Path(folder, 'text.txt')
  end = b'\n' + documents.END_OF_TEXT + b'\n'
  with open(written, 'wb') as stream:
    for document in documents.read_documents(documents.find(path)):
      stream.write(document.data + end)
      if stream.tell() >= size:
        break
  return written


def cpu_seconds() -> float:
  """Of this process, and of those of its that ended."""
  times = os.times()
  return time.process_time() + times.children_user + times.children_system


def seconds(
  folder: pathlib.Path, file: pathlib.Path, name: str, workers: int
) -> tuple[float, float, float]:
  """Wall seconds of one preparation, until its first batch, and of CPUs."""
  tokenizer = tokenizers.make(name)
  # Its tables are built before the clock starts, as in a long preparation.
  tokenizer.encode('a')
  first = 0.0
  with writer.Writer(
    folder,
    source='text_file',
    division='document',
    tokenizer=tokenizer,
  ) as written:
    append = written.append

    def timed(*args):
      nonlocal first
      first = first or time.perf_counter() - begin
      append(*args)

    written.append = timed
    recipe = streaming.Recipe(tokenizer=name)
    begin, before = time.perf_counter(), cpu_seconds()
    streaming.write(written, [file], recipe, tokenizer, workers)
    whole = time.perf_counter() - begin
    return whole, first, cpu_seconds() - before


def measured(
  folder: str, file: pathlib.Path, name: str, workers: int, repeats: int
) -> dict:
  """The best of some preparations.

  Args:
    folder: where token files may be written.
    file: the text.
    name: of the tokenizer.
    workers: processes.
    repeats: of which the best counts.
  """
  runs = [
    seconds(pathlib.Path(folder, f'{workers}-{number}'), file, name, workers)
    for number in range(repeats)
  ]
  whole, first, cpu = min(runs)
  size = file.stat().st_size
  # With processes: from the first batch that came back, which all began with.
  spent = whole if workers == 1 else whole - first
  counted = size if workers == 1 else size - streaming.BATCH_BYTES
  rate = counted / spent / 1e6
  return {
    'tokenizer': pathlib.Path(name).name,
    'workers': workers,
    'seconds': whole,
    'seconds_to_first_batch': first,
    'megabytes_per_second': rate,
    # With processes: also what they take to begin.
    'megabytes_per_cpu_second': size / cpu / 1e6,
    'megabytes_per_second_and_core': rate / min(workers, os.cpu_count() or 1),
  }


def main():
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--input', required=True, help='text, as prepare takes')
  parser.add_argument('--tokenizers', default='text8,bytes,gpt2')
  parser.add_argument('--workers', default='1', help='several by commas')
  parser.add_argument('--megabytes', type=float, default=64)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--output', help='JSON file to write')
  arguments = parser.parse_args()
  # A process has one core, as the processes of a pool do.
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'
  rows = []
  print('| tokenizer | processes | MB/s | MB/s a core | MB/CPU s | to begin |')
  print('| --- | --- | --- | --- | --- | --- |')
  with tempfile.TemporaryDirectory() as folder:
    file = plain(folder, arguments.input, int(arguments.megabytes * 1e6))
    for name in arguments.tokenizers.split(','):
      for workers in map(int, arguments.workers.split(',')):
        place = tempfile.mkdtemp(dir=folder)
        row = measured(place, file, name, workers, arguments.repeats)
        rows.append(row)
        print(
          f'| {row["tokenizer"]} | {workers} '
          f'| {row["megabytes_per_second"]:.1f} '
          f'| {row["megabytes_per_second_and_core"]:.1f} '
          f'| {row["megabytes_per_cpu_second"]:.1f} '
          f'| {row["seconds_to_first_batch"]:.1f} |',
          flush=True,
        )
    size = file.stat().st_size
  result = {
    'benchmark': 'prepare',
    'bytes': size,
    'repeats': arguments.repeats,
    'rows': rows,
    'machine': platform.machine(),
    'cores': os.cpu_count(),
    'load': os.getloadavg()[0],
    'python': platform.python_version(),
  }
  if arguments.output:
    path = pathlib.Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
  main()
