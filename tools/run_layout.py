"""Where runs lie: the protocols with their folders, and the name of a run's folder written and read.

    OUTPUT/base2new/{train_base,test_new}/DATASET/shots_S/TRAINER/CFG/seedN
    OUTPUT/fewshot/DATASET/shots_S/TRAINER/CFG/seedN         trained and tested on all classes
    OUTPUT/xd/SOURCE/TARGET/shots_S/TRAINER/CFG/seedN        tests of fewshot/SOURCE on other data sets and domains
    OUTPUT/zeroshot/DATASET/TRAINER/CFG/seedN                on all classes

`Place.folder` writes what `place_of` reads, both from the templates in `PROTOCOLS`. Standard library only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

TAIL = "{trainer}/{config}/seed{seed}"


@dataclass(frozen=True)
class Protocol:
    """One kind of run.

    Attributes:
        arguments: what a script of this kind is called with.
        configs: key in `method.yaml`; protocols with the same key belong together.
        place: folder of its runs below the output folder, without TAIL.
        classes: DATASET.SUBSAMPLE_CLASSES.
        after: the protocol whose trained model it tests; "": it trains.
    """

    arguments: tuple[str, ...]
    configs: str
    place: str
    classes: str
    after: str = ""


PROTOCOLS = {
    "base2new_train": Protocol(("DATASET", "SEED"), "base2new", "base2new/train_base/{dataset}/shots_{shots}", "base"),
    "base2new_test": Protocol(
        ("DATASET", "SEED"), "base2new", "base2new/test_new/{dataset}/shots_{shots}", "new", "base2new_train"
    ),
    "fewshot": Protocol(("DATASET", "SHOTS", "SEED"), "fewshot", "fewshot/{dataset}/shots_{shots}", "all"),
    # Training for other data sets is few-shot training on all classes of the source: the same run, where configs agree.
    "xd_train": Protocol(("SEED",), "xd", "fewshot/{dataset}/shots_{shots}", "all"),
    "xd_test": Protocol(("DATASET", "SEED"), "xd", "xd/{source}/{dataset}/shots_{shots}", "all", "xd_train"),
    "zeroshot": Protocol(("DATASET",), "zeroshot", "zeroshot/{dataset}", "all"),
}
FOLDERS = tuple(dict.fromkeys(protocol.place.split("/")[0] for protocol in PROTOCOLS.values()))  # of OUTPUT


@dataclass(frozen=True)
class Place:
    """What a folder's name says of its run; None where it says nothing."""

    seed: int | str  # the name of the folder where it is no seed folder
    protocol: str | None = None  # key of PROTOCOLS
    source: str | None = None  # of other data sets and domains: what the model was trained on
    dataset: str | None = None
    trainer: str | None = None
    config: str | None = None
    shots: int | None = None

    @property
    def folder(self) -> Path:
        """The run's folder below the output folder; of a place whose protocol is known."""
        assert self.protocol is not None
        return Path(PROTOCOLS[self.protocol].place.format(**vars(self)), TAIL.format(**vars(self)))

    @property
    def model(self) -> Place | None:
        """The training run whose model is tested here; None if there is none."""
        after = PROTOCOLS[self.protocol].after if self.protocol else ""
        if not after:
            return None
        return replace(self, protocol=after, dataset=self.source or self.dataset)


def _pattern(template: str) -> re.Pattern[str]:
    """What finds a filled template at the end of a path."""
    forms = {"shots": r"-?\d+", "seed": r"_?\d+"}
    filled = re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{forms.get(name[1], '[^/]+')})", template)
    return re.compile(f"(?:^|/){filled}$")


_PATTERNS: list[tuple[str | None, re.Pattern[str]]] = [
    *((name, _pattern(f"{protocol.place}/{TAIL}")) for name, protocol in PROTOCOLS.items()),
    # laid out otherwise
    (None, _pattern(f"{{dataset}}/shots_{{shots}}/{TAIL}")),
    (None, _pattern("{config}/seed{seed}")),
    (None, _pattern("seed{seed}")),
]


def place_of(folder: Path) -> Place:
    """Read the name of a run's folder, at any depth; folders laid out otherwise say less.

    Training for other data sets (xd_train) lies where few-shot training does, and is read as that.
    """
    path = Path(os.path.abspath(folder))  # not resolved: a link's own name is the one meant
    for protocol, pattern in _PATTERNS:
        if match := pattern.search(path.as_posix()):
            said = match.groupdict()
            shots = said.get("shots")
            return Place(
                seed=int(said["seed"].lstrip("_")),
                protocol=protocol,
                shots=None if shots is None else int(shots),
                **{name: said.get(name) for name in ("source", "dataset", "trainer", "config")},
            )
    return Place(path.name)


def is_seed_folder(folder: Path) -> bool:
    """Whether the name is that of a run's folder, `seed1` or `seed_1`."""
    return re.fullmatch(r"seed_?\d+", folder.name) is not None
