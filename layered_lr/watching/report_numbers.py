"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import LayeredLRError
from layered_lr.reports.tables import ReportTable, shortened
from layered_lr.watching.run_list import run_table, summary_from
from layered_lr.watching.run_past import RunPast
from layered_lr.watching.run_record import RunRecord

_MOST_EVENTS = 60
_LONGEST = 160


def overview_table(names: Sequence[str], records: Sequence[RunRecord]) -> ReportTable:
    """A row for each run."""
    return run_table([summary_from(name, record) for name, record in zip(names, records, strict=True)])


def planned_rates(record: RunRecord) -> Float64 | None:
    """Each group's planned rate at the updates that were made; None where a function would have to be imported."""
    try:
        return record.plan.table(0, record.updates)
    except LayeredLRError:
        return None


def group_table(record: RunRecord, past: RunPast) -> ReportTable:
    """A row for each group: its parameters, its rates planned and applied, and its last gradient norm."""
    planned, applied = planned_rates(record), record.metrics.rates
    rows = []
    for place, group in enumerate(record.plan.groups):
        due = None if planned is None else planned[:, place]
        norms = past.grad_norms[:, place]
        rows.append(
            [
                group.name,
                str(len(group.parameters)),
                f"{group.elements:,}",
                "needs a function of yours" if due is None else _span(due),
                _span(applied[:, place]),
                "" if due is None else _far_off(applied[:, place], due),
                _last(norms),
            ]
        )
    headers = ["group", "parameters", "elements", "rate planned", "rate applied", "off by", "last gradient norm"]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return ReportTable(headers, rows, frozenset({"parameters", "elements", "off by", "last gradient norm"}))


def event_table(record: RunRecord) -> ReportTable:
    """What happened beside the ends of epochs; of many events the last ones."""
    told = [event for event in record.events if event["event"] != "epoch"][-_MOST_EVENTS:]
    rows = []
    for event in told:
        rest = [f"{name} {value}" for name, value in event.items() if name not in ("event", "step")]
        rows.append([str(event.get("step", "")), str(event["event"]), shortened(", ".join(rest), _LONGEST)])
    return ReportTable(["update", "event", "what"], rows)


def _span(rates: Float64) -> str:
    known = rates[np.isfinite(rates)]
    return f"{known[0]:.4g} → {known[-1]:.4g}" if len(known) else "unknown"


def _far_off(applied: Float64, due: Float64) -> str:
    """The largest relative difference."""
    known = np.isfinite(applied) & (due > 0)
    if not known.any():
        return ""
    largest = float(np.max(np.abs(applied[known] / due[known] - 1)))
    return "0" if largest == 0 else f"{largest:.1e}"


def _last(norms: Float64) -> str:
    known = norms[np.isfinite(norms)]
    return f"{known[-1]:.3g}" if len(known) else ""
