"""Tables of base-to-new runs: Table I, and Table IV with parameters and speed."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tools.paper_series import NO_RUN, Context, Key, benchmarks, plain
from tools.paper_tables import Cell, Column, Line, PaperTable, Seed, compare_methods, over_seeds
from tools.protocols import transfers
from tools.result_gaps import Gap
from tools.result_runs import Pair
from tools.result_stats import mean
from tools.result_tables import Row, average_rows, base_new_rows
from tools.run_names import dataset_title, host_of, natural, rank_method

BASE_NEW = (
    Column("base", "Base", metric="base"),
    Column("new", "New", metric="new"),
    Column("hm", "HM", metric="hm"),
    Column("hm_seeds", "HM per seed", metric="hm_seeds"),
)
EFFICIENCY = (
    Column("tensors", "Tensors", "count", "tensors"),
    Column("scalars", "Scalars", "count", "parameters"),
    Column("images_per_second", "Images/s", "images/s", "images_per_second"),
    Column("hm", "HM", metric="hm"),
)
ADDED = (
    Column("tensors_added", "Tensors added", "count", "parameters_added"),
    Column("scalars_added", "Scalars added", "count", "scalars_added"),
    Column("images_per_second_added", "Images/s added", "images/s", "images_per_second_added"),
    Column("hm_added", "HM added", "points", "hm_added"),
)


def base_new_table(context: Context) -> PaperTable | None:
    """Table I; None without runs."""
    keys = context.keys("base2new_train", "base2new_test")
    if not keys:
        return None
    rows = {(row.method, row.dataset, row.shots): row for row in _rows(context)}
    lines: list[Line] = []
    gaps: list[Gap] = []
    for shots in sorted({key.shots for key in keys}, key=natural):
        block = [key for key in keys if key.shots == shots]
        datasets = list(dict.fromkeys(key.dataset for key in block))
        methods = sorted({key.label for key in block}, key=rank_method)
        for dataset in datasets:
            for method in methods:
                key = Key("base2new_train", method, None, dataset, shots)
                line = _line(context, key, rows.get((method, dataset, shots)))
                lines.append(line)
                gaps += _gaps(context, key, line.cells["base"].per_seed)
        for members in benchmarks(datasets):
            chosen = [row for row in rows.values() if row.shots == shots and row.dataset in members]
            averages = {row.method: row for row in average_rows(chosen)}
            n_rows = {method: sum(row.method == method for row in chosen) for method in methods}
            for method in methods:
                complete = averages.get(method) if n_rows[method] == len(members) else None
                key = Key("base2new_train", method, None, "average", shots)
                lines.append(_average_line(context, key, complete, members))
    quantities = [(column.title, [column.key]) for column in BASE_NEW[:3]]
    tests = compare_methods(lines, quantities, context.versus, context.seedless)
    title = "Base to new generalisation (Table I)"
    return PaperTable("base2new", title, "Data set", BASE_NEW, tuple(lines), tests, tuple(gaps))


def efficiency_table(context: Context) -> PaperTable | None:
    """Table IV, of the base-to-new runs; None without runs."""
    base_new = base_new_table(context)
    if base_new is None:
        return None
    pairs: dict[tuple, list[Pair]] = {}
    for pair in context.collection.pairs:
        label = context.label("base2new_train", pair[0].method, pair[0].config)
        pairs.setdefault((label, pair[0].dataset, pair[0].shots), []).append(pair)
    lines = []
    for line in (line for line in base_new.lines if not line.is_average):
        cells = _measured(pairs.get((line.method, line.dataset, line.shots), [])) | {"hm": line.cells["hm"]}
        for column in (EFFICIENCY[1], EFFICIENCY[2]):
            figure = context.published("efficiency", _key_of(line), column.metric)
            cells[column.key] = replace(cells[column.key], published=figure)
        lines.append(replace(line, cells=cells))
    lines = [replace(line, cells=line.cells | _added(context, line, lines)) for line in lines]
    columns = EFFICIENCY + (ADDED if any("tensors_added" in line.cells for line in lines) else ())
    used = [run for pair in context.collection.pairs for run in filter(None, pair)]
    devices = {str((run.metrics or {}).get("device", "unknown")) for run in used}
    notes = [
        "Tensors and scalars are those that train. Images/s is the speed of the test from end to end, loading "
        f"included, the mean of base and new classes. Device: {', '.join(sorted(devices)) or 'unknown'}."
    ]
    if len(columns) > len(EFFICIENCY):
        notes.append("Added is the difference to the host. The paper's +21 parameters are most likely tensors.")
    title = "Trained parameters, speed in test, HM (Table IV)"
    return PaperTable("efficiency", title, "Data set", columns, tuple(lines), (), base_new.gaps, tuple(notes))


def _rows(context: Context) -> list[Row]:
    rows = base_new_rows(context.collection.pairs)
    return [replace(r, method=context.label("base2new_train", r.method, r.config), trainer="", config="") for r in rows]


def _key_of(line: Line) -> Key:
    return Key("base2new_train", line.method, None, line.dataset, line.shots)


def _cells(row: Row | None) -> dict[str, Cell]:
    if row is None:
        return {column.key: Cell() for column in BASE_NEW}
    base = {seed: value for seed, (value, _) in row.per_seed.items()}
    new = {seed: value for seed, (_, value) in row.per_seed.items() if value is not None}
    seeds = row.hm_seeds
    return {
        "base": Cell(row.base.mean, row.base.spread, base),
        "new": Cell(row.new.mean, row.new.spread, new) if row.new else Cell(),
        "hm": Cell(row.hm, None, row.hms),
        "hm_seeds": Cell(seeds.mean, seeds.spread, row.hms) if seeds else Cell(),
    }


def _line(context: Context, key: Key, row: Row | None) -> Line:
    cells = _cells(row)
    for metric in ("base", "new", "hm"):
        cells[metric] = replace(cells[metric], published=context.published("base2new", key, metric))
    series = context.get(key)
    return Line(key.dataset, dataset_title(key.dataset), key.label, key.shots, cells, series.config if series else "")


def _average_line(context: Context, key: Key, row: Row | None, members: Sequence[str]) -> Line:
    cells = _cells(row)
    for metric in ("base", "new", "hm"):
        figure = context.published_average("base2new", key, members, metric)
        cells[metric] = replace(cells[metric], published=figure)
    return Line("average", f"Average of {len(members)}", key.label, key.shots, cells)


def _gaps(context: Context, key: Key, have: dict[Seed, float]) -> list[Gap]:
    gaps = []
    for seed in context.missing_seeds(key, have):
        test = key._replace(protocol="base2new_test")
        trained = context.problem(key, seed)
        if trained and (series := context.get(key)) and not transfers(series.trainer):
            gaps.append(context.gap(key, seed, trained))
        elif trained:
            gaps.append(context.gap(test, seed, trained, ["base2new_train", "base2new_test"]))
        else:
            tested = context.why(test, seed)
            gaps.append(context.gap(test, seed, "not tested on the new classes" if tested == NO_RUN else tested))
    return gaps


def _measured(pairs: Sequence[Pair]) -> dict[str, Cell]:
    """Parameters of the trained models and speed of the tests, by seed."""
    tensors: dict[Seed, float] = {}
    scalars: dict[Seed, float] = {}
    speed: dict[Seed, float] = {}
    for trained, tested in sorted(pairs, key=lambda pair: natural(pair[0].seed)):
        parameters = trained.recorded("parameters")
        for found, key in ((tensors, "trainable_tensors"), (scalars, "trainable_scalars")):
            if isinstance(parameters.get(key), int):
                found[trained.seed] = parameters[key]
        speeds = [run.recorded("final").get("images_per_second") for run in (trained, tested) if run]
        known = [value for value in speeds if isinstance(value, (int, float)) and math.isfinite(value)]
        if known:
            speed[trained.seed] = mean(known)
    return {"tensors": over_seeds(tensors), "scalars": over_seeds(scalars), "images_per_second": over_seeds(speed)}


def _added(context: Context, line: Line, lines: Sequence[Line]) -> dict[str, Cell]:
    """What a wrapper adds to its host on the same data set; nothing for other methods."""
    host = host_of(plain(line.method))
    if host is None:
        return {}
    place = (host, line.dataset, line.shots)
    hosts = [other for other in lines if (plain(other.method), other.dataset, other.shots) == place]
    cells = {}
    for column in ADDED:
        key = column.key.removesuffix("_added")
        ours, theirs = line.cells[key].value, hosts[0].cells[key].value if len(hosts) == 1 else None
        value = None if ours is None or theirs is None else ours - theirs
        cells[column.key] = Cell(value, published=context.published("efficiency", _key_of(line), column.metric))
    return cells
