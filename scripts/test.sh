#!/usr/bin/env bash
# Run every check of this repository: ruff, mypy, shellcheck, pytest. All of them run; the exit code says if all passed.
#
#   bash scripts/test.sh [arguments for pytest]       for example: bash scripts/test.sh tests/clip -k tokenize
#
# Makes .venv first (scripts/setup.sh --test), unless PYTHON names an interpreter that has everything.
set -euo pipefail
if [[ -z ${PYTHON:-} ]]; then bash "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh" --test; fi
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
choose_python
PATH=$(cd -- "$(dirname -- "$(command -v "$PYTHON")")" && pwd):$PATH # its ruff, mypy, shellcheck and pytest come first

failed=()
check() { # check NAME COMMAND ...
  local name=$1
  shift
  say "== $name: $*"
  "$@" || failed+=("$name")
}

check lint ruff check .
check format ruff format --check .
check types mypy
check scripts shellcheck -x scripts/*.sh scripts/*/*.sh .ci/run
if ((${#failed[@]})); then say "failed so far: ${failed[*]}"; fi
check tests "$PYTHON" -m pytest "$@" # last, so that its summary is what you see last
if ((${#failed[@]})); then die "failed: ${failed[*]}"; fi
