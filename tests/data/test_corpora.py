import gzip
import hashlib
import lzma
import zipfile

import numpy as np
import pytest

from sedd_jax.data import DataError, load
from sedd_jax.data.files import downloads
from sedd_jax.data.sources import corpora

TEXT = ' the quick brown fox jumps over the lazy dog' * 50


@pytest.fixture
def published(monkeypatch, tmp_path):
  """text8 and enwik8 as if they had been published with `TEXT` in them."""
  for name in ('text8', 'enwik8'):
    path = tmp_path / 'published' / f'{name}.zip'
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
      archive.writestr(name, TEXT)
    monkeypatch.setitem(
      downloads.PUBLISHED,
      name,
      downloads.PUBLISHED[name]._replace(
        zip_size=path.stat().st_size,
        zip_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=len(TEXT),
        md5=hashlib.md5(TEXT.encode()).hexdigest(),
        sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
      ),
    )
  return tmp_path / 'published'


def text8(path, **kwargs):
  return load(source='text8', path=str(path), seq_len=8, **kwargs)


def test_the_published_figures():
  text8, enwik8 = (downloads.PUBLISHED[name] for name in ('text8', 'enwik8'))
  assert (text8.zip_size, enwik8.zip_size) == (31_344_016, 36_445_475)
  assert text8.size == enwik8.size == 100_000_000
  assert text8.zip_sha256.startswith('a6640522') and len(text8.md5) == 32
  assert enwik8.zip_sha256.startswith('547994d9') and len(enwik8.md5) == 32
  assert enwik8.sha256.startswith('2b49720e') and len(enwik8.sha256) == 64


def test_100_million_split_90_5_5():
  whole = np.zeros(100_000_000, np.uint8)
  splits = corpora.split_by_position([whole], corpora.PUBLISHED_SHARES)
  assert {split: len(tokens) for split, tokens in splits.items()} == {
    'train': 90_000_000,
    'validation': 5_000_000,
    'test': 5_000_000,
  }
  assert all(np.shares_memory(whole, tokens) for tokens in splits.values())


def test_parts_of_any_size_split_alike():
  rng = np.random.default_rng(0)
  whole = np.arange(1000)
  for _ in range(30):
    cuts = np.sort(rng.integers(1001, size=4))
    limit = int(rng.integers(1, 1200))
    shares = {'train': 0.6, 'validation': 0.3, 'test': 0.1}
    splits = corpora.split_by_position(np.split(whole, cuts), shares, limit)
    joined = np.concatenate([splits[split] for split in shares])
    np.testing.assert_array_equal(joined, whole[:limit])
    assert len(splits['test']) == round(min(limit, 1000) * 0.1)


@pytest.mark.parametrize('where', ['file', 'folder'])
def test_the_published_zip_is_read_unannounced(published, where, caplog):
  data = text8(published / 'text8.zip' if where == 'file' else published)
  parts = [data.tokens(split) for split in ('train', 'validation', 'test')]
  assert data.info.tokenizer.decode(np.concatenate(parts)) == TEXT
  assert [len(part) for part in parts] == [1980, 110, 110]
  assert data.info.files[0]['name'] == 'text8.zip'
  assert not caplog.records


@pytest.mark.parametrize('ending', ['', '.gz', '.xz', '.txt'])
def test_other_forms_of_the_file(published, tmp_path, ending):
  pack = {'.gz': gzip.compress, '.xz': lzma.compress}.get(ending, bytes)
  (tmp_path / f'text8{ending}').write_bytes(pack(TEXT.encode()))
  assert text8(tmp_path).info.num_tokens['train'] == 1980


def test_a_part_of_the_text_is_announced(published, tmp_path, caplog):
  (tmp_path / 'part').write_text(TEXT[:1000])
  data = text8(tmp_path / 'part')
  assert data.info.num_tokens == {'train': 900, 'validation': 50, 'test': 50}
  [record] = caplog.records
  assert '1,000 bytes, where text8 has 2,200' in record.getMessage()
  # The whole text with a limit is the part.
  limited = text8(published, limit=1000)
  for split in ('train', 'validation', 'test'):
    np.testing.assert_array_equal(limited.tokens(split), data.tokens(split))


def test_another_text_of_the_same_length_is_refused(published, tmp_path):
  (tmp_path / 'text8').write_text(TEXT.replace('dog', 'cat'))
  with pytest.raises(DataError, match='wrong checksum: md5'):
    text8(tmp_path / 'text8')


def test_the_second_checksum_counts_too(published, monkeypatch):
  known = downloads.PUBLISHED['text8']
  monkeypatch.setitem(
    downloads.PUBLISHED, 'text8', known._replace(sha256=64 * '0')
  )
  with pytest.raises(DataError, match='wrong checksum: sha256 .*has 0000'):
    text8(published)


def test_a_faulty_zip_is_refused(published, tmp_path):
  data = bytearray((published / 'text8.zip').read_bytes())
  (tmp_path / 'text8.zip').write_bytes(data[:-1])
  with pytest.raises(DataError, match='truncated, or another file'):
    text8(tmp_path)
  data[100] ^= 1
  (tmp_path / 'text8.zip').write_bytes(data)
  with pytest.raises(DataError, match='wrong checksum: sha256'):
    text8(tmp_path)


def test_a_character_outside_the_alphabet_is_named(tmp_path):
  (tmp_path / 'text8').write_text('abc\ndef' * 100)
  with pytest.raises(DataError, match=r"text8: character '\\n' at offset 3"):
    text8(tmp_path)


def test_an_empty_file_is_named(tmp_path):
  (tmp_path / 'text8').touch()
  with pytest.raises(DataError, match='text8: empty'):
    text8(tmp_path)


def test_enwik8_is_bytes(published, tmp_path):
  (tmp_path / 'enwik8').write_bytes(b'\xff\x00' * 500)
  data = load(source='enwik8', path=str(tmp_path), tokenizer='bytes', seq_len=8)
  assert data.info.unit == 'byte'
  assert data.info.num_characters['train'] == 900
  assert data.tokens('train')[:2].tolist() == [255, 0]
  with pytest.raises(DataError, match="data.tokenizer='bytes', not 'text8'"):
    load(source='enwik8', path=str(tmp_path), tokenizer='text8', seq_len=8)


def test_a_missing_file_names_the_folder_to_put_it():
  message = corpora.missing('text8', 'somewhere/text8.zip')
  assert "no data at 'somewhere/text8.zip'" in message
  assert '--output data_cache/text8' in message
