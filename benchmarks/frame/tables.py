"""A report as tables: for the terminal, and as Markdown."""

from __future__ import annotations

import math

from tabulate import tabulate

from benchmarks.frame.report import Ratio, Report, Series, Spread


def text(report: Report) -> str:
    """For the terminal."""
    if report.skipped:
        return "\n".join([f"{report.name}: {report.question}", *report.notes])
    parts = [f"{report.name}: {report.question}", *_tables(report, "simple")]
    parts += [f"missing: {name} ({reason})" for name, reason in report.missing.items()]
    parts += [*report.notes, _machine(report)]
    return "\n\n".join(parts)


def markdown(report: Report) -> str:
    """One section of RESULTS.md."""
    if report.skipped:
        return "\n\n".join([f"## {report.name}", f"{report.question}", *report.notes])
    parts = [f"## {report.name}", report.question, *_tables(report, "github")]
    if report.missing:
        parts.append(_table([[name, reason] for name, reason in report.missing.items()], ["missing", "why"], "github"))
    parts += list(report.notes)
    parts.append(f"![{report.name}](results/{report.name}.svg)")
    parts.append(f"`{report.about['command']}`: {_machine(report)}")
    return "\n\n".join(parts)


def pivot(report: Report, style: str = "github") -> str:
    """Quantities down, opponents across: for a report whose every opponent has the same quantities."""
    names = list(dict.fromkeys(series.name for series in report.series))
    rows = []
    for quantity in dict.fromkeys(series.quantity for series in report.series):
        found = {series.name: series for series in report.series if series.quantity == quantity}
        rows.append([quantity, *(value(found[name]) if name in found else "–" for name in names)])
    return _table(rows, ["", *(f"`{name}`" for name in names)], style)


def targets(reports: list[Report], style: str = "github") -> str:
    """Every figure that has a target, of all reports; empty where none has."""
    rows = []
    for report in reports:
        figures: tuple[Series | Ratio, ...] = (*report.series, *report.ratios)
        for of in figures:
            if of.target is not None:
                what = of.name if of.name == report.name else f"{of.name}, {of.quantity}"
                rows.append([f"`{report.name}`", what, _middle(of), str(of.target), of.target.verdict(of)])
        for curve in report.curves:
            if curve.target is not None:
                what = f"slope of {curve.quantity} over {curve.along}, {curve.name}"
                rows.append([f"`{report.name}`", what, f"{curve.slope:.2f}", str(curve.target), curve.verdict])
    return _table(rows, ["benchmark", "figure", "median (min to max)", "target", ""], style) if rows else ""


def value(series: Series) -> str:
    """The median with its unit, and the range where there is one."""
    shown, scale, unit = _scaled(series)
    if len(series.rounds) == 1 or series.low == series.high:
        return f"{shown} {unit}".strip()
    return f"{shown} ({number(series.low * scale)} to {number(series.high * scale)}) {unit}".strip()


def number(given: float) -> str:
    """Three digits that matter, without an exponent where that is readable."""
    if given == 0 or not math.isfinite(given):
        return f"{given:g}"
    if 1e-3 <= abs(given) < 1e6:
        digits = max(0, 2 - math.floor(math.log10(abs(given))))
        return f"{given:,.{digits}f}"
    return f"{given:.2e}"


def _tables(report: Report, style: str) -> list[str]:
    found = []
    if report.series:
        has_target = any(series.target for series in report.series)
        has_note = any(series.note for series in report.series)
        head = ["", "quantity", "median", "min", "max", "unit", "rounds"]
        rows = [_series_row(series, has_target, has_note) for series in report.series]
        head += ["target", "verdict"] * has_target + ["note"] * has_note
        found.append(_table(rows, head, style))
    if report.ratios:
        has_note = any(ratio.note for ratio in report.ratios)
        rows = [_ratio_row(ratio, has_note) for ratio in report.ratios]
        head = ["ratio, per round", "of", "median", "min", "max", "difference", "target", "verdict"]
        found.append(_table(rows, head + ["note"] * has_note, style))
    if report.curves:
        rows = []
        for curve in report.curves:
            points = ", ".join(f"{x:g}: {number(y)}" for x, y in zip(curve.x, curve.y, strict=True))
            target = str(curve.target or "")
            shown = [curve.name, f"{curve.quantity} over {curve.along}", f"{curve.slope:.2f}", target, curve.verdict]
            rows.append([*shown, f"{points} {curve.unit}"])
        found.append(_table(rows, ["growth", "of", "slope", "target", "verdict", "medians"], style))
    return found


def _series_row(series: Series, has_target: bool, has_note: bool) -> list[str]:
    _, scale, unit = _scaled(series)
    values = [number(given * scale) for given in (series.median, series.low, series.high)]
    row = [series.name, series.quantity, *values, unit, str(len(series.rounds))]
    if has_target:
        row += [str(series.target or ""), series.target.verdict(series) if series.target else ""]
    return row + [series.note] * has_note


def _ratio_row(ratio: Ratio, has_note: bool) -> list[str]:
    values = [number(given) for given in (ratio.median, ratio.low, ratio.high)]
    row = [ratio.name, ratio.quantity, *values, ratio.verdict, str(ratio.target or "")]
    row.append(ratio.target.verdict(ratio) if ratio.target else "")
    return row + [ratio.note] * has_note


def _middle(of: Spread) -> str:
    if isinstance(of, Series):
        return value(of)
    return f"{number(of.median)} ({number(of.low)} to {number(of.high)})"


def _scaled(series: Series) -> tuple[str, float, str]:
    """Seconds below one are shown as ms or µs; targets are in the unit of the series and keep it."""
    scale, unit = 1.0, series.unit
    if unit == "s" and series.target is None and 0 < series.median < 1:
        scale, unit = (1e3, "ms") if series.median >= 1e-3 else (1e6, "µs")
    return number(series.median * scale), scale, unit


def _table(rows: list[list[str]], head: list[str], style: str) -> str:
    return tabulate(rows, head, tablefmt=style, disable_numparse=True)


def _machine(report: Report) -> str:
    about = report.about
    machine, versions = about["machine"], about["versions"]
    hardware = f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']:g} GB"
    load = f"load {machine['load_before']:g} before"
    names = [f"{name} {version}" for name, version in versions.items()]
    quick = "a quick run, whose figures mean nothing; " if about.get("quick") else ""
    return f"{quick}{hardware}, {load}; {', '.join(names)}; took {about['seconds']:.0f} s"
