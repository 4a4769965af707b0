"""The table of trainers."""

from typing import Any

from dassl.utils import Registry, check_availability

# A trainer is a class called with `cfg`; its name in a config is the name of the class.
TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: Any) -> Any:
    """Make the trainer named by `cfg.TRAINER.NAME`.

    Raises:
        ValueError: no such trainer is registered (is its module imported?); the message lists those that are.
    """
    check_availability(cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names())
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
