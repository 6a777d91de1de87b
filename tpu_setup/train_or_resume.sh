#!/usr/bin/env bash
# train_or_resume.sh STAGE --config FILE --out DIR [SETTINGS]
#
# `moonseg train` for jobs that are started again after an interruption: goes on from the run's last checkpoint where
# there is one. A run that was killed before its first checkpoint is moved aside, to DIR.unfinished-TIME.
# In a bucket (--out gs://…) the training itself looks for it, of several processes the first for all.
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

if [[ "$out" == gs://* ]]; then
  exec moonseg train "${words[@]}" --resume-or-begin --stop-code 130
fi

shopt -s nullglob
finished=()
for folder in "$out"/checkpoints/*/; do
  # Checkpoints being written have longer names.
  [[ "$(basename "$folder")" =~ ^[0-9]+$ ]] && finished+=("$folder")
done
if [[ ${#finished[@]} -gt 0 ]]; then
  words+=(--resume)
elif [[ -e "$out/config.json" ]]; then
  aside="$out.unfinished-$(date +%Y%m%dT%H%M%S)"
  echo "train_or_resume.sh: $out has no checkpoint yet: moved to $aside" >&2
  mv "$out" "$aside"
fi
# exec, so that SIGTERM reaches the training, which then saves. A stopped run must not pass for a finished one: 130.
exec moonseg train "${words[@]}" --stop-code 130
