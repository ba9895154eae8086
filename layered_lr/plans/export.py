"""A plan as CSV, as JSON, and as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from layered_lr import strict_json
from layered_lr.errors import SpecError
from layered_lr.files import begins_with
from layered_lr.outputs import check_output, write_whole
from layered_lr.plans.view import PlanView
from layered_lr.printed import csv_cell, csv_text
from layered_lr.reports.curves import Scale
from layered_lr.reports.page import bullets, figure, page, paragraphs, section
from layered_lr.schedules import schedule_to_dict

_BLOCK_STEPS = 8192


def csv_chunks(plan: PlanView) -> Iterator[str]:
    """The CSV text in parts, so that a long run need not be held as text.

    A group's name that a spreadsheet would take for a formula has an apostrophe before it.

    Raises:
        SpecError: ``total_steps`` is unknown, or a rate that is impossible.
    """
    plan.table(0, 0 if plan.total_steps is not None else None)  # says what is missing where the length is
    per_epoch = plan.steps_per_epoch
    own = ["step", *(["epoch"] if per_epoch else [])]
    yield csv_text([[*own, *column_names(own, [csv_cell(group.name) for group in plan.groups])]])
    for start in range(0, plan.total_steps or 0, _BLOCK_STEPS):
        rates = plan.table(start, min(start + _BLOCK_STEPS, plan.total_steps or 0)).tolist()
        yield csv_text(
            [step, *([step // per_epoch] if per_epoch else []), *map(repr, row)]
            for step, row in enumerate(rates, start)
        )


def column_names(own: Sequence[str], groups: Sequence[str]) -> list[str]:
    """A name for each group's column, which no other column has: the group's own, or ``rate: `` before it.

    Args:
        own: The names of the other columns.
        groups: The groups' names, each once.
    """
    names: list[str] = []
    for group in groups:
        name = group
        while name in own or name in names or (name != group and name in groups):
            name = f"rate: {name}"
        names.append(name)
    return names


def write_csv(plan: PlanView, path: str | Path) -> None:
    """``csv_chunks`` as a UTF-8 file, whole or not at all."""
    write_whole(check_csv("path", path, plan=plan), (chunk.encode() for chunk in csv_chunks(plan)))


def check_csv(what: str, path: str | Path, suffixes: Sequence[str] = (), plan: PlanView | None = None) -> Path:
    """Check that rates can be written to a path; a table of rates with the same columns is replaced, and nothing else.

    Args:
        what: The name of the option or argument, for messages.
        path: The file.
        suffixes: As for ``check_output``.
        plan: Whose rates; None leaves the columns to be checked later.

    Raises:
        SpecError: It cannot, or the plan's rates are not known.
    """
    file = check_output(what, path, suffixes, is_ours=lambda file: begins_with(file, b"step,"))
    if plan is None or not os.path.isfile(file) or not file.stat().st_size:
        return file
    if not begins_with(file, next(csv_chunks(plan)).encode()):
        raise SpecError(
            f"{what}={str(path)!r}: there is a table with other columns than this plan's. Remove it, or give another "
            "name."
        )
    return file


def json_text(plan: PlanView, backend: str | None = None) -> str:
    """``plan.to_dict()``, and each group with its settings and its rate at the first and the last step.

    Args:
        plan: What to write.
        backend: Whose lowering to tell of each group; None tells none.

    Raises:
        SpecError: A schedule holds a function that has no import path.
    """
    first = plan.rates(0)
    last = plan.rates(max(plan.total_steps - 1, 0)) if plan.total_steps is not None else [None] * len(plan.groups)
    groups = [
        {
            "name": group.name,
            "parameters": list(group.parameters),
            "elements": group.elements,
            "lr": group.lr,
            "lr_scale": group.lr_scale,
            "schedule": schedule_to_dict(group.schedule),
            "first_rate": first[place],
            "last_rate": last[place],
        }
        for place, group in enumerate(plan.groups)
    ]
    if backend is not None:
        for group, lowering in zip(groups, plan.lowering(backend).values(), strict=True):
            group["lowering"] = lowering
    phases = [{"start": phase.start, "stop": phase.stop, "frozen": sorted(phase.plan.frozen)} for phase in plan.phases]
    table = {**plan.to_dict(), "groups": groups} | ({"phases": phases} if phases else {})
    return strict_json.json_text(table, indent=1)


def html_text(plan: PlanView, backend: str | None = None, scale: Scale = "auto") -> str:
    """One file with everything in it: the drawing as inline SVG, and the table that ``print(plan)`` shows.

    Raises:
        LayeredLRError: matplotlib is not installed.
        SpecError: ``total_steps`` is unknown, or a rate that is impossible.
    """
    from layered_lr.plans.picture import inline_svg
    from layered_lr.plans.text import plan_parts

    parts = plan_parts(plan, backend)
    drawing = figure(inline_svg(plan, scale), inline_svg(plan, scale, narrow=True))
    body = "\n".join(
        [
            paragraphs([parts.headline]),
            drawing,
            section("Groups", parts.table.html()),
            section("What else there is to know", bullets(line for text in parts.below for line in text.splitlines())),
        ]
    )
    return page("Learning rates", "Learning rates, planned", body)
