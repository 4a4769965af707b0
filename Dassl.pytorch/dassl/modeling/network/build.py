"""The table of networks."""

from typing import Any

from dassl.utils import Registry, check_availability

__all__ = ["NETWORK_REGISTRY", "build_network"]

NETWORK_REGISTRY = Registry("NETWORK")  # entries are called with keyword arguments of their own


def build_network(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build the network `name`.

    Raises:
        ValueError: it is not registered.
    """
    check_availability(name, NETWORK_REGISTRY.registered_names())
    if verbose:
        print(f"Network: {name}")
    return NETWORK_REGISTRY.get(name)(**kwargs)
