#!/bin/bash
# One process a host of a TPU slice; run the same command on every host:
#   gcloud compute tpus tpu-vm ssh NAME --worker=all \
#     --command='cd sedd_jax && launch/tpu_pod.sh --config=owt_absorb'
# The folder of the run (--workdir) must be one that all hosts mount.
set -euo pipefail
export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu}"
# jax.distributed reads address, count and rank of the processes from the slice.
export SEDD_JAX_DISTRIBUTED=1
exec python -m sedd_jax.main "$@"
