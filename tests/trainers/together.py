"""Runs of train.py in two processes, in one start: `torchrun … together.py JOBS`, a JSON list of jobs.

A job is `[argv, step]`; in that step, unless it is null, the second process is asked to stop. `JOBS.ends` then holds
how each job ended, for both processes.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

import tests.conftest  # noqa: F401  registers the toy data set
import train
from dassl import distributed


def stopping_at(build, step):
    """A trainer of which the second process is sent SIGTERM in a step."""

    def built(cfg):
        trainer = build(cfg)
        forward, done = trainer.forward_backward, []

        def watched(batch):
            if (distributed.rank(), len(done)) == (1, step):
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(None)
            return forward(batch)

        trainer.forward_backward = watched
        return trainer

    return built


def main():
    torch.set_num_threads(1)
    distributed.start()
    ends, build = [], train.build_trainer
    for argv, step in json.loads(Path(sys.argv[1]).read_text()):
        train.build_trainer = stopping_at(build, step)
        try:
            train.main(train.parse_args(argv))
            end = 0
        except SystemExit as stop:
            end = stop.code
        except (ValueError, RuntimeError) as error:
            sys.exit(distributed.fail(f"Error: {error}"))
        ends.append(distributed.gather_plain(end))
    if distributed.is_main():
        Path(f"{sys.argv[1]}.ends").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
