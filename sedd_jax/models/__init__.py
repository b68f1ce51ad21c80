"""Networks: noisy tokens, or vectors, and a noise level to a prediction.

They see no process.
"""

from sedd_jax.models import bert_weights, edits, heads, pretrained
from sedd_jax.models.bert import Bert
from sedd_jax.models.embedding_bert import EmbeddingBert
from sedd_jax.models.span_classifier import SpanClassifier
from sedd_jax.models.token_classifier import TokenClassifier
from sedd_jax.models.transformer import DiffusionTransformer
from sedd_jax.models.vector_classifier import VectorClassifier

MODELS = {
  'bert': Bert,
  'transformer': DiffusionTransformer,
  'embedding_bert': EmbeddingBert,
  'vector_classifier': VectorClassifier,
  'span_classifier': SpanClassifier,
  'token_classifier': TokenClassifier,
}

__all__ = [
  'MODELS',
  'Bert',
  'DiffusionTransformer',
  'EmbeddingBert',
  'SpanClassifier',
  'TokenClassifier',
  'VectorClassifier',
  'bert_weights',
  'edits',
  'heads',
  'pretrained',
]
