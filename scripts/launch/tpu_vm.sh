#!/usr/bin/env bash
# A run on a TPU slice of Google Cloud, got as a queued resource.
#
#   scripts/launch/tpu_vm.sh create  --name=s16 --zone=us-west4-a \
#     --type=v5litepod-16 --spot
#   scripts/launch/tpu_vm.sh install --name=s16 --zone=us-west4-a
#   scripts/launch/tpu_vm.sh devices --name=s16 --zone=us-west4-a
#   scripts/launch/tpu_vm.sh start   --name=s16 --zone=us-west4-a -- \
#     --config=configs/vit_s16_i1k.py --workdir=/shared/runs/s16
#   scripts/launch/tpu_vm.sh status|logs|stop|delete --name=s16 --zone=...
#   scripts/launch/tpu_vm.sh keep    (the options of create and start): until
#     the run is done, make the slice again whenever it was taken away
#
# create waits until the slice exists. All hosts of a slice must see the
# same --workdir: mount an NFS share (Filestore) on them with --setup. Needs
# gcloud, signed in; the queued-resources API serves v2 to v6e.
#
#   --name=NAME     of the queued resource and of its node
#   --zone=ZONE
#   --project=ID    default: that of gcloud
#   --type=TYPE     accelerator type: v5litepod-16, v5p-32, v6e-64, ...
#   --version=V     runtime version; default: the one for --type
#   --spot          cheaper, and may be taken away
#   --setup=SHELL   run on each host before the installation, such as
#                   'sudo mkdir -p /shared; sudo mount 10.0.0.2:/vol /shared'
#   --every=60      seconds between two looks at the state
#   --dry-run       print the commands only
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
name="" zone="" project="" type="" version="" spot="" setup="true" every=60
verb="${1:-}"
shift || true
case "$verb" in
  create | install | devices | start | status | logs | stop | delete | keep) ;;
  -h | --help | "")
    usage
    exit 0
    ;;
  *) die "'$verb' is not a command. --help lists them" ;;
esac
parse "name zone project type version spot setup every" "$@"
need name zone
where=(--zone="$zone" ${project:+--project="$project"})

default_version() {
  case "$type" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) die "--type=$type has no known runtime version: give --version" ;;
  esac
}

queue() { # VERB...
  run gcloud compute tpus queued-resources "$1" "$name" "${where[@]}" "${@:2}"
}

on_hosts() { # WORKERS SHELL
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" \
    --command="$2"
}

state() {
  if [ -n "$dry_run" ]; then
    echo ACTIVE
    return
  fi
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format='value(state.state)' 2>/dev/null || echo ABSENT
}

request() {
  need type
  version="${version:-$(default_version)}"
  queue create --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$version" ${spot:+--spot}
}

failed() {
  die "$name will not come ($1); this says why: gcloud compute tpus" \
    "queued-resources describe $name --zone=$zone"
}

create() {
  request
  local now before=""
  while now="$(state)"; do
    [ "$now" = "$before" ] || echo "$name: $now" >&2
    before="$now"
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPEND* | DELETING | ABSENT) failed "$now" ;;
    esac
    sleep "$every"
  done
}

install() {
  local file
  file="$(mktemp -d)/vitjax.bundle"
  bundle "$file"
  run gcloud compute tpus tpu-vm scp "$file" "$name:vitjax.bundle" \
    "${where[@]}" --worker=all
  on_hosts all "($setup) && $UNBUNDLE && scripts/launch/remote.sh install tpu"
}

start() {
  on_hosts all \
    "cd vitjax && scripts/launch/remote.sh start $(quoted "${main_args[@]}")"
}

delete() {
  queue delete --force --quiet
}

# How the run stands on the first host; nothing if that cannot be asked.
progress() {
  on_hosts 0 "cd vitjax && scripts/launch/remote.sh status" | head -n 1
}

# Starts the run and looks after it while the slice is there.
attend() {
  # A host that is lost now shows below.
  if ! { install && start; }; then
    sleep "$every"
  fi
  while [ "$(state)" = ACTIVE ]; do
    case "$(progress || true)" in
      "exit 0") exit 0 ;;
      "exit 75" | killed | none) return ;; # told to stop, or a host restarted
      exit*) die "the run failed; see: tpu_vm.sh logs --name=$name" ;;
    esac
    [ -z "$dry_run" ] || exit 0
    sleep "$every"
  done
}

keep() {
  while :; do
    case "$(state)" in
      ACTIVE) attend ;;
      ABSENT) request ;;
      SUSPENDED) delete ;; # spot, and taken away
      FAILED) failed FAILED ;;
      *) sleep "$every" ;;
    esac
  done
}

case "$verb" in
  create) create ;;
  install) install ;;
  start)
    need_workdir
    start
    ;;
  keep)
    need_workdir
    keep
    ;;
  delete) delete ;;
  logs) on_hosts 0 "cd vitjax && scripts/launch/remote.sh logs -f" ;;
  *) on_hosts all "cd vitjax && scripts/launch/remote.sh $verb" ;;
esac
