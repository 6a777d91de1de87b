#!/usr/bin/env bash
# install.sh NAME --zone ZONE --repository URL --revision REVISION [--queued] [--project ID] [--execute]
#
# Installs the package with [tpu,gcs] at one git revision on every host of a TPU VM.
#   --repository  git address that the hosts can read without a password
#   --revision    commit (better than a branch: every host then has the same)
# The package needs Python 3.11; uv brings it where the image has an older one. Running it again changes the revision.
# [gcs] reads and writes gs:// addresses.
# Without --execute the command is only printed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=show_or_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/show_or_run.sh"

REPOSITORY="" REVISION=""
while [[ $# -gt 0 ]]; do
  case "$1" in
    --repository) REPOSITORY="$(value_of "$@")"; shift 2; continue ;;
    --revision) REVISION="$(value_of "$@")"; shift 2; continue ;;
  esac
  take_shared_option "$@"
  [[ $TAKEN -gt 0 ]] || refuse "unknown option $1"
  shift "$TAKEN"
done
require_name_and_zone
[[ -n "$REPOSITORY" ]] || refuse "--repository is missing"
[[ -n "$REVISION" ]] || refuse "--revision is missing"

node="$NAME"
[[ $QUEUED -eq 0 ]] || node="$NAME-node"
printf -v address %q "$REPOSITORY"
printf -v commit %q "$REVISION"
steps=(
  "set -e"
  "test -d \$HOME/moonseg-jax || git clone $address \$HOME/moonseg-jax"
  "cd \$HOME/moonseg-jax"
  "git fetch origin"
  "git checkout --detach $commit"
  "python3 -m pip install --user --quiet uv"
  "test -d \$HOME/moonseg-venv || \$HOME/.local/bin/uv venv --python 3.11 \$HOME/moonseg-venv"
  "\$HOME/.local/bin/uv pip install --python \$HOME/moonseg-venv/bin/python '.[tpu,gcs]'"
)
printf -v joined '%s; ' "${steps[@]}"
gcloud_in_zone compute tpus tpu-vm ssh "$node" --worker=all "--command=${joined%; }"
say_if_dry
