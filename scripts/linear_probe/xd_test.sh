#!/usr/bin/env bash
# Linear probe, other data sets and domains: says that there is no such test, since the head knows its own classes only.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol xd_test "$@"
