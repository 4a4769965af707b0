#!/usr/bin/env bash
# Linear probe, base to new, second half: says that there is none, since the head knows its own classes only.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol base2new_test "$@"
