"""A comparison as text and as one HTML file: the answer first, then tables, then pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import LayeredLRError
from layered_lr.parity.findings import Found, largest_known
from layered_lr.plans.group import describe_kinds
from layered_lr.reports.page import bullets, escaped, figure, folded, page, paragraphs, section
from layered_lr.reports.tables import ReportTable, wrapped

_MOST_NAMES = 6  # of arrays in one sentence
_MOST_ROWS = 24  # of rates; more are folded on the page, and cut to the largest differences in a terminal

_CAUSES = {
    "rate": "learning rate",
    "state": "optimizer state",
    "decay": "weight decay",
    "clip": "clipping",
    "accumulation": "accumulation",
    "data": "data",
    "forward": "forward pass",
    "backward": "backward pass",
    "average": "moving average",
}
_ABOUT_RATES = "Differences are relative, to the rates of {}. Rates are probed as exactly as float32 weights show them."
_ABOUT_SHARES = (
    "Share: largest difference / what rounding allows, at any update. More than 1 is a difference. "
    "Differences below the noise are reported as none."
)


def comparison_text(found: Found) -> str:
    """Verdicts, then differences and rates as tables of text.

    Tables fit the terminal, or ``COLUMNS`` where it is set. Where stdout is no terminal, their lines have at most 160
    characters, and sentences are not wrapped.
    """
    rates, left_out = _rates(found), []
    if len(rates.rows) > _MOST_ROWS:
        left_out = [f"Of {len(found.plan.groups)} groups, those that are farthest off. The page (--report) has all."]
        rates = _rates(found, worst_only=True)
    verdicts = [f"{head}\n  {why}" for _, head, why in _verdicts(found)]
    sentences = [*left_out, _ABOUT_RATES.format(found.reference)]
    return "\n\n".join(
        [
            wrapped(_headline(found)),
            *map(wrapped, verdicts),
            *(
                f"Differences, {pair}:\n{table.text()}"
                for pair, table in _by_first(_differences(found, worst_only=True))
            ),
            wrapped(_ABOUT_SHARES),
            *(f"Rates, {backend}:\n{table.text()}" for backend, table in _by_first(rates)),
            *map(wrapped, [*sentences, *_remarks(found)]),
        ]
    )


def _headline(found: Found) -> str:
    kind = describe_kinds(found.plan)
    ran = "all the same" if found.same else "not all the same"
    names = ", ".join(found.outcomes)
    precision = found.options["precision"]
    numbers = f"autocast to {precision['autocast']}" if precision["autocast"] else precision["dtype"]
    return f"{names}: {ran} over {found.steps} updates of {kind}, {numbers}"


def _verdicts(found: Found) -> Iterator[tuple[bool, str, str]]:
    """Of each pair, and of each backend that did not run: whether it is good news, the verdict, and why."""
    for pair in found.pairs:
        verdict, first = pair.verdict, pair.verdict.first
        where = "" if first is None else f", first seen at update {first.step}"
        group = "" if first is None or first.group is None else f", group {first.group}"
        cause = "" if verdict.cause is None else f" – {_CAUSES[verdict.cause]}{where}{group}"
        yield verdict.kind != "different", f"{pair.name}: {verdict.kind}{cause}", verdict.explanation
    for outcome in found.outcomes.values():
        if outcome.status != "ran":
            yield False, f"{outcome.backend}: no verdict", str(outcome)


def _rates(found: Found, worst_only: bool = False) -> ReportTable:
    """What each backend applied to each group; or each backend's groups that are farthest off, read and probed."""
    due = found.observed[found.reference].rates
    rows = []
    for name, seen in found.observed.items():
        off = {place: _far_off(seen.rates[:, place], due[:, place]) for place in range(len(found.plan.groups))}
        probed = {place: _far_off(seen.probed_rates[:, place], due[:, place]) for place in off}
        places = sorted({max(off, key=off.__getitem__), max(probed, key=probed.__getitem__)}) if worst_only else off
        for place in places:
            group = found.plan.groups[place]
            row = [name, group.name, _span(seen.rates[:, place]), _relative(off[place])]
            if group.parameters:
                rows.append([*row, _span(seen.probed_rates[:, place]), _relative(probed[place])])
            else:
                rows.append([*row, "no parameters", ""])
    headers = ["backend", "group", "read off the framework", "off by", "probed off the weights", "off by"]
    return ReportTable(headers, rows, frozenset(["off by"]))


def _far_off(rates: Float64, due: Float64) -> float:
    """The largest relative difference; -1 where no rate is known."""
    steps = min(len(rates), len(due))
    rates, due = rates[:steps], due[:steps]
    known = np.isfinite(rates) & (due > 0)
    return float(np.max(np.abs(rates[known] / due[known] - 1))) if known.any() else -1.0


def _relative(difference: float) -> str:
    return "" if difference < 0 else "0" if difference == 0 else f"{difference:.1e}"


def _span(rates: Float64) -> str:
    known = rates[np.isfinite(rates)]
    return f"{known[0]:.6g} → {known[-1]:.6g}" if len(known) else "unknown"


def _differences(found: Found, worst_only: bool = False) -> ReportTable:
    """The largest differences of every group, or of the one that is nearest to what rounding allows."""
    headers = ["backends", "what", "of", "largest", "rounding allows", "share"]
    return ReportTable(headers, list(_difference_rows(found, worst_only)), frozenset(headers[3:]))


def _difference_rows(found: Found, worst_only: bool) -> Iterator[list[str]]:
    groups = tuple(group.name for group in found.plan.groups)
    owners = {"loss": ("",), "update norm": found.sections, "weights": found.sections}
    for pair in found.pairs:
        for what, values in pair.differences.items():
            shares = pair.shares[what]
            if not shares.size or np.isnan(shares).all():
                continue
            worst = np.fmax.reduce(shares, axis=0)
            allowed = pair.allowed[what]
            for column in [int(np.nanargmax(worst))] if worst_only else range(len(worst)):
                largest, explained = np.nanmax(values[:, column]), np.nanmax(allowed[:, column])
                owner = owners.get(what, groups)[column]
                yield [pair.name, what, owner, _relative(largest), f"{explained:.1e}", _share(float(worst[column]))]


def _share(share: float) -> str:
    if np.isnan(share):
        return "cannot tell"
    return "0" if share == 0 else f"{share:.2g}" if share < 1000 else f"{share:.1e}"


def _remarks(found: Found) -> list[str]:
    remarks = [str(outcome) for outcome in found.outcomes.values() if outcome.status != "ran"]
    remarks += [f"{name} ended early: {seen.ended}" for name, seen in found.observed.items() if seen.ended]
    remarks += _untold(found)
    remarks += found.notes
    dtypes = {pair.dtype for pair in found.pairs}
    beside = " and its own distance from float64" if "float64" in dtypes else ""
    remarks.append(
        f"The tolerance is measured, not chosen. {found.reference} measured what rounding allows: {found.samples} runs "
        f"perturbed by {found.margin:.3g} times the rounding error{beside}."
    )
    return remarks


def _untold(found: Found) -> Iterator[str]:
    """From which update on nothing can be told of which arrays, and why; how far apart runs are that do not judge."""
    by_step = sorted(found.cannot_tell, key=found.cannot_tell.__getitem__)
    for step, group in groupby(by_step, found.cannot_tell.__getitem__):
        names = list(group)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield (
            f"Cannot tell from update {step} on: {', '.join(names[:_MOST_NAMES])}{more}. Rounding alone may move them "
            "as an update does: their gradient is nothing but rounding (a bias before a normalisation), or training is "
            "chaotic by then. Rates and probes still tell."
        )
    dtype = found.options["precision"]["dtype"]
    for pair in found.pairs:
        if pair.dtype != dtype:
            losses, weights = (_relative(largest_known(pair.run_differences[what])) for what in ("loss", "weights"))
            yield (
                f"{pair.name}: judged in {pair.dtype}. In {dtype}, as asked for, losses are at most {losses} apart, "
                f"weights at most {weights}."
            )


def html_text(found: Found) -> str:
    """One file with everything in it: the verdicts, tables, and pictures where matplotlib is installed."""
    rates = _html_by_first(_rates(found))
    is_long = len(found.plan.groups) * len(found.observed) > _MOST_ROWS
    body = [
        _verdict_list(found),
        section(
            "Differences",
            _html_by_first(_differences(found, worst_only=True)),
            paragraphs([_ABOUT_SHARES], "soft"),
            folded("Differences of every group", _html_by_first(_differences(found))),
        ),
        section(
            "Rates",
            folded(_summary(found), rates) if is_long else rates,
            paragraphs([_ABOUT_RATES.format(found.reference)], "soft"),
        ),
        section("Pictures", *_pictures(found)),
        section("Remarks", bullets(_remarks(found))),
        _made_with(found),
    ]
    return page("Do backends train alike?", _headline(found), "\n".join(body))


def _summary(found: Found) -> str:
    """What the rates' table says, where it is folded."""
    worst = _rates(found, worst_only=True).rows
    read, probed = (max(float(row[column] or 0) for row in worst) for column in (3, 5))
    return (
        f"Rates of {len(found.plan.groups)} groups on {len(found.observed)} backends: read off the framework, at most "
        f"{_relative(read)} off; probed off the weights, at most {_relative(probed)} off"
    )


def _verdict_list(found: Found) -> str:
    items = "".join(
        f'<li class="{"good" if is_good else "bad"}"><b>{escaped(head)}</b>{escaped(why)}</li>'
        for is_good, head, why in _verdicts(found)
    )
    return f'<ul class="verdicts">{items}</ul>'


def _by_first(table: ReportTable) -> Iterator[tuple[str, ReportTable]]:
    """A table for each value of the first column, which is left out of it."""
    for value, rows in groupby(table.rows, key=itemgetter(0)):
        yield value, table._replace(headers=table.headers[1:], rows=[row[1:] for row in rows])


def _html_by_first(table: ReportTable) -> str:
    parts = "".join(f"<div><h3>{escaped(value)}</h3>{part.html()}</div>" for value, part in _by_first(table))
    return f'<div class="beside">{parts}</div>'


def _pictures(found: Found) -> list[str]:
    from layered_lr.parity.pictures import not_drawn, pictures

    try:
        drawn = "".join(map(figure, pictures(found)))
    except LayeredLRError as error:
        return [paragraphs([f"No pictures: {error}."])]
    return [paragraphs(not_drawn(found)), f'<div class="pictures">{drawn}</div>']


def _made_with(found: Found) -> str:
    versions: dict[str, Any] = {}
    for seen in found.observed.values():
        versions |= seen.versions
    options = ", ".join(f"{name}={value}" for name, value in found.options.items() if value not in (None, [], ()))
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    spec = f"<pre>{escaped(_spec_text(found))}</pre>"
    return section("Made with", paragraphs([f"{packages}; {options}"], "soft"), folded("The spec", spec))


def _spec_text(found: Found) -> str:
    try:
        return found.plan.spec.to_toml()
    except LayeredLRError:  # a function in it cannot be written down
        return str(found.plan.spec)
