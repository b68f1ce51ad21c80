import functools
import re
import string
import sys
import types

import numpy as np
import pytest

from sedd_jax.data import DataError, tokenizers
from sedd_jax.data.files import documents
from sedd_jax.data.files.documents import Document
from sedd_jax.data.tokenizers import byte_pairs, library
from tests.data.toys import tiny_bpe


@pytest.mark.parametrize(
  'text, wanted',
  [
    ('Hello, World!', 'hello world '),
    ('In 1905 A.D.', 'in one nine zero five a d '),
    ('  a\t\n b  ', ' a b '),
    ('naïve café', 'na ve caf '),
    ('\u212aelvin', ' elvin'),  # the sign, whose lower case is an ASCII k
    ('', ''),
    ('0', ' zero '),
  ],
)
def test_normalise_follows_the_rules_of_text8(text, wanted):
  assert tokenizers.normalise(text) == wanted


def test_normalise_is_idempotent_and_stays_in_the_alphabet():
  rng = np.random.default_rng(0)
  for _ in range(50):
    text = ''.join(map(chr, rng.integers(0x300, size=200)))
    once = tokenizers.normalise(text)
    assert set(once) <= set(string.ascii_lowercase + ' ')
    assert '  ' not in once
    assert tokenizers.normalise(once) == once


def test_text8_ids_are_the_published_ones():
  tokenizer = tokenizers.make('text8')
  ids = tokenizer.encode(' ' + string.ascii_lowercase)
  assert ids.dtype == np.int32
  np.testing.assert_array_equal(ids, np.arange(27))
  assert tokenizer.decode(ids) == ' ' + string.ascii_lowercase
  assert tokenizer.decode([1, 27, 2, 30]) == 'a_b_'


@pytest.mark.parametrize(
  'text, named',
  [
    ('abC', "'C' at offset 2"),
    ('é', "'é' at offset 0"),
    ('ab\U0001f600d', "'\U0001f600' at offset 2"),
    ('ab{', "'{' at offset 2"),
    ('a' * 5000 + '_', "'_' at offset 5,000"),
  ],
)
def test_text8_names_what_is_outside_its_alphabet(text, named):
  with pytest.raises(DataError) as raised:
    tokenizers.make('text8').encode(text)
  assert named in str(raised.value)


def test_bytes_round_trip_and_mask():
  tokenizer = tokenizers.make('bytes')
  text = 'naïve \U0001f600'
  ids = tokenizer.encode(text)
  np.testing.assert_array_equal(ids, list(text.encode()))
  assert tokenizer.decode(ids) == text
  assert tokenizer.decode([97, 256, 300, 98]) == 'a__b'
  assert tokenizer.decode(ids.astype(np.uint8)) == text
  assert tokenizer.decode([0xC3, 256]) == '\ufffd_'
  with pytest.raises(DataError, match='offset 1'):
    tokenizer.encode('a\ud800')


@pytest.mark.parametrize('name', ['text8', 'bytes'])
def test_ids_are_checked(name):
  tokenizer = tokenizers.make(name)
  assert tokenizer.decode([]) == ''
  with pytest.raises(ValueError, match='-1'):
    tokenizer.decode([0, -1])
  with pytest.raises(ValueError, match='float'):
    tokenizer.decode([0.5])


@pytest.mark.parametrize(
  'size, wanted',
  [(27, 'u1'), (256, 'u1'), (257, '<u2'), (65536, '<u2'), (65537, '<u4')],
)
def test_storage_is_the_smallest_type(size, wanted):
  assert tokenizers.storage_dtype(size) == np.dtype(wanted)


def test_unknown_names_get_alternatives():
  with pytest.raises(DataError, match='nearest: text8') as raised:
    tokenizers.make('txt8')
  assert 'tokenizer.json' in str(raised.value)
  with pytest.raises(DataError, match='no such file'):
    tokenizers.make('some/tokenizer.json')


@pytest.mark.parametrize(
  'last, ids, wanted',
  [
    (None, [5], [5]),
    (7, [5], [0, 5]),
    (0, [5], [5]),
    (7, [0, 5], [0, 5]),
    (0, [0, 5], [5]),
    (7, [], []),
  ],
)
def test_one_separator_where_documents_meet(last, ids, wanted):
  joined = tokenizers.seam(last, np.array(ids, np.uint8), 0)
  assert joined.tolist() == wanted
  assert joined.dtype == np.uint8


def test_byte_pairs_decode_without_a_library(tmp_path):
  tokenizer = tokenizers.make(str(tiny_bpe(tmp_path)))
  assert (tokenizer.vocab_size, tokenizer.separator) == (260, 259)
  ids = np.array([*'naïve'.encode(), 258, 260, 33, 259])
  assert tokenizer.decode(ids) == 'naïve the[MASK]!<|endoftext|>'
  assert tokenizer.num_characters(ids[ids < 260]) == len('naïve the!')


@pytest.mark.parametrize('library', ['tiktoken', 'tokenizers'])
def test_byte_pairs_encode(tmp_path, monkeypatch, library):
  module = pytest.importorskip(library)
  monkeypatch.setattr(
    byte_pairs,
    'optional_library',
    lambda name: module if name == library else None,
  )
  tokenizer = tokenizers.make(str(tiny_bpe(tmp_path)))
  ids = tokenizer.encode('the the')
  assert ids.dtype == np.int32
  np.testing.assert_array_equal(ids, [257, 258])
  # Special tokens in a text are text.
  text = 'naïve <|endoftext|> \U0001f600'
  assert 259 not in tokenizer.encode(text)
  assert tokenizer.decode(tokenizer.encode(text)) == text
  [stored] = tokenizer.encode_documents([Document('x', 0, text.encode())])
  np.testing.assert_array_equal(stored, tokenizer.encode(text))
  assert stored.dtype == np.uint16


def some_texts(rng, signs, count):
  for _ in range(count):
    lengths = rng.integers(1, 9, size=rng.integers(1, 12))
    yield ''.join(str(rng.choice(signs)) * n for n in lengths)


# \x1c is white to Python alone.
SIGNS = [
  *" \t\n\r\u3000\xa0\x85\x1c\u200b'stheX19!",
  " '",
  ' \n',
  '<|endoftext|>',
]


def test_texts_are_cut_where_words_are():
  """Held to GPT-2's expression, for signs that Python tells apart alike."""
  words = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
  )
  rng = np.random.default_rng(0)
  cuts = 0
  for text in some_texts(rng, [sign for sign in SIGNS if sign != '\x1c'], 500):
    for long in (2, 4):
      found = list(byte_pairs.parts(text, long))
      assert ''.join(part for part, _ in found) == text
      cut = [
        word
        for part, is_word in found
        for word in ([part] if is_word else words.findall(part))
      ]
      assert cut == words.findall(text)
      cuts += len(found) > 1
  assert cuts > 300
  assert [*byte_pairs.parts(' ' * 9, 2)] == [
    ('', False),
    (' ' * 9, True),
    ('', False),
  ]
  assert [*byte_pairs.parts('\x1c' * 9, 2)] == [('\x1c' * 9, False)]


def test_white_space_of_any_length_has_its_tokens(tmp_path, monkeypatch):
  pytest.importorskip('tiktoken')
  space, line = '\u0120', '\u010a'
  merges = [(space, space), (2 * space, space), (line, line), (line, space)]
  tokenizer = tokenizers.make(str(tiny_bpe(tmp_path, merges=merges)))
  rng = np.random.default_rng(1)
  texts = list(some_texts(rng, SIGNS, 200))
  wanted = [tokenizer.encode(text).tolist() for text in texts]
  whole = byte_pairs.parts
  for long in (2, 5):
    with monkeypatch.context() as patch:
      patch.setattr(byte_pairs, 'parts', functools.partial(whole, long=long))
      assert [tokenizer.encode(text).tolist() for text in texts] == wanted
  # More than the library reads, and of one space the word behind is told.
  data = b'a' + 1_000_002 * b' ' + b'b'
  [stored] = tokenizer.encode_documents([Document('x', 0, data)])
  assert stored[0] == 97 and set(stored[1:500_000]) == {256}
  assert stored[500_000:].tolist() == [257, 32, 98]


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
  for module in (byte_pairs, library):
    monkeypatch.setattr(module, 'optional_library', lambda name: None)
  tokenizer = tokenizers.make(str(tiny_bpe(tmp_path)))
  with pytest.raises(DataError, match=r'sedd_jax\[tokenizers\]'):
    tokenizer.encode('a')
  path = tmp_path / 'tokenizer.json'
  path.write_text('{}')
  with pytest.raises(DataError, match=r'sedd_jax\[tokenizers\]'):
    tokenizers.make(str(path))


def test_ids_that_do_not_follow_the_merges_are_refused(tmp_path):
  folder = tiny_bpe(tmp_path)
  merges = (folder / 'vocab.bpe').read_text('utf-8').splitlines()
  merges[1:3] = merges[2:0:-1]
  (folder / 'vocab.bpe').write_text('\n'.join(merges), 'utf-8')
  with pytest.raises(DataError, match='do not follow the merges'):
    tokenizers.make(str(folder))


@pytest.mark.parametrize(
  'text', ['not json', '[]', '{"a": 7}', '{"\u0100x": 0}']
)
def test_a_faulty_vocabulary_is_named(tmp_path, text):
  folder = tiny_bpe(tmp_path)
  (folder / 'encoder.json').write_text(text, 'utf-8')
  with pytest.raises(DataError, match='encoder.json'):
    tokenizers.make(str(folder))


def test_a_tokenizer_of_the_hub(tmp_path, monkeypatch):
  library = pytest.importorskip('tokenizers')
  monkeypatch.chdir(tmp_path)
  model = library.models.WordLevel({'the': 0, '[UNK]': 1}, '[UNK]')
  library.Tokenizer(model).save(str(tmp_path / 'tokenizer.json'))
  asked = []

  def hf_hub_download(name, file):
    asked.append((name, file))
    if name != 'owner/name':
      raise OSError('404:\nnot there')
    return str(tmp_path / file)

  hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  found = tokenizers.make('owner/name')
  assert asked == [('owner/name', 'tokenizer.json')] and found.vocab_size == 2
  # What a prepared folder is called by, and a config's name again.
  assert found.name == tokenizers.file_name('owner/name')
  assert tokenizers.make('owner/name', [tmp_path]).vocab_size == 2
  assert len(asked) == 1
  with pytest.raises(DataError, match='no such file.*OSError: 404: not there'):
    tokenizers.make('owner/other')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(DataError, match=r"pip install 'sedd_jax\[hub\]'"):
    tokenizers.make('owner/name')
  # A path with a mistake in it is not asked for there.
  (tmp_path / 'here').mkdir()
  for path in ('here/name', '/owner/name', 'a/b/c', 'owner/tokenizer.json'):
    with pytest.raises(DataError, match='no such file or folder[^,]*$'):
      tokenizers.make(path)
  assert len(asked) == 2


def test_a_tokenizer_file(tmp_path):
  hub = pytest.importorskip('tokenizers')
  model = hub.models.WordLevel({'the': 0, 'end': 1, '[UNK]': 2}, '[UNK]')
  built = hub.Tokenizer(model)
  built.pre_tokenizer = hub.pre_tokenizers.Whitespace()
  built.add_special_tokens(['[SEP]'])
  path = tmp_path / 'tokenizer.json'
  built.save(str(path))
  tokenizer = tokenizers.make(str(path))
  assert (tokenizer.vocab_size, tokenizer.separator) == (4, 3)
  np.testing.assert_array_equal(tokenizer.encode('the end'), [0, 1])
  assert tokenizer.decode([0, 4, 1, 4]) == 'the[MASK]end[MASK]'
  assert tokenizer.num_characters(np.array([0, 1, 3])) == len('the end')
  path.write_text('{}')
  with pytest.raises(DataError, match='not a tokenizer.json'):
    tokenizers.make(str(path))


def test_word_pieces(tmp_path):
  pytest.importorskip('tokenizers')
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'naive', 'cat', '##s']
  words += ['.', '[', ']', 'mask']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n', 'utf-8')
  tokenizer = tokenizers.make(str(tmp_path))
  assert (tokenizer.vocab_size, tokenizer.separator) == (12, 3)
  ids = tokenizer.encode('Naïve CATS.')
  np.testing.assert_array_equal(ids, [5, 6, 7, 8])
  assert tokenizer.decode(ids) == 'naive cats.'
  assert tokenizer.num_characters(ids) == len('naive cats.')
  stored = np.array([*ids, 3, *ids], np.uint16)
  assert tokenizer.num_characters(stored) == len('naive cats. naive cats.')
  assert tokenizer.num_characters(np.array([0, 1, 2, 3, 4])) == 0
  np.testing.assert_array_equal(tokenizer.encode('dog'), [1])
  # Special tokens in a text are text.
  np.testing.assert_array_equal(tokenizer.encode('[MASK]'), [9, 11, 10])
  assert tokenizer.decode([5, 12, 6]) == 'naive [MASK] cat'
  cased = tokenizer.sha256
  settings = tmp_path / 'tokenizer_config.json'
  settings.write_text('{"do_lower_case": false}')
  tokenizer = tokenizers.make(str(tmp_path))
  np.testing.assert_array_equal(tokenizer.encode('cat CAT'), [6, 1])
  assert tokenizer.sha256 != cased
  settings.write_text('{')
  with pytest.raises(DataError, match='tokenizer_config.json: no JSON'):
    tokenizers.make(str(tmp_path))


@pytest.mark.parametrize(
  'words,told',
  [
    ([*'abc', '[UNK]', 'b'], "the token 'b' is there more than once"),
    ([*'abc'], r'no token \[UNK\]'),
    (['[UNK]', 'a', 'Paris'], "never has 'Paris'; .*do_lower_case"),
  ],
)
def test_a_vocabulary_that_cannot_be_meant(tmp_path, words, told):
  pytest.importorskip('tokenizers')
  path = tmp_path / 'vocab.txt'
  path.write_text('\n'.join(words) + '\n', 'utf-8')
  with pytest.raises(DataError, match=told):
    tokenizers.make(str(tmp_path))
  path.write_bytes(b'[UNK]\n\xff\n')
  with pytest.raises(DataError, match='vocab.txt'):
    tokenizers.make(str(tmp_path))


def test_settings_of_a_cased_vocabulary(tmp_path):
  pytest.importorskip('tokenizers')
  words = ['[UNK]', 'Paris', 'é', 'e']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n', 'utf-8')
  settings = tmp_path / 'tokenizer_config.json'
  settings.write_text('{"do_lower_case": false, "strip_accents": false}')
  tokenizer = tokenizers.make(str(tmp_path))
  np.testing.assert_array_equal(tokenizer.encode('Paris é'), [1, 2])
  settings.write_text('{"do_lower_case": false, "strip_accents": true}')
  tokenizer = tokenizers.make(str(tmp_path))
  np.testing.assert_array_equal(tokenizer.encode('é'), [3])


def test_gpt2_says_where_its_files_are_wanted(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
  with pytest.raises(DataError, match='sedd_jax.data.prepare gpt2'):
    tokenizers.make('gpt2')
  # Other files of that name are not taken for GPT-2's.
  with pytest.raises(DataError, match='not the published encoder.json'):
    tokenizers.make('gpt2', [tiny_bpe(tmp_path)])


def test_gpt2_is_found_in_the_cache_of_tiktoken(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
  folder = tiny_bpe(tmp_path)
  # Names that tiktoken gives the two addresses.
  cached = {
    'encoder.json': '6c7ea1a7e38e3a7f062df639a5b80947f075ffe6',
    'vocab.bpe': '6d1cbeee0f20b3d9449abfede4726ed8212e3aee',
  }
  sums = {}
  for name, hashed in cached.items():
    (folder / name).rename(tmp_path / hashed)
    sums[name] = documents.sha256(tmp_path / hashed)
  monkeypatch.setattr(byte_pairs, 'GPT2_FILES', sums)
  assert tokenizers.make('gpt2').name == 'gpt2'


def words(folder, *more):
  folder.mkdir(exist_ok=True)
  lines = [*tokenizers.SPECIAL_WORDS, *more]
  (folder / 'words.txt').write_text('\n'.join(lines) + '\n')
  return str(folder)


def test_whole_words(tmp_path):
  tokenizer = tokenizers.make(words(tmp_path / 'w', 'a', 'pub', "n't", 'is'))
  assert (tokenizer.name, tokenizer.vocab_size) == ('w', 8)
  assert tokenizer.vocabulary['[UNK]'] == 2
  ids = tokenizer.encode("isn't a Pub a pub")
  assert ids.tolist() == [7, 6, 4, 2, 4, 5]
  assert tokenizer.decode([*ids[:3], 8]) == "is n't a [MASK]"
  # As the decoded text, without what is no word of it.
  assert tokenizer.num_characters(ids) == len("is n't a a pub")
  assert tokenizer.encode('[SEP]').tolist() == [2, 2, 2]
  assert list(tokenizer.files) == ['words.txt']
  assert tokenizers.file_name(str(tmp_path / 'w')) == 'w'


def test_how_words_are_cut():
  cut = tokenizers.split_words
  assert cut('  family-friendly\n') == ['family', '-', 'friendly']
  assert cut("Don't! They're 1,000.") == [
    *('Do', "n't", '!', 'They', "'re", '1,000', '.')
  ]
  assert cut("Café 'Fitzbillies' €5") == [
    *('Café', "'", 'Fitzbillies', "'", '€', '5')
  ]
  assert cut('') == []
  assert tokenizers.word_counts(['a b a', 'b c']) == {'a': 2, 'b': 2, 'c': 1}


def test_faulty_words_are_named(tmp_path):
  with pytest.raises(DataError, match="the word 'a' is there more than once"):
    tokenizers.make(words(tmp_path / 'w', 'a', 'b', 'a'))
  (tmp_path / 'w' / 'words.txt').write_text('a\n')
  with pytest.raises(DataError, match=r'does not begin with \[CLS\]'):
    tokenizers.make(str(tmp_path / 'w'))
