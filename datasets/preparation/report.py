"""The tables and plans that `tools/prepare_data.py` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from tabulate import tabulate

from clip.progress import readable_bytes
from datasets.preparation import gdrive
from datasets.preparation.catalogue import Artefact, Dataset
from datasets.preparation.plan import Plan, Step, free_space
from datasets.preparation.prepare import Outcome, to_bring


def catalogue_table(datasets: Iterable[Dataset]) -> str:
    """One row a data set: where it goes, how large it is, how it comes, from where, under which terms."""
    rows = [
        (
            dataset.name,
            dataset.folder,
            readable_bytes(dataset.download),
            readable_bytes(dataset.unpacked),
            _access(dataset),
            _host(dataset),
            dataset.licence,
        )
        for dataset in datasets
    ]
    headers = ("data set", "folder", "download", "on disk", "comes", "from", "licence")
    widths = [None, None, None, None, None, None, 48]
    return tabulate(
        rows, headers, maxcolwidths=widths, colalign=("left", "left", "right", "right", "left", "left", "left")
    )


def _access(dataset: Dataset) -> str:
    how = "automatically" if dataset.access == "automatic" else "by hand (login)"
    return f"{how}, terms" if dataset.acknowledge else how


def _host(dataset: Dataset) -> str:
    """The server of the largest file."""
    largest = max(dataset.primary, key=lambda artefact: artefact.size)
    addresses = [source.address for source in largest.sources] or [dataset.homepage]
    return urlsplit(gdrive.browser_address(addresses[0])).hostname or ""


def plans_text(plans: Sequence[Plan]) -> str:
    """What `download` would do, line by line."""
    texts = [_plan_text(plan) for plan in plans]
    if len(plans) > 1:
        texts.append(f"all together: {_needs(plans)}")
    return "\n\n".join(texts)


def _plan_text(plan: Plan) -> str:
    dataset = plan.dataset
    lines = [f"{dataset.name}: {plan.folder}", f"  terms: {dataset.licence} ({dataset.homepage})"]
    for step in plan.steps:
        lines += [f"  {line}" for line in _step_lines(step)]
    lines += [f"  {line}" for line in to_bring(plan)]
    lines.append("  nothing is left to do" if plan.complete else f"  needs: {_needs([plan])}")
    return "\n".join(lines)


def _needs(plans: Sequence[Plan]) -> str:
    download = readable_bytes(sum(plan.download for plan in plans))
    unpacked = readable_bytes(sum(plan.unpacked + plan.unpacked_later for plan in plans))
    return f"{download} to download, about {unpacked} unpacked; {readable_bytes(free_space(plans[0].folder))} are free"


def _step_lines(step: Step) -> list[str]:
    artefact = step.artefact
    if step.action == "there":
        return [f"there: {_places(artefact)}"]
    if step.action == "make":
        return [f"write {artefact.file}"]
    if step.action == "use":
        return [f"use {step.path} for {_places(artefact)}"]
    if step.action == "blocked":
        return [f"cannot go on: {step.reason}"]
    if step.action == "download":
        lines = [f"download {artefact.file} ({readable_bytes(artefact.size)}) for {_places(artefact)}"]
        return lines + [f"  from {gdrive.browser_address(source.address)}" for source in artefact.sources]
    return []  # those to bring are listed together, spare ones do not matter


def _places(artefact: Artefact) -> str:
    places = [place.to for place in artefact.places() if not place.optional]
    return ", ".join(places) or str(artefact.needed_for)


def summary_table(outcomes: Sequence[Outcome]) -> str:
    """One row a data set, for the end."""
    rows = [(outcome.dataset.name, outcome.dataset.folder, outcome.state) for outcome in outcomes]
    return tabulate(rows, ("data set", "folder", "state"))
