"""Tables of runs on all classes: few-shot (Table II, Figure 7), other data sets, other domains (Table III)."""

from collections.abc import Sequence

from tools.paper_series import Context, Key, benchmarks
from tools.paper_tables import Cell, Column, Line, PaperTable, compare_methods, over_cells, over_seeds
from tools.result_gaps import Gap
from tools.result_published import Published
from tools.run_names import DOMAINS, dataset_title, rank_dataset, rank_method, shots_title

ZERO = "zero-shot"


def fewshot_table(context: Context) -> PaperTable | None:
    """Accuracy by images a class, with zero-shot CLIP beside it where it was run; None without runs."""
    trained = context.keys("fewshot")
    if not trained:
        return None
    datasets = list(dict.fromkeys(key.dataset for key in trained))
    zeroshot = [key for key in context.keys("zeroshot") if key.dataset in datasets]
    all_shots = sorted({key.shots or 0 for key in trained}, key=lambda shots: (shots <= 0, shots))
    columns = [Column(str(shots), shots_title(shots), shots=shots) for shots in all_shots]
    if zeroshot:
        columns.insert(0, Column(ZERO, ZERO, shots=0))
    wanted = {(label, column.key) for label in {key.label for key in trained} for column in columns}
    wanted = {(label, key) for label, key in wanted if key != ZERO} | {(key.label, ZERO) for key in zeroshot}
    lines: list[Line] = []
    gaps: list[Gap] = []
    for dataset in datasets:
        for label in sorted({label for label, _ in wanted}, key=rank_method):
            cells, config = {}, ""
            for column in (column for column in columns if (label, column.key) in wanted):
                key = _fewshot_key(label, dataset, column)
                series = context.get(key)
                config = config or (series.config if series else "")
                published = context.published("fewshot", key, "accuracy") if column.key != ZERO else None
                cells[column.key] = over_seeds(context.values(key), published)
                for seed in context.missing_seeds(key, cells[column.key].per_seed):
                    gaps.append(context.gap(key, seed, context.why(key, seed)))
            lines.append(Line(dataset, dataset_title(dataset), label, None, cells, config))
    for members in benchmarks(datasets):
        lines += _fewshot_averages(context, lines, members, columns)
    quantities = [(column.title, [column.key]) for column in columns if column.key != ZERO]
    tests = compare_methods(lines, quantities, context.versus, context.seedless)
    title = "Few-shot classification on all classes, accuracy (Table II, Figure 7)"
    return PaperTable("fewshot", title, "Data set", tuple(columns), tuple(lines), tests, tuple(gaps))


def transfer_tables(context: Context, name: str) -> list[PaperTable]:
    """One table a source: its other domains ("domains") or other data sets ("cross"); empty without runs."""
    sources = {key.source for key in context.keys("xd_test") if key.source}
    if name == "domains":  # zero-shot CLIP alone is a table, too
        sources |= {s for s, others in DOMAINS.items() if any(k.dataset in others for k in context.keys("zeroshot"))}
    tables = [_transfer_table(context, name, source) for source in sorted(sources, key=rank_dataset)]
    return [table for table in tables if table is not None]


def _transfer_table(context: Context, name: str, source: str) -> PaperTable | None:
    keys = [key for key in context.keys("xd_train", "xd_test") if key.source == source]
    tested = {key.dataset for key in keys}
    if name == "domains":
        tested |= {key.dataset for key in context.keys("zeroshot")}
    domains = set(DOMAINS.get(source, ()))
    targets = sorted(tested & domains if name == "domains" else tested - domains - {source}, key=rank_dataset)
    if not targets:
        return None
    places = [source, *targets]
    columns = [Column(place, dataset_title(place), dataset=place) for place in places]
    if len(targets) > 1:
        columns.append(Column("average", f"Average of {len(targets)}", dataset="average"))
    zeroshot = {key.label for key in context.keys("zeroshot") if key.dataset in places}
    lines: list[Line] = []
    gaps: list[Gap] = []
    for shots in sorted({key.shots for key in keys}, key=lambda shots: shots or 0) or [None]:
        labels = {key.label for key in keys if key.shots == shots}
        for label in sorted(labels | zeroshot, key=rank_method):
            cells, config = {}, ""
            for place in places:
                key = _transfer_key(label, source, place, shots, label in zeroshot)
                series = context.get(key)
                config = config or (series.config if series else "")
                cells[place] = over_seeds(context.values(key), _printed(context, name, key, place))
                for seed in context.missing_seeds(key, cells[place].per_seed):
                    gaps.append(context.gap(key, seed, context.why(key, seed)))
            if len(targets) > 1:
                key = Key("xd_test", label, source, "average", shots)
                figure = context.published_average(name, key, targets, "accuracy") if source == "imagenet" else None
                cells["average"] = over_cells([cells[target] for target in targets], figure)
            lines.append(Line(source, dataset_title(source), label, shots, cells, config))
    quantities = [("source", [source]), ("targets", targets)]
    tests = compare_methods(lines, quantities, context.versus, context.seedless)
    title = (
        f"Domain generalisation: trained on {dataset_title(source)}, tested on its other domains (Table III)"
        if name == "domains"
        else f"Cross-dataset generalisation: trained on {dataset_title(source)}, tested on other data sets"
    )
    return PaperTable(name, title, "Source", tuple(columns), tuple(lines), tests, tuple(gaps))


def _transfer_key(label: str, source: str, place: str, shots: int | None, is_zeroshot: bool) -> Key:
    if is_zeroshot:
        return Key("zeroshot", label, None, place, None)
    return Key("xd_train" if place == source else "xd_test", label, source, place, shots)


def _printed(context: Context, name: str, key: Key, place: str) -> Published | None:
    """What is published for a model that was trained on ImageNet, or not at all."""
    if key.source == "imagenet" or key.protocol == "zeroshot":
        return context.published(name, key, "accuracy", place)
    return None


def _fewshot_key(label: str, dataset: str, column: Column) -> Key:
    if column.key == ZERO:
        return Key("zeroshot", label, None, dataset, None)
    return Key("fewshot", label, None, dataset, column.shots)


def _fewshot_averages(
    context: Context, lines: Sequence[Line], members: Sequence[str], columns: Sequence[Column]
) -> list[Line]:
    averages = []
    of_members = [line for line in lines if line.dataset in members]
    for label in dict.fromkeys(line.method for line in of_members):
        own = [line for line in of_members if line.method == label]
        cells: dict[str, Cell] = {}
        for column in (column for column in columns if column.key in own[0].cells):
            key = _fewshot_key(label, "average", column)
            figure = context.published_average("fewshot", key, members, "accuracy") if column.key != ZERO else None
            cells[column.key] = over_cells([line.cells[column.key] for line in own], figure)
        averages.append(Line("average", f"Average of {len(members)}", label, None, cells))
    return averages
