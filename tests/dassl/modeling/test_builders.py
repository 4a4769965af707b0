import pytest
import torch
from torch import nn
from torchvision import models

from dassl.modeling import (
    BACKBONE_REGISTRY,
    HEAD_REGISTRY,
    NETWORK_REGISTRY,
    Backbone,
    build_backbone,
    build_head,
    build_network,
)


def test_registered_names():
    assert {"resnet18", "resnet50"} <= set(BACKBONE_REGISTRY.registered_names())
    assert "mlp" in HEAD_REGISTRY


def test_resnet18_is_torchvisions_without_classifier(capsys):
    backbone = build_backbone("resnet18", pretrained=False).eval()
    assert isinstance(backbone, Backbone)
    assert backbone.out_features == 512
    assert capsys.readouterr().out == "Backbone: resnet18\n"
    reference = models.resnet18().eval()
    reference.fc = nn.Identity()
    reference.load_state_dict(backbone.net.state_dict())
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(backbone(image), reference(image))


def test_resnet50_width(capsys):
    with torch.device("meta"):
        backbone = build_backbone("resnet50", verbose=False, pretrained=False)
        assert backbone(torch.empty(2, 3, 32, 32)).shape == (2, backbone.out_features) == (2, 2048)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("pretrained", [True, False])
def test_pretrained_asks_torchvision(monkeypatch, pretrained):
    asked = []
    build = models.resnet18
    monkeypatch.setattr(models, "resnet18", lambda weights: asked.append(weights) or build())
    build_backbone("resnet18", verbose=False, pretrained=pretrained)
    assert asked == ["IMAGENET1K_V1" if pretrained else None]


def test_mlp_layers():
    head = build_head("mlp", verbose=False, in_features=8, hidden_layers=(6, 4), activation="leaky_relu", dropout=0.5)
    assert [type(layer).__name__ for layer in head.layers] == ["Linear", "BatchNorm1d", "LeakyReLU", "Dropout"] * 2
    assert head.out_features == 4
    assert head(torch.randn(3, 8)).shape == (3, 4)
    plain = build_head("mlp", verbose=False, in_features=8, hidden_layers=5, bn=False)
    assert [type(layer).__name__ for layer in plain.layers] == ["Linear", "ReLU"]
    x = torch.randn(3, 8)
    linear = plain.layers[0]
    torch.testing.assert_close(plain(x), (x @ linear.weight.T + linear.bias).clamp(min=0))


def test_mlp_errors():
    with pytest.raises(ValueError, match=r"at least one hidden layer; set MODEL.HEAD.HIDDEN_LAYERS"):
        build_head("mlp", verbose=False, in_features=8)
    with pytest.raises(ValueError, match=r"'gelu' does not exist; expected one of \[relu, leaky_relu\]"):
        build_head("mlp", verbose=False, in_features=8, hidden_layers=[4], activation="gelu")


def test_build_network(monkeypatch, capsys):
    monkeypatch.setitem(NETWORK_REGISTRY._entries, "line", lambda width: nn.Linear(width, 1))
    assert build_network("line", width=3).in_features == 3
    assert capsys.readouterr().out == "Network: line\n"


@pytest.mark.parametrize("build", [build_backbone, build_head, build_network])
def test_unknown_names(build):
    with pytest.raises(ValueError, match="'nothing' does not exist; expected one of"):
        build("nothing")
