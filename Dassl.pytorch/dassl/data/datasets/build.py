"""The table of data sets."""

from yacs.config import CfgNode

from dassl.utils import Registry, check_availability

from .base_dataset import DatasetBase

__all__ = ["DATASET_REGISTRY", "build_dataset"]

DATASET_REGISTRY = Registry("DATASET")  # entries are classes called with the cfg; they are `DatasetBase`s


def build_dataset(cfg: CfgNode) -> DatasetBase:
    """Build the data set `cfg.DATASET.NAME`.

    Raises:
        ValueError: no imported module registers that name.
    """
    name = cfg.DATASET.NAME
    check_availability(name, DATASET_REGISTRY.registered_names())
    if cfg.VERBOSE:
        print(f"Loading dataset: {name}")
    return DATASET_REGISTRY.get(name)(cfg)
