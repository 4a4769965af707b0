"""Check the methods against golden numbers of the released codes: logits, losses, gradients, three training steps.

    python tools/check_golden.py golden/baselines.json --method CoOp MaPLe PromptSRC

The file says what to draw from NumPy generators (tiny CLIPs, images, initial values) and what the released code then
computed. Everything is recomputed through the classes that training uses. One line a quantity: the largest deviation
relative to the largest magnitude of the quantity, or absolute where that is rounding noise (below 1e-5). Exit status 1
if any is above the tolerance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clip
from clip.backbone import LabelSpace
from dassl.config import get_cfg_default
from dassl.optim import build_optimizer
from dassl.utils import read_json
from tools.golden_inputs import Inputs, draw
from tools.golden_methods import METHODS, own_name
from trainers.aggregation import gaussian_weights
from trainers.method import Method

NOISE = 1e-5  # what is 0 in exact arithmetic stays below


class Golden:
    """One golden file: its inputs, drawn once, and the comparisons made so far."""

    def __init__(self, path: Path, tolerance: float):
        self.data = read_json(path)
        self.tolerance = tolerance
        self.failed = self.compared = 0
        data = self.data
        self.inputs = Inputs(data["seed"], data["B"], data["C"], data["logit_scale"])
        self.space = LabelSpace(tuple(data["classnames"]))

    def compare(self, case: str, name: str, ours: Any, golden: Any) -> None:
        """Print one line; count a deviation above the tolerance as a failure."""
        ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
        self.compared += 1
        if ours.shape != golden.shape:
            error, verdict = float("inf"), f"FAILED (shape {ours.shape}, golden {golden.shape})"
        else:
            size = float(np.abs(golden).max())
            error = float(np.abs(ours - golden).max()) / (size if size > NOISE else 1)
            verdict = "ok" if error <= (self.tolerance if size > NOISE else NOISE) else "FAILED"
        self.failed += verdict != "ok"
        print(f"{case:32s} {name:34s} error {error:8.1e}  {verdict}")

    def check_inputs(self, clips: set[str]) -> None:
        """Sums of what was drawn, labels, and token ids: a deviation here explains all that follow."""

        def sums(tensors: list[Tensor]) -> list[float]:
            flat = torch.cat([t.flatten() for t in tensors]).double()
            return [float(flat.sum()), float((flat**2).sum())]

        checks = self.data["checks"]
        self.compare("inputs", "images", sums([self.inputs.images]), checks["images"])
        self.compare("inputs", "labels", self.inputs.label, self.data["labels"])
        for name in sorted(clips):
            drawn = [t for key, t in self.inputs.state(name).items() if key != "logit_scale"]
            self.compare("inputs", f"clip.{name}", sums(drawn), checks[f"clip.{name}"])
        for name, cleaned in zip(self.space.names, self.space.cleaned, strict=True):
            golden = self.data["tokens"][name]
            ids = clip.tokenize(f"a photo of a {cleaned}.")[0, : len(golden)]
            self.compare("inputs", f"tokens of {name}", ids, golden)


def norms(tensors: dict[str, Tensor]) -> dict[str, float]:
    """L2 norms, squares summed in float64."""
    return {name: float(t.detach().double().norm()) for name, t in tensors.items()}


def set_trainables(method: Method, case: dict[str, Any], generator: np.random.Generator) -> dict[str, nn.Parameter]:
    """Overwrite initial values with those of the recipe; returns the parameters by the file's names, in its order."""
    parameters = method.trainables()
    named = {name: parameters[own_name(method, name)] for name, *_ in case.get("trainables", [])}
    for name, shape, scale, mean in case.get("trainables", []):
        if list(named[name].shape) != list(shape):
            raise ValueError(f"{name} has shape {list(named[name].shape)}, the golden file says {shape}")
        if scale is None:  # "words", "pretrained": the tensor keeps its initial value
            continue
        with torch.no_grad():
            drawn = draw(generator, tuple(shape), scale, 0.0 if mean == "add" else mean)
            named[name].copy_(named[name] + drawn if mean == "add" else drawn)
    return named


class CaseCheck:
    """One case: the method in the state that the recipe says, and comparisons under the case's name."""

    def __init__(self, golden: Golden, name: str, case: dict[str, Any]):
        self.golden, self.name, self.case = golden, name, case
        self.recipe = METHODS[name.split("/")[0]]
        inputs = golden.inputs
        self.images, self.label = inputs.images, inputs.label
        self.method = self.recipe.build(inputs, inputs.backbone(case["clip"]), golden.space, case["settings"])
        self.parameters = set_trainables(self.method, case, inputs.stream(5))
        trainables = self.method.trainables()
        self.compare("n_tensors", len(trainables), case["n_tensors"])
        self.compare("n_scalars", sum(p.numel() for p in trainables.values()), case["n_scalars"])
        cfg, sgd = get_cfg_default().OPTIM, golden.data["optimiser"]
        cfg.merge_from_list(
            ["NAME", sgd["name"], "LR", sgd["lr"], "MOMENTUM", sgd["momentum"], "WEIGHT_DECAY", sgd["weight_decay"]]
        )
        self.optimiser = build_optimizer(list(trainables.values()), cfg) if trainables else None

    def compare(self, field: str, ours: Any, expected: Any) -> None:
        self.golden.compare(self.name, field, ours.detach() if isinstance(ours, Tensor) else ours, expected)

    def compare_each(self, field: str, ours: dict[str, Any], expected: dict[str, Any]) -> None:
        for key, value in expected.items():
            self.compare(f"{field}.{key}", ours.get(key, float("nan")), value)  # NaN: such as a gradient we do not have

    def compare_fields(self, step: str, ours: dict[str, Any]) -> None:
        """Fields of a step by name; a field may hold several named quantities."""
        for field, value in ours.items():
            if isinstance(value, dict):
                self.compare_each(f"{step}.{field}", value, self.case[step][field])
            else:
                self.compare(f"{step}.{field}", value, self.case[step][field])

    @torch.no_grad()
    def evaluate(self, step: str) -> None:
        self.compare(f"{step}.eval_logits", self.method.eval()(self.images), self.case[step]["eval_logits"])

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        """Raw terms with the total, and the logits."""
        out = self.method.train().losses(self.images, self.label)
        return {**out.terms, "total": out.total}, out.logits

    def train_step(self) -> tuple[dict[str, float], Tensor]:
        """One update; what `losses` gave before it. Gradients stay in the parameters."""
        assert self.optimiser is not None
        terms, logits = self.losses()
        self.optimiser.zero_grad()
        terms["total"].backward()
        self.optimiser.step()
        return {name: float(term.detach()) for name, term in terms.items()}, logits


def check_steps(check: CaseCheck) -> None:
    """Evaluation, three training steps, evaluation, losses: the recipe of most cases."""
    case, method, recipe = check.case, check.method, check.recipe
    check.evaluate("step0")
    with torch.no_grad():
        plain = getattr(method, "host", method)  # a refiner's features are those before it refines them
        features = {
            "image": F.normalize(plain.image(check.images).pooled, dim=-1)[:, :4],
            "text": plain.text()[:, :4],
        }
        check.compare_each("step0.features", features, case["step0"]["features"])
        check.compare_fields("step0", recipe.extra(method, check.images))
    if not check.parameters:
        return
    totals = []
    for step in range(3):
        terms, logits = check.train_step()
        totals.append(terms["total"])
        if step == 0:
            check.compare_each("step0.losses", terms, case["step0"]["losses"])
            gradients = {name: p.grad for name, p in check.parameters.items() if p.grad is not None}
            check.compare_each("step0.grad_norms", norms(gradients), case["step0"]["grad_norms"])
            moved = {f"{field}_after_step": value for field, value in recipe.moving(method).items()}
            if "train_logits" in case["step0"]:
                moved["train_logits"] = logits
            check.compare_fields("step0", {field: value for field, value in moved.items() if field in case["step0"]})
    check.evaluate("step3")
    check.compare_fields("step3", recipe.moving(method))
    check.compare_each("step3.param_norms", norms(check.parameters), case["step3"]["param_norms"])
    with torch.no_grad():
        terms, logits = check.losses()
    check.compare_each("step3.losses", {name: float(term) for name, term in terms.items()}, case["step3"]["losses"])
    if "train_logits" in case["step3"]:
        check.compare("step3.train_logits", logits, case["step3"]["train_logits"])
    check.compare("loss_per_step", [*totals, float(terms["total"])], case["loss_per_step"])


def check_average(check: CaseCheck) -> None:
    """Epochs of one batch, averaged: losses and norms after each, and the model with the average in place."""
    case, settings = check.case, check.case["settings"]
    n_epochs = settings["max_epoch"]
    check.compare(
        "gpa_weights", gaussian_weights(settings["gpa_mean"], settings["gpa_std"], n_epochs), case["gpa_weights"]
    )
    totals = []
    for epoch in range(1, n_epochs + 1):
        totals.append(check.train_step()[0]["total"])
        if epoch < n_epochs:
            after = case["param_norms_after_epoch"][epoch - 1]
            check.compare_each(f"param_norms_after_epoch.{epoch}", norms(check.parameters), after)
        check.method.after_epoch(epoch, n_epochs)
    check.compare("loss_per_step", totals, case["loss_per_step"])
    check.evaluate("final")
    check.compare_each("final.param_norms", norms(check.parameters), case["final"]["param_norms"])


def check_case(golden: Golden, name: str, case: dict[str, Any]) -> None:
    """Run one case as its kind says and compare every field of it."""
    if "tables" in case:
        for table in case["tables"]:
            ours = gaussian_weights(table["mean"], table["std"], table["epochs"])
            golden.compare(name, f"{table['mean']}, {table['std']}, {table['epochs']}", ours, table["weights"])
        return
    check = CaseCheck(golden, name, case)
    check_average(check) if "gpa_weights" in case else check_steps(check)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="golden file (JSON)")
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS), help="default: all known")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative deviation (default 1e-4)")
    args = parser.parse_args(argv)
    try:
        golden = Golden(args.file, args.tolerance)
    except (OSError, ValueError, KeyError) as error:
        print(f"{args.file} is no golden file: {error!r}", file=sys.stderr)
        return 1
    cases = {name: case for name, case in golden.data["cases"].items() if name.split("/")[0] in args.method}
    if not cases:
        print(f"{args.file} has no case of {', '.join(args.method)}", file=sys.stderr)
        return 1
    golden.check_inputs({case["clip"] for case in cases.values() if "clip" in case})
    for name, case in cases.items():
        check_case(golden, name, case)
    print(f"{golden.compared - golden.failed} of {golden.compared} quantities agree within {golden.tolerance:g}")
    return 1 if golden.failed else 0


if __name__ == "__main__":
    sys.exit(main())
