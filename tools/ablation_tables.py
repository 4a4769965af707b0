"""The ablations: which entries of TRAINER.SPOTLIGHTER each row changes. Data only.

What the paper prints for a row is in docs/published, under the row's name as `variant`. Its complete method has there
the figures of PromptKD with Spotlighter in Table I, so that is the host they were measured on; this repository's rows
take the host of their config. The paper gives no numbers for its figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clip.pruning import WAYS

ALL_LOSSES = ("ce_level1", "ce_level2", "text", "kl", "local")


@dataclass(frozen=True)
class Row:
    """One line of a table: its name and the keys below TRAINER.SPOTLIGHTER that it sets."""

    label: str
    keys: dict[str, Any]
    x: float | None = None  # the value on the axis of a figure


@dataclass(frozen=True)
class Table:
    """Rows to compare. A row whose keys have the config's own values is the default run, which all tables share."""

    name: str
    title: str
    rows: tuple[Row, ...]
    source: str = ""  # table or figure of the paper; "" if the comparison is ours
    inference_only: bool = False  # its rows test the default's trained model, nothing else is trained
    axis: str = ""  # of a figure over numbers


def _sweep(name: str, title: str, key: str, values: tuple[float, ...], source: str) -> Table:
    rows = tuple(Row(f"{key} {value:g}", {key: value}, x=value) for value in values)
    return Table(name, title, rows, source, axis=title)


def _without(label: str, *names: str) -> Row:
    return Row(label, {"LOSSES": [name for name in ALL_LOSSES if name not in names]})


def _pruned(by: str, *points: tuple[int, float]) -> Row:
    shares = ", ".join(f"{share:.0%} after block {block}" for block, share in points)
    return Row(f"{by}: {shares}", {"PRUNE": [list(point) for point in points], "PRUNE_BY": by})


TABLES = {
    table.name: table
    for table in (
        Table(
            "losses",
            "Losses beside the cross-entropy",
            (  # the check marks of row 4 are damaged in the text of the paper: the only term no other row leaves out
                _without("cross-entropy alone", *ALL_LOSSES),
                _without("without both levels", "ce_level1", "ce_level2"),
                _without("without visual KL", "kl"),
                _without("without text L1", "text"),
                _without("without level 1 (high)", "ce_level1"),
                _without("without level 2 (low)", "ce_level2"),
                _without("all"),
            ),
            "Table V",
        ),
        Table(
            "levels",
            "Levels used in inference",
            (
                Row("level 1", {"LEVELS": "level1"}),
                Row("level 2", {"LEVELS": "level2"}),
                Row("both", {"LEVELS": "both"}),
            ),
            "Table VI",
            inference_only=True,
        ),
        Table(
            "semantic",
            "Semantic-wise activation",
            (
                Row("without", {"SEMANTIC": False}),
                Row("with", {"SEMANTIC": True}),
            ),
            "Table VIII",
        ),
        Table(
            "mapping",
            "Mapping modules, image + text",
            (
                Row("linear + linear", {"IRM": "linear", "TRM": "linear"}),
                Row("transformer + transformer", {"IRM": "transformer", "TRM": "transformer"}),
                Row("transformer + linear", {"IRM": "transformer", "TRM": "linear"}),
            ),
            "Table XI",
        ),
        Table(
            "recalculation",
            "Scores taken again with the updated bank",
            (
                Row("without", {"RECALCULATE": False}),
                Row("with", {"RECALCULATE": True}),
            ),
            "Table XII",
        ),
        _sweep("k", "Activated tokens k", "TOP_K", (1, 3, 5, 7, 9), "Figure 4"),
        _sweep("alpha", "Fusion coefficient α", "ALPHA", (0.0, 0.1, 0.2, 0.4, 0.8), "Figure 5a"),
        _sweep("beta", "Momentum β", "MOMENTUM", (0.2, 0.5, 0.8, 0.95), "Figure 5b"),
        _sweep("lambda1", "λ1, weight of both levels' cross-entropies", "LAMBDA1", (0.0, 0.02, 0.2, 2.0), "Figure 6"),
        _sweep("lambda2", "λ2, weight of the text L1", "LAMBDA2", (0.0, 0.1, 1.0, 5.0, 20.0), "Figure 6"),
        _sweep("lambda3", "λ3, weight of KL and local", "LAMBDA3", (0.0, 0.01, 0.1, 1.0, 10.0), "Figure 6"),
        Table(
            "score",
            "Sample-wise score",
            (
                Row("mean over classes", {"SAMPLE_SCORE": "mean"}),
                Row("max over classes", {"SAMPLE_SCORE": "max"}),
                Row("class-token attention", {"SAMPLE_SCORE": "attention"}),
            ),
        ),
        Table(
            "local",
            "Local loss, Eq. (7)",
            (
                Row("left out", {"LOSSES": ["ce_level1", "ce_level2", "text", "kl"]}),
                Row("cosines, as printed", {"LOCAL_SCALED": False}),
                Row("cosines times logit scale", {"LOCAL_SCALED": True}),
            ),
        ),
        Table(
            "bank",
            "Memory bank: start, update",
            (
                Row("k-means, mean", {"BANK_INIT": "kmeans", "BANK_UPDATE": "mean"}),
                Row("random, mean", {"BANK_INIT": "random", "BANK_UPDATE": "mean"}),
                Row("k-means, sum", {"BANK_INIT": "kmeans", "BANK_UPDATE": "sum"}),
                Row("random, sum", {"BANK_INIT": "random", "BANK_UPDATE": "sum"}),
            ),
        ),
        Table(
            "gate",
            "Share ρ of the representative image tokens",
            (
                Row("learned from 0.01", {"GATE": "learned", "RHO": 0.01}),
                Row("fixed 0.01", {"GATE": "fixed", "RHO": 0.01}),
                Row("fixed 0.1", {"GATE": "fixed", "RHO": 0.1}),
            ),
        ),
        Table(
            "modules",
            "Mapping modules left out",
            (
                Row("both modules", {"IRM": "transformer", "TRM": "linear"}),
                Row("without IRM", {"IRM": "none", "TRM": "linear"}),
                Row("without TRM", {"IRM": "transformer", "TRM": "none"}),
                Row("neither", {"IRM": "none", "TRM": "none"}),
            ),
        ),
        Table(
            "prune",
            "Pruning inside the image tower, in inference",
            (  # blocks of Mini-ViT/8, which has four
                Row("none", {"PRUNE": [], "PRUNE_BY": "distinct"}),
                *(_pruned(by, (block, share)) for by in WAYS for block in (3, 2, 1) for share in (0.7, 0.5)),
                *(_pruned(by, (1, 0.7), (2, 0.7)) for by in WAYS),
                _pruned("distinct", (1, 0.4)),
                _pruned("distinct", (1, 0.3)),
                _pruned("distinct", (1, 0.5), (2, 0.7)),
                _pruned("merge", (1, 0.6)),
                _pruned("merge", (1, 0.8), (2, 0.8), (3, 0.8)),
            ),
            inference_only=True,
        ),
        Table(
            "prune_train",
            "Pruning inside the image tower, in training, too",
            (
                Row("none", {"PRUNE": [], "PRUNE_BY": "distinct", "PRUNE_TRAIN": False}),
                *(
                    Row(row.label, {**row.keys, "PRUNE_TRAIN": True})
                    for row in (
                        _pruned("distinct", (1, 0.5)),
                        _pruned("distinct", (1, 0.3)),
                        _pruned("attention", (1, 0.7)),
                        _pruned("merge", (1, 0.7), (2, 0.7)),
                    )
                ),
            ),
        ),
    )
}
