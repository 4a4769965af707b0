"""What the tests of the paper's tables share."""

from tools.paper_series import Context
from tools.result_published import Published, PublishedFigures
from tools.result_runs import collect

SPOTLIGHTER = {"trainer": "Spotlighter", "host": "CoOp", "config": "vit_b16_ep15_paper"}
ZEROSHOT = {"trainer": "ZeroshotCLIP", "config": "vit_b16"}
BACKBONE = "Mini-ViT/8"  # of the hand-written runs
NOTHING_TRAINED = {"parameters": {"trainable_tensors": 0, "trainable_scalars": 0}, "mode": "eval"}


def context(root, figures=(), **choices):
    return Context(collect(root), PublishedFigures(figures), **choices)


def printed(value, metric, method="CoOp", dataset="dtd", protocol="base2new", shots="16", note="", backbone=BACKBONE):
    return Published("I", protocol, method, "", dataset, metric, shots, value, "%", backbone, "a paper", note)


def line_of(table, method, dataset, shots=16):
    (line,) = [x for x in table.lines if (x.method, x.dataset, x.shots) == (method, dataset, shots)]
    return line


def values(line, *keys):
    return tuple(line.cells[key].value for key in keys)
