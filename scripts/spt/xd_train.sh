#!/usr/bin/env bash
# SPT, other data sets and domains, first half: train on all classes of SOURCE (default: imagenet).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol xd_train "$@"
