"""What the page shows of all runs together: what was run, results, curves, versions and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.figures.curves import curve_pictures
from tools.figures.picture import Picture
from tools.pages.html import Html, code, figures, folded, items, join, table, tag
from tools.pages.runs import UNSET, FoundRun, Group, defaults, differences, repeat_command
from tools.paper_layout import DIFFERENCE, PUBLISHED, Layout, as_printed
from tools.paper_render import TEST_NOTE, TEST_TITLES, commands, notes_of, sources_of, test_cells, title_of
from tools.paper_tables import PaperTable
from tools.result_published import PublishedFigures, read_published
from tools.result_render import spread_note
from tools.run_names import dataset_title

PUBLISHED_AS = {  # protocol of a run -> protocol and metric of published figures
    "base2new_train": ("base2new", "base"),
    "base2new_test": ("base2new", "new"),
    "fewshot": ("fewshot", "accuracy"),
}


def what_was_run(groups: Sequence[Group]) -> Html:
    """Groups with what they change from the defaults, and runs that cannot be used."""
    default = defaults()
    usual = len(groups) == 1
    parts = [tag("p", "Keys of the configuration that are not at the defaults of the code, and who set them.")]
    for group in groups:
        run = next((run for run in group.finished or group.runs if run.record), None)
        if run is None:
            continue
        seeds = ", ".join(str(r.place.seed) for r in group.runs)
        changed = differences(run, default)
        rows = [[d.key, _text(d.value), _text(d.default), d.set_by] for d in changed]
        body = [table("Differences from the defaults", ["Key", "Here", "Default", "Set by"], rows, 4)]
        other = _other_keys(group, run, default)
        if other:
            body.append(tag("p", f"Other seeds of it differ in more than the seed: {', '.join(other)}."))
        parts.append(folded(f"{group.title}; seeds {seeds}: {len(changed)} keys", *body, is_open=usual))
    return join(problems([run for group in groups for run in group.runs]), parts)


def problems(runs: Sequence[FoundRun]) -> Html | None:
    """Runs that no figure contains."""
    bad = [run for run in runs if run.problem]
    if not bad:
        return None
    title = tag("h3", f"{len(bad)} of {len(runs)} runs cannot be used")
    listed = items([tag("code", str(run.folder)), f": {run.problem}."] for run in bad)
    return tag("div", title, listed, class_="problems")


def _other_keys(group: Group, first: FoundRun, default: Mapping[str, Any]) -> list[str]:
    """Keys in which runs of a group differ from the first one."""
    told = {d.key: d.value for d in differences(first, default)}
    keys: dict[str, None] = {}
    for run in group.finished:
        here = {d.key: d.value for d in differences(run, default)}
        keys |= dict.fromkeys(key for key in {**told, **here} if told.get(key) != here.get(key))
    return list(keys)


def results(groups: Sequence[Group], tables: Sequence[tuple[str, PaperTable]], drawn: Sequence[Picture]) -> Html:
    """The paper's tables, their figures, and every group by itself.

    Args:
        tables: each with the folder it is of, "" where there is one.
    """
    parts: list[Html] = []
    told = False
    for where, paper in tables:
        layout = as_printed(paper)
        rows = _named_rows(layout)
        title = f"{title_of(paper)}{f', {where}' if where else ''}"
        shown = table(title, layout.titles, rows, layout.n_left, marked=layout.starts[1:], is_titled=True)
        parts += [tag("h3", title), shown]
        parts.append(tag("p", " ".join(notes_of(paper))))
        if tests := test_cells(paper):
            note = None if told else tag("p", TEST_NOTE)
            parts.append(folded("Paired tests", table("Paired tests", TEST_TITLES, tests, 3), note))
            told = True
        if sources := sources_of(paper):
            parts.append(folded("Sources of the published figures, and what is known against them", items(sources)))
        if paper.gaps:
            lines = "\n".join(commands(paper.gaps))
            parts.append(folded(f"{len(paper.gaps)} runs are missing; commands that make them", code(lines)))
    if drawn:
        parts.append(figures(drawn))
    parts += [tag("h3", "All runs"), every_group(groups), tag("p", spread_note())]
    return join(parts)


def every_group(groups: Sequence[Group]) -> Html:
    """A line a group, with what is published for it."""
    published = PublishedFigures(read_published())
    titles = [
        "Method",
        "Data set",
        "Classes",
        "Config",
        "Shots",
        "Seeds",
        "Accuracy in %",
        "Published",
        "Seconds a run",
    ]
    rows = []
    for group in groups:
        seeds = " ".join(str(run.place.seed) for run in group.finished) or UNSET
        seconds = [s for run in group.finished if isinstance(s := run.record.get("wall_seconds"), (int, float))]
        printed = _printed(published, group)
        source = f"trained on {group.trained_on}; " if group.trained_on else ""
        result = group.result
        rows.append(
            [
                group.method,
                f"{dataset_title(group.dataset)}",
                f"{source}{group.classes}",
                group.config,
                UNSET if group.shots is None else group.shots,
                seeds,
                (UNSET, "-1") if result is None else (str(result), str(result.mean)),
                UNSET if printed is None else (f"{printed:.2f} (published)", str(printed)),
                (f"{sum(seconds) / len(seconds):.1f}", str(sum(seconds) / len(seconds))) if seconds else UNSET,
            ]
        )
    return table("Runs that differ in their seed only: mean and spread", titles, rows, 4, sortable=True)


def _printed(published: PublishedFigures, group: Group) -> float | None:
    run = next(iter(group.finished), None)
    if run is None or run.place.protocol not in PUBLISHED_AS or group.dataset == "shapes":
        return None
    protocol, metric = PUBLISHED_AS[run.place.protocol]
    backbone = run.record.get("backbone")
    found = published.find(protocol, group.method, group.dataset, metric, group.shots, backbone)
    return None if found is None else found.value


def curves(groups: Sequence[Group]) -> Html:
    """Learning curves of every group that trained."""
    parts = []
    for group in groups:
        records = {f"seed {run.place.seed}": run.record for run in group.runs if run.record.get("epochs")}
        if records and (pictures := curve_pictures(records, group.title)):
            parts += [tag("h3", group.title), figures(pictures)]
    return join(parts) if parts else tag("p", "No run here trained, so there are no learning curves.")


def made_with(groups: Sequence[Group]) -> Html:
    """Versions, data and the commands that make the runs again."""
    runs = [run for group in groups for run in group.runs if run.record]
    facts: dict[str, list[str]] = {}
    for run in runs:
        versions = run.record.get("versions") or {}
        named = {f"version of {name}": text for name, text in versions.items()}
        named |= {"device": run.record.get("device"), "backbone": run.record.get("backbone")}
        named["processes"] = run.record.get("processes")
        for name, value in named.items():
            if value is not None and str(value) not in facts.setdefault(name, []):
                facts[name].append(str(value))
    parts = [
        tag("h3", "Versions"),
        table("What the runs were made with", ["What", "Value"], [[k, ", ".join(v)] for k, v in facts.items()], 2),
        tag("h3", "Data"),
        _data(groups),
        tag("h3", "Commands"),
        tag("p", "From the root of the repository; a finished run is skipped unless OUTPUT names another folder."),
    ]
    default = defaults()
    lines = [repeat_command(run, differences(run, default)) for run in runs]
    parts.append(code("\n".join(dict.fromkeys(lines)) or "# nothing tells how a run was made"))
    return join(parts)


def _data(groups: Sequence[Group]) -> Html:
    titles = ["Data set", "Classes", "Seed", "Train", "Val", "Test", "Split digest", "Published split", "Sample digest"]
    rows: dict[tuple, list] = {}
    for group in groups:
        for run in group.runs:
            data = run.record.get("data") or {}
            digests = [str(data.get(key) or UNSET)[:16] for key in ("split_digest", "sample_digest")]
            published = {True: "yes", False: "no", None: UNSET}[data.get("split_published")]
            sizes = [data.get(part) if data.get(part) is not None else UNSET for part in ("train_x", "val", "test")]
            row = [dataset_title(group.dataset), run.classes, run.place.seed, *sizes, digests[0], published, digests[1]]
            if data:
                rows[tuple(row)] = row
    note = tag("p", "Digests are of SHA-256, its first 16 digits. Runs with the same ones used the same pictures.")
    return join(table("Pictures of the runs", titles, list(rows.values()), 3), note)


def _named_rows(layout: Layout) -> list[list[str]]:
    """Rows of which each says by itself of what group and method it is, and which figures others published."""
    rows = []
    group = method = ""
    for row in layout.rows:
        group, name = row[0] or group, row[1]
        if name in (PUBLISHED, DIFFERENCE):
            name = f"{method}: {name}"
        else:
            method = name
        rows.append([group, name, *row[2:]])
    return rows


def _text(value: Any) -> str:
    return str(value) if value not in ("", None) else UNSET
