"""The head of the authors' released code, numerically as it is: quirks kept and named, defects not.

Axes: B images, N patches, C classes, M prototypes of the one bank that all classes share, R = B·(1+N) token rows,
k activated tokens, d joint width. All tokens are outputs of the last block in the joint space.

Where the release departs from the paper, kept because its numbers depend on it:
  * tokens are taken behind the last block, not in front of it, and pass a trained adapter g in training only;
  * activation is the class token's attention alone: no sample-wise or semantic score, no recalculation;
  * an index over patches is used on the sequence that starts with the class token (off by one, `local_tokens`);
  * level 1 is the first two tokens, level 2 the last three, and both only enter losses, never the logits;
  * the bank has no classes, no labels, and sums instead of averages (`write`);
  * the "attention" of the image read has one key, hence does not attend (`ImageRead`);
  * neither representative is normalised in the logits, and its share differs: 0.05 in training, 0.1 in evaluation.

Not inherited: the bank is a registered buffer, so a checkpoint holds it and new classes meet the trained bank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.layers import take_rows
from dassl import distributed
from trainers.batch_norm import BatchNorm
from trainers.local_cache import moved_slots, read_slots
from trainers.spotlighter.activation import cosines
from trainers.spotlighter.interface import HeadInput, HeadOutput
from trainers.spotlighter.losses import classification

DROPOUT = 0.1  # of the attention weight in the image read
# weights of the terms as shares of the host's K, on a host that learns from a teacher; BALANCE and DISTILL are not read
TEACHER_SHARES = {
    "global": 1.0,
    "local": 1 / 100,
    "level1": 1 / 1000,
    "level2": 1 / 1000,
    "text_l1": 1 / 50,
    "image_l1": 1 / 100,
}


class ImageRead(nn.Module):
    """Multi-head attention from the image feature to what it read from the bank: one query, one key, one value.

    The softmax over one key is 1 whatever query and key are, so neither is computed and neither ever gets a gradient:
    the result is `out(value(read))`, with dropout on that 1 for each image and head in training. The tensors of `query`
    and `key` exist because they are part of the release, of its checkpoints and of its parameter count.

    Args:
        dim: d.
        heads: parts of the value that are dropped independently.
        dropout: rate; `self.dropout.p` can be changed later.

    Raises:
        ValueError: d is no multiple of the number of heads.
    """

    def __init__(self, dim: int, heads: int = 8, dropout: float = DROPOUT):
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"The joint width must be a multiple of the number of heads, got {dim} and {heads}.")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, read: Tensor) -> Tensor:
        """What was read [B, d] to the representative [B, d], not unit."""
        B = read.shape[0]
        images, own = distributed.batch_rows(B)  # drawn for all processes' images
        weight = self.dropout(read.new_ones(images, self.heads, 1))[own]  # [B, heads, 1]: softmax over one key
        value = self.value(read).view(B, self.heads, -1)  # [B, heads, d / heads]
        return self.out((weight * value).flatten(1))


class ReleaseHead(nn.Module):
    """Adapter, bank, text read, image read and local losses of the release; see the module's docstring.

    With d = 512 and the host's 4 x 512 context: 16 trained tensors, 2,103,296 scalars.

    Args:
        dim: d, joint width.
        alpha: α, share of the text read, `T' = T + α · Lin([T; R])`.
        momentum: β, share of the old prototype kept per write, in [0, 1].
        n_prototypes: M.
        balance: divisor of the three local cross-entropies.
        distill: factor of the two L1 terms.
        mix_train: share of the image read in the logits while training.
        mix_test: the same in evaluation.
        top_k: k, activated tokens per image.
        level1: how many of them are level 1, the rest is level 2.
        heads: heads of the image read.

    Raises:
        ValueError: an argument is out of range.
    """

    prototypes: Tensor

    def __init__(
        self,
        dim: int,
        alpha: float = 0.2,
        momentum: float = 0.8,
        n_prototypes: int = 25,
        balance: float = 50.0,
        distill: float = 20.0,
        mix_train: float = 0.05,
        mix_test: float = 0.1,
        top_k: int = 5,
        level1: int = 2,
        heads: int = 8,
    ):
        super().__init__()
        if n_prototypes < 1:
            raise ValueError(f"RELEASE.N_PROTOTYPES must be at least 1, got {n_prototypes}.")
        if not 0 <= momentum <= 1:
            raise ValueError(f"MOMENTUM must be in [0, 1], got {momentum}.")
        if not balance > 0:
            raise ValueError(f"RELEASE.BALANCE divides the local losses and must be above 0, got {balance}.")
        if not 0 <= level1 <= top_k:
            raise ValueError(f"Level 1 must be a part of the TOP_K tokens, got {level1} of {top_k}.")
        self.alpha, self.momentum = alpha, momentum
        self.mix_train, self.mix_test = mix_train, mix_test
        self.top_k, self.level1 = top_k, level1
        local = dict.fromkeys(("local", "level1", "level2"), 1 / balance)
        self.weights = {**local, "text_l1": float(distill), "image_l1": float(distill)}
        # the released 1x1 convolutions `conv1.0 … conv1.3`; running statistics would never be read
        self.adapter = nn.Sequential(
            nn.Linear(dim, dim), BatchNorm(dim, track_running_stats=False), nn.ReLU(), nn.Linear(dim, dim)
        )
        self.image_read = ImageRead(dim, heads)
        self.text_fuse = nn.Linear(2 * dim, dim, bias=False)
        self.register_buffer("prototypes", F.normalize(torch.rand(n_prototypes, dim), dim=1))  # [M, d], unit rows

    reads_frozen_image = False  # no term needs v0

    def want(self, n_blocks: int, training: bool) -> set[str]:
        """What the image tower must give besides the image feature: in inference nothing, tokens only enter losses."""
        return {"tokens", "cls_attn"} if training else set()

    def forward(self, given: HeadInput) -> HeadOutput:
        """Logits; with labels or a teacher the loss terms; in training the bank is written after it was read.

        Args:
            given: `text` T, [C, d] or [B, C, d], and `image` v [B, d], unit; `tokens` [B, 1+N, d] and `attention`
                [B, N], which only training and the losses need. T and v keep their gradient in every term, as released.

        Returns:
            logits [B, C], six raw terms with their weights, and diagnostics "index" [B, k].

        Raises:
            ValueError: tokens or attention are missing or do not match, or there are too few patches.
        """
        text, image, scale = given.text.float(), given.image.float(), given.scale.float()
        # the write below must not change what backward still needs
        bank = self.prototypes.clone() if self.training else self.prototypes
        text_rep = text + self.alpha * self.text_fuse(torch.cat([text, read_slots(text, bank)], dim=-1))  # as T
        image_rep = self.image_read(read_slots(image, bank))  # [B, d]
        mix = self.mix_train if self.training else self.mix_test
        output = HeadOutput(scale * cosines((1 - mix) * image + mix * image_rep, text_rep))  # [B, C]
        if given.attention is not None:
            output.diagnostics["index"] = self.activate(given.attention)
        has_target = given.label is not None or given.teacher is not None
        if not (self.training or has_target):
            return output

        if given.tokens is None or given.attention is None:
            raise ValueError("The release preset needs `tokens` and `attention` of the last block for its losses.")
        tokens, (B, N) = given.tokens.float(), given.attention.shape
        if tokens.shape[:2] != (B, 1 + N):
            raise ValueError(f"tokens must be [B, 1+N, d] = [{B}, {1 + N}, d], got {list(tokens.shape)}.")
        adapted = self.adapter(tokens.flatten(0, 1)).view_as(tokens)  # G [B, 1+N, d], all rows in one batch norm
        if has_target:
            local = self.local_tokens(adapted, output.diagnostics["index"])  # [B, k+2, d]
            terms, output.weights = self.classify(output.logits, scale * local @ text.mT, given)
            output.terms = {
                **terms,
                "text_l1": F.l1_loss(F.normalize(text_rep, dim=-1), text),
                "image_l1": F.l1_loss(F.normalize(image_rep, dim=1), image),
            }
        if self.training:
            self.write(adapted)
        return output

    def activate(self, attention: Tensor) -> Tensor:
        """The k patches with the highest class-token attention, [B, N] to an index [B, k] over patches, best first.

        Raises:
            ValueError: not more patches than activated tokens.
        """
        N = attention.shape[1]
        if self.top_k >= N:
            raise ValueError(f"TOP_K = {self.top_k} needs at least {self.top_k + 1} patch tokens, got {N}.")
        return attention.detach().float().topk(self.top_k, dim=1).indices

    @staticmethod
    def local_tokens(adapted: Tensor, index: Tensor) -> Tensor:
        """Class token, activated tokens, mean of all 1+N tokens; none of them normalised.

        Kept quirk: the index counts patches, the sequence starts with the class token. So index i picks the patch in
        front of the activated one, and index 0 picks the class token.

        Args:
            adapted: G [B, 1+N, d], class token first.
            index: [B, k], over patches.

        Returns:
            [B, k+2, d].
        """
        activated = take_rows(adapted, index)  # [B, k, d]
        return torch.cat([adapted[:, :1], activated, adapted.mean(dim=1, keepdim=True)], dim=1)

    def classify(self, logits: Tensor, local: Tensor, given: HeadInput) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The global term and the three local ones, which share the logits of their tokens; and their weights.

        Cross-entropies of the labels. With a teacher, KL divergences from its posterior, means over rows; the host's
        `classification_weight` is then the released K / C, and the other weights are shares of K.

        Args:
            logits: [B, C].
            local: scaled logits of the local tokens [B, k+2, C]: class token, k activated ones, mean.
            given: holds the label or the teacher.
        """
        cut, weight = 1 + self.level1, given.classification_weight
        if given.teacher is None:
            assert given.label is not None
            kind, total = "ce", F.cross_entropy(logits, given.label)
            labels = given.label[:, None].expand(-1, local.shape[1])  # [B, k+2]
            each = F.cross_entropy(local.transpose(1, 2), labels, reduction="none")  # [B, k+2]
            weights = self.weights | {"global": weight}
        else:
            kind, total = "kl", classification(logits, None, given.teacher.float())
            target = given.teacher.float().log_softmax(dim=1)[:, None]  # [B, 1, C]
            each = F.kl_div(local.log_softmax(dim=2), target, reduction="none", log_target=True).sum(dim=2)  # [B, k+2]
            # KL terms are means over classes, too, in the release: of them K is divided by C like the host's
            of_rows = {name: weight * TEACHER_SHARES[name] for name in ("global", "local", "level1", "level2")}
            of_l1 = {name: weight * logits.shape[1] * TEACHER_SHARES[name] for name in ("text_l1", "image_l1")}
            weights = of_rows | of_l1
        terms = {
            "global": total,
            "local": each.mean(),
            "level1": torch.cat([each[:, :cut], each[:, -1:]], dim=1).mean(),
            "level2": torch.cat([each[:, :1], each[:, cut:]], dim=1).mean(),
        }
        named = {name: f"{name}_{kind}" for name in terms}
        return (
            {named[name]: term for name, term in terms.items()},
            {named.get(name, name): value for name, value in weights.items()},
        )

    @torch.no_grad()
    def write(self, adapted: Tensor) -> None:
        """Move prototypes towards the sums of the token rows nearest to them, G [B, 1+N, d]; a sum, as released."""
        self.prototypes.copy_(moved_slots(self.prototypes, adapted.flatten(0, 1), self.momentum))
