"""Dassl's module of this name: everything that trainers import from it, gathered from where it lives."""

from torch.utils.tensorboard import SummaryWriter

from dassl.data import DataManager
from dassl.evaluation import build_evaluator
from dassl.modeling import build_backbone, build_head
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    mkdir_if_missing,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)

from .base import TrainerBase
from .loops import TrainerX, TrainerXU
from .simple import SimpleTrainer
from .simple_net import SimpleNet

__all__ = [
    "AverageMeter",
    "DataManager",
    "MetricMeter",
    "SimpleNet",
    "SimpleTrainer",
    "SummaryWriter",
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
    "build_backbone",
    "build_evaluator",
    "build_head",
    "build_lr_scheduler",
    "build_optimizer",
    "count_num_param",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "resume_from_checkpoint",
    "save_checkpoint",
    "tolist_if_not",
]
