"""What differs from the published recipe of a method: which config that is, and the keys that are otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from dassl.engine.resume import FREE_KEYS
from tools.protocols import DEFAULT_SHOTS, ROOT, ProtocolError, method_of
from tools.run_layout import PROTOCOLS
from tools.run_names import dataset_name

# Keys that name a run or its data, and are no part of a recipe.
NOT_COMPARED = FREE_KEYS | {"SEED", "TRAINER.NAME", "DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES"}
EMBEDDED = "shapes"  # nothing is published for it: its runs are compared with those on real data


@dataclass(frozen=True)
class Recipe:
    """A config that reproduces a publication: the file, and the protocol that it belongs to."""

    path: Path
    protocol: str

    @property
    def shown(self) -> str:
        return f"{self.path.relative_to(ROOT).as_posix()} ({self.protocol})"


def published_recipe(cfg: CN, typed: str = "") -> Recipe | None:
    """The recipe of a run's method, host, classes, data set and shots; None: none is published.

    Args:
        typed: stem of the config file in use, which tells protocols apart that train on the same classes.
    """
    trainer = cfg.TRAINER.NAME
    try:
        files = method_of(trainer)
    except ProtocolError:
        return None
    node = cfg.TRAINER.get(trainer.upper(), CN())
    host = node.get("HOST", "")
    around = host if host in files.hosts else ""
    if host and not around and host != "CoOp":
        return None
    dataset = dataset_name(cfg.DATASET.NAME) or ""
    dataset = "" if dataset.startswith(EMBEDDED) else dataset
    shots = cfg.DATASET.NUM_SHOTS if cfg.DATASET.NUM_SHOTS > 0 else DEFAULT_SHOTS
    recipes = []
    for protocol in _protocols(cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")):
        key = f"{around} {protocol}".lstrip()
        if key in files.published:
            config = files.published[key] or files.config(protocol, dataset, shots, around)
            recipes.append(Recipe(ROOT / "configs/trainers" / files.trainer / f"{config}.yaml", protocol))
    return next((recipe for recipe in recipes if recipe.path.stem == typed), recipes[0] if recipes else None)


def _protocols(classes: str) -> list[str]:
    """Keys of method.yaml whose runs have these classes."""
    return list(dict.fromkeys(protocol.configs for protocol in PROTOCOLS.values() if protocol.classes == classes))


def differences(cfg: CN, published: CN, protocol: str) -> dict[str, tuple[Any, Any]]:
    """Keys with another value than in the published configuration, as (ours, published), in the order of the groups.

    Nodes of methods that the run does not use are left out; so is DATASET.NUM_SHOTS where shots are what is varied.
    """
    trainer = cfg.TRAINER.NAME.upper()
    host = cfg.TRAINER.get(trainer, CN()).get("HOST", "").upper()
    ours, theirs = _flat(cfg), _flat(published)
    if protocol in ("base2new", "xd") and not published.DATASET.get("NUM_UNLABELLED", 0):
        theirs["DATASET.NUM_SHOTS"] = DEFAULT_SHOTS
    else:
        theirs.pop("DATASET.NUM_SHOTS", None)

    def counts(key: str) -> bool:
        group, _, rest = key.partition(".")
        return key not in NOT_COMPARED and (group != "TRAINER" or rest.split(".")[0] in (trainer, host))

    changed = {key: (ours[key], theirs[key]) for key in theirs if key in ours and counts(key)}
    return {key: pair for key, pair in changed.items() if _plain(pair[0]) != _plain(pair[1])}


def recipe_lines(cfg: CN, typed: str, configuration: Callable[[str], CN]) -> tuple[str, list[tuple[str, str]]]:
    """Title and lines of the report's section.

    Args:
        cfg: of the run.
        typed: stem of its config file.
        configuration: makes the configuration of another config file on the same data.
    """
    recipe = published_recipe(cfg, typed)
    if recipe is None:
        host = cfg.TRAINER.get(cfg.TRAINER.NAME.upper(), CN()).get("HOST", "")
        what = f"{cfg.TRAINER.NAME} around {host}" if host else cfg.TRAINER.NAME
        classes = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        return "Published recipe", [("none", f"nothing is published for {what} trained on {classes} classes")]
    found = differences(cfg, configuration(str(recipe.path)), recipe.protocol)
    title = f"Published recipe {recipe.shown}"
    if not found:
        return title, [("the same", "no key that matters is otherwise")]
    return title, [(key, f"{_shown(ours)} → {_shown(theirs)}") for key, (ours, theirs) in sorted(found.items())]


def _flat(node: CN, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, CN) else {f"{prefix}{key}": value}
    return leaves


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    return "''" if value == "" else str(value)
