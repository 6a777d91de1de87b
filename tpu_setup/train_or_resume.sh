#!/usr/bin/env bash
# train_or_resume.sh STAGE --config FILE --out DIR [SETTINGS]
#
# `moonseg train` for jobs that are started again after an interruption: goes on from the run's last checkpoint where
# there is one. A run that was killed before its first checkpoint is moved aside, to DIR.unfinished-TIME. Of several
# processes the first looks and moves, for all.
set -euo pipefail

out=""
words=("$@")
for ((index = 0; index < ${#words[@]}; index++)); do
  case "${words[index]}" in
    --out) out="${words[index + 1]:-}" ;;
    --out=*) out="${words[index]#--out=}" ;;
  esac
done
if [[ -z "$out" ]]; then
  echo "train_or_resume.sh: error: --out DIR is missing: a job that is started again must find its run" >&2
  exit 2
fi
# exec, so that SIGTERM reaches the training, which then saves. A stopped run must not pass for a finished one: 130.
exec moonseg train "$@" --resume-or-begin --stop-code 130
