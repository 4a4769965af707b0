"""The timm tower against timm's own forward pass, and the two ways to its weights."""

import huggingface_hub
import pytest
import timm
import torch
from torch import nn

from clip.backbone import VisualPrompts
from trainers.spt.timm_vit import TimmBackbone, TimmTower, load_timm

NO_PROMPTS = VisualPrompts()


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_pool": "avg"},  # the norm stands behind the pooling
        {"reg_tokens": 2, "no_embed_class": True},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"pre_norm": True},
    ],
    ids=["plain", "fc_norm", "registers", "no_cls", "pre_norm"],
)
def test_without_prompts_it_is_timms_own_forward(make_vit, images, options):
    vit = make_vit(**options)
    tower = TimmTower(vit)
    x = tower.encode(images, NO_PROMPTS)
    close(vit.norm(x), vit.forward_features(images))
    pooled = x[:, tower.n_prefix :].mean(dim=1) if options.get("global_pool") == "avg" else x[:, 0]
    normed = tower.norm(pooled)
    if options.get("fc_norm") is False:  # timm normalises every row and then pools; SPT's MAE readout is the other way
        close(vit.norm(x)[:, 0 : x.shape[1]].mean(dim=1), vit(images))
    else:
        close(normed, vit(images))


@pytest.mark.parametrize("inject", ["pre_ln", "post_ln"])
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"pre_norm": True}], ids=["plain", "registers", "pre_norm"])
def test_prompted_it_is_timms_forward_with_rows_put_in_by_hooks(make_vit, images, options, inject):
    """The oracle puts the prompts between class token and patches, where the release has them."""
    vit, P = make_vit(**options), 2
    front = vit.num_prefix_tokens
    rows = [torch.randn(P, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    hooks = []
    for i, block in enumerate(vit.blocks):

        def put_in(_, inputs, i=i):
            (x,) = inputs
            behind = x[:, front:] if i == 0 else x[:, front + P :]
            own = vit.norm_pre(rows[i]) if i == 0 and inject == "pre_ln" else rows[i]
            return (torch.cat([x[:, :front], own.expand(len(x), -1, -1), behind], dim=1),)

        hooks.append(block.register_forward_pre_hook(put_in))
    expected = vit.forward_features(images)
    for hook in hooks:
        hook.remove()
    tower = TimmTower(vit)
    x = tower.norm(tower.encode(images, VisualPrompts(rows[0], {1: rows[1], 2: rows[2]}, inject)))
    close(x[:, :front], expected[:, :front])
    close(x[:, front:-P], expected[:, front + P :])
    close(x[:, -P:], expected[:, front : front + P])


def test_shallow_prompts_travel_through_all_blocks(vit, images):
    rows = torch.randn(2, 32)
    x = vit._pos_embed(vit.patch_embed(images))
    x = torch.cat([x, rows.expand(5, -1, -1)], dim=1)
    for block in vit.blocks:
        x = block(x)
    close(TimmTower(vit).encode(images, VisualPrompts(rows)), x)


def test_layers_are_the_patch_embedding_and_what_enters_each_block(vit, images):
    entered = []
    hooks = [block.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0])) for block in vit.blocks]
    vit(images)
    for hook in hooks:
        hook.remove()
    layers = list(TimmTower(vit).layers(images, 3))
    close(layers[0], vit.patch_embed(images))
    close(layers[1], entered[1][:, 1:])
    close(layers[2], entered[2][:, 1:])
    assert len(list(TimmTower(vit).layers(images, 1))) == 1


def test_wrong_image_size_names_the_key(vit):
    with pytest.raises(ValueError, match=r"INPUT\.SIZE"):
        TimmTower(vit).encode(torch.zeros(1, 3, 40, 40), NO_PROMPTS)


# --- loading


def test_a_backbone_is_frozen_named_and_told_apart(make_vit, small_timm):
    backbone = load_timm("timm:vit_base_patch16_224.mae")
    assert small_timm == [("vit_base_patch16_224.mae", True)]
    assert backbone.name == "timm:vit_base_patch16_224.mae"
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.train().training
    assert not backbone.vit.blocks[0].training
    assert backbone.fingerprint == TimmBackbone(make_vit(0), "x").fingerprint
    assert backbone.fingerprint != TimmBackbone(make_vit(1), "x").fingerprint
    half = load_timm("timm:vit_base_patch16_224.mae", dtype=torch.bfloat16)
    assert half.fingerprint == backbone.fingerprint
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_weights_out_of_reach(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"could not make vit_tiny_patch16_224\.augreg_in21k .*VIT_WEIGHTS\.$"):
        load_timm("timm:vit_tiny_patch16_224.augreg_in21k")


def test_unknown_model():
    with pytest.raises(ValueError, match="timm has no model 'vit_bass_patch16_224'; there are: vit_base_patch16"):
        load_timm("timm:vit_bass_patch16_224")


def test_a_model_that_is_no_plain_vit(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"timm:resnet18 is not a plain ViT of square images \(Linear\)"):
        load_timm("timm:resnet18")


MOCO = ("module.momentum_encoder.patch_embed.proj.weight", "module.base_encoder.head.0.weight")
MAE = ("decoder_blocks.0.norm1.weight", "mask_token")


@pytest.mark.parametrize(
    ("key", "prefix", "more"),
    [("state_dict", "module.base_encoder.", MOCO), ("model", "", MAE), (None, "", ("head.weight",))],
    ids=["moco", "mae", "deit"],
)
def test_a_file_of_weights(make_vit, small_timm, tmp_path, capsys, key, prefix, more):
    source = make_vit(5)
    weights = {prefix + name: value for name, value in source.state_dict().items()} | {
        name: torch.ones(2) for name in more
    }
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / "w.pth")
    backbone = load_timm("timm:vit_base_patch16_224", weights=str(tmp_path / "w.pth"))
    assert small_timm == [("vit_base_patch16_224", False)]  # timm's own weights are not asked for
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in backbone.vit.state_dict().items())
    assert backbone.fingerprint == TimmBackbone(source, "x").fingerprint
    assert f"left out: {len(more)} others, such as {more[0]}" in capsys.readouterr().out


def test_files_that_do_not_fit(make_vit, small_timm, tmp_path):
    path = tmp_path / "w.pth"
    weights = make_vit(5).state_dict()
    torch.save({name: value for name, value in weights.items() if name != "norm.bias"}, path)
    with pytest.raises(RuntimeError, match=r"w\.pth does not fit VisionTransformer: norm\.bias is not in the file\."):
        load_timm("timm:vit_base_patch16_224", weights=str(path))
    torch.save(weights | {"norm.bias": torch.zeros(7)}, path)
    with pytest.raises(RuntimeError, match=r"norm\.bias is \[7\] in the file and \[32\] here"):
        load_timm("timm:vit_base_patch16_224", weights=str(path))
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(RuntimeError, match=r"holds no ViT: no tensor is called patch_embed\.proj\.weight"):
        load_timm("timm:vit_base_patch16_224", weights=str(path))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_timm("timm:vit_base_patch16_224", weights=str(tmp_path / "nowhere.pth"))
