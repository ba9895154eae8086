"""What differs between runs: options, spec, plan, versions, data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layered_lr.reports.tables import ReportTable, shortened
from layered_lr.watching.run_past import RunPast
from layered_lr.watching.run_record import RunRecord

_LONGEST = 90
_PLACES = ("checkpoints.folder", "save", "log", "progress")  # where a run writes to is no matter of its training
_LISTS = {"groups": "group", "phases": "phase"}


def difference_table(names: Sequence[str], records: Sequence[RunRecord], pasts: Sequence[RunPast]) -> ReportTable:
    """A row for each value of each setting that is not the same in all runs.

    Args:
        names: Of the runs.
        records: The runs.
        pasts: What their checkpoints say.
    """
    settings = [dict(_settings(record, past)) for record, past in zip(records, pasts, strict=True)]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    rows: list[list[str]] = []
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for name, each in zip(names, settings, strict=True):
            by_value.setdefault(each.get(key, "–"), []).append(name)
        if len(by_value) > 1:
            rows += [[key, shortened(value, _LONGEST), ", ".join(runs)] for value, runs in by_value.items()]
    return ReportTable(["what", "value", "runs"], rows)


def _settings(record: RunRecord, past: RunPast) -> Iterator[tuple[str, str]]:
    yield from ((key, value) for key, value in _flat("", record.options) if key not in _PLACES)
    spec = record.about.get("spec")
    yield from _flat("spec.", {name: part for name, part in _table(spec).items() if name not in _LISTS})
    for name, what in _LISTS.items():
        for number, part in enumerate(_table(spec).get(name, ()), start=1):
            yield f"{what} {_label(part, number)}", ", ".join(f"{key} {value}" for key, value in _flat("", part))
    plan = record.plan
    yield "plan: updates", str(plan.total_steps)
    yield "plan: updates an epoch", str(plan.steps_per_epoch)
    yield "plan: groups", str(len(plan.groups))
    yield "plan: parameters", f"{len(plan.parameters)} with {sum(group.elements for group in plan.groups):,} elements"
    yield "data: digest", past.data[:16] or "unknown"
    yield from _flat("version of ", record.versions)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _label(part: Any, number: int) -> str:
    """What a group is called, or a phase's number."""
    return str(_table(part).get("name") or _table(part).get("match") or number)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each leaf of tables and lists of tables by its path."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{prefix}{name}" + ("." if isinstance(part, Mapping | list) else ""), part)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for number, part in enumerate(value, start=1):
            yield from _flat(f"{prefix}{number}.", part)
    elif value is not None:
        yield prefix.removesuffix("."), str(value)
