"""Check the `release` head against golden numbers of the authors' code: losses, logits, bank, gradients.

    python tools/check_release.py tests/golden/release_head.json

The file gives sizes and a seed; inputs and weights are drawn from one NumPy generator, in the order of `draw_case`.
The class that training uses then runs one training step and one evaluation with the written bank, without dropout. One
line a quantity, its error relative to the largest magnitude of the quantity. Three kinds are absolute: a gradient that
the file gives as 0, that of a bias in front of a batch norm (rounding noise on both sides), and the count of moved
prototypes, which must be equal. Exit status 1 if any error is above its bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip.layers import ResidualAttentionBlock
from dassl.utils import read_json
from tools.golden_inputs import draw
from trainers.method import StepOutput
from trainers.spotlighter.interface import HeadInput
from trainers.spotlighter.release import ReleaseHead

MODULES = {  # name in the file, that of the released checkpoints: name in ReleaseHead
    "conv1.0": "adapter.0",
    "conv1.1": "adapter.1",
    "conv1.3": "adapter.3",
    "mutitransformer.query": "image_read.query",
    "mutitransformer.key": "image_read.key",
    "mutitransformer.value": "image_read.value",
    "mutitransformer.out": "image_read.out",
    "extractor": "text_fuse",
}
GRADIENTS = [f"{name}.{kind}" for name in MODULES for kind in ("weight", "bias")][:-1]  # the last has no bias
LOSSES = ["total", "global_ce", "local_ce", "level1_ce", "level2_ce", "text_l1", "image_l1"]
SECTIONS = {"losses": LOSSES, "bank_after": ["sum", "rows_changed", "first_3x8"], "grad_norms": GRADIENTS}
NOISE = 1e-5  # bound of what is 0 in exact arithmetic
MOVED = 1e-5  # a unit row that was written moves by far more, one that was only normalised again by far less


def golden_quantities(data: dict[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of the file by name, as "losses.total".

    Raises:
        ValueError: a section does not hold exactly the names of SECTIONS, or something is no number.
    """
    found: dict[str, Any] = {name: data[name] for name in ("train_logits", "eval_logits")}
    for section, names in SECTIONS.items():
        fields = dict(data[section])
        if set(fields) != set(names):
            raise ValueError(f"'{section}' must hold {', '.join(names)}; it holds {', '.join(map(str, fields))}")
        found.update({f"{section}.{name}": value for name, value in fields.items()})
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def draw_case(data: dict[str, Any]) -> tuple[ReleaseHead, HeadInput]:
    """Head and inputs of the file; the order of drawing is part of the recipe.

    Raises:
        ValueError: sizes or labels are impossible.
    """
    B, N, C, M, d = (int(data[key]) for key in ("B", "N", "C", "M", "d"))
    label = torch.tensor(data["labels"])
    if label.shape != (B,) or label.is_floating_point() or not 0 <= int(label.min()) <= int(label.max()) < C:
        raise ValueError(f"'labels' must be {B} whole numbers from 0 to {C - 1}, got {data['labels']}")
    generator = np.random.default_rng(data["seed"])
    tokens = draw(generator, (B, 1 + N, d), 1.0)
    text = F.normalize(draw(generator, (C, d), 1.0), dim=-1)
    attention = draw(generator, (B, N), 1.0).softmax(dim=-1)
    state = {"prototypes": F.normalize(draw(generator, (M, d), 1.0).abs(), dim=-1)}
    for name in MODULES.values():
        width = 2 * d if name == "text_fuse" else d
        if name == "adapter.1":  # batch norm
            state[f"{name}.weight"] = draw(generator, (d,), 0.1, 1.0)
        else:
            state[f"{name}.weight"] = draw(generator, (d, width), width**-0.5)
        if name != "text_fuse":
            state[f"{name}.bias"] = draw(generator, (d,), 0.1 if name == "adapter.1" else 0.01)

    options: dict[str, Any] = {key: float(data[key]) for key in ("alpha", "momentum", "balance", "distill")}
    # heads only say what dropout drops together; any divisor of the width computes the same here
    head = ReleaseHead(d, n_prototypes=M, heads=math.gcd(d, 8), **options)
    head.load_state_dict(state)
    head.image_read.dropout.p = 0.0
    if head.top_k >= N:
        raise ValueError(f"'N' must be above {head.top_k}, got {N}")
    given = HeadInput(
        text=text.requires_grad_(),
        image=F.normalize(tokens[:, 0], dim=-1),
        scale=torch.tensor(float(data["logit_scale"])),
        block=ResidualAttentionBlock(1, 1),  # neither this
        view=nn.Identity(),  # nor this is used by the release
        tokens=tokens,
        attention=attention,
        label=label,
    )
    return head, given


def recompute(head: ReleaseHead, given: HeadInput) -> dict[str, Any]:
    """One training step without an update of the parameters, then evaluation; names as in `golden_quantities`."""
    before = head.prototypes.clone()
    out = head.train()(given)
    total = StepOutput(out.logits, out.terms, out.weights).total
    total.backward()
    terms = {"total": total, **out.terms}
    found: dict[str, Any] = {f"losses.{name}": float(term.detach()) for name, term in terms.items()}
    found["train_logits"] = out.logits.detach().numpy()
    moved = (head.prototypes - before).norm(dim=1) > MOVED
    found["bank_after.sum"] = float(head.prototypes.double().sum())
    found["bank_after.rows_changed"] = int(moved.sum())
    found["bank_after.first_3x8"] = head.prototypes[:3, :8].numpy()
    with torch.no_grad():
        evaluated = head.eval()(dataclasses.replace(given, tokens=None, attention=None, label=None))
    found["eval_logits"] = evaluated.logits.numpy()
    parameters = dict(head.named_parameters())
    for name in GRADIENTS:
        module, kind = name.rsplit(".", 1)
        gradient = parameters[f"{MODULES[module]}.{kind}"].grad
        found[f"grad_norms.{name}"] = 0.0 if gradient is None else float(gradient.double().norm())
    return found


def agrees(name: str, ours: Any, golden: np.ndarray, tolerance: float) -> bool:
    """Print one line and say whether the error is within its bound."""
    ours = np.asarray(ours, np.float64)
    if ours.shape != golden.shape:
        print(f"{name:42s} FAILED (shape {ours.shape}, golden {golden.shape})")
        return False
    largest, error = float(np.abs(golden).max()), float(np.abs(ours - golden).max())
    if name == "bank_after.rows_changed":
        kind, bound = "absolute", 0.0
    elif name == "grad_norms.conv1.0.bias" or largest == 0:
        kind, bound = "absolute", NOISE
    else:
        kind, bound, error = "relative", tolerance, error / largest
    passed = error <= bound  # False for NaN
    print(f"{name:42s} {kind} error {error:8.1e}  {'ok' if passed else 'FAILED'}")
    return passed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="golden file of the release head (JSON)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative error (default 1e-4)")
    args = parser.parse_args(argv)
    try:
        data = read_json(args.file)
        golden = golden_quantities(data)
        head, given = draw_case(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{args.file} is no golden file of the release head: {error!r}", file=sys.stderr)
        return 1
    verdicts = [agrees(name, ours, golden[name], args.tolerance) for name, ours in recompute(head, given).items()]
    print(f"{sum(verdicts)} of {len(verdicts)} quantities agree within {args.tolerance:g}")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
