"""Readers, one data set a file, registered in `dassl.data.datasets`; importing this package registers them."""

from datasets import (
    caltech101,
    dtd,
    eurosat,
    fgvc_aircraft,
    food101,
    image_folder,
    imagenet,
    oxford_flowers,
    oxford_pets,
    shapes,
    stanford_cars,
    sun397,
    ucf101,
)
from datasets.base import extend_cfg

__all__ = [
    "caltech101",
    "dtd",
    "eurosat",
    "extend_cfg",
    "fgvc_aircraft",
    "food101",
    "image_folder",
    "imagenet",
    "oxford_flowers",
    "oxford_pets",
    "shapes",
    "stanford_cars",
    "sun397",
    "ucf101",
]
