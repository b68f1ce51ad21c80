"""Networks: tokens and a noise level to logits.  They see no process."""

from sedd_jax.models import heads, pretrained
from sedd_jax.models.transformer import DiffusionTransformer

MODELS = {'transformer': DiffusionTransformer}

__all__ = ['MODELS', 'DiffusionTransformer', 'heads', 'pretrained']
