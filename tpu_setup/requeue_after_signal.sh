# shellcheck shell=bash
# Sourced by the sbatch files: runs a step, and puts the job back into the queue where SLURM interrupted it.

# Runs the words as a job step; on SIGTERM passes it on, waits for the save, requeues.
run_and_requeue() {
  local code=0 last=0
  INTERRUPTED=0
  srun "$@" &
  STEP=$!
  trap 'INTERRUPTED=1; kill -TERM "$STEP" 2>/dev/null || true' TERM
  # A trapped signal ends `wait` early, so it is asked again until the step is gone; and once more, since the step may
  # have gone between the two. 127: it had been told already.
  while true; do
    wait "$STEP" && code=0 || code=$?
    kill -0 "$STEP" 2>/dev/null || break
  done
  wait "$STEP" 2>/dev/null && last=0 || last=$?
  [[ $last -eq 127 ]] || code=$last
  trap - TERM
  # 0: finished in time. 2: bad input, which another try does not cure.
  if [[ $INTERRUPTED -eq 1 && $code -ne 0 && $code -ne 2 ]]; then
    local job="$SLURM_JOB_ID"
    [[ -z "${SLURM_ARRAY_JOB_ID:-}" ]] || job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    scontrol requeue "$job"
    return 0
  fi
  return "$code"
}
