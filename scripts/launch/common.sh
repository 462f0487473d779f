# Sourced by the launch scripts: their arguments, and how they run a command.
#
# Options are --name=value or --name; each becomes the variable of that name
# (--dry-run sets dry_run), which the script has given its default before.
# What follows -- are the arguments of vitjax.main.
# shellcheck shell=bash disable=SC2034
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
dry_run=""
main_args=()

die() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# The comment at the head of the script is its help.
usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
}

parse() { # ALLOWED-NAMES ARGUMENT...
  local _allowed="$1 dry-run" _argument _option
  shift
  while [ $# -gt 0 ]; do
    _argument="$1"
    shift
    case "$_argument" in
      -h | --help)
        usage
        exit 0
        ;;
      --)
        main_args=("$@")
        return
        ;;
      --*) ;;
      *) die "'$_argument' is not an option; what follows -- is vitjax.main's" ;;
    esac
    _option="${_argument#--}"
    _option="${_option%%=*}"
    case " $_allowed " in
      *" $_option "*) ;;
      *) die "--$_option is not an option. Known: --${_allowed// / --}" ;;
    esac
    case "$_argument" in
      *=*) printf -v "${_option//-/_}" '%s' "${_argument#*=}" ;;
      *) printf -v "${_option//-/_}" '%s' 1 ;;
    esac
  done
}

need() { # NAME...: these options have no default
  local _option
  for _option in "$@"; do
    if [ -z "${!_option}" ]; then
      die "--$_option=... is missing. --help explains it"
    fi
  done
}

# All processes must see the same folder, so the scripts do not invent it.
need_workdir() {
  case " ${main_args[*]}" in
    *" --workdir="*) ;;
    *) die "give the run after --, such as" \
      "-- --config=configs/vit_s16_i1k.py --workdir=/shared/runs/s16" ;;
  esac
}

quoted() {
  local result
  printf -v result '%q ' "$@"
  echo "${result% }"
}

run() { # prints the command, and runs it unless --dry-run
  echo "+ $(quoted "$@")" >&2
  [ -n "$dry_run" ] || "$@"
}

feed() { # TEXT COMMAND...: prints both, and runs the command on the text
  local text="$1"
  shift
  printf '%s\n+ %s\n' "$text" "$(quoted "$@")" >&2
  [ -n "$dry_run" ] || "$@" <<<"$text"
}

# The committed state as a git bundle: what runs there has a revision.
bundle() {
  if [ -n "$(git -C "$ROOT" status --porcelain)" ]; then
    echo "$(basename "$0"): changes that are not committed are not sent" >&2
  fi
  run git -C "$ROOT" bundle create --quiet "$1" HEAD
}

# What makes a checkout of the bundle on the other machine, in ~/vitjax.
UNBUNDLE='{ test -d vitjax || git clone --quiet vitjax.bundle vitjax; } &&
cd vitjax && git fetch --quiet ../vitjax.bundle HEAD &&
git -c advice.detachedHead=false checkout --quiet --detach FETCH_HEAD'
