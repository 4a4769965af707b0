"""A stack of linear layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from dassl.utils import check_availability

from .build import HEAD_REGISTRY

__all__ = ["MLP", "mlp"]


class MLP(nn.Module):
    """Linear → batch norm → activation → dropout, once a hidden layer.

    Args:
        in_features: width of the input.
        hidden_layers: widths of the layers; an int is one layer.
        activation: "relu" or "leaky_relu" (slope 0.1).
        bn: with batch norm.
        dropout: probability; 0: none.

    Raises:
        ValueError: no hidden layer, or an unknown activation.
    """

    def __init__(
        self,
        in_features: int = 2048,
        hidden_layers: int | Sequence[int] = (),
        activation: str = "relu",
        bn: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        widths = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if not widths:
            raise ValueError("an MLP head needs at least one hidden layer; set MODEL.HEAD.HIDDEN_LAYERS")
        check_availability(activation, ["relu", "leaky_relu"])
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Linear(in_features, width))
            if bn:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.1))
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features] → [B, out_features]."""
        return self.layers(x)


@HEAD_REGISTRY.register()
def mlp(**kwargs) -> MLP:
    """See `MLP`."""
    return MLP(**kwargs)
