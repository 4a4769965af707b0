# shellcheck shell=bash
# Shared by all scripts, never run by itself: finds the repository, python and the configs, names run folders, and
# starts train.py. A trainer's script sources this file and calls one function, base2new_train for example.
#
# Every variable can be set from the environment; paths are then meant from where you stand:
#   DATA    data sets (default: data in the repository)      OUTPUT  run folders (default: output in the repository)
#   SHOTS   training images a class (default: 16)            PYTHON  interpreter (default: .venv's, else python3)
#   TRAINER, CFG  another registered trainer, another file of configs/trainers/TRAINER (without .yaml)
#   LOADEP  epoch that a test loads, or best (default: the one that training ended with, read from its metrics.json)
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

# names_in FOLDER: the yaml files of a folder without their ending, in one line.
names_in() {
  local file names=()
  for file in "$1"/*.yaml; do
    if [[ -e $file ]]; then
      file=${file##*/}
      names+=("${file%.yaml}")
    fi
  done
  say "${names[*]:-none}"
}

usage() {
  sed -n '2s/^# //p' "$SCRIPT"
  cat <<END

Usage: bash $SCRIPT DATASET SEED [KEY VALUE ...]
  DATASET    one of: $(names_in configs/datasets)
  SEED       0, 1, 2, ...
  KEY VALUE  entries of the config to change, for example OPTIM.MAX_EPOCH 5 (then set OUTPUT, too)

Example: bash $SCRIPT shapes 1

From the environment: DATA OUTPUT SHOTS CFG TRAINER LOADEP PYTHON (see scripts/common.sh).
A finished run is skipped; an interrupted one goes on where it stopped: give the same command again.
END
}

wrong_usage() {
  printf 'error: %s\n\n' "$*" >&2
  usage >&2
  exit 2
}

# read_arguments TRAINER CFG_FOR_SHAPES CFG_FOR_OTHERS [DATASET SEED KEY VALUE ...]
# sets DATASET, SEED, EXTRA, TRAINER, CFG, CONFIG (a file), and gives the other variables their defaults.
read_arguments() {
  local method=$1 cfg_shapes=$2 cfg_others=$3 folder
  shift 3
  if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
  fi
  (($# >= 2)) || wrong_usage "expected DATASET SEED, got ${*:-nothing}"
  DATASET=$1 SEED=$2
  shift 2
  EXTRA=("$@")
  [[ -f configs/datasets/$DATASET.yaml ]] \
    || wrong_usage "unknown data set '$DATASET'; there are: $(names_in configs/datasets)"
  [[ $SEED =~ ^(0|[1-9][0-9]*)$ ]] || wrong_usage "SEED must be 0, 1, 2, ..., got '$SEED'"
  (($# % 2 == 0)) || wrong_usage "expected pairs KEY VALUE after SEED, got: $*"
  [[ ${1:-} != -* ]] || wrong_usage "after SEED only pairs KEY VALUE are possible, got: $*"

  DATA=$(from_caller "${DATA:-$ROOT/data}")
  OUTPUT=$(from_caller "${OUTPUT:-$ROOT/output}")
  SHOTS=${SHOTS:-16}
  [[ $SHOTS =~ ^-?[0-9]+$ ]] || wrong_usage "SHOTS must be a number of images a class, got '$SHOTS'"
  [[ ${LOADEP:-best} =~ ^([0-9]+|best)$ ]] || wrong_usage "LOADEP must be an epoch or best, got '$LOADEP'"
  TRAINER=${TRAINER:-$method}
  if [[ -z ${CFG:-} ]]; then
    if [[ $DATASET == shapes* ]]; then CFG=$cfg_shapes; else CFG=$cfg_others; fi
  fi
  folder=configs/trainers/$TRAINER
  [[ -d $folder ]] || folder=configs/trainers/$method # a variant of the method, with its configs
  CONFIG=$folder/$CFG.yaml
  [[ -f $CONFIG ]] || die "no config $CONFIG; CFG can be: $(names_in "$folder")"
  if [[ $DATASET == shapes* ]]; then mkdir -p -- "$DATA" || die "DATA is '$DATA', which cannot be made."; fi # draws itself
  choose_python
}

# run_folder PROTOCOL SPLIT: the one place that knows where a run lies; training and testing both ask here.
run_folder() {
  say "$OUTPUT/$1/$2/$DATASET/shots_$SHOTS/$TRAINER/$CFG/seed$SEED"
}

# run_state FOLDER [--after TRAINING_FOLDER] [--epoch N]: finished, unfinished, absent or stale. Ends the script if the
# run finished with other values than the config files and KEY VALUE say now.
run_state() {
  "$PYTHON" -m tools.run_state state "$@" --config "configs/datasets/$DATASET.yaml" "$CONFIG" \
    --options ${EXTRA[@]+"${EXTRA[@]}"}
}

# start FOLDER CLASSES STATE [flags of train.py]: skip, resume or run. Replaces the shell by train.py, so that a signal
# reaches it directly.
start() {
  local folder=$1 classes=$2 state=$3 command line
  shift 3
  say "== $TRAINER ($CFG), $classes classes of $DATASET, $SHOTS shots, seed $SEED"
  say "   folder: $folder"
  case $state in
    finished)
      say "   finished already: $("$PYTHON" -m tools.run_state result "$folder")"
      return 0
      ;;
    unfinished) say "   not finished: it goes on from its last checkpoint, if it has one" ;;
    stale) say "   finished, but with another model than the one to test now: it runs again" ;;
  esac
  command=("$PYTHON" train.py --root "$DATA" --seed "$SEED" --trainer "$TRAINER"
    --dataset-config-file "configs/datasets/$DATASET.yaml" --config-file "$CONFIG" --output-dir "$folder" "$@"
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$classes" ${EXTRA[@]+"${EXTRA[@]}"})
  printf -v line ' %q' "${command[@]}"
  say "   command:$line"
  exec "${command[@]}"
}

# ---- base to new: train on the first half of the classes, test on both halves -------------------------------------
# Each takes TRAINER CFG_FOR_SHAPES CFG_FOR_OTHERS and then what the user typed.

base2new_train() {
  local folder state
  read_arguments "$@"
  folder=$(run_folder base2new train_base)
  state=$(run_state "$folder")
  start "$folder" base "$state"
}

base2new_test() {
  local model folder state epoch flags asked
  read_arguments "$@"
  model=$(run_folder base2new train_base)
  folder=$(run_folder base2new test_new)
  flags=(--eval-only --model-dir "$model")
  asked=(--after "$model")
  if [[ -n ${LOADEP:-} ]]; then
    epoch=$LOADEP
  else
    [[ $("$PYTHON" -m tools.run_state state "$model") == finished ]] \
      || die "no finished training in $model. Train first: bash ${SCRIPT%/*}/base2new_train.sh $DATASET $SEED"
    epoch=$("$PYTHON" -m tools.run_state epoch "$model")
  fi
  # The epoch is never written down here: it is the last one of that training, or the best one (train.py's default).
  if [[ $epoch != best ]]; then
    flags+=(--load-epoch "$epoch")
    asked+=(--epoch "$epoch")
  fi
  state=$(run_state "$folder" "${asked[@]}")
  start "$folder" new "$state" "${flags[@]}"
}

# base2new_evaluate SPLIT TRAINER ...: for methods that train nothing; SPLIT is train_base or test_new.
base2new_evaluate() {
  local split=$1 classes folder state
  shift
  read_arguments "$@"
  if [[ $split == train_base ]]; then classes=base; else classes=new; fi
  folder=$(run_folder base2new "$split")
  state=$(run_state "$folder")
  start "$folder" "$classes" "$state" --eval-only
}
