import os

import pytest

from sedd_jax.core import atomic


def test_a_file_appears_whole(tmp_path):
  path = tmp_path / 'page.html'
  atomic.write_text(path, 'first é\r\n')
  assert path.read_bytes() == 'first é\r\n'.encode()
  with pytest.raises(ZeroDivisionError):
    with atomic.replacing(path) as stream:
      stream.write(b'sec')
      stream.flush()
      raise ZeroDivisionError
  assert path.read_bytes() == 'first é\r\n'.encode()
  atomic.write_text(path, 'third')
  assert path.read_text() == 'third'
  assert os.listdir(tmp_path) == ['page.html']


def test_what_is_there_stays_until_the_move(tmp_path, monkeypatch):
  path = tmp_path / 'page.html'
  atomic.write_text(path, 'first')

  def fails(part, whole):
    with open(part) as new, open(whole) as old:
      assert (new.read(), old.read()) == ('second', 'first')
    raise OSError('disk')

  monkeypatch.setattr(atomic.os, 'replace', fails)
  with pytest.raises(OSError, match='disk'):
    atomic.write_text(path, 'second')
  assert path.read_text() == 'first'
  assert os.listdir(tmp_path) == ['page.html']
