#!/usr/bin/env bash
# status.sh NAME --zone ZONE [--queued] [--project ID] [--execute]
#
# Says whether a TPU VM, or a queued resource, is there. Without --execute the command is only printed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=show_or_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/show_or_run.sh"

while [[ $# -gt 0 ]]; do
  take_shared_option "$@"
  [[ $TAKEN -gt 0 ]] || refuse "unknown option $1"
  shift "$TAKEN"
done
require_name_and_zone
if [[ $QUEUED -eq 1 ]]; then
  gcloud_in_zone compute tpus queued-resources describe "$NAME"
else
  gcloud_in_zone compute tpus tpu-vm describe "$NAME"
fi
say_if_dry
