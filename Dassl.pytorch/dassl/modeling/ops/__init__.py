"""Small operations that methods share."""

from .mixup import mixup
from .reverse_grad import ReverseGrad
from .utils import (
    create_onehot,
    ema_model_update,
    linear_rampup,
    reverse_index,
    sharpen_prob,
    shuffle_index,
    sigmoid_rampup,
)

__all__ = [
    "ReverseGrad",
    "create_onehot",
    "ema_model_update",
    "linear_rampup",
    "mixup",
    "reverse_index",
    "sharpen_prob",
    "shuffle_index",
    "sigmoid_rampup",
]
