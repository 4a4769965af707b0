#!/usr/bin/env bash
# SPT, base to new, first half: train on the base classes of a data set and test on them.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol base2new_train "$@"
