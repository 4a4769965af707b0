# shellcheck shell=bash
# Shared by all scripts, never run by itself: finds the repository and python. A method's script sources this file and
# names its protocol; tools/run_protocol.py does the rest.
#
# Every variable can be set from the environment; paths are then meant from where you stand:
#   DATA    data sets (default: data in the repository)      OUTPUT  run folders (default: output in the repository)
#   SHOTS   training images a class (default: 16)            PYTHON  interpreter (default: .venv's, else python3)
#   SOURCE  data set to train on for other data sets (default: imagenet; shapes for its own domains)
#   TRAINER, CFG  another registered trainer, another file of configs/trainers/TRAINER (without .yaml)
#   HOST    what a method that wraps another one wraps, where its method.yaml has configs for it (default: its usual one)
#   TEACHER_SEED  seed of the teacher that a distilling method learns from (default: 1)
#   NPROC   processes of a run, each with a GPU of this machine (default: 1; see docs/many_gpus.md)
#   LOADEP  epoch that a test loads, or best (default: the one that training ended with, read from its metrics.json)
# With --dry-run at the end of its line a script only says what it would do, how long it takes and what stands in its way.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere, and prints

CALLER_DIR=$PWD
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPT=$(cd -- "$(dirname -- "$0")" && pwd)/${0##*/} # the script that sources this file
SCRIPT=${SCRIPT#"$ROOT"/}
cd -- "$ROOT"

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# from_caller PATH: a path as the caller means it, relative to the repository where it lies inside.
from_caller() {
  local path=$1
  # shellcheck disable=SC2088  # a tilde that the shell left because it was quoted
  case $path in
    /*) ;;
    '~' | '~/'*) path=$HOME${path#'~'} ;;
    *) path=$CALLER_DIR/$path ;;
  esac
  while [[ $path == ?*/ ]]; do path=${path%/}; done
  if [[ $path == "$ROOT" ]]; then path=.; fi
  printf '%s\n' "${path#"$ROOT"/}"
}

choose_python() {
  if [[ -n ${PYTHON:-} ]]; then
    if [[ $PYTHON == */* ]]; then PYTHON=$(from_caller "$PYTHON"); fi
  elif [[ -x .venv/bin/python ]]; then
    PYTHON=.venv/bin/python
  else
    PYTHON=$(command -v python3 || command -v python) || die "found no python; run: bash scripts/setup.sh"
  fi
  command -v "$PYTHON" >/dev/null || die "PYTHON is '$PYTHON', which is no program."
}

# protocol NAME ARGUMENT ...: one run of a protocol for the method in whose folder the script lies.
protocol() {
  local method=${SCRIPT#scripts/}
  choose_python
  export CALLER_DIR PYTHON
  exec "$PYTHON" -m tools.run_protocol "${method%%/*}" "$@"
}
