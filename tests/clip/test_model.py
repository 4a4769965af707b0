"""The family layer: building, naming, precision and OpenAI's calling conventions."""

import math

import pytest
import torch
from torch import nn

from clip.clip import tokenize
from clip.model import CLIP, CLIPSpec, VisionTransformer, build_model, convert_weights, infer_spec

TEXTS = ["a photo of a cat.", "dog", "a much longer text about a small red star on a wooden table"]


def test_spec_is_read_from_the_weights(state, spec, resnet_state):
    assert infer_spec(state) == spec
    assert infer_spec(resnet_state) == CLIPSpec(
        24, 64, (1, 2, 1, 1), 8, None, transformer_width=64, transformer_heads=1, transformer_layers=1
    )


def test_published_architectures_have_their_published_size():
    """Parameter counts of the published models, built without memory."""
    published = {
        CLIPSpec(512, 224, 12, 768, 16): 149_620_737,
        CLIPSpec(512, 224, 12, 768, 32): 151_277_313,
        CLIPSpec(768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12): 427_616_513,
        CLIPSpec(1024, 224, (3, 4, 6, 3), 64, None): 102_007_137,
    }
    with torch.device("meta"):
        for spec, count in published.items():
            assert sum(p.numel() for p in CLIP(spec).parameters()) == count


def test_new_models_are_trainable_fp32_and_start_as_the_paper_says(spec):
    torch.manual_seed(0)
    model = CLIP(spec)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert math.isclose(model.logit_scale.detach().exp(), 1 / 0.07, rel_tol=1e-6)
    deviations = {
        "token_embedding.weight": 0.02,
        "positional_embedding": 0.01,
        "text_projection": 128**-0.5,
        "transformer.resblocks.1.attn.in_proj_weight": 128**-0.5,
        "transformer.resblocks.1.attn.out_proj.weight": 128**-0.5 * 6**-0.5,
        "transformer.resblocks.1.mlp.c_fc.weight": 256**-0.5,
        "visual.transformer.resblocks.1.mlp.c_proj.weight": 128**-0.5 * 6**-0.5,
        "visual.proj": 128**-0.5,
    }
    state = model.state_dict()
    for name, std in deviations.items():
        assert math.isclose(state[name].std(), std, rel_tol=0.05), name


@pytest.mark.parametrize("amp", [False, True])
def test_every_parameter_gets_a_gradient(spec, images, amp):
    model = CLIP(spec)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        per_image, per_text = model(images, tokenize(TEXTS))
        target = torch.arange(3)
        loss = nn.functional.cross_entropy(per_image, target) + nn.functional.cross_entropy(per_text, target)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_forward_is_scaled_cosine(state, images):
    model = build_model(state, torch.float32)
    per_image, per_text = model(images, tokenize(TEXTS))
    image, text = model.encode_image(images), model.encode_text(tokenize(TEXTS))
    want = 20 * torch.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(per_image, want)
    torch.testing.assert_close(per_text, want.t())


def test_sequence_first_transformer_gives_encode_text(state):
    """How the family's own text encoders call the model: all 77 rows, sequence first."""
    model, text = build_model(state, torch.float32), tokenize(TEXTS)
    x = model.token_embedding(text) + model.positional_embedding
    x = model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = model.ln_final(x)[torch.arange(3), text.argmax(-1)] @ model.text_projection
    torch.testing.assert_close(model.encode_text(text), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_text(text[:, :30]), x, atol=1e-5, rtol=0)
    y = (model.token_embedding(text) + model.positional_embedding).permute(1, 0, 2)
    torch.testing.assert_close(model.transformer.resblocks(y), model.transformer(y), atol=1e-5, rtol=0)


def test_visual_is_callable_and_says_its_sizes(state, resnet_state, images):
    model = build_model(state, torch.float32)
    assert torch.equal(model.visual(images), model.encode_image(images))
    assert (model.visual.input_resolution, model.visual.output_dim) == (32, 48)
    assert isinstance(model.visual, VisionTransformer)
    resnet = build_model(resnet_state, torch.float32).visual
    assert (resnet.input_resolution, resnet.output_dim) == (64, 24)


def test_build_model_gives_fp16_where_openai_does(state, resnet_state):
    for weights in (state, resnet_state):
        model = build_model(weights)
        assert not model.training
        assert model.dtype == torch.float16
        for name, p in model.named_parameters():
            keeps = "ln_" in name or ".bn" in name or "embedding" in name or name == "logit_scale" or "ample.1" in name
            assert p.dtype == (torch.float32 if keeps else torch.float16), name
        restored = model.float().state_dict()
        for name, tensor in weights.items():
            torch.testing.assert_close(restored[name], tensor, rtol=1e-3, atol=1e-4)


def test_convert_weights_works_on_any_module():
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Conv2d(1, 1, 1), nn.Embedding(2, 2))
    convert_weights(module)
    assert [p.dtype for p in module.parameters()] == [torch.float16] * 2 + [torch.float32] * 2 + [torch.float16] * 2 + [
        torch.float32
    ]
    convert_weights(module, torch.bfloat16)
    assert module[0].weight.dtype == torch.bfloat16


def test_constants_of_openai_archives_are_ignored(state):
    constants = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    build_model(dict(state) | constants)


def test_resnet_strides_are_average_pools(resnet_state, randn):
    """A bottleneck by hand: 1×1, 3×3, average pool, 1×1; the shortcut pools before its 1×1."""
    model = build_model(resnet_state, torch.float32).visual
    block, x = model.layer2[0], randn(1, 32, 16, 16)
    assert block.conv2.stride == (1, 1)

    def normed(bn, y):
        shape = (1, -1, 1, 1)
        y = (y - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + 1e-5).sqrt()
        return y * bn.weight.view(shape) + bn.bias.view(shape)

    def pooled(y):
        return (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4

    def point(conv, y):
        return torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], y)

    y = normed(block.bn1, point(block.conv1, x)).clamp(min=0)
    y = normed(block.bn2, nn.functional.conv2d(y, block.conv2.weight, padding=1)).clamp(min=0)
    y = normed(block.bn3, point(block.conv3, pooled(y)))
    shortcut = block.downsample
    want = (y + normed(getattr(shortcut, "1"), point(getattr(shortcut, "0"), pooled(x)))).clamp(min=0)
    torch.testing.assert_close(block(x), want, atol=1e-4, rtol=1e-4)


def test_errors(state, spec, images, resnet_state):
    with pytest.raises(ValueError, match=r"The weights hold no 'visual.attnpool.positional_embedding' and so are no"):
        build_model({"weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"The weights do not fit the CLIP that their shapes describe, CLIPSpec"):
        build_model({name: tensor for name, tensor in state.items() if name != "ln_final.bias"})
    with pytest.raises(ValueError, match=r"needs a patch size and a width that is a multiple of 64, got 8 and 100\."):
        CLIP(CLIPSpec(16, 32, 2, 100, 8))
    with pytest.raises(ValueError, match=r"image size must be a multiple of the patch size, got 30 and 8\."):
        CLIP(CLIPSpec(16, 30, 2, 64, 8))
    with pytest.raises(ValueError, match=r"width must be a multiple of the number of heads, got 128 and 3\."):
        CLIP(CLIPSpec(16, 32, 2, 64, 8, transformer_width=128, transformer_heads=3))
    with pytest.raises(ValueError, match=r"takes images of shape \[B, 3, 64, 64\], got \[3, 3, 32, 32\]; resize them"):
        build_model(resnet_state, torch.float32)(images, tokenize(TEXTS))
