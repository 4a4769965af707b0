"""The table of backbones."""

from typing import Any

from dassl.utils import Registry, check_availability

__all__ = ["BACKBONE_REGISTRY", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")  # entries are called with pretrained=… and return a `Backbone`


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build the backbone `name`.

    Raises:
        ValueError: it is not registered.
    """
    check_availability(name, BACKBONE_REGISTRY.registered_names())
    if verbose:
        print(f"Backbone: {name}")
    return BACKBONE_REGISTRY.get(name)(**kwargs)
