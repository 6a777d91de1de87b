# shellcheck shell=bash
# Sourced by the sbatch files of several nodes, which run one process a node.

# Gives a process all GPUs of its node; without this JAX takes one GPU for each process of a SLURM job.
export_gpus_of_node() {
  if [[ ! "${SLURM_GPUS_ON_NODE:-}" =~ ^[1-9][0-9]*$ ]]; then
    echo "$(basename "$0"): error: SLURM gave no GPUs (SLURM_GPUS_ON_NODE): ask with --gpus-per-node" >&2
    exit 2
  fi
  local gpus
  printf -v gpus '%s,' $(seq 0 "$((SLURM_GPUS_ON_NODE - 1))")
  export JAX_LOCAL_DEVICE_IDS="${gpus%,}"
}
