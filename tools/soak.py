"""Many short runs in one process, to see that none leaves anything behind: memory, files, threads, processes.

    python -m tools.soak --runs 200

Runs train, test, load with worker processes, keep features, are stopped by SIGTERM and continued, and fail, in turn, on
a few tiny pictures and a tiny random CLIP in a temporary folder. Counts are compared between the second and the last
quarter of the runs; exit code 1 says that something grew. Needs Linux's /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image

import train
from clip.model import CLIP, CLIPSpec
from dassl.engine import build_trainer
from dassl.utils.files import TEMPORARY
from tools.result_render import to_text

SPEC = CLIPSpec(
    embed_dim=16,
    image_resolution=16,
    vision_layers=1,
    vision_width=64,
    vision_patch_size=8,
    transformer_width=64,
    transformer_heads=1,
    transformer_layers=1,
)
CLASSES = ("red square", "green square", "blue square")
PROC = Path("/proc/self")
MIB_A_RUN = 0.1  # of growth that the allocator may show between the second and the last quarter


@dataclass(frozen=True)
class Held:
    """What the process holds after a run.

    Attributes:
        mib: memory of its own, in MiB, without mapped files.
        files: open descriptors.
        threads, children: of this process.
        temporary: files in the folder for temporary ones, in shared memory, and half-written ones of runs.
    """

    mib: float
    files: int
    threads: int
    children: int
    temporary: int


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="runs in all, at least one of each kind; default: 200")
    args = parser.parse_args(argv)
    try:
        held, seconds = soak(args.runs)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return report(held, seconds)


def soak(runs: int) -> tuple[list[Held], float]:
    """Do the runs; what was held after each, and the seconds of all.

    Raises:
        ValueError: too few runs to compare.
        RuntimeError: a run ended otherwise than it should, or there is no /proc.
    """
    if runs < 2 * len(KINDS):
        raise ValueError(f"--runs must be at least {2 * len(KINDS)}, got {runs}.")
    if not (PROC / "fd").is_dir():
        raise RuntimeError("Open files are counted in /proc, which this system does not have.")
    begin, held = time.monotonic(), []
    with scene() as folder:
        for number in range(runs):
            kind = list(KINDS)[number % len(KINDS)]
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code, expected = KINDS[kind](folder)
            if code != expected:
                raise RuntimeError(f"Run {number + 1} ({kind}) ended with {code} instead of {expected}: {tail(said)}")
            held.append(look(folder))
    return held, time.monotonic() - begin


def tail(said: io.StringIO) -> str:
    return " / ".join(said.getvalue().splitlines()[-3:])


@contextlib.contextmanager
def scene() -> Iterator[Path]:
    """A folder with pictures, weights, and a place for temporary files, which the process and its children use."""
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (folder / "tmp").mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
    try:
        torch.manual_seed(0)
        torch.save(CLIP(SPEC).state_dict(), folder / "clip.pt")
        for part, n in (("train", 4), ("test", 4)):
            for label, name in enumerate(CLASSES):
                (folder / "data" / part / name).mkdir(parents=True)
                for i in range(n):
                    pixels = np.random.default_rng([label, i, n]).integers(0, 200, (20, 20, 3), dtype=np.uint8)
                    pixels[..., label] += 50
                    Image.fromarray(pixels).save(folder / "data" / part / name / f"{i}.png")
        yield folder
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[1]
        shutil.rmtree(folder, ignore_errors=True)


def command(folder: Path, output: str, *opts: str, trainer: str = "CoOp", flags: Sequence[str] = ()) -> list[str]:
    """A command line for train.py: two epochs of two steps."""
    return [
        *("--root", str(folder / "data"), "--output-dir", str(folder / output), "--seed", "1", "--trainer", trainer),
        *("--backbone", str(folder / "clip.pt"), *flags),
        *("DATASET.NAME", "ImageFolder", "INPUT.SIZE", "(16, 16)", "INPUT.TRANSFORMS", "['random_flip', 'normalize']"),
        *("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DEVICE", "cpu"),
        *("OPTIM.MAX_EPOCH", "2", "OPTIM.NAME", "sgd", *opts),
    ]


def fresh(folder: Path, output: str, *opts: str, trainer: str = "CoOp") -> tuple[int, int]:
    """Train in a new folder; exit code, and the one it should be."""
    shutil.rmtree(folder / output, ignore_errors=True)
    return train.run(command(folder, output, *opts, trainer=trainer)), 0


def test(folder: Path) -> tuple[int, int]:
    shutil.rmtree(folder / "tested", ignore_errors=True)
    flags = ("--eval-only", "--model-dir", str(folder / "trained"), "--load-epoch", "2")
    return train.run(command(folder, "tested", flags=flags)), 0


def stopped(folder: Path) -> tuple[int, int]:
    """A run that gets SIGTERM in its second step."""
    shutil.rmtree(folder / "stopped", ignore_errors=True)
    cfg = train.setup_cfg(train.parse_args(command(folder, "stopped")))
    trainer = build_trainer(cfg)
    step = trainer.forward_backward

    def stop(batch: object) -> object:
        if trainer.batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    trainer.forward_backward = stop
    try:
        trainer.train()
    except SystemExit as end:
        return int(end.code or 0), 143
    return 0, 143


KINDS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "train": lambda folder: fresh(folder, "trained"),
    "test": test,
    "workers": lambda folder: fresh(folder, "workers", "DATALOADER.NUM_WORKERS", "2"),
    "keep features": lambda folder: fresh(folder, "cached", "DATALOADER.CACHE", str(folder / "cache")),
    "stopped": stopped,
    "continued": lambda folder: (train.run(command(folder, "stopped")), 0),
    "refused": lambda folder: (train.run(command(folder, "trained", "OPTIM.LR", "7.0")), 1),
    "Spotlighter": lambda folder: fresh(folder, "spotlighter", "TRAINER.SPOTLIGHTER.TOP_K", "2", trainer="Spotlighter"),
}


def look(folder: Path) -> Held:
    """What this process holds now."""
    gc.collect()
    status = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
    left = [path for path in folder.rglob("*") if TEMPORARY in path.name or path.parent.name == "tmp"]
    shared = Path("/dev/shm")
    left += [path for path in shared.glob("*") if str(os.getpid()) in path.name] if shared.is_dir() else []
    return Held(
        int(status["RssAnon"].split()[0]) / 1024,
        len(os.listdir(PROC / "fd")),
        int(status["Threads"]),
        len(children()),
        len(left),
    )


def children() -> list[int]:
    """Processes whose parent this one is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int(path.read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def report(held: list[Held], seconds: float) -> int:
    """Print what was held along the runs, and whether it grew; the exit code."""
    quarter = len(held) // 4
    early, late = held[quarter : 2 * quarter], held[-quarter:]
    picked = [0, *(round(i * (len(held) - 1) / 8) for i in range(1, 9))]
    rows = [[str(i + 1), f"{held[i].mib:.1f}", *map(str, astuple(held[i])[1:])] for i in picked]
    print(to_text(["after run", "MiB", "open files", "threads", "children", "temporary files"], rows, "table", 6))
    grown = min(h.mib for h in late) - min(h.mib for h in early)  # the allocator keeps a block more or less at times
    problems = [f"memory by {grown:.1f} MiB"] if grown > MIB_A_RUN * 0.625 * len(held) else []
    for field in fields(Held)[1:]:
        before, after = (max(getattr(h, field.name) for h in part) for part in (early, late))
        if after > before:
            problems.append(f"{field.name} from {before} to {after}")
    print(f"{len(held)} runs in {seconds:.0f} s; least memory of the second and the last quarter: {grown:+.1f} MiB")
    print(f"grown: {', '.join(problems)}" if problems else "nothing grew")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
