#!/bin/bash
# One process on this machine, on whatever devices jax finds.
#   launch/local.sh --config=quickstart
#   JAX_PLATFORMS=cpu launch/local.sh --config=quickstart   # keep off the GPU
set -euo pipefail
exec python -m sedd_jax.main "$@"
