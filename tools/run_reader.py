"""Read one run folder: what ran there, whether it finished, and the number it ended with.

`metrics.json` (full precision, with a finished flag) is read where there is one, the family's `log.txt` otherwise.
Standard library only: neither torch nor dassl is imported, so that reading a thousand runs takes a moment.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.run_layout import Place, is_seed_folder, place_of
from tools.run_names import dataset_name, method_name, natural

SCHEMA = 1
EVAL_FILE = "metrics-eval.json"  # of an --eval-only in the folder of a training run, whose metrics.json stays
TRAIN_SIGNALS = ("Finish training", "Finished training")  # Dassl printed the second one until 0.6.1
TEST_SIGNALS = ("=> result",)
KEYWORDS = {"error": "error_rate", "average": "perclass_accuracy"}  # word of the log -> key of metrics.json
_FORM: dict[str, Any] = {  # entry -> type
    **{"mode": str, "dataset": str, "trainer": str, "num_shots": int, "seed": int, "started": str},
    **{"config": dict, "final": dict, "epochs": list, "wall_seconds": (int, float), "parameters": dict},
}
_LOG_AGAIN = re.compile(r"log\.txt-\d{4}(-\d\d){5}$")  # what setup_logger writes when log.txt exists


class RunProblem(ValueError):
    """A run that cannot be used. The text says why; `state` is "missing", "unfinished" or "damaged"."""

    def __init__(self, state: str, reason: str):
        super().__init__(reason)
        self.state = state


@dataclass(frozen=True)
class Run:
    """One finished run and the value it ended with. A field that nothing tells is None."""

    folder: Path
    source: Path  # the file that was read
    value: float  # percent, as precise as the file has it
    place: Place  # what the folder's name says, completed from metrics.json
    metrics: dict[str, Any] | None  # the whole metrics.json

    @property
    def dataset(self) -> str | None:
        return self.place.dataset

    @property
    def trainer(self) -> str | None:
        return self.place.trainer

    @property
    def config(self) -> str | None:
        return self.place.config

    @property
    def shots(self) -> int | None:
        return self.place.shots

    @property
    def seed(self) -> int | str:
        return self.place.seed

    @property
    def method(self) -> str:
        """`CoOp`, or `CoOp w/ Spotlighter` where the trainer wraps a host."""
        return method_name(self.trainer or "?", self.recorded("config"))

    def recorded(self, name: str) -> dict[str, Any]:
        """An object of metrics.json, `parameters` for example; empty where nothing usable is recorded."""
        part = (self.metrics or {}).get(name)
        return part if isinstance(part, dict) else {}


def read_run(folder: Path, keyword: str = "accuracy", test_log: bool | None = None) -> Run:
    """Read a finished run.

    Args:
        folder: the run's output folder.
        keyword: metric to take: a key of `final.metrics`, or the word before the colon in the log.
        test_log: True: of an evaluation, so in metrics-eval.json if there is one, or in a log after `=> result`;
            False: after `Finish training`; None: the same, unless the folder's logs are of evaluations only.

    Raises:
        RunProblem: nothing there, not finished, damaged, or no finite value for the keyword.
    """
    if not folder.is_dir():
        raise RunProblem("missing", "there is no such folder")
    place = place_of(folder)
    path = folder / "metrics.json"
    if test_log and (folder / EVAL_FILE).is_file():
        path = folder / EVAL_FILE
    if path.is_file():
        metrics = load_metrics(path)
        value = _value_in_metrics(metrics, keyword)
        recorded, seed = metrics.get("seed"), place.seed
        if isinstance(seed, int) and isinstance(recorded, int) and recorded >= 0 and recorded != seed:
            raise RunProblem("damaged", f"the folder's name says seed {seed}, its {path.name} seed {recorded}")
        place = replace(
            place,
            dataset=dataset_name(place.dataset or metrics.get("dataset")),
            trainer=place.trainer or metrics.get("trainer"),
            shots=metrics.get("num_shots") if place.shots is None else place.shots,
        )
        return Run(folder, path, value, place, metrics)
    logs = list(_logs(folder))
    if not logs:
        raise RunProblem("missing", "it holds neither metrics.json nor log.txt")
    if not test_log:  # an evaluation may have been logged beside the training
        logs = [log for log in logs if _trains(log[1])] or logs
    path, lines = logs[0]
    return Run(folder, path, _value_in_log(lines, keyword, test_log), place, None)


def load_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json or metrics-eval.json.

    Raises:
        RunProblem: "damaged", if it is not JSON, not an object, or of another schema.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise RunProblem("damaged", f"{path.name} cannot be read ({error})") from error
    if not isinstance(metrics, dict):
        raise RunProblem("damaged", f"{path.name} holds a {type(metrics).__name__}, not an object")
    if metrics.get("schema") != SCHEMA:
        raise RunProblem(
            "damaged", f"{path.name} has schema {metrics.get('schema')!r:.40}, this program reads {SCHEMA}"
        )
    wrong = _wrong_entry(metrics)
    if wrong is not None:
        raise RunProblem("damaged", f"{path.name} is damaged: {wrong} has a value that no run writes")
    return metrics


def _wrong_entry(metrics: dict[str, Any]) -> str | None:
    """The first entry whose value has a type that readers do not expect; None if there is none."""
    for key, kind in _FORM.items():
        if not isinstance(metrics.get(key), (kind, type(None))):  # what is not there is not damaged
            return key
    if not all(isinstance(row, dict) for row in metrics.get("epochs") or []):
        return "epochs"
    for key in ("OPTIM", "TEST", "TRAINER"):
        if not isinstance((metrics.get("config") or {}).get(key), (dict, type(None))):
            return f"config.{key}"
    return None


def _logs(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder's logs and their lines, the latest first: `log.txt-<timestamp>` of a repeated run is after `log.txt`."""
    names = [p.name for p in folder.iterdir() if p.is_file() and (p.name == "log.txt" or _LOG_AGAIN.match(p.name))]
    for name in sorted(names, reverse=True):
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise RunProblem("damaged", f"{name} cannot be read ({error})") from error
        yield folder / name, [line.strip() for line in text.splitlines()]


def _trains(lines: list[str]) -> bool:
    return any(line.startswith("epoch [") or line in TRAIN_SIGNALS for line in lines)


def is_run_folder(folder: Path) -> bool:
    """Whether the folder is a run's: has a metrics.json or log.txt, or a name like `seed1`."""
    known = ("metrics.json", "log.txt")
    return is_seed_folder(folder) or any((folder / name).is_file() for name in known)


def find_runs(root: Path) -> Iterator[Path]:
    """All run folders at or below root, in the order of their paths; hidden folders are passed over."""
    if is_run_folder(root):
        yield root
        return
    seen = set()  # links are followed, once
    for here, folders, _ in os.walk(root, followlinks=True):
        if os.path.realpath(here) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        runs = [name for name in folders if is_run_folder(Path(here, name))]
        yield from (Path(here, name) for name in runs)
        folders[:] = [name for name in folders if name not in runs]


def _value_in_metrics(metrics: dict[str, Any], keyword: str) -> float:
    if metrics.get("finished") is not True:
        raise RunProblem("unfinished", f"unfinished{_progress(metrics)}; the command that began it goes on with it")
    values = (metrics.get("final") or {}).get("metrics")
    if not isinstance(values, dict):
        raise RunProblem("damaged", "metrics.json says finished but holds no final metrics")
    key = keyword if keyword in values else KEYWORDS.get(keyword, keyword)
    if key not in values:
        raise RunProblem("damaged", f"it has no {keyword!r}, only {', '.join(values) or 'an empty list of metrics'}")
    return _finite(values[key], keyword)


def _progress(metrics: dict[str, Any]) -> str:
    if metrics.get("mode") != "train":
        return ""
    done, total = len(metrics.get("epochs") or []), ((metrics.get("config") or {}).get("OPTIM") or {}).get("MAX_EPOCH")
    return f" (after {done} of {total} epochs)" if total else f" (after {done} epochs)"


def _value_in_log(lines: list[str], keyword: str, test_log: bool | None) -> float:
    if test_log is None:
        test_log = not _trains(lines)
    signals = TEST_SIGNALS if test_log else TRAIN_SIGNALS
    start = next((i for i, line in enumerate(lines) if line in signals), None)
    if start is None:
        hint = "; it has '=> result': try --test-log" if not test_log and "=> result" in lines else ""
        raise RunProblem("unfinished", f"unfinished: its newest log has no line {signals[0]!r}{hint}")
    pattern = re.compile(rf"\* {re.escape(keyword)}: ([+-]?(?:nan|inf)|[.\deE+-]+)%")
    found = [match[1] for line in lines[start:] for match in [pattern.search(line)] if match]
    if not found:
        raise RunProblem("unfinished", f"its newest log has no '* {keyword}: …%' after {lines[start]!r}")
    return _finite(found[-1], keyword)


def _finite(value: Any, keyword: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise RunProblem("damaged", f"its {keyword} is {value!r}, not a number that can be averaged")
    return number
