#!/usr/bin/env bash
# Spotlighter on CoOp, base to new, first half: train on the base classes of a data set and test on them.
set -euo pipefail
# shellcheck source=scripts/spotlighter/method.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/method.sh"
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
base2new_train "${METHOD[@]}" "$@"
