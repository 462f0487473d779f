#!/usr/bin/env bash
# A run on one machine that ssh reaches, with any number of GPUs.
#
#   scripts/launch/gpu_box.sh install --host=me@box
#   scripts/launch/gpu_box.sh devices --host=me@box
#   scripts/launch/gpu_box.sh start   --host=me@box -- \
#     --config=configs/vit_s16_i1k.py --workdir=/data/runs/s16
#   scripts/launch/gpu_box.sh status|logs|stop --host=me@box
#
# install sends the committed state of this checkout to ~/vitjax there; start
# keeps the run going after the connection has ended, and restarts it when it
# fails. One process uses all GPUs (CUDA_VISIBLE_DEVICES on the box restricts
# it).
#
#   --host=HOST   as ssh knows it
#   --kind=gpu    what to install: gpu, tpu or cpu
#   --dry-run     print the commands only
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
host="" kind=gpu
verb="${1:-}"
shift || true
case "$verb" in
  install | devices | start | status | logs | stop) ;;
  -h | --help | "")
    usage
    exit 0
    ;;
  *) die "'$verb' is none of install, devices, start, status, logs, stop" ;;
esac
parse "host kind" "$@"
need host

on_box() {
  run ssh "$host" "$1"
}

case "$verb" in
  install)
    file="$(mktemp -d)/vitjax.bundle"
    bundle "$file"
    run scp -q "$file" "$host:vitjax.bundle"
    on_box "$UNBUNDLE && scripts/launch/remote.sh install $kind"
    ;;
  start)
    need_workdir
    on_box "cd vitjax && scripts/launch/remote.sh start $(quoted "${main_args[@]}")"
    ;;
  logs) on_box "cd vitjax && scripts/launch/remote.sh logs -f" ;;
  *) on_box "cd vitjax && scripts/launch/remote.sh $verb" ;;
esac
