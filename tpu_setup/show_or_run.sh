# shellcheck shell=bash disable=SC2034
# Sourced by the scripts of this folder: commands are printed, and run only after --execute.

EXECUTE=0 PROJECT="" ZONE="" NAME="" QUEUED=0

# Prints the comment at the head of the script, without its first line, as help.
show_help() {
  sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$0"
}

# Ends with 2, as every wrong use does.
refuse() {
  printf '%s: error: %s (--help explains)\n' "$(basename "$0")" "$1" >&2
  exit 2
}

# The value after an option; refuses where it is missing.
value_of() {
  [[ $# -ge 2 && -n "$2" && "$2" != --* ]] || refuse "$1 needs a value"
  printf '%s' "$2"
}

# Options that all scripts share. Sets TAKEN to how many words were used, 0 where the word is not one of them.
take_shared_option() {
  TAKEN=1
  case "$1" in
    --execute) EXECUTE=1 ;;
    --queued) QUEUED=1 ;;
    -h | --help) show_help; exit 0 ;;
    --zone) ZONE="$(value_of "$@")"; TAKEN=2 ;;
    --project) PROJECT="$(value_of "$@")"; TAKEN=2 ;;
    -*) TAKEN=0 ;;
    *)
      [[ -z "$NAME" ]] || refuse "one name is enough: $NAME, then $1"
      NAME="$1"
      ;;
  esac
}

# Refuses unless a name and a zone were given.
require_name_and_zone() {
  [[ -n "$NAME" ]] || refuse "NAME is missing"
  [[ -n "$ZONE" ]] || refuse "--zone is missing"
}

# Prints a command so that it can be pasted; runs it after --execute.
show_or_run() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
  [[ $EXECUTE -eq 0 ]] || "$@"
}

# The same for gcloud, with zone and project.
gcloud_in_zone() {
  local words=(gcloud "$@" "--zone=$ZONE")
  [[ -z "$PROJECT" ]] || words+=("--project=$PROJECT")
  show_or_run "${words[@]}"
}

# The last line of a dry run, on standard error: what was printed stays pasteable.
say_if_dry() {
  [[ $EXECUTE -eq 1 ]] || echo "nothing was run: add --execute to run this" >&2
}
