"""What tools/compare_spt.py measured, as CSV, markdown and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from tools.result_render import to_csv, to_text
from tools.result_stats import harmonic_mean, summarise

STRATEGIES = {
    "normal": "VPT: N(0, 0.02²)",
    "random": "random",
    "mean": "mean-pool",
    "max": "max-pool",
    "kmeans": "k-means",
}
COLOURS = {"normal": "#333333", "random": "#3b6fb5", "mean": "#d9822b", "max": "#3f8f5b", "kmeans": "#8a5bb5"}
HEADINGS = {
    "linear": "Linear head on the base classes, test accuracy of the best validation epoch",
    "text": "CLIP, trained on the base classes",
}
METRICS = {"cosine": "mean cosine", "nearest": "cosine to the nearest token", "mmd": "MMD²"}


@dataclass(frozen=True)
class Measured:
    """One strategy and seed."""

    strategy: str
    seed: int
    accuracy: dict[str, float]  # "base", and under text also "new", in percent
    accuracy_before: dict[str, float]  # the same before training; {} with a linear head
    before: dict[str, float]  # nearness by the names of METRICS
    after: dict[str, float]
    curve: list[float]  # validation accuracy after each epoch; [] under text

    def record(self) -> dict[str, Any]:
        base, new = self.accuracy["base"], self.accuracy.get("new")
        return {
            "strategy": self.strategy,
            "seed": self.seed,
            "base": base,
            "new": new,
            "hm": None if new is None else harmonic_mean(base, new),
            "base_before": self.accuracy_before.get("base"),
            "new_before": self.accuracy_before.get("new"),
            **{f"{name}_before": self.before[name] for name in METRICS},
            **{f"{name}_after": self.after[name] for name in METRICS},
            "validation": self.curve,
        }


def render_csv(results: Sequence[Measured]) -> str:
    """One line a run, at full precision."""
    return to_csv([result.record() for result in results])


def by_strategy(results: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Runs of each strategy that has some, in the order of STRATEGIES."""
    grouped = {name: [r for r in results if r.strategy == name] for name in STRATEGIES}
    return {name: runs for name, runs in grouped.items() if runs}


def render_table(results: Sequence[Measured]) -> str:
    """Means and population standard deviations over seeds, as markdown; HM is that of the means."""
    has_new = any("new" in result.accuracy for result in results)
    titles = ["Start", "Seeds", "Base", *(["New", "HM", "Base, New untrained"] if has_new else ["Validation, epoch 3"])]
    titles += [f"{name}: start → end" for name in METRICS.values()]
    lines = []
    for name, runs in by_strategy(results).items():
        base = summarise([run.accuracy["base"] for run in runs])
        line = [STRATEGIES[name], " ".join(str(run.seed) for run in runs), str(base)]
        if has_new:
            new = summarise([run.accuracy["new"] for run in runs])
            untrained = [summarise([run.accuracy_before[part] for run in runs]).mean for part in ("base", "new")]
            line += [str(new), f"{harmonic_mean(base.mean, new.mean):.2f}", ", ".join(f"{x:.2f}" for x in untrained)]
        else:
            line.append(str(summarise([run.curve[:3][-1] for run in runs])))
        for metric in METRICS:
            moves = [summarise([values[metric] for values in part]).mean for part in both_ends(runs)]
            line.append(" → ".join(f"{x:.3f}" for x in moves))
        lines.append(line)
    return to_text(titles, lines, "markdown", 2)


def both_ends(runs: Sequence[Measured]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Nearness of all runs before training, and after it."""
    return [run.before for run in runs], [run.after for run in runs]


def draw(results: Sequence[Measured], path: Path) -> Path:
    """Validation accuracy by epoch, its range over seeds shaded; beside it MMD² before and after training."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "spt"  # the same file for the same results
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), width_ratios=[3, 2])
    grouped = by_strategy(results)
    for place, (name, runs) in enumerate(grouped.items()):
        n_epochs = min(len(run.curve) for run in runs)
        epochs = range(1, n_epochs + 1)
        values = [[run.curve[i] for run in runs] for i in range(n_epochs)]
        left.plot(epochs, [summarise(v).mean for v in values], color=COLOURS[name], label=STRATEGIES[name])
        left.fill_between(epochs, [min(v) for v in values], [max(v) for v in values], color=COLOURS[name], alpha=0.12)
        for run in runs:
            right.plot(run.before["mmd"], place, "o", color=COLOURS[name], fillstyle="none")
            right.plot(run.after["mmd"], place, "o", color=COLOURS[name])
    left.set_xlabel("epoch")
    left.set_ylabel("validation accuracy in %")
    left.legend(frameon=False, fontsize=8)
    left.grid(alpha=0.3)
    right.set_yticks(range(len(grouped)), [STRATEGIES[name] for name in grouped])
    right.invert_yaxis()
    right.set_xlabel("MMD² of prompts and patch tokens\nopen: at the start, full: trained")
    right.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
