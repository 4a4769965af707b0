"""Text priors: zero-shot CLIP whose class features also know descriptions, such as a language model writes.

Axes: C classes, J texts of the class that has most, S different texts, d joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from clip.simple_tokenizer import get_tokenizer
from dassl.engine import TRAINER_REGISTRY
from datasets.descriptions import Descriptions
from datasets.templates import template_of
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method

MODES = ("average", "attend")
NAME, DESCRIPTION = "{name}", "{description}"


class TextPriorsMethod(Method):
    """Frozen CLIP: class feature norm((1 − weight) · g_c + weight · norm(Σ_j a_cj e_cj)), nothing trained.

    g_c is the unit feature of the filled template, e_cj those of the class's descriptions. Their shares a_cj are equal
    ("average"), or softmax_j(s · cos(g_c, e_cj)), by which the name attends to its descriptions ("attend").

    Args:
        template: sentence with one "{}" for the class name.
        descriptions: of at least the classes of `space`.
        sentence: what of a description is encoded; "{description}" and "{name}" stand for it and for the class name.
        mode: "average" or "attend".
        weight: share of the descriptions, in [0, 1]; 0 is zero-shot CLIP.

    Raises:
        ValueError: an option is not possible, a class has no description, or a sentence is too long.
    """

    text_trains = False

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        template: str,
        descriptions: Descriptions,
        sentence: str = DESCRIPTION,
        mode: str = "average",
        weight: float = 0.5,
    ):
        super().__init__(backbone, space)
        if mode not in MODES:
            raise ValueError(f"TRAINER.TEXTPRIORS.MODE must be one of {', '.join(MODES)}, got '{mode}'.")
        if not 0 <= weight <= 1:
            raise ValueError(f"TRAINER.TEXTPRIORS.WEIGHT must be in [0, 1], got {weight}.")
        if DESCRIPTION not in sentence:
            raise ValueError(f"TRAINER.TEXTPRIORS.SENTENCE must hold {DESCRIPTION}, got '{sentence}'.")
        self.template, self.descriptions, self.sentence = template, descriptions, sentence
        self.mode, self.weight = mode, weight
        self.sentences(space)  # refuses what is missing or too long now, not in the first test

    def sentences(self, space: LabelSpace) -> list[list[str]]:
        """What is encoded for each class.

        Raises:
            ValueError: a class has no description, or a sentence does not fit the text tower.
        """
        limit, encode = self.backbone.clip.context_length, get_tokenizer().encode
        result = []
        for name, texts in zip(space.cleaned, self.descriptions.of(space.names), strict=True):
            filled = [self.sentence.replace(NAME, name).replace(DESCRIPTION, text) for text in texts]
            for sentence in filled:
                n_tokens = len(encode(sentence)) + 2  # start and end
                if n_tokens > limit:
                    raise ValueError(
                        f"{self.descriptions.path}: a sentence of class '{name}' has {n_tokens} tokens, and the text "
                        f"tower takes {limit}; shorten it: '{sentence[:60]}…'."
                    )
            result.append(filled)
        return result

    def raw_text(self, space: LabelSpace) -> Tensor:
        own = self._encode(space, self.template)  # g [C, d]
        listed = self.sentences(space)
        different = list(dict.fromkeys(sentence for sentences in listed for sentence in sentences))
        features = self._encode(LabelSpace(tuple(different)), "{}")  # e [S, d]
        number = {sentence: i for i, sentence in enumerate(different)}
        index = torch.full((len(listed), max(map(len, listed))), -1)
        for row, sentences in zip(index, listed, strict=True):
            row[: len(sentences)] = torch.tensor([number[sentence] for sentence in sentences])
        index = index.to(own.device)  # [C, J], -1 where a class has fewer texts
        of_class = features[index.clamp(min=0)]  # [C, J, d]
        scores = torch.zeros_like(index, dtype=own.dtype)
        if self.mode == "attend":
            scores = self.backbone.logit_scale.exp() * torch.einsum("cd,cjd->cj", own, of_class)
        share = scores.masked_fill(index < 0, float("-inf")).softmax(dim=1)  # a [C, J]
        prior = F.normalize(torch.einsum("cj,cjd->cd", share, of_class), dim=-1)
        return (1 - self.weight) * own + self.weight * prior

    def _encode(self, space: LabelSpace, template: str) -> Tensor:
        """Unit features of the filled template in fp32."""
        tower = self.backbone.text
        return F.normalize(tower(tower.templates(space, template)).float(), dim=-1)


@TRAINER_REGISTRY.register()
class TextPriors(MethodTrainer):
    """Evaluates `TextPriorsMethod`; run with --eval-only. Options under TRAINER.TEXTPRIORS."""

    node = "TEXTPRIORS"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.TEXTPRIORS = CN()
        node.DESCRIPTIONS = ""  # JSON file {class name: [text, …]}
        node.SENTENCE = DESCRIPTION  # what is encoded of a text, e.g. "a photo of a {name}, {description}."
        node.MODE = "average"  # "average" | "attend": texts that are like the template's feature count more
        node.WEIGHT = 0.5  # share of the descriptions in a class feature, in [0, 1]
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.TEXTPRIORS
        if not node.DESCRIPTIONS:
            raise ValueError(
                "TextPriors needs descriptions of the classes; name their file in TRAINER.TEXTPRIORS.DESCRIPTIONS."
            )
        descriptions = Descriptions(node.DESCRIPTIONS)
        return TextPriorsMethod(backbone, space, template_of(cfg), descriptions, node.SENTENCE, node.MODE, node.WEIGHT)
