#!/usr/bin/env bash
# SPT, other data sets and domains, second half: test what xd_train.sh trained on another data set.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol xd_test "$@"
