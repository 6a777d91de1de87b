#!/usr/bin/env bash
# create.sh NAME --zone ZONE --type TYPE --version VERSION [--spot] [--queued] [--project ID] [--execute]
#
# Asks for a TPU VM; with --queued through a queued resource, which waits until there is room.
#   --type      accelerator type, such as v5litepod-8
#   --version   TPU software version, such as v2-alpha-tpuv5-lite
#   --spot      may be taken away at any time
#   --queued    the queued resource is NAME, its node NAME-node; the other scripts take the same NAME and --queued
# Without --execute the commands are only printed. A TPU VM costs money from when it is there until delete.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=show_or_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/show_or_run.sh"

TYPE="" VERSION="" SPOT=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --type) TYPE="$(value_of "$@")"; shift 2; continue ;;
    --version) VERSION="$(value_of "$@")"; shift 2; continue ;;
    --spot) SPOT=(--spot); shift; continue ;;
  esac
  take_shared_option "$@"
  [[ $TAKEN -gt 0 ]] || refuse "unknown option $1"
  shift "$TAKEN"
done
require_name_and_zone
[[ -n "$TYPE" ]] || refuse "--type is missing"
[[ -n "$VERSION" ]] || refuse "--version is missing"

# The + form: bash 3.2 (macOS) takes an empty array for an unset one.
asked=("$NAME" "--accelerator-type=$TYPE" ${SPOT[@]+"${SPOT[@]}"})
if [[ $QUEUED -eq 1 ]]; then
  gcloud_in_zone compute tpus queued-resources create "${asked[@]}" "--runtime-version=$VERSION" "--node-id=$NAME-node"
else
  gcloud_in_zone compute tpus tpu-vm create "${asked[@]}" "--version=$VERSION"
fi
say_if_dry
