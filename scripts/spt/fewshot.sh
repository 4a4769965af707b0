#!/usr/bin/env bash
# SPT, few-shot: train on SHOTS images of each class of a data set and test on all classes.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
protocol fewshot "$@"
