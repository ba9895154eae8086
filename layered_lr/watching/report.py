"""One self-contained HTML file about one run or several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from layered_lr.console import say
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import as_path
from layered_lr.outputs import check_page, write_whole
from layered_lr.plans.text import plan_parts
from layered_lr.printed import shown
from layered_lr.reports.page import bullets, escaped, folded, page, paragraphs, section
from layered_lr.reports.tables import ReportTable, shortened
from layered_lr.strict_json import json_text
from layered_lr.watching.report_numbers import event_table, group_table, overview_table
from layered_lr.watching.report_pictures import compared_pictures, run_pictures
from layered_lr.watching.run_differences import difference_table
from layered_lr.watching.run_past import RunPast, read_past
from layered_lr.watching.run_record import RunRecord, find_runs, read_record
from layered_lr.yes_or_no import check_yes_or_no

_LONGEST_NAME = 60
_MOST_ROWS = 24  # of a table that is not folded
_FOLDED = "Rates, norms, groups, events"


def report(runs: str | Path | Iterable[str | Path], path: str | Path = "report.html", *, trust: bool = False) -> Path:
    """Write one HTML file about one run or several, which refers to nothing outside it and needs no script.

    It has the plan and the applied rates, losses, gradient norms by group, accuracies, where phases begin, what
    happened, and of several runs what differs between them. Nothing in the folders is changed, and without ``trust``
    nothing is imported or run. Without matplotlib the pictures are left out, and the page says so.

    Args:
        runs: The folder of a run, or a folder of runs, or several of these. Of a folder of runs, those that are damaged
            or have only just begun are left out; the page and stderr name them.
        path: The ``.html`` file; a page of this library that is there is replaced, and nothing else.
        trust: Whether functions that the folders name may be imported, where a planned rate needs them.

    Returns:
        The file.

    Raises:
        SpecError: ``runs`` are no paths, or the file cannot be written there.
        CheckpointError: A folder holds no run, or is that of a damaged one, or all runs in it are damaged.
        LayeredLRError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> options = dict(model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = ll.run(ll.Spec(ll.SGD(0.1)), checkpoints=f"{folder}/first", **options)
        ...     file = ll.report(f"{folder}/first", f"{folder}/report.html")
        ...     "<h1>Run first</h1>" in file.read_text(encoding="utf-8")
        True
    """
    check_yes_or_no("report", "trust", trust)
    file = check_page("report: path", path)
    folders = _folders(runs)
    records: list[RunRecord] = []
    left_out: list[str] = []
    for folder, is_named in folders.items():
        try:
            records.append(read_record(folder, trust=trust))
        except CheckpointError as error:
            if is_named:
                raise
            left_out.append(str(error))
    if not records:
        raise CheckpointError(left_out[0])
    for reason in left_out:
        say(f"report: a run is left out: {reason}")
    names = _names([record.path for record in records])
    write_whole(file, [html_text(names, records, left_out).encode()])
    return file


def _folders(runs: Any) -> dict[Path, bool]:
    """The folders of the runs that were given, each once, and whether it was given itself, and not a folder around it.

    Raises:
        SpecError: Something else was given.
        CheckpointError: A folder holds none.
    """
    given = [runs] if isinstance(runs, str | os.PathLike) else runs
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise SpecError(f"report: runs={shown(runs)}: must be the folder of a run, or several.")
    found: dict[Path, bool] = {}
    places: dict[Path, Path] = {}
    for each in given:
        folder = as_path("report: runs", each)
        inside = list(find_runs(folder))
        if not inside:
            raise CheckpointError(f"{folder}: holds no run. Give the folder that was a run's checkpoints=....")
        for path in inside:
            real = Path(os.path.realpath(path))
            found[real] = path == folder or found.get(real, False)
            places[real] = path
    if not found:
        raise SpecError("report: no run was given.")
    return {places[real]: is_named for real, is_named in found.items()}


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each run: of its folder, or with the folders around it where names are the same."""
    paths = [Path(os.path.realpath(folder)) for folder in folders]
    if len({path.name for path in paths}) == len(paths):
        return [shortened(path.name, _LONGEST_NAME) for path in paths]
    around = os.path.commonpath(paths)
    return [os.path.relpath(path, around) for path in paths]


def html_text(names: Sequence[str], records: Sequence[RunRecord], left_out: Sequence[str] = ()) -> str:
    """The page of some runs.

    Args:
        names: Of the runs.
        records: The runs.
        left_out: Why others are not there.
    """
    pasts = [read_past(record) for record in records]
    if len(records) == 1:
        title = f"Run {names[0]}"
        body = [overview_table(names, records).html(), *_run_parts(records[0], pasts[0], "run")]
    else:
        title = f"{len(records)} runs"
        body = [
            section("Runs", overview_table(names, records).html()),
            section("Compared", *_drawn(lambda: compared_pictures(names, records))),
            section("What differs", _differences(difference_table(names, records, pasts))),
            *(
                section(
                    f"Run {name}", folded("Rates, norms, groups, events", *_run_parts(record, past, f"run-{place}"))
                )
                for place, (name, record, past) in enumerate(zip(names, records, pasts, strict=True), start=1)
            ),
        ]
    if left_out:
        body.append(section("Left out", bullets(left_out)))
    return page(title, title, "\n".join(body))


def _differences(table: ReportTable) -> str:
    if not table.rows:
        return paragraphs(["Nothing that is written down: options, spec, plan, versions, data."])
    if len(table.rows) <= _MOST_ROWS:
        return table.html()
    first, rest = (table._replace(rows=rows) for rows in (table.rows[:_MOST_ROWS], table.rows[_MOST_ROWS:]))
    return first.html() + folded(f"{len(rest.rows)} more", rest.html())


def _run_parts(record: RunRecord, past: RunPast, ident: str) -> list[str]:
    events, groups = event_table(record), group_table(record, past)
    parts = [
        *_drawn(lambda: run_pictures(record, past, ident)),
        "<h3>Groups</h3>",
        groups.html() if len(groups.rows) <= _MOST_ROWS else folded(f"{len(groups.rows)} groups", groups.html()),
    ]
    if events.rows:
        parts += ["<h3>What happened</h3>", events.html()]
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    data = f"; data {past.data[:16]}" if past.data else ""
    tables = {"options": dict(record.options), "spec": record.about.get("spec")}
    parts += [
        *_plan_parts(record),
        "<h3>Made with</h3>",
        paragraphs([f"{versions}{data}"], "soft"),
        folded("Options and spec", f"<pre>{escaped(json_text(tables, indent=1))}</pre>"),
    ]
    return parts


def _plan_parts(record: RunRecord) -> list[str]:
    """The plan's own table and what it says below; nothing where that needs a function that is not imported."""
    try:
        parts = plan_parts(record.plan, str(record.options.get("backend") or "") or None)
    except LayeredLRError:
        return []
    below = bullets(line for text in parts.below for line in text.splitlines())
    return [folded("The plan", paragraphs([parts.headline]), parts.table.html(), below)]


def _drawn(draw: Any) -> list[str]:
    try:
        return list(draw())
    except LayeredLRError as error:
        return [paragraphs([f"No pictures: {error}."])]
