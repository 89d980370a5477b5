# shellcheck shell=bash disable=SC2034
# Sourced by ssl.sh: where units, training and evaluation run.
#   local   here; with --ngpu above 1, one process per GPU
#   slurm   sbatch --wait; the job saves when its time is nearly up and is queued again
#   ssh     torchrun on every host, which needs this folder at the same path
cmd_backend=local
launch_opts=()
# launch_opts=(--sbatch_opts "--partition=gpu --time=24:00:00")
# launch_opts=(--hosts node1,node2)
