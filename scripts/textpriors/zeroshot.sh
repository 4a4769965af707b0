#!/usr/bin/env bash
# Zero-shot CLIP with class descriptions, evaluate all classes of a data set; nothing is trained.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol zeroshot "$@"
