"""The CLIP model: both towers under OpenAI's names, its specification, and building it from a state dict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import LayerNorm, MultiheadAttention, QuickGELU, ResidualAttentionBlock, Transformer
from .resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from .vit import VisionTransformer

__all__ = [
    "CLIP",
    "AttentionPool2d",
    "Bottleneck",
    "CLIPSpec",
    "LayerNorm",
    "ModifiedResNet",
    "MultiheadAttention",
    "QuickGELU",
    "ResidualAttentionBlock",
    "Transformer",
    "VisionTransformer",
    "build_model",
    "convert_weights",
]


@dataclass(frozen=True)
class CLIPSpec:
    """What a CLIP is made of. `vision_layers` is a number of blocks (ViT) or four stage depths (ResNet)."""

    embed_dim: int  # E, width of the joint space
    image_resolution: int  # pixels a side
    vision_layers: int | tuple[int, int, int, int]
    vision_width: int  # w
    vision_patch_size: int | None  # pixels a side; None for a ResNet
    context_length: int = 77  # rows of the text position table
    vocab_size: int = 49408
    transformer_width: int = 512
    transformer_heads: int = 8
    transformer_layers: int = 12

    @property
    def is_vit(self) -> bool:
        return isinstance(self.vision_layers, int)

    @property
    def vision_heads(self) -> int:
        """Heads are 64 wide in every CLIP."""
        return (self.vision_width if self.is_vit else self.vision_width * 32) // 64


class CLIP(nn.Module):
    """Image and text tower with a shared joint space. A new model is fp32, trainable and randomly initialised."""

    def __init__(self, spec: CLIPSpec):
        super().__init__()
        self.spec = spec
        self.context_length, self.vocab_size = spec.context_length, spec.vocab_size
        self.visual: VisionTransformer | ModifiedResNet
        if isinstance(spec.vision_layers, int):
            if not spec.vision_patch_size or spec.vision_width % 64:
                raise ValueError(
                    f"A ViT needs a patch size and a width that is a multiple of 64, "
                    f"got {spec.vision_patch_size} and {spec.vision_width}."
                )
            self.visual = VisionTransformer(
                spec.image_resolution,
                spec.vision_patch_size,
                spec.vision_width,
                spec.vision_layers,
                spec.vision_heads,
                spec.embed_dim,
            )
        else:
            self.visual = ModifiedResNet(
                spec.vision_layers, spec.embed_dim, spec.vision_heads, spec.image_resolution, spec.vision_width
            )
        self.transformer = Transformer(
            spec.transformer_width, spec.transformer_layers, spec.transformer_heads, causal=True
        )
        self.token_embedding = nn.Embedding(spec.vocab_size, spec.transformer_width)
        self.positional_embedding = nn.Parameter(torch.empty(spec.context_length, spec.transformer_width))
        self.ln_final = LayerNorm(spec.transformer_width)
        self.text_projection = nn.Parameter(torch.empty(spec.transformer_width, spec.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.initialize_parameters()

    def initialize_parameters(self) -> None:
        """Random weights as in the CLIP paper."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=self.transformer.width**-0.5)
        self.transformer.init_weights()
        self.visual.init_weights()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the large weights, which is that of the first convolution."""
        return self.visual.conv1.weight.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, H], normalised with CLIP's mean and deviation, to raw features [B, E]."""
        return self.visual(image)

    def encode_text(self, text: Tensor) -> Tensor:
        """Token ids [C, n], n at most `context_length`, to raw features [C, E].

        Rows behind the last end token are not computed: the causal mask makes the result the same.
        """
        eot = text.argmax(dim=-1)  # the end token has the largest id
        text = text[:, : int(eot.max()) + 1]
        x = self.token_embedding(text).to(self.dtype)  # [C, n, W]
        x = x + self.positional_embedding[: text.shape[1]].to(self.dtype)
        return self.project_text(self.transformer.pool(x, eot))

    def project_text(self, x: Tensor) -> Tensor:
        """`ln_final`, then the projection: [..., W] -> [..., E]."""
        return F.linear(self.ln_final(x), self.text_projection.t())

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine similarities times the scale: logits per image [B, C] and per text [C, B]."""
        image_features = F.normalize(self.encode_image(image), dim=-1)
        text_features = F.normalize(self.encode_text(text), dim=-1)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        return logits, logits.t()


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Give convolutions, linear layers, attention and projections `dtype`, in place.

    Norms, embeddings and `logit_scale` keep their type, as in OpenAI's models.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | MultiheadAttention):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
        for name in ("text_projection", "proj"):
            projection = getattr(module, name, None)
            if isinstance(projection, nn.Parameter):
                projection.data = projection.data.to(dtype)


def infer_spec(state_dict: Mapping[str, Tensor]) -> CLIPSpec:
    """Read the architecture from the shapes of a state dict in OpenAI's layout.

    Raises:
        ValueError: the keys are not those of a CLIP in this layout.
    """

    def shape(key: str) -> torch.Size:
        if key not in state_dict:
            raise ValueError(
                f"The weights hold no {key!r} and so are no CLIP in OpenAI's layout; the first of their "
                f"{len(state_dict)} keys are {list(state_dict)[:3]}."
            )
        return state_dict[key].shape

    def count(prefix: str) -> int:
        """Number of children of a module list."""
        return len({key[len(prefix) :].split(".")[0] for key in state_dict if key.startswith(prefix)})

    layers: int | tuple[int, int, int, int]
    patch: int | None
    if "visual.proj" in state_dict:
        width, patch = shape("visual.conv1.weight")[0], shape("visual.conv1.weight")[-1]
        layers = count("visual.transformer.resblocks.")
        resolution = patch * math.isqrt(shape("visual.positional_embedding")[0] - 1)
    else:
        grid = math.isqrt(shape("visual.attnpool.positional_embedding")[0] - 1)
        width, patch, resolution = shape("visual.layer1.0.conv1.weight")[0], None, 32 * grid
        s1, s2, s3, s4 = (count(f"visual.layer{i}.") for i in (1, 2, 3, 4))
        layers = (s1, s2, s3, s4)
    text_width = shape("ln_final.weight")[0]
    return CLIPSpec(
        embed_dim=shape("text_projection")[1],
        image_resolution=resolution,
        vision_layers=layers,
        vision_width=width,
        vision_patch_size=patch,
        context_length=shape("positional_embedding")[0],
        vocab_size=shape("token_embedding.weight")[0],
        transformer_width=text_width,
        transformer_heads=text_width // 64,
        transformer_layers=count("transformer.resblocks."),
    )


def build_model(state_dict: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> CLIP:
    """Build a CLIP from a state dict in OpenAI's layout, in evaluation mode.

    Args:
        dtype: type of the large weights. The default is the habit of OpenAI's package, fp16; call `.float()` on the
            result, or ask for `torch.float32`, before running it on a CPU.

    Raises:
        ValueError: keys or shapes are not those of a CLIP.
    """
    state = {k: v for k, v in state_dict.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    spec = infer_spec(state)
    with torch.device("meta"):  # no memory and no time for random weights that are replaced at once
        model = CLIP(spec)
    model = model.to_empty(device="cpu")
    convert_weights(model, dtype)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit the CLIP that their shapes describe, {spec}: {error}") from None
    return model.eval()
