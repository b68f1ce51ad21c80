#!/bin/bash
# One process a node under Slurm, each driving all GPUs of its node.
#   sbatch launch/slurm.sh --config=owt_absorb
#   sbatch --nodes=4 --partition=big launch/slurm.sh --config=owt_absorb_medium
# Each process writes LOG_DIR/JOB-RANK.log.
#SBATCH --job-name=sedd_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=48:00:00
#SBATCH --requeue
# Two minutes before its end the run is told, and saves a checkpoint; the same
# command again goes on from there.
#SBATCH --signal=TERM@120
#SBATCH --output=slurm-%j.out
set -euo pipefail
export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sedd_jax"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$cache}"
# jax.distributed reads address, count and rank of the processes from Slurm.
export SEDD_JAX_DISTRIBUTED=1
logs="${LOG_DIR:-logs}"
mkdir -p "$logs"
echo "logs: $logs/$SLURM_JOB_ID-RANK.log"
# A requeued job has the same number, and adds to its logs.
exec srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  --output="$logs/%j-%t.log" --open-mode=append \
  python -m sedd_jax.main "$@"
