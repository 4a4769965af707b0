"""Trainers: the table of them, their base classes, devices and precisions."""

from .build import TRAINER_REGISTRY, build_trainer
from .device import select_device
from .precision import Precision
from .trainer import SimpleNet, SimpleTrainer, TrainerBase, TrainerX, TrainerXU

__all__ = [
    "TRAINER_REGISTRY",
    "Precision",
    "SimpleNet",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
    "build_trainer",
    "select_device",
]
