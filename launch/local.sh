#!/bin/bash
# This machine: one process on whatever devices jax finds, or several that train
# together as hosts would.
#   launch/local.sh --config=quickstart
#   JAX_PLATFORMS=cpu launch/local.sh --config=quickstart   # keep off the GPU
#   PROCESSES=2 JAX_PLATFORMS=cpu launch/local.sh --config=quickstart
# Of several processes each drives one GPU or, on CPU, JAX_NUM_CPU_DEVICES
# devices, and writes LOG_DIR/process-RANK.log; what the first writes is shown
# as well.  SIGTERM and Ctrl-C go to all as SIGTERM, upon which a training saves
# and ends; a second one kills them.  Where one fails, the others are killed
# GRACE seconds later, and the code is that of the one.
set -euo pipefail
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sedd_jax"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$cache}"
processes="${PROCESSES:-1}"
if [[ ! "$processes" =~ ^[1-9][0-9]{0,3}$ ]]; then
  echo "PROCESSES=$processes is no number of processes" >&2
  exit 2
fi
if ((processes == 1)); then
  exec python -m sedd_jax.main "$@"
fi

logs="${LOG_DIR:-logs/$(date +%Y%m%d-%H%M%S)}"
mkdir -p "$logs"
echo "logs of $processes processes: $logs" >&2
port="$(python -c 'import socket
with socket.socket() as free:
  free.bind(("localhost", 0))
  print(free.getsockname()[1])')"
export SEDD_JAX_DISTRIBUTED=1
export SEDD_JAX_COORDINATOR="localhost:$port"
export SEDD_JAX_PROCESSES="$processes"

running=() # rank to process
told=0     # signals received
code=0     # of the first that failed
failed_at=0

signal_all() {
  local rank
  for rank in "${!running[@]}"; do
    kill -s "$1" "${running[rank]}" 2> /dev/null || true
  done
}
# shellcheck disable=SC2329 # the trap calls it
tell() {
  told=$((told + 1))
  if ((told == 1)); then signal_all TERM; else signal_all KILL; fi
}
trap tell TERM INT HUP

for ((rank = 0; rank < processes; rank++)); do
  log="$logs/process-$rank.log"
  export SEDD_JAX_RANK="$rank" JAX_LOCAL_DEVICE_IDS="$rank"
  if ((rank == 0)); then
    python -m sedd_jax.main "$@" > >(exec tee -i "$log") 2>&1 &
  else
    python -m sedd_jax.main "$@" > "$log" 2>&1 &
  fi
  running[rank]=$!
done
# A signal that came meanwhile reaches all.
if ((told)); then signal_all TERM; fi

while ((${#running[@]})); do
  for rank in "${!running[@]}"; do
    if kill -0 "${running[rank]}" 2> /dev/null; then continue; fi
    ended=0
    wait "${running[rank]}" || ended=$?
    unset "running[rank]"
    if ((ended && !code)); then
      code=$ended
      failed_at=$SECONDS
      log="$logs/process-$rank.log"
      echo "process $rank ended with code $ended, see $log" >&2
      if ((rank)); then tail -n 5 "$log" >&2; fi
    fi
  done
  if ((code && SECONDS - failed_at >= ${GRACE:-10})); then signal_all KILL; fi
  sleep 0.2 || true
done
exit "$code"
