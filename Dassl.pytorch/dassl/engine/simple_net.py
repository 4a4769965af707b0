"""A network of backbone, optional head, and linear classifier, by the names in `cfg.MODEL`."""

from typing import Any

from torch import nn

from dassl.modeling import build_backbone, build_head


class SimpleNet(nn.Module):
    """Default network of trainers that build none of their own.

    Args:
        cfg: whole config (`VERBOSE` is read).
        model_cfg: the node `cfg.MODEL`.
        num_classes: outputs of the classifier; 0 for none.
        kwargs: passed on to the backbone.
    """

    def __init__(self, cfg: Any, model_cfg: Any, num_classes: int, **kwargs: Any):
        super().__init__()
        backbone = model_cfg.BACKBONE
        self.backbone = build_backbone(backbone.NAME, verbose=cfg.VERBOSE, pretrained=backbone.PRETRAINED, **kwargs)
        self._fdim = self.backbone.out_features
        self.head: nn.Module | None = None
        if model_cfg.HEAD.NAME and model_cfg.HEAD.HIDDEN_LAYERS:
            self.head = build_head(
                model_cfg.HEAD.NAME,
                verbose=cfg.VERBOSE,
                in_features=self._fdim,
                hidden_layers=model_cfg.HEAD.HIDDEN_LAYERS,
                activation=model_cfg.HEAD.ACTIVATION,
                bn=model_cfg.HEAD.BN,
                dropout=model_cfg.HEAD.DROPOUT,
            )
            self._fdim = self.head.out_features
        self.classifier = nn.Linear(self._fdim, num_classes) if num_classes > 0 else None

    @property
    def fdim(self) -> int:
        """Width of the features that the classifier takes."""
        return self._fdim

    def forward(self, x: Any, return_feature: bool = False) -> Any:
        """[B, 3, H, W] → logits [B, C], with `return_feature` also features [B, fdim]; no classifier: features."""
        features = self.backbone(x)
        if self.head is not None:
            features = self.head(features)
        if self.classifier is None:
            return features
        logits = self.classifier(features)
        return (logits, features) if return_feature else logits
