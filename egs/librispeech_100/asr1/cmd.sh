# shellcheck shell=bash disable=SC2034
# Sourced by asr.sh: where ESPnet's programs run. local: here; slurm: sbatch --wait; ssh: on the named host.
cmd_backend=local
launch_opts=()
# launch_opts=(--sbatch_opts "--partition=gpu --time=24:00:00")
# launch_opts=(--hosts node1)
