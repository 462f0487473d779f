#!/usr/bin/env bash
# What the launch scripts do on the machine with the accelerator. To be used by
# hand there as well:
#
#   scripts/launch/remote.sh install tpu|gpu|cpu   into .venv of this checkout
#   scripts/launch/remote.sh devices               what JAX sees
#   scripts/launch/remote.sh exec ARGUMENTS        vitjax.main until it is done
#   scripts/launch/remote.sh start ARGUMENTS       the same, in the background
#   scripts/launch/remote.sh status                running, exit CODE, killed or
#                                                  none; and its last lines
#   scripts/launch/remote.sh logs [-f]             what it printed
#   scripts/launch/remote.sh stop                  save, and end
#
# One run at a time: a TPU or a GPU's memory belongs to one process. Its log,
# process and exit code are in .launched/.
set -euo pipefail
cd "$(dirname "$0")/../.."
STATE=.launched

say() {
  echo "remote.sh: $*" >&2
}

running() { # the process of the background run, if it is there
  local pid
  pid="$(cat "$STATE/pid" 2>/dev/null)" || return 1
  kill -0 "$pid" 2>/dev/null && echo "$pid"
}

activate() {
  # In a container there is no environment of its own.
  if [ -f .venv/bin/activate ]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
  fi
}

until_done() {
  activate
  exec scripts/run_until_done.sh python -m vitjax.main "$@"
}

# The images of TPU VMs come with a Python older than vitjax needs.
find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  python3 -m pip install --quiet --user uv >&2
  python3 -m uv python install --quiet 3.12 >&2
  python3 -m uv python find 3.12
}

verb="${1:-}"
shift || true
case "$verb" in
  install)
    case "${1:-}" in
      cpu) export EXTRAS="" ;;
      tpu | gpu) export EXTRAS="[$1]" ;;
      *)
        say "install what: tpu, gpu or cpu?"
        exit 2
        ;;
    esac
    PYTHON="$(find_python)"
    export PYTHON
    # shellcheck disable=SC1091
    source scripts/environment.sh
    ;;
  devices)
    activate
    python -c 'import jax
print(f"process {jax.process_index()} of {jax.process_count()}:",
      f"{jax.local_device_count()} of {jax.device_count()} devices,",
      jax.devices()[0].device_kind)'
    ;;
  exec)
    until_done "$@"
    ;;
  start)
    if pid="$(running)"; then
      if [ "$(cat "$STATE/arguments")" = "$*" ]; then
        say "already running (process $pid)"
        exit 0
      fi
      say "another run is running (process $pid): see logs, or stop it first"
      exit 2
    fi
    mkdir -p "$STATE"
    rm -f "$STATE/code"
    echo "$*" >"$STATE/arguments"
    # A session of its own: it outlives the connection that started it.
    setsid "$PWD/scripts/launch/remote.sh" background "$@" \
      >"$STATE/log" 2>&1 </dev/null &
    echo "$!" >"$STATE/pid"
    say "started; log: $PWD/$STATE/log"
    ;;
  background) # for start only: exec, and its exit code into a file
    until_done "$@" &
    child=$!
    trap 'kill -TERM "$child"' TERM
    while :; do
      code=0
      wait "$child" || code=$?
      kill -0 "$child" 2>/dev/null || break # else a signal ended `wait`
    done
    wait "$child" 2>/dev/null || code=$?
    echo "$code" >"$STATE/code"
    ;;
  status)
    if running >/dev/null; then
      echo running
    elif [ -f "$STATE/code" ]; then
      echo "exit $(cat "$STATE/code")"
    elif [ -f "$STATE/pid" ]; then
      echo killed
    else
      echo none
    fi
    tail -n 3 "$STATE/log" 2>/dev/null || true
    ;;
  logs)
    exec tail -n "${LINES_BEFORE:-50}" "$@" "$STATE/log"
    ;;
  stop)
    if pid="$(running)"; then
      kill -TERM "$pid"
      while running >/dev/null; do
        sleep 0.2
      done
      say "stopped with exit code $(cat "$STATE/code") (75: saved)"
    else
      say "nothing is running"
    fi
    ;;
  *)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
