"""Memory of the loss at the papers' size: whole logits against chunks.

  python benchmarks/loss_memory.py --output=benchmarks/results/loss_memory.json

Compiles value and gradient of score entropy through a linear head for 32 x 1024
tokens, 50,257 symbols and 768 features, and prints the temporaries that the
compiler plans.  Nothing is run.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp

import sedd_jax as sj

BATCH, LENGTH, VOCAB, FEATURES, CHUNK = 32, 1024, 50_257, 768, 1024
PROCESSES = {
  'absorbing': sj.processes.Absorbing,
  'uniform': sj.processes.Uniform,
}


def plain(h, kernel, bias, x_t, x_0, sigma, process, scale):
  """Sum of the loss with all logits at once."""
  logits = jnp.dot(
    h, kernel.astype(h.dtype), preferred_element_type=jnp.float32
  )
  logits = logits + bias
  if scale:
    em = sj.core.numerics.log_expm1(sigma)
    logits = logits - (em + jnp.log(process.num_states - 1))[..., None]
  loss = sj.losses.score_entropy(logits, x_t, x_0, sigma, process=process)
  return jnp.sum(loss)


def chunked(h, kernel, bias, x_t, x_0, sigma, process, scale):
  """The same, a chunk of tokens at a time."""
  loss = sj.losses.score_entropy_from_features(
    h,
    kernel,
    bias,
    x_t,
    x_0,
    sigma,
    process=process,
    scale_by_sigma=scale,
    chunk=CHUNK,
  )
  return jnp.sum(loss)


def temporaries(function, name: str, dtype: str) -> float:
  """Bytes of temporaries of the compiled value and gradient."""
  process = PROCESSES[name](vocab_size=VOCAB)
  states = process.num_states
  abstract = jax.ShapeDtypeStruct
  arguments = (
    abstract((BATCH, LENGTH, FEATURES), dtype),
    abstract((FEATURES, states), 'float32'),
    abstract((states,), 'float32'),
    abstract((BATCH, LENGTH), 'int32'),
    abstract((BATCH, LENGTH), 'int32'),
    abstract((BATCH, 1), 'float32'),
  )

  def total(*args):
    return function(*args, process, name == 'absorbing')

  compiled = (
    jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    .lower(*arguments)
    .compile()
  )
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Prints the table, and writes it as JSON where asked to."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--output', type=pathlib.Path)
  output = parser.parse_args().output
  rows = [
    {
      'process': name,
      'dtype': dtype,
      'loss': function.__name__,
      'temporaries_gb': round(temporaries(function, name, dtype) / 1e9, 3),
    }
    for name in PROCESSES
    for dtype in ('float32', 'bfloat16')
    for function in (plain, chunked)
  ]
  print('| process | features | loss | temporaries, GB |\n|---|---|---|---|')
  for row in rows:
    print('| {process} | {dtype} | {loss} | {temporaries_gb} |'.format(**row))
  if output:
    result = {
      'jax': jax.__version__,
      'device': jax.devices()[0].device_kind,
      'batch': BATCH,
      'length': LENGTH,
      'vocab_size': VOCAB,
      'features': FEATURES,
      'chunk': CHUNK,
      'rows': rows,
    }
    output.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
  main()
