"""A plain pretrained ViT out of timm, or out of a file, as a frozen tower.

Axes: B images, N patches, P prompt rows, w width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from clip.backbone import VisualPrompts
from clip.layers import check_images
from dassl.utils.torchtools import load_checkpoint
from trainers.spt.towers import TIMM, PlainTower


class TimmTower(PlainTower):
    """timm's `VisionTransformer`; the position code is added before prompts come, so that they carry none."""

    def __init__(self, vit: VisionTransformer):
        self.vit = vit
        self.width, self.n_blocks, self.n_prefix = vit.embed_dim, len(vit.blocks), vit.num_prefix_tokens
        self.input_size: int = vit.patch_embed.img_size[0]
        # a model that was trained with mean pooling has its norm behind the pooling
        self.last_norm = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm

    def _patches(self, images: Tensor) -> Tensor:
        check_images(images, self.input_size)
        return self.vit.patch_embed(images.to(self.vit.patch_embed.proj.weight.dtype))

    def _embed(self, patches: Tensor) -> Tensor:
        """[B, N, w] -> [B, n_prefix + N, w]; timm has no public name for adding tokens and positions."""
        return self.vit.norm_pre(self.vit._pos_embed(patches))

    def layers(self, images: Tensor, depth: int) -> Iterator[Tensor]:
        patches = self._patches(images)
        yield patches
        if depth > 1:
            x = self._embed(patches)
            for block in list(self.vit.blocks)[: depth - 1]:
                x = block(x)
                yield x[:, self.n_prefix :]

    def encode(self, images: Tensor, prompts: VisualPrompts) -> Tensor:
        x = self._embed(self._patches(images))
        n_rows = x.shape[1]
        for i, block in enumerate(self.vit.blocks):
            rows = prompts.shallow if i == 0 else prompts.deep.get(i)
            if rows is not None:
                rows = rows.to(x.dtype)
                if i == 0 and prompts.inject == "pre_ln":
                    rows = self.vit.norm_pre(rows)  # does nothing but in the few models that have this norm
                x = torch.cat([x[:, :n_rows], rows.expand(x.shape[0], -1, -1)], dim=1)
            x = block(x)
        return x

    def norm(self, rows: Tensor) -> Tensor:
        return self.last_norm(rows)


class TimmBackbone(nn.Module):
    """A frozen timm ViT with a name and a digest of its weights; stands where a CLIP backbone stands elsewhere.

    Args:
        vit: made without its classifier.

    Raises:
        ValueError: it is no plain ViT of square images.
    """

    def __init__(self, vit: nn.Module, name: str):
        super().__init__()
        if type(vit) is not VisionTransformer or vit.patch_embed.img_size[0] != vit.patch_embed.img_size[1]:
            raise ValueError(
                f"{name} is not a plain ViT of square images ({type(vit).__name__}); choose one such as "
                "timm:vit_base_patch16_224."
            )
        self.vit = vit.requires_grad_(False).eval()
        self.name = name
        self.tower = TimmTower(vit)
        self.fingerprint = fingerprint(vit)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Stays in evaluation mode: dropout and stochastic depth belong to the pretraining."""
        return super().train(False)


@torch.no_grad()
def fingerprint(vit: nn.Module) -> str:
    """16 hexadecimal digits of the small weights: norms, biases, tokens, positions."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vit.named_parameters()):
        if tensor.dim() == 1 or "token" in name or "embed" in name.rpartition(".")[2]:
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_timm(
    name: str,
    pretrained: bool = True,
    weights: str = "",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> TimmBackbone:
    """Make a timm ViT, frozen and in evaluation mode.

    Args:
        name: "timm:<model>", with the tag of its weights where there are several, as timm lists them.
        pretrained: take the weights of that name, from timm's cache or from the network; False: random weights.
        weights: a file of a state dict to take instead, with timm's names for tensors (MAE, MoCo, DINO, DeiT).

    Raises:
        ValueError: timm has no such model, or it is no plain ViT.
        RuntimeError: the weights cannot be reached, or the file is damaged or does not fit.
        FileNotFoundError: there is no such file.
    """
    model = name.removeprefix(TIMM)
    if not timm.is_model(model.partition(".")[0]):
        near = ", ".join(timm.list_models(f"{model.partition('_')[0]}_base_patch16*")[:3])
        raise ValueError(f"timm has no model '{model}'{f'; there are: {near}, …' if near else ''}.")
    try:
        vit = timm.create_model(model, pretrained=pretrained and not weights, num_classes=0)
    except Exception as error:  # whatever the libraries that download raise
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise RuntimeError(
            f"timm could not make {model} ({type(error).__name__}: {reason[:160]}); its weights must be in "
            "huggingface_hub's cache or reachable, or name a file of weights with TRAINER.SPT.VIT_WEIGHTS."
        ) from error
    if weights:
        load_file(vit, Path(weights))
    return TimmBackbone(vit, name).to(device=device, dtype=dtype)


def load_file(vit: nn.Module, path: Path) -> None:
    """Fill a ViT from a file; tensors of its pretraining that a ViT does not have are left out, and named.

    Names may stand below "state_dict" or "model", and behind a prefix such as MoCo's "module.base_encoder.".

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: it is damaged, or a tensor is missing or has another shape.
    """
    tree = load_checkpoint(path)
    for key in ("state_dict", "model"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    saved = {name: value for name, value in tree.items() if isinstance(value, Tensor)} if isinstance(tree, dict) else {}
    mark = "patch_embed.proj.weight"
    prefixes = [name.removesuffix(mark) for name in saved if name.endswith(mark) and "momentum" not in name]
    if not prefixes:
        raise RuntimeError(f"{path} holds no ViT: no tensor is called {mark}; check the path.")
    own, prefix = vit.state_dict(), min(prefixes, key=len)
    found = {name: saved[prefix + name] for name in own if prefix + name in saved}
    wrong = [f"{name} is not in the file" for name in own if name not in found]
    wrong += [
        f"{name} is {list(value.shape)} in the file and {list(own[name].shape)} here"
        for name, value in found.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RuntimeError(f"{path} does not fit {type(vit).__name__}: {'; '.join(wrong[:3])}{more}.")
    vit.load_state_dict(found)
    rest = [name for name in saved if name.removeprefix(prefix) not in found]
    left_out = f"; left out: {len(rest)} others, such as {rest[0]}" if rest else ""
    print(f"Loaded {len(found)} tensors from {path}{left_out}")
