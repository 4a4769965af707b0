"""The table of evaluators."""

from typing import Any

from yacs.config import CfgNode

from dassl.utils import Registry, check_availability

__all__ = ["EVALUATOR_REGISTRY", "build_evaluator"]

EVALUATOR_REGISTRY = Registry("EVALUATOR")  # entries are classes called with (cfg, lab2cname=…); `EvaluatorBase`s


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> Any:
    """Build the evaluator `cfg.TEST.EVALUATOR`.

    Raises:
        ValueError: no imported module registers that name.
    """
    name = cfg.TEST.EVALUATOR
    check_availability(name, EVALUATOR_REGISTRY.registered_names())
    if cfg.VERBOSE:
        print(f"Loading evaluator: {name}")
    return EVALUATOR_REGISTRY.get(name)(cfg, **kwargs)
