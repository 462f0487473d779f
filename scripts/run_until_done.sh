#!/usr/bin/env bash
# Runs a command until it is done: starts it again when it was stopped with
# everything saved (exit code 75), and when it failed. Gives up when it failed
# CRASHES times in a row without a new checkpoint in its --workdir.
#
#   scripts/run_until_done.sh [-n CRASHES] [-w SECONDS] COMMAND --workdir=FOLDER
#
#   scripts/run_until_done.sh python -m vitjax.main \
#     --config=configs/quickstart.py --workdir=runs/mine
#
#   -n  default 3
#   -w  seconds to wait before a start that follows a failure, default 10
#
# Of several processes each has a loop of its own, with its own --process_id.
# Told to stop (SIGTERM, Ctrl-C), it tells the command, waits until that has
# saved, and ends with the command's exit code. Exit codes are the command's,
# and 2 for a wrong call of this script.
set -euo pipefail

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

crashes=3
pause=10
while getopts "n:w:" option; do
  case "$option" in
    n) crashes="$OPTARG" ;;
    w) pause="$OPTARG" ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))

workdir=""
for argument in "$@"; do
  case "$argument" in
    --workdir=*) workdir="${argument#--workdir=}" ;;
  esac
done
if [ $# -eq 0 ] || [ -z "$workdir" ]; then
  usage
fi

say() {
  echo "run_until_done: $*" >&2
}

# The number of the newest complete checkpoint, or nothing.
newest() {
  find "$workdir/checkpoints" -mindepth 1 -maxdepth 1 -name '[0-9]*' \
    -printf '%f\n' 2>/dev/null | grep -xE '[0-9]+' | sort -n | tail -n 1 || true
}

child=""
stopping=""
stop() {
  stopping=1
  if [ -n "$child" ]; then
    kill -TERM "$child" 2>/dev/null || true
  fi
}
trap stop TERM INT

# Waits for the command; a signal interrupts `wait`, and is passed on.
finish() {
  while :; do
    code=0
    wait "$child" || code=$?
    if ! kill -0 "$child" 2>/dev/null; then
      break
    fi
  done
  if [ -n "$stopping" ]; then
    code=0
    wait "$child" || code=$? # what `wait` said above may be the signal
  fi
}

failed=0
before="$(newest)"
while :; do
  "$@" &
  child=$!
  finish
  child=""
  if [ "$code" -eq 0 ] || [ -n "$stopping" ]; then
    exit "$code"
  fi
  after="$(newest)"
  if [ "$code" -eq 75 ]; then
    failed=0
    say "stopped with everything saved; starting again"
  else
    if [ "$after" = "$before" ]; then
      failed=$((failed + 1))
    else
      failed=1
    fi
    if [ "$failed" -ge "$crashes" ]; then
      say "exit code $code, $failed times in a row without a new checkpoint" \
        "(newest: ${after:-none}); giving up"
      exit "$code"
    fi
    say "exit code $code, failure $failed of $crashes since checkpoint" \
      "${after:-(none)}; starting again in $pause seconds"
    sleep "$pause" &
    child=$!
    wait "$child" || true
    child=""
    if [ -n "$stopping" ]; then
      exit "$code"
    fi
  fi
  before="$after"
done
