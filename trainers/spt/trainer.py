"""SPT as a trainer: options, the frozen model under either head, and the head's way through checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method
from trainers.prompting import WORDS, ImagePrompts, declare_inject
from trainers.spt.methods import LinearSelfPrompted, SelfPrompted
from trainers.spt.start import StartOptions
from trainers.spt.towers import TIMM, ClipTower

if TYPE_CHECKING:
    from trainers.spt.timm_vit import TimmBackbone

HEADS = ("text", "linear")
# keys of TRAINER.SPT that only one head reads
HEAD_KEYS = {"text": ("CTX_INIT", "TEXT_CHUNK"), "linear": ("READOUT", "HEAD_WEIGHT_DECAY", "VIT_WEIGHTS")}


@TRAINER_REGISTRY.register()
class SPT(MethodTrainer):
    """Trainer of image prompts that start as token prototypes; options under TRAINER.SPT.

    With HEAD text it is VPT on CLIP but for the start of the prompts. With HEAD linear it is the method of SPT's own
    paper: MODEL.BACKBONE.NAME is then "timm:<model>", or a CLIP whose image tower serves as the pretrained ViT.
    """

    node = "SPT"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.SPT = CN()
        node.N_CTX_VISION = 8  # P, rows before each prompted block
        node.PROMPT_DEPTH_VISION = 12  # 1: shallow, at the input only; cut to the number of blocks
        node.STRATEGY = "random"  # rows start as "random" | "mean" | "max" | "kmeans" prototypes | "normal": as in VPT
        node.KMEANS_ROWS = 200_000  # tokens that k-means sees, of all prompted layers together
        node.HEAD = "text"  # "text": CLIP's, of the class names | "linear": trained, of the run's classes only
        node.CTX_INIT = WORDS  # HEAD text: words of the frozen text, the same for every data set
        node.READOUT = "cls"  # HEAD linear: "cls" | "mean" of all patch and prompt rows, for MAE
        node.HEAD_WEIGHT_DECAY = 0.0  # HEAD linear: of the head's weight; OPTIM.WEIGHT_DECAY is that of the prompts
        node.VIT_WEIGHTS = ""  # HEAD linear: file of a state dict for a timm model, instead of timm's own weights
        declare_inject(node)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.SPT
        start = StartOptions(node.STRATEGY, node.KMEANS_ROWS, max(cfg.SEED, 0))
        size = (node.N_CTX_VISION, node.PROMPT_DEPTH_VISION)
        if node.HEAD == "linear":
            timm_model = cfg.MODEL.BACKBONE.NAME.startswith(TIMM)
            tower = cast("TimmBackbone", backbone).tower if timm_model else ClipTower(backbone.vision)
            return LinearSelfPrompted(backbone, space, tower, *size, start, node.INJECT, node.READOUT)
        return SelfPrompted(backbone, space, ImagePrompts.random(backbone, *size, node.INJECT), start, node.CTX_INIT)

    def check_cfg(self, cfg: CN) -> None:
        super().check_cfg(cfg)
        node, timm_model = cfg.TRAINER.SPT, cfg.MODEL.BACKBONE.NAME.startswith(TIMM)
        StartOptions(node.STRATEGY, node.KMEANS_ROWS)
        if node.HEAD not in HEADS:
            raise ValueError(f"TRAINER.SPT.HEAD must be text or linear, got '{node.HEAD}'.")
        if timm_model and node.HEAD == "text":
            raise ValueError(
                f"{cfg.MODEL.BACKBONE.NAME} has no text tower; set TRAINER.SPT.HEAD linear, or choose a CLIP."
            )
        if node.VIT_WEIGHTS and not timm_model:
            raise ValueError(
                "TRAINER.SPT.VIT_WEIGHTS is a file for a timm model; name a CLIP's file with MODEL.BACKBONE.NAME."
            )
        default = self.default_node()
        (other,) = (head for head in HEADS if head != node.HEAD)
        ignored = [key for key in HEAD_KEYS[other] if node[key] != default[key]]
        if ignored:
            raise ValueError(
                f"TRAINER.SPT.{ignored[0]} is set, but HEAD {node.HEAD} does not read it; leave it out, or change HEAD."
            )

    def load_frozen(self) -> Backbone:
        name = self.cfg.MODEL.BACKBONE.NAME
        if not name.startswith(TIMM):
            return super().load_frozen()
        from trainers.spt.timm_vit import load_timm  # here: timm takes a second to import

        print(f"Loading a plain ViT (backbone: {name})")
        vit = load_timm(
            name,
            self.cfg.MODEL.BACKBONE.PRETRAINED,
            self.cfg.TRAINER.SPT.VIT_WEIGHTS,
            self.precision.weight_dtype,
            self.device,
        )
        return cast(Backbone, vit)  # has what the linear head and the checkpoints ask for

    def param_groups(self) -> list[Any]:
        """Under a linear head the head has a weight decay of its own, and tensors of one axis have none."""
        if not isinstance(self.method, LinearSelfPrompted):
            return super().param_groups()
        head = self.method.head
        return [
            {"params": self.method.prompt_rows()},
            {"params": [head.weight], "weight_decay": self.cfg.TRAINER.SPT.HEAD_WEIGHT_DECAY},
            {"params": [head.bias], "weight_decay": 0.0},
        ]
