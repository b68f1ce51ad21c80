# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Discrete text diffusion in JAX: train, sample, fill in
#
# A score entropy diffusion model ([SEDD](https://arxiv.org/abs/2310.16834)) of
# letters, trained on the help texts that every Python carries. It runs on a
# CPU, GPU or TPU runtime; on two CPU cores it takes three to four minutes.

# %%
# What pip installs the package from: the folder of a checkout or a wheel that
# you have uploaded, or git+https://... of a repository.
SOURCE = '..'

# %% [markdown]
# ## Installation
#
# Only where the package is missing. A constraint keeps the jax and jaxlib that
# the runtime brings with its accelerator; where they are out of the package's
# range, pip says so and installs nothing.

# %%
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys
import tempfile

if importlib.util.find_spec('sedd_jax') is None:
  present = {
    dist.metadata['Name'].lower(): dist.version
    for dist in importlib.metadata.distributions()
  }
  with tempfile.TemporaryDirectory() as folder:
    constraints = pathlib.Path(folder) / 'constraints.txt'
    constraints.write_text(
      ''.join(
        f'{name}=={present[name]}\n'
        for name in ('jax', 'jaxlib')
        if name in present
      )
    )
    pip = [sys.executable, '-m', 'pip', 'install', '-c', str(constraints)]
    subprocess.run([*pip, SOURCE], check=True)
  importlib.invalidate_caches()

# %% [markdown]
# ## The runtime
#
# On CPU the recipe `quickstart` is run as it is. A GPU or TPU gets a larger
# network that computes in bfloat16, longer sequences and larger batches.

# %%
import os

import jax

backend = jax.default_backend()
print(f'jax {jax.__version__}:', *jax.devices())
workdir = pathlib.Path('runs') / f'colab-{backend}'

if backend == 'cpu':
  sizes = {}
else:
  sizes = {
    'model.hidden_size': 256,
    'model.num_layers': 6,
    'model.num_heads': 4,
    'model.cond_size': 128,
    'model.dropout': 0.1,
    'model.dtype': 'bfloat16',
    'data.seq_len': 256,
    'training.num_steps': 2000,
    'training.batch_size': 64,
    'training.ema_decay': 0.998,
    'optimizer.learning_rate': 1e-3,
    'optimizer.warmup_steps': 200,
    'sampling.steps': 256,
  }
if os.environ.get('SEDD_JAX_NOTEBOOK_SMALL'):  # as in the tests
  sizes = {
    'model.hidden_size': 16,
    'model.num_layers': 1,
    'model.cond_size': 8,
    'data.seq_len': 64,
    'data.limit': 20_000,
    'training.num_steps': 30,
    'training.batch_size': 8,
    'training.log_every': 5,
    'training.eval_every': 15,
    'training.ema_decay': 0.5,
    'optimizer.learning_rate': 0.01,
    'optimizer.warmup_steps': 1,
    'eval.max_sequences': 8,
    'eval.points': 1,
    'sampling.steps': 4,
  }

# %% [markdown]
# ## Training
#
# The command line of the package, called as a function. It trains, bounds
# −log p on the validation split, and draws samples, some of which keep the text
# below; `{blank:12}` in it is 12 free tokens. Run again, the cell finds the
# finished run; stopped, it goes on from its last checkpoint.

# %%
from sedd_jax import main

PROMPT = 'the {blank:12} of a list and the '
fields = {**sizes, 'sampling.prompt': PROMPT}
main.main(
  [
    '--config=quickstart',
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in fields.items()),
  ]
)

# %% [markdown]
# ## The loss
#
# Bits per character of the training batches, and the bound on the validation
# split with averaged parameters. The last figure is in `evaluation.json`.

# %%
import json

import matplotlib.pyplot as plt

from sedd_jax.training import metrics

rows = list(metrics.read(workdir / 'metrics.jsonl'))
checked = [row for row in rows if 'validation' in row]
plt.plot(
  [row['step'] for row in rows], [row['bpc'] for row in rows], label='training'
)
plt.plot(
  [row['step'] for row in checked],
  [row['validation']['bits_per_character'] for row in checked],
  'o',
  label='validation',
)
plt.xlabel('step')
plt.ylabel('bits per character')
plt.legend()
plt.show()

result = json.loads((workdir / 'evaluation.json').read_text())
print(f'{result["bits_per_character"]:.3f} bits per character at most')

# %% [markdown]
# ## Samples
#
# A stored run is an object with functions. A sample depends on its seed alone.

# %%
import sedd_jax

run = sedd_jax.load_run(workdir)
samples = run.sample(seeds=[10, 11, 12])
texts = [run.tokenizer.decode(row) for row in samples.tokens]
print(*texts, sep='\n\n')

# %% [markdown]
# ## Filling in
#
# Noise reaches every position, so given text may stand anywhere: what is given
# is kept at each step, and the blanks are drawn around it.

# %%
story = 'once the {blank:8} was open {blank:14} read the file'
filled = run.sample(seeds=[0, 1, 2, 3], prompt=story)
stories = [run.tokenizer.decode(row) for row in filled.tokens]
print(*stories, sep='\n')

# %% [markdown]
# ## Denoising, step by step
#
# The page that the run left in its folder, of its first sample.

# %%
import html

from IPython import display

page = html.escape((workdir / 'denoising.html').read_text(encoding='utf-8'))
display.HTML(
  f'<iframe srcdoc="{page}" width="100%" height="640" frameborder="0"></iframe>'
)
