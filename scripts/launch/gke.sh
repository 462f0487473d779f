#!/usr/bin/env bash
# A run on Google Kubernetes Engine, as a JobSet: a pod for each host of a TPU
# slice, all started again when one of them is lost.
#
#   scripts/launch/gke.sh image  --image=REGION-docker.pkg.dev/PROJECT/REPO/vitjax
#   scripts/launch/gke.sh start  --image=... --name=s16 --type=tpu-v5-lite-podslice \
#     --topology=4x4 --hosts=4 --chips=4 --volume=shared -- \
#     --config=configs/vit_s16_i1k.py --workdir=/runs/s16
#   scripts/launch/gke.sh status|logs|stop --name=s16
#
# image builds the committed state and pushes it. The cluster needs JobSet and
# a node pool of that slice; both come with
#   xpk cluster create --cluster=C --tpu-type=v5litepod-16 --spot
# and kubectl must point to it. --volume is a claim (ReadWriteMany, such as
# Filestore) that all pods see as /runs. `xpk workload create` with the same
# image and command does what start does, by Kueue's queue.
#
#   --name=NAME       of the JobSet
#   --image=IMAGE     --kind=tpu   what to install in it: tpu, gpu or cpu
#   --type=TYPE       label cloud.google.com/gke-tpu-accelerator of the nodes
#   --topology=4x4    --hosts=N    --chips=N of a host
#   --volume=CLAIM    --restarts=100
#   --dry-run         print the commands and the manifest only
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
name="" image="" kind=tpu type="" topology="" hosts="" chips="" volume=""
restarts=100
verb="${1:-}"
shift || true
case "$verb" in
  image | start | status | logs | stop) ;;
  -h | --help | "")
    usage
    exit 0
    ;;
  *) die "'$verb' is none of image, start, status, logs, stop" ;;
esac
parse "name image kind type topology hosts chips volume restarts" "$@"

# JSON strings are YAML: any argument goes through unharmed.
arguments() {
  python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"
}

manifest() {
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
spec:
  failurePolicy:
    maxRestarts: $restarts
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  replicatedJobs:
  - name: hosts
    replicas: 1
    template:
      spec:
        parallelism: $hosts
        completions: $hosts
        completionMode: Indexed
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $type
              cloud.google.com/gke-tpu-topology: $topology
            containers:
            - name: vitjax
              image: $image
              args: $(arguments exec "${main_args[@]}")
              resources:
                requests: {google.com/tpu: $chips}
                limits: {google.com/tpu: $chips}
              volumeMounts:
              - {name: runs, mountPath: /runs}
            volumes:
            - name: runs
              persistentVolumeClaim: {claimName: $volume}
END
}

case "$verb" in
  image)
    need image
    # The commit without what is not in it; git's archive is the context.
    feed_archive() {
      git -C "$ROOT" archive HEAD | "$@"
    }
    echo "+ git archive HEAD |" >&2
    [ -n "$dry_run" ] || feed_archive docker build --tag "$image" \
      --file scripts/launch/Dockerfile --build-arg "KIND=$kind" -
    run docker push "$image"
    ;;
  start)
    need name image type topology hosts chips volume
    need_workdir
    feed "$(manifest)" kubectl apply -f -
    ;;
  status) need name && run kubectl get jobset "$name" -o wide ;;
  logs)
    need name
    run kubectl logs --follow --selector="jobset.sigs.k8s.io/jobset-name=$name,\
batch.kubernetes.io/job-completion-index=0"
    ;;
  stop) need name && run kubectl delete jobset "$name" ;;
esac
