#!/bin/bash
# One process on one node, driving all of its NVIDIA GPUs.
#   launch/gpu_node.sh --config=owt_absorb
#   CUDA_VISIBLE_DEVICES=0,1 launch/gpu_node.sh --config=text8_absorb
# What it writes is also in LOG_DIR.
set -euo pipefail
# Fail where no GPU is found, rather than train on the CPU for weeks.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}"
# The share of GPU memory that jax takes at the start; its default is 0.75.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Compiled programs outlive the process.
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sedd_jax"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$cache}"
logs="${LOG_DIR:-logs}"
mkdir -p "$logs"
log="$logs/$(hostname)-$(date +%Y%m%d-%H%M%S).log"
echo "log: $log" >&2
# In this process' place, so that signals reach it.
exec python -m sedd_jax.main "$@" > >(exec tee -i "$log") 2>&1
