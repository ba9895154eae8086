"""A report as a picture: a panel for each quantity, one for the ratios, one for each kind of curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.frame.report import Curve, Ratio, Report, Series
from benchmarks.frame.tables import number, value
from layered_lr.outputs import open_whole

_ROW_INCHES, _PANEL_INCHES = 0.4, 0.95


def draw(report: Report, path: Path) -> bool:
    """Write the picture as SVG; whether there is something to draw and matplotlib to draw it with."""
    if report.skipped:
        return False
    try:
        import matplotlib
    except ImportError:
        return False
    with matplotlib.rc_context(
        {"svg.hashsalt": report.name, "svg.fonttype": "path", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    ):
        figure = _figure(report)
        with open_whole(path) as file:
            figure.savefig(file, format="svg", metadata={"Date": None})
    return True


def _figure(report: Report) -> Any:
    from matplotlib.figure import Figure

    quantities = list(dict.fromkeys((series.quantity, series.unit) for series in report.series))
    panels: list[tuple[float, Any]] = []
    for quantity, unit in quantities:
        rows = [series for series in report.series if (series.quantity, series.unit) == (quantity, unit)]
        panels.append((len(rows) * _ROW_INCHES, (_series_panel, rows)))
    if report.ratios:
        panels.append((len(report.ratios) * _ROW_INCHES, (_ratio_panel, report.ratios)))
    for key in dict.fromkeys((curve.along, curve.quantity) for curve in report.curves):
        lines = [curve for curve in report.curves if (curve.along, curve.quantity) == key]
        panels.append((2.6, (_curve_panel, lines)))
    heights = [height + _PANEL_INCHES for height, _ in panels]
    figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(f"{report.name}: {report.question}", wrap=True, fontsize=10)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, (_, (panel, what)) in zip(axes, panels, strict=True):
        panel(ax, what)
    return figure


def _series_panel(ax: Any, rows: Sequence[Series]) -> None:
    medians = [series.median for series in rows]
    ax.barh(range(len(rows)), medians, color="#9ecae1", edgecolor="#3182bd", height=0.62)
    for at, series in enumerate(rows):
        ax.plot(series.rounds, [at] * len(series.rounds), ".", color="#08306b", markersize=4)
        ax.annotate(
            value(series), (series.high, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
        )
        if series.target is not None:
            ax.plot([series.target.value] * 2, [at - 0.4, at + 0.4], color="#d94801", linewidth=2)
    positive = [taken for series in rows for taken in series.rounds if taken > 0]
    if positive and max(positive) > 100 * min(positive):
        ax.set_xscale("log")
        ax.set_xlim(min(positive) / 3, max(positive) * 30)
    else:
        ax.set_xlim(0, max([*positive, 1e-9]) * 1.7)
    _finish(ax, [series.name for series in rows], f"{rows[0].quantity} [{rows[0].unit or '1'}]")


def _ratio_panel(ax: Any, rows: Sequence[Ratio]) -> None:
    for at, ratio in enumerate(rows):
        ax.plot([ratio.low, ratio.high], [at, at], color="#3182bd", linewidth=3, alpha=0.5)
        ax.plot(ratio.rounds, [at] * len(ratio.rounds), ".", color="#08306b", markersize=4)
        ax.plot([ratio.median], [at], "D", color="#3182bd", markersize=6)
        said = f"{number(ratio.median)}: {ratio.verdict}"
        ax.annotate(said, (ratio.high, at), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8)
        if ratio.target is not None:
            ax.plot([ratio.target.value] * 2, [at - 0.4, at + 0.4], color="#d94801", linewidth=2)
    ax.axvline(1, color="black", linewidth=0.8)
    low, high = min([1.0, *(r.low for r in rows)]), max([1.0, *(r.high for r in rows)])
    if high > 20 * low > 0:
        ax.set_xscale("log")
        ax.set_xlim(low / 2, high * 30)
    else:
        ax.set_xlim(low - 0.1 * (high - low + 0.1), high + 0.7 * (high - low + 0.1))
    _finish(
        ax,
        ["\n/ ".join(ratio.name.split(" / ")) + f", {ratio.quantity}" for ratio in rows],
        "ratio per round; orange: target",
    )


def _curve_panel(ax: Any, lines: Sequence[Curve]) -> None:
    for curve in lines:
        (line,) = ax.loglog(curve.x, curve.y, "o-", markersize=4, label=f"{curve.name}: slope {curve.slope:.2f}")
        for x, taken in zip(curve.x, curve.rounds, strict=True):
            ax.plot([x] * len(taken), taken, ".", color=line.get_color(), markersize=3, alpha=0.6)
    top = max(lines, key=lambda curve: curve.y[-1])
    ax.loglog(
        [top.x[0], top.x[-1]], [top.y[-1] * top.x[0] / top.x[-1], top.y[-1]], ":", color="grey", label="linear: slope 1"
    )
    ax.set_ylim(bottom=min(y for curve in lines for y in curve.y) / 2)
    ax.set_xlabel(lines[0].along)
    ax.set_ylabel(f"{lines[0].quantity} [{lines[0].unit}]")
    ax.legend(fontsize=8)


def _finish(ax: Any, names: list[str], label: str) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.grid(axis="y", visible=False)
