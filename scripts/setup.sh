#!/usr/bin/env bash
# Make .venv in the repository and install what running needs; with --test also linters and test tools.
#
#   bash scripts/setup.sh [--test]
#
# Run again, it returns at once: a stamp inside .venv holds a hash of the requirement files. PYTHON chooses the
# interpreter that .venv is made from (3.10 or newer).
set -euo pipefail
unset CDPATH
if [[ ${PYTHON:-} == */* && ${PYTHON:-} != /* ]]; then PYTHON=$PWD/$PYTHON; fi # meant from where you stand
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

extra=no
case "$#:${1:-}" in
  0:) ;;
  1:--test) extra=yes ;;
  1:-h | 1:--help)
    sed -n '2,7s/^# \{0,1\}//p' scripts/setup.sh
    exit 0
    ;;
  *)
    printf 'Usage: bash scripts/setup.sh [--test]\n' >&2
    exit 2
    ;;
esac

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

base_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    is_recent "$PYTHON" || die "PYTHON is '$PYTHON', which is no Python 3.10 or newer."
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if is_recent "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "found no Python 3.10 or newer; install one, or name it: PYTHON=/path/to/python bash scripts/setup.sh"
}

# hash_of FILE ...: of the files, the interpreter and this folder (dassl is installed as a link into it)
hash_of() {
  .venv/bin/python - "$@" <<'END'
import hashlib, os, pathlib, sys
parts = [sys.version, os.getcwd(), *(pathlib.Path(name).read_text() for name in sys.argv[1:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
END
}

# install STAMP FILE [INCLUDED ...]: install a requirements file unless its stamp says that this was done
install() {
  local stamp=.venv/$1 requirements=$2 wanted quiet=()
  wanted=$(hash_of requirements.txt Dassl.pytorch/pyproject.toml "${@:2}")
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
  printf 'Installing %s into .venv (some minutes and some GB of downloads the first time)\n' "$requirements"
  if [[ ! -t 1 ]]; then quiet=(--quiet); fi
  .venv/bin/python -m pip install --disable-pip-version-check ${quiet[@]+"${quiet[@]}"} -r "$requirements" \
    || die "pip could not install $requirements; see its message above, then run this script again."
  .venv/bin/python -c 'import dassl, torch, torchvision' \
    || die "the installed packages cannot be imported; see above. Delete .venv and run this script again."
  printf '%s\n' "$wanted" >"$stamp"
}

if .venv/bin/python -V >/dev/null 2>&1 && ! is_recent .venv/bin/python; then
  die ".venv is of $(.venv/bin/python -V), but 3.10 or newer is needed; delete .venv and run this script again."
elif ! is_recent .venv/bin/python; then # none there, or its interpreter is gone
  base=$(base_python)
  printf 'Making .venv with %s (%s)\n' "$base" "$("$base" -V 2>&1)"
  "$base" -m venv --clear .venv \
    || die "$base could not make .venv; on Debian and Ubuntu: apt-get install python3-venv"
fi
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip --upgrade >/dev/null \
  || die ".venv has no pip and none could be added; delete .venv and run this script again."

install .installed requirements.txt
if [[ $extra == yes ]]; then install .installed-test requirements-test.txt requirements-export.txt; fi
