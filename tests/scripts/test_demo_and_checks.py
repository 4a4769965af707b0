"""scripts/demo.sh, setup.sh, test.sh and .ci/run, with stand-ins for what they call; all scripts under shellcheck."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), ROOT / ".ci" / "run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_syntax_and_safety(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert os.access(script, os.X_OK) != (script.name == "common.sh")  # which others source
    assert "\nset -euo pipefail\n" in script.read_text()


def test_shellcheck():
    beside = Path(sys.executable).with_name("shellcheck")
    program = beside if beside.exists() else shutil.which("shellcheck")
    if not program:
        pytest.skip("shellcheck is not installed (requirements-test.txt has it)")
    done = subprocess.run([program, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def demo(copy):
    (copy.root / "datasets").mkdir()
    (copy.root / "datasets" / "__init__.py").touch()
    (copy.root / "datasets" / "shapes.py").write_text("import sys\nprint('rendered', *sys.argv[1:])\n")
    (copy.root / "tools" / "report.py").write_text("import sys\nprint('page of', *sys.argv[1:])\n")
    return copy


def test_reproduce_shapes(demo, tmp_path):
    """Pictures, then the sweep, then the tables of what is there, with the sweep's exit code."""
    for name in ("sweep", "results"):
        stub = f"import os, sys\nprint('{name}', *sys.argv[1:])\nsys.exit(int(os.environ.get('FAKE_{name}', 0)))\n"
        (demo.root / "tools" / f"{name}.py").write_text(stub)
    done = demo.run("scripts/reproduce_shapes.sh", DATA=str(tmp_path / "data"), JOBS="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"rendered --root {tmp_path}/data",
        f"sweep shapes_all --data {tmp_path}/data --output output --jobs 2",
        "results output --table all --save output/report --figures output/report",
        "",
        "Tables and figures: output/report",
    ]
    failed = demo.run("scripts/reproduce_shapes.sh", FAKE_sweep="1")
    assert (failed.returncode, "results output" in failed.stdout) == (1, True)
    stopped = demo.run("scripts/reproduce_shapes.sh", FAKE_sweep="130")
    assert (stopped.returncode, "results output" in stopped.stdout) == (130, False)
    assert "All protocols in miniature" in demo.run("scripts/reproduce_shapes.sh", "--help").stdout


def test_demo(demo):
    done = demo.run("scripts/demo.sh", SEEDS="1 2", TRAINER="Other", CFG="other")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:12] == [
        "Pictures: shapes, in data/shapes",
        "rendered --root data --only shapes",
        "zero-shot CLIP on the base classes, seed 1 61.00% (4 s)",
        "zero-shot CLIP on the new classes, seed 1 71.00% (4 s)",
        "CoOp trained on the base classes, seed 1 61.00% (4 s)",
        "CoOp tested on the new classes, seed 1 71.00% (4 s)",
        "CoOp trained on the base classes, seed 2 62.00% (4 s)",
        "CoOp tested on the new classes, seed 2 72.00% (4 s)",
        "CoOp w/ Spotlighter trained on the base classes, seed 1 61.00% (4 s)",
        "CoOp w/ Spotlighter tested on the new classes, seed 1 71.00% (4 s)",
        "CoOp w/ Spotlighter trained on the base classes, seed 2 62.00% (4 s)",
        "CoOp w/ Spotlighter tested on the new classes, seed 2 72.00% (4 s)",
    ]
    results = [line for line in done.stdout.splitlines() if ", seed " in line]
    assert len({line.index("%") for line in results}) == 1  # the results stand below each other
    # HM of 61 and 71: 65.62; of the means 61.5 and 71.5: 66.12; seeds' HMs 65.621 and 66.627
    assert "shapes ZeroshotCLIP mini_vit8 1 61.00 ± – 71.00 ± – 65.62 65.62 ± –" in lines
    assert "shapes CoOp mini_vit8_ep20 1 2 61.50 ± 0.50 71.50 ± 0.50 66.12 66.12 ± 0.50" in lines
    assert "shapes Spotlighter mini_vit8_ep15_paper 1 2 61.50 ± 0.50 71.50 ± 0.50 66.12 66.12 ± 0.50" in lines
    assert "What to try next" in lines
    suggested = re.findall(r"^  (?:\w+=\S+ )?bash (scripts/\S+)", done.stdout, flags=re.MULTILINE)
    assert "scripts/spotlighter/ablation.sh" in suggested
    assert [script for script in suggested if not (ROOT / script).is_file()] == []
    assert lines[-1] == "Report: page of output -o output/report --root data --look 2"
    again = demo.run("scripts/demo.sh", SEEDS="1 2")
    assert again.stdout == done.stdout
    assert len(demo.calls) == 10  # nothing ran twice


def test_demo_shows_why_a_run_failed_and_goes_on_later(demo):
    failed = demo.run("scripts/demo.sh", SEEDS="1", FAKE_EXIT="1")
    assert failed.returncode == 1
    assert "one of many lines" in failed.stderr
    assert "error: bash scripts/zsclip/base2new_train.sh shapes 1 ended with exit code 1" in failed.stderr
    stopped = demo.run("scripts/demo.sh", SEEDS="1", FAKE_EXIT="130")
    assert stopped.returncode == 130
    assert "stopped; the same command goes on from here" in stopped.stdout
    assert demo.run("scripts/demo.sh", SEEDS="1").returncode == 0


def stub(folder: Path, name: str, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(["#!/bin/bash", *lines, ""]))
    (folder / name).chmod(0o755)


@pytest.fixture
def checks(copy):
    """Stand-ins for python and the tools beside it; each fails if FAIL names it."""
    folder = copy.root / "env"
    for name in ("ruff", "mypy", "shellcheck", "python"):
        stub(folder, name, f'echo "ran {name} $*"', f'[[ " ${{FAIL:-}} " != *" {name} "* ]]')
    (copy.root / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", copy.root / ".ci")
    return copy


def test_all_checks_run(checks):
    done = checks.run(".ci/run", PYTHON=str(checks.root / "env" / "python"))
    assert done.returncode == 0, done.stderr
    ran = [line.removeprefix("ran ") for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert ran[:3] == ["ruff check .", "ruff format --check .", "mypy "]
    assert ran[3].startswith("shellcheck -x scripts/common.sh")
    assert ran[3].endswith(".ci/run")
    assert ran[4] == done.stdout.splitlines()[-1].removeprefix("ran ") == "python -m pytest"


@pytest.mark.parametrize(
    ("fail", "summary"), [("ruff", "lint format"), ("python", "tests"), ("mypy shellcheck", "types scripts")]
)
def test_a_failing_check_stops_nothing_but_fails_the_run(checks, fail, summary):
    done = checks.run("scripts/test.sh", "tests/clip", PYTHON=str(checks.root / "env" / "python"), FAIL=fail)
    assert done.returncode == 1
    assert "ran python -m pytest tests/clip" in done.stdout
    assert done.stderr == f"error: failed: {summary}\n"


@pytest.fixture
def setup(copy):
    """A stand-in for the interpreter: makes .venv with itself inside, and writes down what pip is asked."""
    (copy.root / "Dassl.pytorch").mkdir()
    lists = (f"requirements{part}.txt" for part in ("", "-test", "-export"))
    for name in (*lists, "Dassl.pytorch/pyproject.toml"):
        (copy.root / name).write_text(name)
    stub(
        copy.root / "base",
        "python3",
        'case "$*" in',
        '  "-m venv "*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo "venv" >>asked ;;',
        '  "-m pip install"*) echo "${@: -1}" >>asked; exit "${PIP_FAILS:-0}" ;;',
        '  "-m pip --version" | "-c import dassl"*) ;;',
        f'  *) exec "{sys.executable}" "$@" ;;',
        "esac",
    )

    def run(*argv, **variables):
        (copy.root / "asked").unlink(missing_ok=True)
        path = f"{copy.root / 'base'}:{os.environ['PATH']}"
        done = copy.run("scripts/setup.sh", *argv, **({"PATH": path, "PYTHON": None} | variables))
        asked = copy.root / "asked"
        return done, asked.read_text().split() if asked.exists() else []

    run.root = copy.root
    return run


def test_setup_installs_once(setup):
    assert setup()[1] == ["venv", "requirements.txt"]
    assert setup()[1] == []
    assert setup("--test")[1] == ["requirements-test.txt"]
    assert setup("--test")[1] == []
    (setup.root / "requirements.txt").write_text("something new")
    assert setup("--test")[1] == ["requirements.txt", "requirements-test.txt"]
    (setup.root / "requirements-export.txt").write_text("something new")  # a part of requirements-test.txt
    assert setup("--test")[1] == ["requirements-test.txt"]
    assert setup()[1] == []


def test_setup_of_a_moved_repository_installs_anew(setup):
    setup()
    moved = setup.root.with_name("moved")
    shutil.copytree(setup.root, moved)
    env = dict(os.environ, PATH=f"{moved / 'base'}:{os.environ['PATH']}")
    env.pop("PYTHON", None)
    subprocess.run(["bash", "scripts/setup.sh"], cwd=moved, env=env, check=True, capture_output=True)
    assert (moved / "asked").read_text().split()[-1] == "requirements.txt"


def test_setup_after_a_failed_installation_tries_again(setup):
    done, asked = setup(PIP_FAILS="1")
    assert (done.returncode, asked) == (1, ["venv", "requirements.txt"])
    assert "error: pip could not install requirements.txt" in done.stderr
    assert setup()[1] == ["requirements.txt"]


def test_setup_messages(setup):
    done, _ = setup("--tests")
    assert done.returncode == 2
    assert done.stderr == "Usage: bash scripts/setup.sh [--test]\n"
    assert "bash scripts/setup.sh [--test]" in setup("--help")[0].stdout
    stub(setup.root / "old", "python3", "exit 1")
    done, _ = setup(PYTHON=str(setup.root / "old" / "python3"))
    assert done.returncode == 1
    assert "which is no Python 3.10 or newer" in done.stderr
    stub(setup.root / "broken", "python3", "if [[ $2 == venv ]]; then exit 1; fi", f'exec "{sys.executable}" "$@"')
    done, _ = setup(PYTHON=str(setup.root / "broken" / "python3"))
    assert "could not make .venv; on Debian and Ubuntu: apt-get install python3-venv" in done.stderr
