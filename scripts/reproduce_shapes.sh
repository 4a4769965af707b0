#!/usr/bin/env bash
# All protocols in miniature: base to new, few-shot, other domains and zero-shot on the embedded benchmark, with every
# method and three seeds; then the tables and figures of the paper from these runs.
#
#   bash scripts/reproduce_shapes.sh
#
# Makes .venv, renders the pictures, carries out plans/shapes_all.yaml, and writes to $OUTPUT/report. Run again, it does
# only what is missing; runs of scripts/demo.sh are taken over. From the environment: DATA, OUTPUT, JOBS (runs side by
# side, default 1), and PYTHON for an interpreter that has everything (then nothing is installed).
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 0
fi
if [[ -z ${PYTHON:-} ]]; then bash "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"; fi
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
choose_python
DATA=$(from_caller "${DATA:-$ROOT/data}")
OUTPUT=$(from_caller "${OUTPUT:-$ROOT/output}")
export PYTHON
mkdir -p -- "$DATA" || die "DATA is '$DATA', which cannot be made."
"$PYTHON" -m datasets.shapes --root "$DATA"
status=0
"$PYTHON" -m tools.sweep shapes_all --data "$DATA" --output "$OUTPUT" --jobs "${JOBS:-1}" || status=$?
if ((status == 130 || status == 143)); then exit "$status"; fi # stopped; the same command goes on
"$PYTHON" -m tools.results "$OUTPUT" --table all --save "$OUTPUT/report" --figures "$OUTPUT/report"
say
say "Tables and figures: $OUTPUT/report"
exit "$status"
