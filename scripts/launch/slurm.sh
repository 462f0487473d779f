#!/usr/bin/env bash
# A run on the GPUs of a SLURM cluster: one process for each GPU.
#
#   scripts/launch/slurm.sh --nodes=2 --gpus=8 --time=24:00:00 -- \
#     --config=configs/vit_s16_i1k.py --workdir=/shared/runs/s16
#
# To be called on the login node, in a checkout that all nodes see and that
# `scripts/launch/remote.sh install gpu` has installed. Three minutes before
# the time is up the run saves, and the job is queued again until it is done.
# Watch and stop with squeue, tail -f and scancel; scancel saves as well.
#
#   --nodes=1       --gpus=1      GPUs of a node
#   --cpus=8        CPU cores for each GPU
#   --time=24:00:00 --partition=P --account=A
#   --name=vitjax   of the job; its log is NAME-JOB.log
#   --dry-run       print the job only
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
nodes=1 gpus=1 cpus=8 time=24:00:00 partition="" account="" name=vitjax
parse "nodes gpus cpus time partition account name" "$@"
need_workdir

job="#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --output=$name-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$gpus
#SBATCH --gpus-per-node=$gpus
#SBATCH --cpus-per-task=$cpus
#SBATCH --time=$time
#SBATCH --signal=TERM@180
#SBATCH --requeue
${partition:+#SBATCH --partition=$partition
}${account:+#SBATCH --account=$account
}cd $(quoted "$ROOT")
code=0
srun scripts/launch/remote.sh exec $(quoted "${main_args[@]}") || code=\$?
if [ \$code -eq 75 ]; then # stopped with everything saved
  scontrol requeue \$SLURM_JOB_ID
fi
exit \$code"
feed "$job" sbatch
