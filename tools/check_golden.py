"""Check the methods against golden numbers of the released codes: logits, losses, gradients, three training steps.

    python tools/check_golden.py golden/baselines.json --method ZeroshotCLIP ZeroshotCLIP2 CoOp

The file says what to draw from NumPy generators (tiny CLIPs, images, initial values) and what the released code then
computed. Everything is recomputed through the classes that training uses. One line a quantity: the largest deviation
relative to the largest magnitude of the quantity. Exit status 1 if any is above the tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import clip
from clip.backbone import Backbone, LabelSpace
from dassl.config import get_cfg_default
from dassl.optim import build_optimizer
from dassl.utils import read_json
from trainers.coop import CoOpMethod
from trainers.method import Method
from trainers.zsclip import TemplateMethod

Draw = tuple[str, tuple[int, ...], float, float]  # state-dict key, shape, scale, mean


def template_method(backbone: Backbone, space: LabelSpace, settings: dict[str, Any]) -> Method:
    template = settings["template"]
    return TemplateMethod(backbone, space, [template] if isinstance(template, str) else template)


def coop_method(backbone: Backbone, space: LabelSpace, settings: dict[str, Any]) -> Method:
    return CoOpMethod(backbone, space, **settings)


METHODS: dict[str, Callable[[Backbone, LabelSpace, dict[str, Any]], Method]] = {
    "ZeroshotCLIP": template_method,
    "ZeroshotCLIP2": template_method,
    "CoOp": coop_method,
}


@dataclass(frozen=True)
class TinyCLIP:
    """A tiny CLIP of the recipe: 32-pixel images in patches of 8, heads of width 64."""

    stream: int
    embed: int
    vision_width: int
    vision_blocks: int
    text_width: int
    text_blocks: int

    def draws(self) -> Iterator[Draw]:
        """Tensors in drawing order; "logit_scale" is not drawn."""
        v, t, e = self.vision_width, self.text_width, self.embed
        yield "positional_embedding", (77, t), 0.2, 0.0
        yield "text_projection", (t, e), t**-0.5, 0.0
        yield "visual.class_embedding", (v,), 0.5, 0.0
        yield "visual.positional_embedding", (17, v), 0.3, 0.0
        yield "visual.proj", (v, e), v**-0.5, 0.0
        yield "visual.conv1.weight", (v, 3, 8, 8), 192**-0.5, 0.0
        yield from self.norm("visual.ln_pre", v)
        for block in range(self.vision_blocks):
            yield from self.block(f"visual.transformer.resblocks.{block}", v)
        yield from self.norm("visual.ln_post", v)
        for block in range(self.text_blocks):
            yield from self.block(f"transformer.resblocks.{block}", t)
        yield "token_embedding.weight", (49408, t), 0.5, 0.0
        yield from self.norm("ln_final", t)

    @staticmethod
    def norm(name: str, width: int) -> Iterator[Draw]:
        yield f"{name}.weight", (width,), 0.1, 1.0
        yield f"{name}.bias", (width,), 0.01, 0.0

    @classmethod
    def block(cls, name: str, width: int) -> Iterator[Draw]:
        yield f"{name}.attn.in_proj_weight", (3 * width, width), width**-0.5, 0.0
        yield f"{name}.attn.in_proj_bias", (3 * width,), 0.01, 0.0
        yield f"{name}.attn.out_proj.weight", (width, width), 2 * width**-0.5, 0.0
        yield f"{name}.attn.out_proj.bias", (width,), 0.01, 0.0
        yield from cls.norm(f"{name}.ln_1", width)
        yield f"{name}.mlp.c_fc.weight", (4 * width, width), width**-0.5, 0.0
        yield f"{name}.mlp.c_fc.bias", (4 * width,), 0.01, 0.0
        yield f"{name}.mlp.c_proj.weight", (width, 4 * width), (4 * width) ** -0.5, 0.0
        yield f"{name}.mlp.c_proj.bias", (width,), 0.01, 0.0
        yield from cls.norm(f"{name}.ln_2", width)


CLIPS = {
    "tiny": TinyCLIP(1, 64, 192, 4, 128, 3),
    "tiny512": TinyCLIP(2, 512, 192, 4, 128, 3),
    "wide": TinyCLIP(3, 64, 768, 3, 512, 3),
    "teacher": TinyCLIP(4, 768, 256, 3, 192, 4),
}


def draw(generator: np.random.Generator, shape: tuple[int, ...], scale: float, mean: float = 0.0) -> Tensor:
    """float32(mean + scale · normal), arithmetic in float64."""
    return torch.from_numpy((mean + scale * generator.standard_normal(shape)).astype(np.float32))


class Golden:
    """One golden file: its inputs, drawn once, and the comparisons made so far."""

    def __init__(self, path: Path, tolerance: float):
        self.data = read_json(path)
        self.tolerance = tolerance
        self.failed = self.compared = 0
        self.seed = self.data["seed"]
        generator = np.random.default_rng([self.seed, 0])
        self.images = draw(generator, (self.data["B"], 3, 32, 32), 1.0)
        self.label = torch.from_numpy(generator.integers(0, self.data["C"], self.data["B"]))
        self.space = LabelSpace(tuple(self.data["classnames"]))
        self.states: dict[str, dict[str, Tensor]] = {}

    def state(self, name: str) -> dict[str, Tensor]:
        """State dict of a tiny CLIP in OpenAI's layout, drawn on first use."""
        if name not in self.states:
            generator = np.random.default_rng([self.seed, CLIPS[name].stream])
            self.states[name] = {key: draw(generator, *how) for key, *how in CLIPS[name].draws()}
            self.states[name]["logit_scale"] = torch.tensor(float(np.log(self.data["logit_scale"])))
        return self.states[name]

    def backbone(self, name: str) -> Backbone:
        return Backbone(clip.build_model(self.state(name), dtype=torch.float32))

    def compare(self, case: str, name: str, ours: Any, golden: Any) -> None:
        """Print one line; count a deviation above the tolerance as a failure."""
        ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
        self.compared += 1
        if ours.shape != golden.shape:
            error, verdict = float("inf"), f"FAILED (shape {ours.shape}, golden {golden.shape})"
        else:
            error = float(np.abs(ours - golden).max() / max(np.abs(golden).max(), 1e-6))
            verdict = "ok" if error <= self.tolerance else "FAILED"
        self.failed += verdict != "ok"
        print(f"{case:32s} {name:34s} relative error {error:8.1e}  {verdict}")

    def check_inputs(self, clips: set[str]) -> None:
        """Sums of what was drawn, labels, and token ids: a deviation here explains all that follow."""

        def sums(tensors: list[Tensor]) -> list[float]:
            flat = torch.cat([t.flatten() for t in tensors]).double()
            return [float(flat.sum()), float((flat**2).sum())]

        checks = self.data["checks"]
        self.compare("inputs", "images", sums([self.images]), checks["images"])
        self.compare("inputs", "labels", self.label, self.data["labels"])
        for name in sorted(clips):
            drawn = [t for key, t in self.state(name).items() if key != "logit_scale"]
            self.compare("inputs", f"clip.{name}", sums(drawn), checks[f"clip.{name}"])
        for name, cleaned in zip(self.space.names, self.space.cleaned, strict=True):
            golden = self.data["tokens"][name]
            ids = clip.tokenize(f"a photo of a {cleaned}.")[0, : len(golden)]
            self.compare("inputs", f"tokens of {name}", ids, golden)


def norms(tensors: dict[str, Tensor]) -> dict[str, float]:
    """L2 norms, squares summed in float64."""
    return {name: float(t.detach().double().norm()) for name, t in tensors.items()}


def set_trainables(method: Method, case: dict[str, Any], seed: int) -> None:
    """Overwrite initial values with those of the recipe (stream 5)."""
    generator = np.random.default_rng([seed, 5])
    parameters = method.trainables()
    for name, shape, scale, mean in case.get("trainables", []):
        if list(parameters[name].shape) != list(shape):
            raise ValueError(f"{name} has shape {list(parameters[name].shape)}, the golden file says {shape}")
        if scale is None:  # "words", "pretrained": the tensor keeps its initial value
            continue
        with torch.no_grad():
            drawn = draw(generator, tuple(shape), scale, 0.0 if mean == "add" else mean)
            parameters[name].copy_(parameters[name] + drawn if mean == "add" else drawn)


def check_case(golden: Golden, name: str, case: dict[str, Any]) -> None:
    """Run one case as the recipe says and compare every field of it."""
    method = METHODS[name.split("/")[0]](golden.backbone(case["clip"]), golden.space, case["settings"])
    set_trainables(method, case, golden.seed)
    images, label = golden.images, golden.label

    def compare(field: str, ours: Any, expected: Any) -> None:
        golden.compare(name, field, ours.detach() if isinstance(ours, Tensor) else ours, expected)

    def compare_each(field: str, ours: dict[str, Any], expected: dict[str, Any]) -> None:
        for key, value in expected.items():
            compare(f"{field}.{key}", ours.get(key, float("nan")), value)  # what we do not have, such as a gradient

    def evaluate(step: str) -> None:
        method.eval()
        with torch.no_grad():
            compare(f"{step}.eval_logits", method(images), case[step]["eval_logits"])

    def losses() -> tuple[dict[str, Tensor], Tensor]:
        out = method.train().losses(images, label)
        return {**out.terms, "total": out.total}, out.total

    parameters = method.trainables()
    compare("n_tensors", len(parameters), case["n_tensors"])
    compare("n_scalars", sum(p.numel() for p in parameters.values()), case["n_scalars"])
    evaluate("step0")
    with torch.no_grad():
        features = {"image": F.normalize(method.image(images).pooled, dim=-1)[:, :4], "text": method.text()[:, :4]}
    compare_each("step0.features", features, case["step0"]["features"])
    if not parameters:
        return

    cfg = get_cfg_default().OPTIM
    sgd = golden.data["optimiser"]
    cfg.merge_from_list(
        ["NAME", sgd["name"], "LR", sgd["lr"], "MOMENTUM", sgd["momentum"], "WEIGHT_DECAY", sgd["weight_decay"]]
    )
    optimiser = build_optimizer(list(parameters.values()), cfg)
    totals = []
    for step in range(3):
        terms, total = losses()
        optimiser.zero_grad()
        total.backward()
        if step == 0:
            compare_each("step0.losses", {k: float(v.detach()) for k, v in terms.items()}, case["step0"]["losses"])
            gradients = {key: p.grad for key, p in parameters.items() if p.grad is not None}
            compare_each("step0.grad_norms", norms(gradients), case["step0"]["grad_norms"])
        optimiser.step()
        totals.append(float(total.detach()))
    evaluate("step3")
    compare_each("step3.param_norms", norms(parameters), case["step3"]["param_norms"])
    with torch.no_grad():
        terms, total = losses()
    compare_each("step3.losses", {k: float(v) for k, v in terms.items()}, case["step3"]["losses"])
    compare("loss_per_step", [*totals, float(total)], case["loss_per_step"])


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
    golden.check_inputs({case["clip"] for case in cases.values()})
    for name, case in cases.items():
        check_case(golden, name, case)
    print(f"{golden.compared - golden.failed} of {golden.compared} quantities agree within {golden.tolerance:g}")
    return 1 if golden.failed else 0


if __name__ == "__main__":
    sys.exit(main())
