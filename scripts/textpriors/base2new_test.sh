#!/usr/bin/env bash
# Zero-shot CLIP with class descriptions, base to new, second half: evaluate the new classes of a data set.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol base2new_test "$@"
