#!/usr/bin/env bash
# SPT, base to new, second half: test what base2new_train.sh trained on the new classes of the data set.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol base2new_test "$@"
