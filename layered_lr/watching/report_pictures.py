"""The pictures of a report: of one run, and of several beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.reports.figures import check_matplotlib
from layered_lr.reports.line_pictures import Line, Mark, has_values, key, picture, styles
from layered_lr.reports.page import folded, paragraphs
from layered_lr.training.run_folder import LOGGED
from layered_lr.watching.logged_file import Logged, read_logged
from layered_lr.watching.report_numbers import planned_rates
from layered_lr.watching.run_past import RunPast
from layered_lr.watching.run_record import RunRecord

_MOST_NAMES = 24  # in a key that is not folded
_MOST_LOGGED = 8  # names under which numbers were logged
_ONE = "#0072B2"
_RIGHT = "accuracy on the test set"


def run_pictures(record: RunRecord, past: RunPast, ident: str) -> list[str]:
    """Loss, accuracy, rates and gradient norms of a run.

    Args:
        record: The run.
        past: What its checkpoint says.
        ident: Begins the ids of its drawings.

    Raises:
        LayeredLRError: matplotlib is not installed.
    """
    check_matplotlib()
    marks = _phase_marks(record)
    looks = styles(len(record.plan.groups))
    names = [group.name for group in record.plan.groups]
    rates = [_line(names[place], record.metrics.rates[:, place], *looks[place], True) for place in range(len(names))]
    norms = [_line(names[place], past.grad_norms[:, place], *looks[place]) for place in range(len(names))]
    planned = planned_rates(record)
    plans = [] if planned is None else [_line(n, planned[:, p], *looks[p], True) for p, n in enumerate(names)]
    drawn = [
        _drawn("loss of each batch", [_line("loss", record.metrics.losses, _ONE, 0)], f"{ident}-loss", marks),
        _drawn(_RIGHT, [_accuracy_line("accuracy", record, _ONE, 0)], f"{ident}-right", marks),
        _drawn("rates as planned", plans, f"{ident}-plan", marks),
        _drawn("rates as applied", rates, f"{ident}-rates", marks),
        _drawn("gradient norms, before clipping", norms, f"{ident}-norms", marks),
    ]
    logged = read_logged(record.path / LOGGED)
    for number, (name, rows) in enumerate(sorted(logged.items())[:_MOST_LOGGED]):
        drawn.append(_drawn(f"logged: {name}", [_logged_line(name, rows, _ONE, 0)], f"{ident}-logged-{number}", marks))
    notes = []
    if len(logged) > _MOST_LOGGED:
        notes.append(f"Of {len(logged)} names that were logged, {_MOST_LOGGED} are drawn.")
    if len(marks) > 1:
        notes.append(f"Dotted lines: where each of the {len(marks)} phases begins.")
    if not any(map(has_values, norms)):
        notes.append("Gradient norms were not measured, or no checkpoint that can be read holds them.")
    if planned is None:
        notes.append("The plan's rates need a function that is not imported here: report it with --trust (trust=True).")
    return [_box(drawn), _group_key(rates), paragraphs(notes, "soft")]


def compared_pictures(names: Sequence[str], records: Sequence[RunRecord]) -> list[str]:
    """Losses and accuracies of several runs.

    Raises:
        LayeredLRError: matplotlib is not installed.
    """
    check_matplotlib()
    looks = styles(len(records))
    of_runs = list(zip(names, records, looks, strict=True))
    losses = [_line(name, _smoothed(record.metrics.losses), *look) for name, record, look in of_runs]
    right = [_accuracy_line(name, record, *look) for name, record, look in of_runs]
    drawn = [
        _drawn("loss, smoothed", losses, "all-loss", ()),
        _drawn(_RIGHT, right, "all-right", ()),
    ]
    logged = [read_logged(record.path / LOGGED) for record in records]
    for number, what in enumerate(_shared_names(logged)[:_MOST_LOGGED]):
        lines = [
            _logged_line(name, rows[what], *look)
            for (name, _, look), rows in zip(of_runs, logged, strict=True)
            if what in rows
        ]
        drawn.append(_drawn(f"logged: {what}", lines, f"all-logged-{number}", ()))
    return [_box(drawn), key(losses)]


def _box(drawn: Sequence[str]) -> str:
    shown = "".join(drawn)
    return f'<div class="pictures">{shown}</div>' if shown else paragraphs(["No update has been written down yet."])


def _drawn(title: str, lines: Sequence[Line], ident: str, marks: Sequence[Mark]) -> str:
    """The picture of those lines that have values; empty where none has."""
    known = [line for line in lines if has_values(line)]
    return picture(title, known, ident, marks=marks, may_be_log=title != _RIGHT) if known else ""


def _group_key(lines: Sequence[Line]) -> str:
    return key(lines) if len(lines) <= _MOST_NAMES else folded(f"The names of the {len(lines)} groups", key(lines))


def _phase_marks(record: RunRecord) -> list[Mark]:
    return [Mark(phase.start, f"phase {number}") for number, phase in enumerate(record.plan.phases, start=1)]


def _line(name: str, values: Float64, colour: str, dashes: int, is_stepped: bool = False) -> Line:
    steps: NDArray[np.int64] = np.arange(len(values))
    return Line(name, steps, values, colour, dashes, is_stepped)


def _shared_names(logged: Sequence[Logged]) -> list[str]:
    """The names under which two runs or more have logged numbers."""
    counts = Counter(name for rows in logged for name in rows)
    return sorted(name for name, count in counts.items() if count > 1)


def _logged_line(name: str, rows: tuple[NDArray[np.int64], Float64], colour: str, dashes: int) -> Line:
    return Line(name, *rows, colour, dashes, has_marks=len(rows[0]) <= 40)


def _accuracy_line(name: str, record: RunRecord, colour: str, dashes: int) -> Line:
    steps = sorted(record.accuracies)
    values = np.array([record.accuracies[step] for step in steps], dtype=np.float64)
    return Line(name, np.array(steps, dtype=np.int64), values, colour, dashes, has_marks=len(steps) <= 40)


def _smoothed(losses: Float64) -> Float64:
    """The mean of the losses around each update, over a thirtieth of the run: so lines can be told apart."""
    width = max(1, len(losses) // 30)
    if width == 1:
        return losses
    known = np.isfinite(losses)
    ones = np.ones(width)
    counts = np.convolve(known, ones, "same")
    sums = np.convolve(np.where(known, losses, 0.0), ones, "same")
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
