"""What two processes do together, in one start of torchrun: `torchrun … together.py PICTURES OUTPUT SCENE [SCENE ...]`.

Each scene is a function of this file; what it returns is written, for both processes, to `OUTPUT/<scene>.json`. A scene
may end the processes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

import toy_runs

from dassl import distributed
from dassl.engine import TRAINER_REGISTRY, run_lock
from dassl.evaluation.build import EVALUATOR_REGISTRY

PICTURES, OUTPUT = Path(sys.argv[1]), Path(sys.argv[2])


def toy(output, **changes):
    return plain(toy_runs.toy_trainer(PICTURES, OUTPUT / output, **changes))


def plain(trainer):
    """Without dropout, whose random numbers are drawn for each image."""
    trainer.model[1].p = 0.0
    return trainer


def outcome_of(call):
    """How a call ends."""
    try:
        return call()
    except (ValueError, RuntimeError) as error:
        return str(error)
    except SystemExit as stop:
        return stop.code


def on_one(rank, step, act):
    """Does something in one process, in one step."""
    return lambda now: act() if (distributed.rank(), now) == (rank, step) else None


def collectives():
    rank = distributed.rank()
    turns = OUTPUT / "turns"
    with distributed.in_turn():
        first = not turns.exists()
        turns.touch()
    x = torch.tensor([1.0 + rank, 5.0], requires_grad=True)
    total = distributed.sum_with_gradient(x)
    (total * torch.tensor([10.0 ** (rank + 1), 1.0])).sum().backward()
    floats, counts = distributed.sum_all(torch.full((2, 2), 0.5 + rank), torch.tensor([3]))
    vote = distributed.Vote(rank, 1 - rank, 0)
    return {
        "first in turn": first,
        "sum": total.tolist(),
        "gradient of the sum": x.grad.tolist(),
        "sums": [floats.tolist(), counts.tolist(), str(counts.dtype)],
        "max": distributed.max_all(torch.tensor([rank, -rank])).tolist(),
        "any": [distributed.any_of(rank == 1), distributed.any_of(False)],
        "vote": vote.result(),
        "main's": distributed.from_main(torch.tensor([7.0 - rank])).tolist(),
        "plain": distributed.gather_plain({"rank": rank, "text": "ä" * rank}),
        "rows": distributed.gather_rows([torch.full((2, 1), rank), torch.full((1, 1), 9)]).tolist(),
        "rows of one": distributed.gather_rows([torch.ones(2, 3)] if rank else []).tolist(),
        "differing": distributed.differing({"a": torch.ones(2), "empty": torch.ones(0), "b": torch.ones(2) + rank}),
        "share of 5": [distributed.share(5).start, distributed.share(5).stop],
        "terminal": [sys.stderr.isatty(), sys.stdout.name],
    }


def trained():
    """15 images in batches of 5, which are 2 here and 3 there; the best of 4 epochs is tested."""
    settings = {"TEST__FINAL_MODEL": "best_val", "TEST__COMPUTE_CMAT": True, "TEST__PER_CLASS_RESULT": True}
    trainer = toy("trained", **settings)
    trainer.train()
    assert distributed.differing(dict(trainer.model.state_dict())) is None
    toy("trained", **settings).train()  # once more: it is finished
    return float(torch.rand(()))  # the generators of both are alike


def two_loaders():
    settings = {"DATALOADER__TRAIN_X__BATCH_SIZE": 4, "TRAIN__COUNT_ITER": "smaller_one"}
    toy("two_loaders", TRAINER__NAME="LinearXU", **settings).train()


def refused():
    class Scattered(toy_runs.LinearX):
        def forward_backward(self, batch):
            image, label, _ = self.parse_batch_train(batch)
            loss = F.cross_entropy(self.model(image), label)
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()  # not model_update

    class Alone:
        def __init__(self, cfg, **kwargs):
            pass

    TRAINER_REGISTRY.register()(Scattered)
    EVALUATOR_REGISTRY.register()(Alone)

    def other_weights():
        trainer = toy("refused")
        nn.init.constant_(trainer.model[2].bias, float(distributed.rank()))
        trainer.train()

    def other_data():
        trainer = toy("refused")
        del trainer.dm.dataset.train_x[distributed.rank() :]
        trainer.train()

    def other_folder():  # the second one holds a run that has begun
        toy("refused" if distributed.is_main() else "begun").train()

    def in_use():  # by another program, which the first process starts and ends
        folder, holder = OUTPUT / "in use", None
        if distributed.is_main():
            folder.mkdir()
            code = "import sys, filelock as f; a = f.FileLock(sys.argv[1]); a.acquire(); print(flush=True); input()"
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            holder = subprocess.Popen([sys.executable, "-c", code, str(folder / run_lock.FILE)], **pipes)
            holder.stdout.readline()
        try:
            toy("in use").train()
        finally:
            if holder is not None:
                holder.communicate(b"\n")

    return {
        "small batch": outcome_of(toy("refused", DATALOADER__TRAIN_X__BATCH_SIZE=1).train),
        "other shares": outcome_of(toy("refused", TRAINER__NAME="LinearXU").train),
        "evaluator": outcome_of(lambda: toy("refused", TEST__EVALUATOR="Alone")),
        "own step": outcome_of(toy("refused", TRAINER__NAME="Scattered").train),
        "other weights": outcome_of(other_weights),
        "other data": outcome_of(other_data),
        "other folder": outcome_of(other_folder),
        "in use": outcome_of(in_use),
    }


def stopped():
    """SIGTERM to the second process in its step 4, in the validation, and between the epochs; others go on."""
    ends = {}
    for name, step in (("in a step", 4), ("in the last step", 11)):
        trainer = toy(f"stopped {name}")
        trainer.interrupt = on_one(1, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        ends[name] = outcome_of(trainer.train)
    trainer = toy("stopped in the validation", TEST__FINAL_MODEL="best_val")
    infer = trainer.model_inference

    def stop_and_infer(input):
        if distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return infer(input)

    trainer.model_inference = stop_and_infer
    ends["in the validation"] = outcome_of(trainer.train)
    return ends


def saved():
    """It is time to save in the second process only, after its steps 1 and 4."""
    trainer = toy("saved", TRAIN__CHECKPOINT_SECONDS=1e9)
    points = []
    save = trainer._save_point
    trainer._save_point = lambda epoch, batch, *rng: (points.append([epoch, batch]), save(epoch, batch, *rng))
    for step in (1, 4):
        trainer.interrupt = on_one(1, step, lambda: setattr(trainer, "_saved_at", -1e10))
    trainer.train()
    return points


def resumed():
    """What one process has begun."""
    toy("begun").train()


def damaged():
    trainer = toy("damaged", DATASET__ROOT=str(OUTPUT / "data"), INPUT__ON_ERROR="replace")
    trainer.train()
    return trainer.train_loader_x.state_dict()


def broken():
    """Ends: an error in the second process only."""

    def error():
        raise FloatingPointError("Loss is infinite or NaN in a process.")

    trainer = toy("broken")
    trainer.interrupt = on_one(1, 4, error)
    trainer.train()


def bug():
    """Ends: an error that nobody expects, in the first process."""
    if distributed.is_main():
        raise IndexError("a bug")
    distributed.barrier()


def killed():
    """Ends: the second process is killed, as for want of memory."""
    trainer = toy("killed")
    trainer.interrupt = on_one(1, 4, lambda: os.kill(os.getpid(), signal.SIGKILL))
    trainer.train()


def main():
    torch.set_num_threads(1)
    distributed.start()
    for scene in sys.argv[3:]:
        try:
            results = distributed.gather_plain(globals()[scene]())
        except (RuntimeError, FloatingPointError) as error:
            sys.exit(distributed.fail(f"Error: {error}"))
        if distributed.is_main():
            (OUTPUT / f"{scene}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
