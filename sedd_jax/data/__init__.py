"""Text to batches: sources, tokenizers, prepared token files and the reader.

from sedd_jax import data

dataset = data.load(source='pydoc', tokenizer='text8', seq_len=128)
batch = dataset.train_batch(seed=0, step=0, indices=range(16), count=16)
"""

from sedd_jax.data.errors import DataError
from sedd_jax.data.pipeline import DataInfo, Dataset, describe, load

__all__ = ['DataError', 'DataInfo', 'Dataset', 'describe', 'load']
