"""From a data set's lists of images to batches."""

from .data_manager import DataManager, DatasetWrapper
from .loader import damaged_images, images_of_step, loader_state, restore_loader, share_damage, start_epoch

__all__ = [
    "DataManager",
    "DatasetWrapper",
    "damaged_images",
    "images_of_step",
    "loader_state",
    "restore_loader",
    "share_damage",
    "start_epoch",
]
