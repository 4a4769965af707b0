#!/usr/bin/env bash
# PromptKD's teacher: train PromptSRC with a larger CLIP on a data set, for students of all seeds.
#
#   bash scripts/promptkd/train_teacher.sh DATASET SEED [KEY VALUE ...]       on the base classes
#   FOR=xd bash scripts/promptkd/train_teacher.sh DATASET SEED [...]          on all classes, for other data sets
#
# The environment is that of the other scripts (see scripts/common.sh).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

if (($# < 2)) || [[ $1 == -* ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "$SCRIPT"
  [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
  exit 2
fi
FOR=${FOR:-base2new}
[[ $FOR == base2new || $FOR == xd ]] || die "FOR must be base2new or xd, got '$FOR'."
choose_python
CFG=${CFG:-$("$PYTHON" -m tools.protocols promptkd "$FOR" "$1" "${SHOTS:-16}" teacher)}
export CALLER_DIR PYTHON CFG
if [[ $FOR == xd ]]; then
  SOURCE=$1 exec "$PYTHON" -m tools.run_protocol promptsrc xd_train "${@:2}"
fi
exec "$PYTHON" -m tools.run_protocol promptsrc base2new_train "$@"
