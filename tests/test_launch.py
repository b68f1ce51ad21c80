"""Several processes on one machine, started by launch/local.sh."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sedd_jax import main
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCAL = ROOT / 'launch' / 'local.sh'
TIMEOUT = 300

# In place of python: says its rank and what it is told, and ends as DEED says.
STUB = """\
#!/bin/bash
if [ "$1" = -c ]; then exec "$REAL" "$@"; fi
echo "rank $SEDD_JAX_RANK of $SEDD_JAX_PROCESSES at $SEDD_JAX_COORDINATOR: $*"
{deed}
"""


def environment(folder, **variables):
  return os.environ | {
    'PATH': f'{folder}:{os.environ["PATH"]}',
    'PYTHONPATH': str(ROOT),
    'JAX_PLATFORMS': 'cpu',
    'LOG_DIR': str(folder / 'logs'),
    'REAL': sys.executable,
    **variables,
  }


def log(folder, rank):
  return (folder / 'logs' / f'process-{rank}.log').read_text()


def stubbed(folder, deed, **variables):
  """The launcher over stubs that end as the lines of bash in `deed` say."""
  python = folder / 'python'
  python.write_text(STUB.format(deed=deed))
  python.chmod(0o755)
  return subprocess.Popen(
    [LOCAL, '--config=a b'],
    env=environment(folder, PROCESSES='3', **variables),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_each_process_knows_its_place(tmp_path):
  launched = stubbed(tmp_path, 'exit 0')
  shown, _ = launched.communicate(timeout=TIMEOUT)
  assert launched.returncode == 0
  logs = [log(tmp_path, rank) for rank in range(3)]
  address = logs[0].split(' at ')[1].split(': ')[0]
  host, port = address.split(':')
  assert host == 'localhost' and 1024 < int(port) < 65536
  assert logs == [
    f'rank {rank} of 3 at {address}: -m sedd_jax.main --config=a b\n'
    for rank in range(3)
  ]
  assert shown == logs[0]


def test_sigterm_reaches_all_and_all_may_end_well(tmp_path):
  deed = """\
trap 'echo told; exit 0' TERM
touch "$LOG_DIR/ready-$SEDD_JAX_RANK"
while :; do sleep 0.05; done"""
  launched = stubbed(tmp_path, deed)
  wait_for(tmp_path / 'logs', launched, 'ready-*', 3)
  launched.send_signal(signal.SIGTERM)
  launched.communicate(timeout=TIMEOUT)
  assert launched.returncode == 0
  for rank in range(3):
    assert log(tmp_path, rank).endswith('told\n')


def test_a_second_signal_kills(tmp_path):
  deed = """\
trap 'touch "$LOG_DIR/told-$SEDD_JAX_RANK"' TERM
touch "$LOG_DIR/ready-$SEDD_JAX_RANK"
while :; do sleep 0.05; done"""
  launched = stubbed(tmp_path, deed)
  wait_for(tmp_path / 'logs', launched, 'ready-*', 3)
  launched.send_signal(signal.SIGTERM)
  wait_for(tmp_path / 'logs', launched, 'told-*', 3)
  launched.send_signal(signal.SIGTERM)
  launched.communicate(timeout=TIMEOUT)
  assert launched.returncode == 128 + signal.SIGKILL


def test_one_that_fails_ends_all_with_its_code(tmp_path):
  """The others hang, deaf to SIGTERM, as in a sum that one never joins."""
  deed = """\
if [ "$SEDD_JAX_RANK" = 1 ]; then echo 'no such file'; exit 7; fi
trap '' TERM
while :; do sleep 0.05; done"""
  start = time.monotonic()
  launched = stubbed(tmp_path, deed, GRACE='1')
  _, told = launched.communicate(timeout=TIMEOUT)
  assert launched.returncode == 7
  lines = told.splitlines()
  (place,) = (
    place
    for place, line in enumerate(lines)
    if line.startswith('process 1 ended with code 7, see ')
  )
  assert lines[place + 1] == (
    f'rank 1 of 3 at {log(tmp_path, 1).split(" at ")[1].splitlines()[0]}'
  )
  assert lines[place + 2] == 'no such file'
  assert time.monotonic() - start < 30


def wait_for(folder, launched, pattern, number):
  deadline = time.monotonic() + TIMEOUT
  while len(list(folder.glob(pattern))) < number:
    assert launched.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)


@pytest.mark.parametrize('number', ['0', 'two', '-1', ''])
def test_a_number_of_processes_that_is_none(tmp_path, number):
  (tmp_path / 'python').write_text('#!/bin/bash\nexit 0\n')
  (tmp_path / 'python').chmod(0o755)
  ended = subprocess.run(
    [LOCAL],
    env=environment(tmp_path, PROCESSES=number),
    capture_output=True,
    text=True,
  )
  # Not set and empty are one.
  assert ended.returncode == (2 if number else 0)
  assert ended.stderr == (
    f'PROCESSES={number} is no number of processes\n' if number else ''
  )


def launched(folder, *argv):
  """Two processes of the program, to their end; what the first has shown."""
  (folder / 'python').write_text('#!/bin/bash\nexec "$REAL" "$@"\n')
  (folder / 'python').chmod(0o755)
  started = subprocess.Popen(
    [LOCAL, *map(str, argv)],
    cwd=folder,
    env=environment(folder, PROCESSES='2'),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  try:
    shown, told = started.communicate(timeout=TIMEOUT)
  finally:
    # All that it has started, should it hang.
    with started, contextlib.suppress(ProcessLookupError):
      os.killpg(started.pid, signal.SIGKILL)
  assert started.returncode == 0, shown + told + log(folder, 1)
  return shown


def losses(workdir):
  return {
    row['step']: row['loss'] for row in tiny.rows(workdir / 'metrics.jsonl')
  }


def read(path):
  return json.loads(path.read_text())


@pytest.mark.slow
def test_two_processes_train_evaluate_and_sample_as_one(
  trained, copied, tiny_text, tmp_path
):
  """Twenty steps by pmap, then with the state spread over both.

  The second part fits the times of its bound, for which it takes in what both
  processes have drawn.
  """
  alone = tiny.rows(trained / 'metrics.jsonl')
  expected = losses(trained)
  workdir = tmp_path / 'run'
  argv = [*tiny.arguments(tiny_text), f'--workdir={workdir}']

  shown = launched(tmp_path, *argv, '--config.training.num_steps=20')
  assert losses(workdir) == {
    step: pytest.approx(expected[step], rel=1e-5) for step in (10, 20)
  }
  (validation,) = (row['validation'] for row in alone if row['step'] == 20)
  result = read(workdir / 'evaluation.json')
  for name in ('nats_per_token', 'standard_error', 'terms'):
    assert result[name] == pytest.approx(validation[name], rel=1e-4), name
  assert result['num_tokens'] == validation['num_tokens']
  samples = tiny.rows(workdir / 'samples.jsonl')
  assert len(samples) == 4 and samples[-1]['text'].startswith('the ')
  # What is said is said once, by the first; the other has no part in it.
  assert shown.count('samples:') == 1
  assert 'samples' not in log(tmp_path, 1)

  fits = ['--config.eval.time_sampling=importance']
  launched(
    tmp_path,
    *argv,
    *fits,
    '--config.training.parallelism=fsdp',
    '--config.training.eval_every=30',
    '--config.training.sample_every=30',
  )
  assert losses(workdir) == {
    step: pytest.approx(loss, rel=1e-5) for step, loss in expected.items()
  }
  main.main([f'--workdir={copied}', '--mode=evaluate', *fits])
  once = read(copied / 'evaluation.json')
  again = read(workdir / 'evaluation.json')
  assert once['time_sampling'] == again['time_sampling'] == 'importance'
  # The fitted times follow the parameters, which agree to 1e-5: now and then
  # one of some thousand tokens is masked here and not there.
  error = max(once['standard_error'], again['standard_error'])
  assert abs(once['nats_per_token'] - again['nats_per_token']) < error
  (validation,) = (
    row['validation']
    for row in tiny.rows(workdir / 'metrics.jsonl')
    if row['step'] == 30
  )
  assert validation['nats_per_token'] == pytest.approx(
    again['nats_per_token'], rel=1e-6
  )
  assert [row['text'] for row in tiny.rows(workdir / 'samples.jsonl')] == [
    row['text'] for row in tiny.rows(trained / 'samples.jsonl')
  ]


@pytest.mark.slow
def test_two_processes_sample_a_stored_run(copied, tmp_path):
  """One of them writes and prints."""
  texts = [row['text'] for row in tiny.rows(copied / 'samples.jsonl')]
  for name in ('samples.jsonl', 'denoising.html'):
    (copied / name).unlink()
  shown = launched(tmp_path, f'--workdir={copied}', '--mode=sample')
  drawn = [row['text'] for row in tiny.rows(copied / 'samples.jsonl')]
  # With the prompt only: those without were drawn after the training.
  assert drawn == texts[2:] and all(repr(text) in shown for text in drawn)
  assert (copied / 'denoising.html').is_file()
  assert not list(copied.glob('*.part'))
