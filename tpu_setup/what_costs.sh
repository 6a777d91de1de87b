#!/usr/bin/env bash
# what_costs.sh --zone ZONE [--project ID] [--execute]
#
# Lists what may still cost money: TPU VMs and queued resources of one zone; disks, clusters and buckets of the project.
# Changes nothing. Run it once for every zone you used. Without --execute the commands are only printed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=show_or_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/show_or_run.sh"

while [[ $# -gt 0 ]]; do
  take_shared_option "$@"
  [[ $TAKEN -gt 0 ]] || refuse "unknown option $1"
  shift "$TAKEN"
done
[[ -z "$NAME" ]] || refuse "takes no name, got $NAME"
[[ -n "$ZONE" ]] || refuse "--zone is missing"
gcloud_in_zone compute tpus tpu-vm list
gcloud_in_zone compute tpus queued-resources list
project=()
[[ -z "$PROJECT" ]] || project=("--project=$PROJECT")
show_or_run gcloud compute disks list ${project[@]+"${project[@]}"}
show_or_run gcloud container clusters list ${project[@]+"${project[@]}"}
show_or_run gcloud storage buckets list ${project[@]+"${project[@]}"}
say_if_dry
