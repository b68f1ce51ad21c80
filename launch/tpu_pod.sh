#!/bin/bash
# One process a host of a TPU slice; run the same command on every host:
#   gcloud compute tpus tpu-vm ssh NAME --worker=all \
#     --command='cd sedd_jax && launch/tpu_pod.sh --config=owt_absorb'
# The folder of the run (--workdir) must be one that all hosts mount.  What a
# host writes is also in its LOG_DIR.
set -euo pipefail
export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu}"
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sedd_jax"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$cache}"
# jax.distributed reads address, count and rank of the processes from the slice.
export SEDD_JAX_DISTRIBUTED=1
logs="${LOG_DIR:-logs}"
mkdir -p "$logs"
log="$logs/$(hostname)-$(date +%Y%m%d-%H%M%S).log"
echo "log: $log" >&2
# In this process' place, so that signals reach it.
exec python -m sedd_jax.main "$@" > >(exec tee -i "$log") 2>&1
