#!/usr/bin/env bash
# run_everywhere.sh NAME --zone ZONE [--queued] [--project ID] [--execute] -- COMMAND
#
# Runs one shell command on every host of a TPU VM, at the same time, in the folder and environment of install.sh.
# Without --execute the command is only printed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=show_or_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/show_or_run.sh"

COMMAND=""
while [[ $# -gt 0 ]]; do
  if [[ "$1" == -- ]]; then
    shift
    COMMAND="$*"
    break
  fi
  take_shared_option "$@"
  [[ $TAKEN -gt 0 ]] || refuse "unknown option $1"
  shift "$TAKEN"
done
require_name_and_zone
[[ -n "$COMMAND" ]] || refuse "-- COMMAND is missing"

node="$NAME"
[[ $QUEUED -eq 0 ]] || node="$NAME-node"
entered="cd ~/moonseg-jax && source ~/moonseg-venv/bin/activate && $COMMAND"
gcloud_in_zone compute tpus tpu-vm ssh "$node" --worker=all "--command=$entered"
say_if_dry
