"""The table of heads."""

from typing import Any

from dassl.utils import Registry, check_availability

__all__ = ["HEAD_REGISTRY", "build_head"]

HEAD_REGISTRY = Registry("HEAD")  # called with in_features, hidden_layers, activation, bn, dropout; has out_features


def build_head(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build the head `name`.

    Raises:
        ValueError: it is not registered.
    """
    check_availability(name, HEAD_REGISTRY.registered_names())
    if verbose:
        print(f"Head: {name}")
    return HEAD_REGISTRY.get(name)(**kwargs)
