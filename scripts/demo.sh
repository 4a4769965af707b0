#!/usr/bin/env bash
# From nothing to a base / new / HM table on the embedded benchmark, on this machine: zero-shot CLIP, CoOp, and CoOp
# with Spotlighter.
#
#   bash scripts/demo.sh
#
# Makes .venv, renders the pictures, evaluates zero-shot CLIP, trains CoOp and CoOp with Spotlighter on the base classes,
# tests them on the new ones, prints the table, and writes a page with figures. Run again, it reuses what is done. From
# the environment: SEEDS (default "1 2 3"), DATA, OUTPUT, SHOTS, and PYTHON for an interpreter that has everything (then
# nothing is installed).
set -euo pipefail
if [[ -z ${PYTHON:-} ]]; then bash "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"; fi
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
choose_python
DATASET=shapes
DATA=$(from_caller "${DATA:-$ROOT/data}")
OUTPUT=$(from_caller "${OUTPUT:-$ROOT/output}")
export DATA OUTPUT PYTHON
unset TRAINER CFG LOADEP # every script below has its own
read -r -a seeds <<<"${SEEDS:-1 2 3}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# step TEXT SCRIPT SEED: run a script without its many lines (they stay in the run's log.txt); show one with the result.
step() {
  local text=$1 script=$2 seed=$3 status=0 folder
  printf '%-56s ' "$text, seed $seed"
  bash "$script" "$DATASET" "$seed" >"$log" 2>&1 || status=$?
  if ((status == 130 || status == 143)); then
    say "stopped; the same command goes on from here"
    exit "$status"
  elif ((status)); then
    say "failed; the last lines of its output:"
    tail -n 25 "$log" >&2
    die "bash $script $DATASET $seed ended with exit code $status"
  fi
  folder=$(sed -n 's/^   folder: //p' "$log")
  "$PYTHON" -m tools.run_state "$folder"
}

say "Pictures: $DATASET, in $DATA/$DATASET"
"$PYTHON" -m datasets.shapes --root "$DATA" --only "$DATASET"
step "zero-shot CLIP on the base classes" scripts/zsclip/base2new_train.sh "${seeds[0]}" # no training: one seed says all
step "zero-shot CLIP on the new classes" scripts/zsclip/base2new_test.sh "${seeds[0]}"
for seed in "${seeds[@]}"; do
  step "CoOp trained on the base classes" scripts/coop/base2new_train.sh "$seed"
  step "CoOp tested on the new classes" scripts/coop/base2new_test.sh "$seed"
done
for seed in "${seeds[@]}"; do
  step "CoOp w/ Spotlighter trained on the base classes" scripts/spotlighter/base2new_train.sh "$seed"
  step "CoOp w/ Spotlighter tested on the new classes" scripts/spotlighter/base2new_test.sh "$seed"
done
say
"$PYTHON" parse_test_res.py --base "$OUTPUT/base2new/train_base/$DATASET" --new "$OUTPUT/base2new/test_new/$DATASET"
printf -v python %q "$PYTHON"
printf -v output %q "$OUTPUT"
cat <<END

What to try next
  # zero-shot CLIP on another domain: outlines on paper
  bash scripts/zsclip/base2new_test.sh shapes_sketch 1
  # fewer training images a class
  SHOTS=4 bash scripts/spotlighter/base2new_train.sh shapes 1
  # what one idea of the method is worth; other tables: bash scripts/spotlighter/ablation.sh --help
  bash scripts/spotlighter/ablation.sh semantic
  # all runs so far, with trained parameters and seconds
  $python parse_test_res.py $output/base2new --details
  # trained parameters, module by module
  $python -m tools.count_parameters --config-file configs/trainers/Spotlighter/mini_vit8_ep15_paper.yaml
  # curves of losses and accuracies
  $python -m tensorboard.main --logdir $output
  # real CLIP weights and data sets: README.md
END
say
say "Writing a page with all results and figures"
report=$("$PYTHON" -m tools.report "$OUTPUT" -o "$OUTPUT/report" --root "$DATA" --look 2)
say "Report: $report"
