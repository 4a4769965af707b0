"""Start one run of a protocol: skip it if it is finished, let it go on if it was interrupted. Called by `scripts/`.

    python -m tools.run_protocol METHOD PROTOCOL [ARGUMENT ...] [KEY VALUE ...]

METHOD is a folder of scripts/, PROTOCOL one of its scripts without `.sh`. Variables come from the environment, see
scripts/common.sh. The process becomes train.py, or torchrun with NPROC of them, so that a signal reaches it directly.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from tools.protocols import DEFAULT_OUTPUT, DEFAULT_SHOTS, ROOT, ProtocolError, Run, config_stems
from tools.run_layout import PROTOCOLS
from tools.run_names import shots_title
from tools.run_reader import RunProblem, load_metrics
from tools.run_state import OtherConfig, current_state, result_line, settings_of, state_of, trained_epoch

NUMBER = re.compile(r"0|[1-9][0-9]*")
USAGE = """\
{about}

Usage: bash {script} {arguments} [KEY VALUE ...] [--dry-run]
{help}  KEY VALUE  entries of the config to change, for example OPTIM.MAX_EPOCH 5 (then set OUTPUT, too)
  --dry-run  only say what would be done and how long it takes, as train.py --dry-run does

Example: bash {script} {example}

From the environment: DATA OUTPUT SHOTS CFG TRAINER HOST SOURCE LOADEP TEACHER_SEED NPROC PYTHON, see scripts/common.sh.
A finished run is skipped; an interrupted one goes on where it stopped: give the same command again."""
ARGUMENTS = {  # name -> (help, example)
    "DATASET": ("a data set:\n             {datasets}", "shapes"),
    "SHOTS": ("training images a class: 1, 2, 4, ...", "16"),
    "SEED": ("0, 1, 2, ...", "1"),
}


class WrongUsage(ValueError):
    """Arguments that the script does not take; the usage is shown with the message."""


def main(argv: Sequence[str] | None = None) -> int:
    method, protocol, *arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] in (["-h"], ["--help"]):
        print(usage(method, protocol))
        return 0
    dry = "--dry-run" in arguments
    try:
        run, data = read_arguments(method, protocol, [a for a in arguments if a != "--dry-run"], os.environ)
        return start(run, data, os.environ, dry)
    except WrongUsage as error:
        print(f"error: {error}\n\n{usage(method, protocol)}", file=sys.stderr)
        return 2
    except (ProtocolError, RunProblem) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OtherConfig as error:
        print(f"error: {error}", file=sys.stderr)
        return 3


def usage(method: str, protocol: str) -> str:
    """The help of a script; its first comment line says what it does."""
    script = Run(protocol, method, "").script()[0]
    names = PROTOCOLS[protocol].arguments
    datasets = " ".join(config_stems(ROOT / "configs/datasets"))
    datasets = textwrap.fill(datasets, 107, subsequent_indent=" " * 13)
    lines = "".join(f"  {name:<9}  {ARGUMENTS[name][0].format(datasets=datasets)}\n" for name in names)
    return USAGE.format(
        about=(ROOT / script).read_text(encoding="utf-8").splitlines()[1].lstrip("# "),
        script=script,
        arguments=" ".join(names),
        help=lines,
        example=" ".join(ARGUMENTS[name][1] for name in names),
    )


def read_arguments(method: str, protocol: str, arguments: Sequence[str], env: Mapping[str, str]) -> tuple[Run, str]:
    """The run that arguments and environment ask for, and the data root.

    Raises:
        WrongUsage: the arguments don't fit.
        ProtocolError: there is no such config.
    """
    names = PROTOCOLS[protocol].arguments
    if len(arguments) < len(names):
        raise WrongUsage(f"expected {' '.join(names)}, got {' '.join(arguments) or 'nothing'}")
    given = dict(zip(names, arguments, strict=False))
    options = tuple(arguments[len(names) :])
    if "DATASET" in given and not (ROOT / "configs/datasets" / f"{given['DATASET']}.yaml").is_file():
        there = " ".join(config_stems(ROOT / "configs/datasets")) or "none"
        raise WrongUsage(f"unknown data set '{given['DATASET']}'; there are: {there}")
    if not NUMBER.fullmatch(given.get("SEED", "1")):
        raise WrongUsage(f"SEED must be 0, 1, 2, ..., got '{given['SEED']}'")
    if len(options) % 2:
        raise WrongUsage(f"expected pairs KEY VALUE after {names[-1]}, got: {' '.join(options)}")
    if options and options[0].startswith("-"):
        raise WrongUsage(f"after {names[-1]} only pairs KEY VALUE are possible, got: {' '.join(options)}")
    shots = given.get("SHOTS") or env.get("SHOTS") or str(DEFAULT_SHOTS)
    if not re.fullmatch(r"-?[0-9]+", shots):
        raise WrongUsage(f"SHOTS must be a number of images a class, got '{shots}'")
    if not re.fullmatch(r"[0-9]+|best", env.get("LOADEP") or "best"):
        raise WrongUsage(f"LOADEP must be an epoch or best, got '{env['LOADEP']}'")
    if not NUMBER.fullmatch(env.get("TEACHER_SEED") or "1"):
        raise WrongUsage(f"TEACHER_SEED must be 0, 1, 2, ..., got '{env['TEACHER_SEED']}'")
    if not re.fullmatch(r"[1-9][0-9]*", env.get("NPROC") or "1"):
        raise WrongUsage(f"NPROC must be a number of processes, got '{env['NPROC']}'")
    run = Run(
        protocol=protocol,
        method=method,
        dataset=given.get("DATASET", ""),
        seed=int(given.get("SEED", 1)),
        shots=int(shots),
        config=env.get("CFG", ""),
        trainer=env.get("TRAINER", ""),
        host=env.get("HOST", ""),
        source=env.get("SOURCE", ""),
        output=from_caller(env.get("OUTPUT") or str(ROOT / DEFAULT_OUTPUT), env),
        options=options,
        teacher_seed=int(env.get("TEACHER_SEED") or 1),
    ).resolved()
    if protocol == "xd_test" and run.dataset == run.source:
        raise WrongUsage(f"{run.source} is what is trained on; its own result is in the training run")
    return run, from_caller(env.get("DATA") or str(ROOT / "data"), env)


def from_caller(path: str, env: Mapping[str, str]) -> str:
    """A path as the caller of the script means it, relative to the repository where it lies inside."""
    joined = os.path.join(env.get("CALLER_DIR") or os.getcwd(), os.path.expanduser(path))
    stripped = joined.rstrip("/") or "/"
    if stripped == str(ROOT):
        return "."
    return stripped.removeprefix(f"{ROOT}/")


def start(run: Run, data: str, env: Mapping[str, str], dry: bool = False) -> int:
    """Say what is run and where; then skip it, or become train.py.

    Args:
        dry: make nothing, skip nothing, and have train.py only say what it would do.

    Raises:
        ProtocolError: the model that it tests is not trained, or the data root cannot be made.
        OtherConfig: the folder holds a finished run with another config.
    """
    if run.dataset.startswith("shapes") and not dry:  # draws itself
        try:
            os.makedirs(data, exist_ok=True)
        except OSError:
            raise ProtocolError(f"DATA is '{data}', which cannot be made.") from None
    flags, model, epoch = [], None, None
    if run.model is not None:
        model = run.model.folder
        epoch = epoch_to_load(run.model, env)
        flags = ["--eval-only", "--model-dir", str(model), *([] if epoch is None else ["--load-epoch", str(epoch)])]
    elif not run.trains:
        flags = ["--eval-only"]
    run = replace(run, options=(*teacher_options(run), *run.options))
    settings = settings_of([run.dataset_file, run.config_file])
    state = current_state(run.folder, model, epoch, run.options, settings)
    where = f"{run.classes} classes of {run.dataset}"
    if run.protocol == "xd_test":
        where += f", trained on {run.source}"
    if run.protocol != "zeroshot":
        where += f", {shots_title(run.shots)}"
    print(f"== {run.trainer} ({run.config}), {where}, seed {run.seed}\n   folder: {run.folder}")
    if state == "finished":
        print(f"   finished already: {result_line(run.folder)}" + ("; without --dry-run it would be left alone" * dry))
        if not dry:
            return 0
    if state == "unfinished":
        print("   not finished: it goes on from its last checkpoint, if it has one")
    elif state == "stale":
        print("   finished, but with another model than the one to test now: it runs again")
    flags += ["--dry-run"] if dry else []
    replace_process([*launcher(int(env.get("NPROC") or 1)), *command(run, data, flags)])


def teacher_options(run: Run) -> tuple[str, ...]:
    """The config entry that names the teacher's run folder, unless it is typed.

    Raises:
        ProtocolError: the teacher is not trained.
    """
    teacher, files = run.teacher, run.basis.teacher
    if teacher is None or files is None or files.key in run.options[::2]:
        return ()
    if state_of(teacher.folder) != "finished":
        raise ProtocolError(f"no finished teacher in {teacher.folder}. Train it first: {teacher.shell_line()}")
    return files.key, str(teacher.folder)


def epoch_to_load(model: Run, env: Mapping[str, str]) -> int | None:
    """The epoch of a trained model to test: LOADEP, or the one that training ended with; None: the best one.

    Raises:
        ProtocolError: the model is not trained.
    """
    wanted = env.get("LOADEP")
    if wanted:
        return None if wanted == "best" else int(wanted)
    if state_of(model.folder) != "finished":
        raise ProtocolError(f"no finished training in {model.folder}. Train first: {model.shell_line()}")
    return trained_epoch(load_metrics(model.folder / "metrics.json"))


def command(run: Run, data: str, flags: Sequence[str]) -> list[str]:
    """The command line of train.py."""
    files = [str(path.relative_to(ROOT)) for path in (run.dataset_file, run.config_file)]
    return [
        *("train.py", "--root", data, "--seed", str(run.seed), "--trainer", run.trainer),
        *("--dataset-config-file", files[0], "--config-file", files[1], "--output-dir", str(run.folder), *flags),
        *("DATASET.NUM_SHOTS", str(run.shots), "DATASET.SUBSAMPLE_CLASSES", run.classes, *run.options),
    ]


def launcher(n: int) -> list[str]:
    """What stands between python and train.py: torchrun, as the module that it is, if there are several processes."""
    return [] if n == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]


def replace_process(arguments: Sequence[str]) -> NoReturn:
    """Become `python ARGUMENTS` with the interpreter that the script chose."""
    python = os.environ.get("PYTHON") or sys.executable
    print(f"   command: {shlex.join([python, *arguments])}", flush=True)
    os.execvp(python, [python, *arguments])


if __name__ == "__main__":
    sys.exit(main())
