"""Take Spotlighter's head away at inference: what it changes in the predictions of models that were trained with it.

    python -m tools.head_effect shapes                                  # all hosts of scripts/spotlighter, seeds 1 2 3
    python -m tools.head_effect shapes --hosts CoOp MaPLe --seeds 1

For each trained base-to-new run, the test pictures of the base and of the new classes are classified twice by the same
weights: by the host alone, and by the host with the head. The table has both accuracies, the share of predictions that
differ, and of these, how many became right and how many wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import train
from dassl.engine import build_trainer
from tools.protocols import ProtocolError, Run, method_files
from tools.result_render import to_text
from tools.run_protocol import command, teacher_options
from tools.run_reader import RunProblem, load_metrics
from tools.run_state import trained_epoch
from trainers.spotlighter.method import SpotlighterMethod

USUAL = "CoOp"  # the host of the configs that name none
PARTS = {"base": "base2new_train", "new": "base2new_test"}


@dataclass
class Effect:
    """Counts over test pictures, added up over seeds."""

    pictures: int = 0
    host_right: int = 0
    head_right: int = 0
    changed: int = 0
    mended: int = 0  # wrong by the host alone, right with the head
    spoilt: int = 0

    def add(self, alone: torch.Tensor, headed: torch.Tensor, label: torch.Tensor) -> None:
        """Take in predictions of both, [B] each."""
        before, after = alone == label, headed == label
        self.pictures += len(label)
        self.host_right += int(before.sum())
        self.head_right += int(after.sum())
        self.changed += int((alone != headed).sum())
        self.mended += int((~before & after).sum())
        self.spoilt += int((before & ~after).sum())

    def row(self) -> list[str]:
        def share(count: int) -> str:
            return f"{100 * count / self.pictures:.2f}"

        return [share(n) for n in (self.host_right, self.head_right, self.changed, self.mended, self.spoilt)]


def measure(run: Run, data: str, effect: Effect) -> None:
    """Classify the test pictures of one run.

    Raises:
        ProtocolError, RunProblem: the model is not trained.
    """
    model = run.model or run
    epoch = trained_epoch(load_metrics(model.folder / "metrics.json"))
    _, *argv = command(replace(run, options=(*teacher_options(run), "VERBOSE", "False")), data, ["--eval-only"])
    trainer = build_trainer(train.setup_cfg(train.parse_args(argv)))
    trainer.load_model(model.folder, epoch)
    trainer.set_model_mode("eval")
    method = trainer.method
    assert isinstance(method, SpotlighterMethod)
    for batch in trainer.test_loader:
        images, label = trainer.parse_batch_test(batch)
        with torch.no_grad(), trainer.precision.autocast():
            alone, headed = (m(images, trainer.test_space).argmax(dim=1) for m in (method.host, method))
        effect.add(alone, headed, label)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", help="stem of a file in configs/datasets")
    add("--hosts", nargs="+", default=[USUAL, *method_files("spotlighter").hosts], help="default: all with scripts")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    add("--root", default="data", help="data sets (default: data)")
    add("--output", default="output", help="the scripts' folder of runs (default: output)")
    add("--format", default="table", choices=["table", "markdown", "csv"], help="default: table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    rows = []
    try:
        for host in args.hosts:
            for part, protocol in PARTS.items():
                effect = Effect()
                for seed in args.seeds:
                    around = "" if host == USUAL else host
                    run = Run(protocol, "spotlighter", args.dataset, seed, host=around, output=args.output)
                    measure(run.resolved(), args.root, effect)
                rows.append([host, part, *effect.row()])
    except (ProtocolError, RunProblem, ValueError, RuntimeError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    titles = ["Host", "Classes", "Host alone", "With head", "Changed", "Became right", "Became wrong"]
    print(to_text(titles, rows, args.format, 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
