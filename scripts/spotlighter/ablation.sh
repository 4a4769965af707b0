#!/usr/bin/env bash
# Spotlighter on CoOp, ablations: train and test every row of one of the paper's tables or figures, and show them.
#
#   bash scripts/spotlighter/ablation.sh TABLE [SEED ...] [KEY VALUE ...]
#   bash scripts/spotlighter/ablation.sh --help        lists the tables
#
# Runs and results (CSV, PNG, SVG) are in $OUTPUT/ablation/$DATASET. From the environment: DATA, OUTPUT, SHOTS, CFG,
# PYTHON (see scripts/common.sh), DATASET (default: shapes), and JOBS, runs side by side (default: 1).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
choose_python
DATASET=${DATASET:-shapes}
DATA=$(from_caller "${DATA:-$ROOT/data}")
OUTPUT=$(from_caller "${OUTPUT:-$ROOT/output}")
CFG=${CFG:-$("$PYTHON" -m tools.protocols spotlighter base2new "$DATASET" "${SHOTS:-16}")}
if [[ $DATASET == shapes* && ${1:-} != -* ]]; then mkdir -p -- "$DATA"; fi # draws itself
exec "$PYTHON" -m tools.ablate --dataset "$DATASET" --config "$CFG" --root "$DATA" --shots "${SHOTS:-16}" \
  --output "$OUTPUT/ablation/$DATASET" --jobs "${JOBS:-1}" "$@"
