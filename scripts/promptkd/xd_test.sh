#!/usr/bin/env bash
# PromptKD, other data sets and domains: learn there from SOURCE's teacher, on unlabelled images, and test.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol xd_test "$@"
