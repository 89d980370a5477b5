# shellcheck shell=bash
# Sourced by run.sh: what stands before every long command. Empty runs it here; on a cluster, for example,
#   cmd="srun --gres=gpu:1 --cpus-per-task=8"
export cmd=""
