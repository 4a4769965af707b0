"""Learnable prompts in CLIP's towers, and the methods' base that has them in one tower or in both.

A prompt of depth J is J sets of rows: one at the tower's input and one before each of the blocks 1..J-1, where it takes
the place of the rows that come out of the block below. Axes: C classes, M text rows, P image rows, w tower width.
"""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, Pruning, TextBatch, VisionOut, VisualPrompts
from clip.prompts import split_words
from trainers.method import Method

PROMPT_STD = 0.02  # of randomly initialised rows, that of CLIP's token embeddings
WORDS = "a photo of a"


class TextPrompts(nn.Module):
    """Rows `ctx` at the input of the text tower, and `deep` rows before its blocks 1..depth-1, [M, w] each.

    Args:
        n_ctx: M. With no more rows than `words` has words, `ctx` starts as the first of them; otherwise all rows start
            as N(0, 0.02²) and the words are not used.
        words: the sentence is "{words} {name}.".
        depth: J, cut to the number of blocks.
        keep_words: with fewer rows than words, the other words stay, frozen, between the rows and the name, as
            released; False leaves them out.

    Raises:
        ValueError: no rows, or no depth.
    """

    def __init__(self, backbone: Backbone, n_ctx: int, words: str, depth: int, keep_words: bool = True):
        super().__init__()
        if n_ctx < 1 or depth < 1:
            raise ValueError(f"Text prompts need at least one row and a depth of at least 1, got {n_ctx} and {depth}.")
        tower = backbone.text
        listed = split_words(words.strip()) if words.strip() else []
        has_words = n_ctx <= len(listed)
        self.words = " ".join(listed if keep_words else listed[:n_ctx]) if has_words else None
        ctx = tower.word_embeddings(" ".join(listed))[:n_ctx].float() if has_words else random_rows(n_ctx, tower.width)
        self.ctx = nn.Parameter(ctx)  # [M, w]
        blocks = range(1, min(depth, tower.n_blocks))
        self.deep = nn.ParameterDict({str(i): nn.Parameter(random_rows(n_ctx, tower.width)) for i in blocks})

    def prepare(self, backbone: Backbone, space: LabelSpace) -> TextBatch:
        return backbone.text.prepare(space, self.words, len(self.ctx))

    def encode(self, backbone: Backbone, batch: TextBatch) -> Tensor:
        """Un-normalised text features [C, d]."""
        return backbone.text(batch, ctx=self.ctx, deep={int(block): rows for block, rows in self.deep.items()})

    def layers(self) -> list[nn.Parameter]:
        """All rows from the input upwards, [M, w] each."""
        return [self.ctx, *self.deep.values()]


class ImagePrompts(nn.Module):
    """Rows behind the patches at the input of the image tower and before its blocks 1..depth-1, [P, w] each.

    Args:
        rows: from the input upwards, at most one set a block.
        inject: as in `clip.backbone.VisualPrompts`.

    Raises:
        ValueError: no rows, or more sets than blocks.
    """

    def __init__(self, backbone: Backbone, rows: list[Tensor], inject: str = "pre_ln"):
        super().__init__()
        n_blocks = backbone.vision.n_blocks
        sizes = [len(part) for part in rows]
        if not 1 <= len(rows) <= n_blocks or min(sizes) < 1:
            raise ValueError(f"Image prompts need 1..{n_blocks} sets of at least one row, got sets of {sizes}.")
        self.rows = nn.ParameterList([nn.Parameter(part) for part in rows])
        self.inject = inject
        self.prompts()  # refuses a wrong `inject` now, not in the first step

    @classmethod
    def random(cls, backbone: Backbone, n_ctx: int, depth: int, inject: str = "pre_ln") -> ImagePrompts:
        """Rows from N(0, 0.02²); `depth` is cut to the number of blocks."""
        width = backbone.vision.vit.transformer.width
        n_sets = min(depth, backbone.vision.n_blocks)
        return cls(backbone, [random_rows(n_ctx, width) for _ in range(n_sets)], inject)

    def prompts(self) -> VisualPrompts:
        return stacked_prompts(list(self.rows), self.inject)


class PromptedMethod(Method):
    """Prompts in either tower or in both; without text prompts the text is that of "{words} {name}.", frozen.

    Args:
        text_prompts, image_prompts: at least one of them.
        words: of the frozen text.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        text_prompts: TextPrompts | None,
        image_prompts: ImagePrompts | None,
        words: str = WORDS,
    ):
        super().__init__(backbone, space)
        self.text_prompts, self.image_prompts = text_prompts, image_prompts
        self.text_trains, self.image_trains = text_prompts is not None, image_prompts is not None
        self.words = words

    def prepare(self, space: LabelSpace) -> TextBatch:
        if self.text_prompts is not None:
            return self.text_prompts.prepare(self.backbone, space)
        return self.backbone.text.prepare(space, self.words, 0)

    def raw_text(self, space: LabelSpace) -> Tensor:
        if self.text_prompts is not None:
            return self.text_prompts.encode(self.backbone, self.text_batch(space))
        return super().raw_text(space)

    def visual_prompts(self) -> VisualPrompts | None:
        """The rows of the image tower; None leaves it as it is."""
        return None if self.image_prompts is None else self.image_prompts.prompts()

    def image(self, images: Tensor, want: Set[str] = frozenset(), prune: Pruning | None = None) -> VisionOut:
        return self.backbone.vision(images, self.visual_prompts(), want, prune)


def random_rows(n: int, width: int) -> Tensor:
    return torch.randn(n, width) * PROMPT_STD


def stacked_prompts(rows: list[Tensor], inject: str) -> VisualPrompts:
    """Rows by depth, [P, w] each, as the tower takes them."""
    return VisualPrompts(rows[0], dict(enumerate(rows[1:], 1)), inject)


def declare_inject(node: CN) -> None:
    node.INJECT = "pre_ln"  # "pre_ln": image rows of the input pass ln_pre, as released | "post_ln"


def declare_text_prompts(node: CN, n_ctx: str) -> None:
    """Keys of the text side; `n_ctx` is the family's name for the number of rows."""
    node[n_ctx] = 2  # M; up to the number of words in CTX_INIT they start as its first words
    node.CTX_INIT = WORDS
    node.KEEP_WORDS = True  # with fewer rows than words, the other words stay in the sentence, as released


def declare_both_sides(node: CN) -> None:
    """Keys of independent prompts in both towers."""
    declare_text_prompts(node, "N_CTX_TEXT")
    node.N_CTX_VISION = 2  # P
    node.PROMPT_DEPTH_TEXT = 9  # 1: at the input only; cut to the number of blocks
    node.PROMPT_DEPTH_VISION = 9  # 0 with N_CTX_VISION 0: no image prompts
    declare_inject(node)


def prompts_of(node: CN, backbone: Backbone) -> tuple[TextPrompts, ImagePrompts | None]:
    """The prompts that the keys of `declare_both_sides` describe."""
    text = TextPrompts(backbone, node.N_CTX_TEXT, node.CTX_INIT, node.PROMPT_DEPTH_TEXT, node.KEEP_WORDS)
    if node.N_CTX_VISION == 0 and node.PROMPT_DEPTH_VISION == 0:
        return text, None
    return text, ImagePrompts.random(backbone, node.N_CTX_VISION, node.PROMPT_DEPTH_VISION, node.INJECT)
