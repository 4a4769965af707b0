"""What the tests of dry runs share."""

import os
import re
import signal

import pytest


def sections(out):
    """The report as title → [(what, value), …]."""
    found = {}
    for block in re.split(r"\n\n", out.strip("\n"))[1:]:
        title, *lines = block.splitlines()
        found[title] = [tuple(re.split(r"  +", line.strip(), maxsplit=1)) for line in lines]
    return found


def files_below(folder):
    """Paths and times of change of everything in a folder."""
    return {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def dry(run_trainer):
    """A dry run on the toy data: dry(KEY, value, …, flags=…); gives exit status, sections, stdout and stderr."""

    def go(*opts, flags=(), **kwargs):
        code, out, err = run_trainer(*opts, flags=("--dry-run", *flags), **kwargs)
        return code, sections(out), out, err

    return go


@pytest.fixture
def refused(dry):
    """The one sentence that a dry run ends with."""

    def go(*opts, **kwargs):
        code, _, _, err = dry(*opts, **kwargs)
        assert code == 1
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert "Traceback" not in err
        return line.removeprefix("Error: ")

    return go


@pytest.fixture
def interrupted(trainer_of):
    """Train, and stop by a signal in a step, counted from 0."""

    def go(*opts, step, **kwargs):
        trainer = trainer_of(*opts, **kwargs)
        forward, done = trainer.forward_backward, []

        def watched(batch):
            if len(done) == step:
                signal.raise_signal(signal.SIGTERM)
            done.append(None)
            return forward(batch)

        trainer.forward_backward = watched
        with pytest.raises(SystemExit):
            trainer.train()

    return go
