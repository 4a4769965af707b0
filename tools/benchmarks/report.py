"""What was measured as JSON, as text for a terminal, and as markdown between two marks of a page.

Text and markdown are made from the JSON's content alone, so that figures of one machine can be shown on another.
"""

from __future__ import annotations

import datetime
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dassl.utils.files import write_text
from tools.benchmarks.subjects import Setting
from tools.benchmarks.table4 import table4
from tools.benchmarks.targets import BACKBONE, BATCH
from tools.result_render import to_json, to_text

SCHEMA = 1
MEASURED = "measured here"


def environment(device: torch.device) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def content(
    setting: Setting, repeats: int | None, tables: Sequence[dict[str, Any]], targets: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """All figures of a run.

    Args:
        tables: records of `MethodTable`.
        targets: records of `Result`.
    """
    return {
        "schema": SCHEMA,
        "environment": environment(torch.device(setting.device)),
        "setting": {
            "backbone": setting.backbone,
            "batch": setting.batch,
            "repeats": repeats,
            "compile": setting.is_compiled,
            "graph": setting.is_graphed,
            "options": list(setting.options),
        },
        "methods": list(tables),
        "table4": table4(tables) if tables else [],
        "targets": list(targets),
    }


def write_json(path: Path, found: dict[str, Any]) -> None:
    write_text(path, to_json(found) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no result of a benchmark.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or "targets" not in found:
        raise ValueError(f"{path} holds no figures of this benchmark; write them with --json.")
    return found


def about(found: dict[str, Any]) -> str:
    """One sentence: machine, software, sizes."""
    where, setting = found["environment"], found["setting"]
    threads = f" ({where['threads']} threads)" if where["device"] == "cpu" else ""
    savings = "; blocks of the methods' towers compiled" if setting["compile"] else ""
    savings += "; steps as CUDA graphs, but for the plain path's" if setting["graph"] else ""
    options = f"; {' '.join(setting['options'])}" if setting["options"] else ""
    return (
        f"{where['device_name']}{threads}, torch {where['torch']}, {where['date'][:10]}: {setting['backbone']}, "
        f"batch {setting['batch']}{savings}{options}."
    )


def methods_text(table: dict[str, Any], fmt: str = "table") -> str:
    """One table of methods side by side."""
    has_flops = any(row["inference_gflop"] for row in table["rows"])
    titles = ["", "Tensors", "Scalars", "Batch", "Training/s", "Inference/s", "÷ bare", "÷ plain"]
    titles += ["GFLOP training", "GFLOP inference"] if has_flops else []
    lines = []
    for row in table["rows"]:
        trains = row["training_images_per_second"] is not None
        line = [
            row["name"] + (f": {row['reason']}" if row["reason"] else ""),
            f"{row['tensors']:,}" if row["train_batch"] or row["tensors"] else "",
            f"{row['scalars']:,}" if row["train_batch"] or row["tensors"] else "",
            f"{row['train_batch']}" if trains else "",
            _number(row["training_images_per_second"]),
            _number(row["inference_images_per_second"]),
            _spread(row["inference_to_bare"]),
            _spread(row["inference_to_plain"]),
        ]
        lines.append([*line, _number(row["training_gflop"]), _number(row["inference_gflop"])] if has_flops else line)
    head = f"{table['n_classes']} classes, {table['precision']}, batch {table['batch']} in inference; images/s:"
    return f"{head}\n\n{to_text(titles, lines, fmt, 1)}"


def table4_text(found: dict[str, Any], fmt: str = "table") -> str:
    """Table IV; the titles say what is published and what was measured."""
    here = f"{MEASURED} ({found['environment']['device_name']})"
    titles = ["", "Parameters, published", "Images/s, published"]
    titles += [f"Tensors, {MEASURED}", f"Scalars, {MEASURED}", f"Images/s, {here}"]
    lines = []
    for row in found["table4"]:
        line = [row["method"], row["published_parameters"], row["published_images_per_second"]]
        if "tensors" in row:
            added = f" (+{row['added_tensors']})" if row["added_tensors"] is not None else ""
            speed = _number(row["inference_images_per_second"])
            line += [f"{row['tensors']}{added}", f"{row['scalars']:,}"]
            line.append(f"{speed} ({row['precision']}, {row['n_classes']} classes)")
        else:
            line += ["–", "–", "–"]
        lines.append(line)
    return "Table IV of the paper:\n\n" + to_text(titles, lines, fmt, 1)


def target_cells(target: dict[str, Any]) -> list[str]:
    """A row of the table of targets."""
    unit = f" {target['unit']}" if target["unit"] else ""
    name = f"{target['name']}: {target['figure']}"
    where = f"{target['n_classes']} classes, {target['precision']}"
    seen = "–" if target["value"] is None else f"{target['value']:.3g}{unit}"
    spread = "–" if target["low"] is None else f"{target['low']:.3g}–{target['high']:.3g}"
    verdict = target["verdict"] + (f": {target['reason']}" if target["reason"] else "")
    sign = "≥" if target["is_least"] else "≤"
    is_unsure = target["low"] is not None and target["low"] < target["limit"] < target["high"]
    notes = ["the limit lies within the spread"] * is_unsure + target["notes"]
    return [name, where, f"{sign} {target['limit']:g}{unit}", seen, spread, verdict, "; ".join(notes)]


def target_line(target: dict[str, Any]) -> str:
    """The same for the terminal, where rows appear one by one."""
    name, where, limit, seen, spread, verdict, notes = target_cells(target)
    spread = "" if spread == "–" else f" ({spread})"
    return f"{name} [{where}] {seen}{spread}, target {limit}: {verdict}" + (f"\n    {notes}" if notes else "")


def targets_text(found: dict[str, Any], fmt: str = "table") -> str:
    titles = ["Figure", "At", "Target", "Measured", "Lowest–highest", "Verdict", "Seen beside it"]
    return to_text(titles, [target_cells(target) for target in found["targets"]], fmt, len(titles))


def conditions(found: dict[str, Any]) -> str:
    """What the limits are set for, where that is not what was measured."""
    setting = found["setting"]
    if (setting["backbone"], setting["batch"]) == (BACKBONE, BATCH):
        return ""
    return (
        f"The targets are set for {BACKBONE} at batch {BATCH}; these figures are of {setting['backbone']} at batch "
        f"{setting['batch']}."
    )


def plain_text(found: dict[str, Any]) -> str:
    """Everything, for a terminal."""
    parts = [about(found), *(methods_text(table) for table in found["methods"])]
    if found["targets"]:
        parts.append("\n".join(target_line(target) for target in found["targets"]))
        parts += [conditions(found)] * bool(conditions(found))
    parts += [table4_text(found)] * bool(found["table4"])
    return "\n\n".join(parts)


def markdown(found: dict[str, Any]) -> str:
    """Everything, for a page."""
    parts = [about(found)]
    if found["targets"]:
        parts += [part for part in (conditions(found), targets_text(found, "markdown")) if part]
    parts += [methods_text(table, "markdown") for table in found["methods"]]
    if found["table4"]:
        parts.append(table4_text(found, "markdown"))
    return "\n\n".join(parts)


def place_of(found: dict[str, Any]) -> str:
    """What the marks of a page are called where these figures belong."""
    return found["environment"]["device"] + (" graph" if found["setting"]["graph"] else "")


def insert(path: Path, text: str, name: str) -> None:
    """Put text between `<!-- benchmark NAME -->` and `<!-- /benchmark NAME -->` of a page, or make a page of it.

    Raises:
        ValueError: the page is there and has no such marks.
    """
    if not path.exists():
        path.write_text(text + "\n", encoding="utf-8")
        return
    begin, end = f"<!-- benchmark {name} -->", f"<!-- /benchmark {name} -->"
    page = path.read_text(encoding="utf-8")
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no place for these figures: write {begin} and {end} where they belong.")
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(ratio: dict[str, float] | None) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio else ""
