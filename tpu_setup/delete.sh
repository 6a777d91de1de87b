#!/usr/bin/env bash
# delete.sh NAME --zone ZONE [--queued] [--project ID] [--execute]
#
# Deletes a TPU VM, or a queued resource together with its node, and what lies on their disks.
# Without --execute the command is only printed. what_costs.sh says what is left.
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
  gcloud_in_zone compute tpus queued-resources delete "$NAME" --force --quiet
else
  gcloud_in_zone compute tpus tpu-vm delete "$NAME" --quiet
fi
say_if_dry
