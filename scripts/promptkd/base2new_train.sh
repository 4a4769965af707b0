#!/usr/bin/env bash
# PromptKD, base to new, first half: learn from the teacher on unlabelled images and test on the base classes.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol base2new_train "$@"
