"""Compare SPT's starts of the prompts with VPT's: accuracy, convergence, nearness of prompts to patch tokens.

    python -m tools.compare_spt
    python -m tools.compare_spt linear 1 2 3 --shots 4
    python -m tools.compare_spt text 1 OPTIM.MAX_EPOCH 2 --output /tmp/try

`linear` is the setting of SPT's paper: a plain pretrained ViT under a linear head, trained and tested on the base
classes. `text` is SPT in CLIP: trained on the base classes, tested on them and on the new ones. There is one run of
train.py a strategy and seed; then the start of each run is made once more, to measure it. Finished runs and
measurements are skipped: give the same command again. Writes <part>.csv and spt.svg, prints markdown tables. Exit
status: 1 if a run failed, 3 if a folder holds a run with another config.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

import train
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from dassl.utils.files import write_json_file
from tools.ablate import ROOT, Run, execute, find_file, interrupt, split_arguments
from tools.run_reader import load_metrics
from tools.run_state import OtherConfig
from tools.spt_render import HEADINGS, STRATEGIES, Measured, draw, render_csv, render_table
from tools.sweep import at_least_one
from trainers.spt.nearness import mean_nearness, token_samples

SAMPLE = 1000  # patch tokens of a layer that prompts are compared with
CONFIGS = {"linear": "mini_vit8_ep10_linear", "text": "mini_vit8_ep5"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    parts = list(HEADINGS) if args.part == "all" else [args.part]
    try:
        seeds, options = split_arguments(args.rest)
        plan = {part: list(jobs(args, part, seeds, options)) for part in parts}
    except (ValueError, KeyError, OSError) as error:
        parser.error(str(error.args[0] if error.args else error))
    runs = {run.folder: run for listed in plan.values() for job in listed for run in job.runs}
    try:
        for run in runs.values():
            run.state()
    except OtherConfig as difference:
        print(f"error: {difference}", file=sys.stderr)
        return 3
    try:
        failed = execute(runs, args.jobs)
        todo = [job for listed in plan.values() for job in listed if not failed.keys() & {r.folder for r in job.runs}]
        for job in tqdm(todo, unit="start", desc="measure", dynamic_ncols=True, disable=None):
            with contextlib.redirect_stdout(io.StringIO()):  # what trainers say
                job.measure()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    measured = {part: [job.result() for job in listed if job in todo] for part, listed in plan.items()}
    show(measured, args.output)
    for folder, reason in failed.items():
        print(f"error: {folder}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("part", nargs="?", default="all", choices=[*HEADINGS, "all"], help="which setting (default: all)")
    add("rest", nargs="*", metavar="SEED … KEY VALUE …", help="seeds (default: 1 2 3), then entries for every run")
    add("--dataset", default="shapes", help="a name in configs/datasets (default: shapes)")
    add("--root", type=Path, default=Path("data"), help="folder that holds the data sets (default: data)")
    add("--output", type=Path, default=Path("output/spt"), help="folder of runs and results (default: output/spt)")
    add("--shots", type=int, default=4, help="training images a class (default: 4)")
    add("--jobs", type=at_least_one, default=1, help="runs side by side, which share the cores (default: 1)")
    return parser


class Job:
    """A strategy and a seed: a training run, under text also a test on the new classes, and a measurement."""

    def __init__(self, part: str, strategy: str, seed: int, runs: tuple[Run, ...]):
        self.part, self.strategy, self.seed, self.runs = part, strategy, seed, runs
        self.file = runs[0].folder / "nearness.json"

    def measure(self) -> None:
        """Make the run's start once more; compare it, and what was trained from it, with the images' patch tokens."""
        trained = load_metrics(self.runs[0].folder / "metrics.json")["started"]
        if self.file.is_file() and json.loads(self.file.read_text(encoding="utf-8"))["of"] == trained:
            return
        trainer = trainer_of(self.runs[0])
        method = trainer.method

        def images() -> Iterator[Any]:
            return (images for images, _ in trainer.plain_images("start", "first look"))

        prompts = method.prompt_rows()
        samples = token_samples(method.tower, images(), len(prompts), SAMPLE, self.seed)
        method.before_training(images)
        before, start = mean_nearness(prompts, samples), {}
        if self.part == "text":
            start = {"base": accuracy(trainer)}
            new = trainer_of(self.runs[1])
            new.method.load_state_dict(method.state_dict())
            start["new"] = accuracy(new)
        trainer.load_model(str(self.runs[0].folder), epoch=self.runs[-1].epoch())
        after = mean_nearness(prompts, samples)
        found = {"of": trained, "before": asdict(before), "after": asdict(after), "accuracy_before": start}
        write_json_file(self.file, found)

    def result(self) -> Measured:
        records = [load_metrics(run.folder / "metrics.json") for run in self.runs]
        accuracies = [record["final"]["metrics"]["accuracy"] for record in records]
        curve = [row["val"]["accuracy"] for row in records[0]["epochs"] if row["val"]]
        near = json.loads(self.file.read_text(encoding="utf-8"))
        return Measured(
            self.strategy,
            self.seed,
            dict(zip(("base", "new"), accuracies, strict=False)),
            near["accuracy_before"],
            near["before"],
            near["after"],
            curve,
        )


def jobs(args: argparse.Namespace, part: str, seeds: Sequence[int], options: Sequence[str]) -> Iterator[Job]:
    """All strategies and seeds of a part."""
    for strategy in STRATEGIES:
        for seed in seeds:
            folder = args.output / part / strategy / "train_base" / f"seed{seed}"
            keys = ["TEST.FINAL_MODEL", "best_val"] if part == "linear" else []
            keys += ["TRAINER.SPT.STRATEGY", strategy, *options]
            base = Run(folder, arguments(args, part, folder, seed, "base", keys))
            if part == "linear":
                yield Job(part, strategy, seed, (base,))
                continue
            folder = args.output / part / strategy / "test_new" / f"seed{seed}"
            new = Run(folder, arguments(args, part, folder, seed, "new", keys), base.folder)
            yield Job(part, strategy, seed, (base, new))


def arguments(
    args: argparse.Namespace, part: str, folder: Path, seed: int, classes: str, keys: Sequence[str]
) -> tuple[str, ...]:
    """The command line of a run, without what is to be tested."""
    data = find_file(args.dataset, ROOT / "configs/datasets")
    config = find_file(CONFIGS[part], ROOT / "configs/trainers/SPT")
    return (
        *("--root", str(args.root), "--seed", str(seed), "--trainer", "SPT", "--output-dir", str(folder)),
        *("--dataset-config-file", str(data), "--config-file", str(config)),
        *("DATASET.NUM_SHOTS", str(args.shots), "DATASET.SUBSAMPLE_CLASSES", classes, *keys),
    )


def trainer_of(run: Run) -> Any:
    """The trainer that train.py would build for a run, before anything is trained."""
    cfg = train.setup_cfg(train.parse_args(list(run.argv)))
    set_random_seed(cfg.SEED)
    return build_trainer(cfg)


def accuracy(trainer: Any) -> float:
    """Of the test images, in percent; unlike `test` it leaves no record."""
    trainer.set_model_mode("eval")
    trainer.evaluator.reset()
    for batch in trainer.test_loader:
        images, label = trainer.parse_batch_test(batch)
        trainer.evaluator.process(trainer.model_inference(images), label)
    return trainer.evaluator.evaluate()["accuracy"]


def show(measured: dict[str, list[Measured]], output: Path) -> None:
    """Write CSVs and the figure of the linear part, and print tables."""
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    for part, results in measured.items():
        if results:
            paths.append(output / f"{part}.csv")
            paths[-1].write_text(render_csv(results) + "\n", encoding="utf-8")
            print(f"\n{HEADINGS[part]}\n\n{render_table(results)}")
    if measured.get("linear"):
        paths.append(draw(measured["linear"], output / "spt.svg"))
    print(f"\n{', '.join(map(str, paths))}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)  # so that no run stays behind
    sys.exit(main())
