"""The pictures of a comparison, each small enough for a phone: inline SVG by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.parity.findings import Found, Pair
from layered_lr.reports.figures import COLOURS, DASHES, check_matplotlib, content_of, inlined

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_SECTIONS = 8
_SIZE_INCHES = (4.4, 3.4)


def pictures(found: Found) -> list[str]:
    """One ``<svg>`` each: every pair's shares of the envelope, every section's weights, every group's rates.

    Raises:
        LayeredLRError: matplotlib is not installed.
    """
    check_matplotlib()
    figures = [_shares(found, pair) for pair in found.pairs]
    figures += [_weights(found, column) for column in _widest(found)]
    groups = [index for index, group in enumerate(found.plan.groups) if group.parameters]
    figures += [_rates(found, index) for index in groups[:_MOST_SECTIONS]]
    return [inlined(content_of(figure, ".svg").decode()) for figure in figures]


def _own_axes(title: str, ylabel: str) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure: Figure = Figure(figsize=_SIZE_INCHES, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title.replace("$", r"\$"), fontsize="medium", loc="left")
    axes.set_xlabel("update")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _finished(axes: Axes) -> Figure:
    figure: Any = axes.get_figure()
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="x-small", handlelength=2.8)
    return figure  # type: ignore[no-any-return]


def _shares(found: Found, pair: Pair) -> Figure:
    axes = _own_axes(pair.name, "share of what rounding explains")
    shown = {what: shares for what, shares in pair.shares.items() if shares.size and not np.isnan(shares).all()}
    lowest = 1e-3
    for rank, (what, shares) in enumerate(shown.items()):
        worst = np.fmax.reduce(shares, axis=1)
        steps = np.arange(len(worst), dtype=np.float64)
        if what == "weights":
            steps, worst = found.rows[1 : len(worst)] - 1, worst[1:]
        axes.plot(steps, np.clip(worst, lowest, 1e9), label=what, **_line(rank))
    axes.axhline(1.0, color="0.25", linewidth=1.2)
    axes.annotate(
        "beyond this line: different", (1, 1.0), xycoords=("axes fraction", "data"), xytext=(-2, 3),
        textcoords="offset points", ha="right", fontsize="x-small", color="0.25",
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7 * lowest, top=max(10.0, axes.get_ylim()[1]))
    return _finished(axes)


def _weights(found: Found, column: int) -> Figure:
    axes = _own_axes(f"weights: {found.sections[column]}", "largest difference")
    steps, allowed = found.rows[1:] - 1, found.allowed["weights"][1:, column]
    apart = [pair.differences["weights"][1:, column] for pair in found.pairs]
    finite = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in [allowed, *apart]])
    floor = 0.3 * float(finite.min(initial=1.0))
    ceiling = 3 * float(finite.max(initial=floor))
    axes.fill_between(steps, floor, np.clip(allowed, floor, ceiling), color="0.88", linewidth=0, label="rounding")
    for rank, (pair, values) in enumerate(zip(found.pairs, apart, strict=True)):
        line = np.where(values > 0, values, floor)  # bitwise the same: on the axis
        marker: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(line) < 3 else {}
        axes.plot(steps[: len(line)], line, label=pair.name, **_line(rank), **marker)
    if (since := found.uninformative.get(found.sections[column])) is not None:
        axes.axvline(since, color="0.45", linewidth=0.9, linestyle=":", label="no longer informative")
    axes.set_yscale("log")
    axes.set_ylim(floor, ceiling)
    return _finished(axes)


def _rates(found: Found, index: int) -> Figure:
    axes = _own_axes(f"rate: {found.plan.groups[index].name}", "learning rate")
    for rank, (name, seen) in enumerate(found.observed.items()):
        line = _line(rank)
        steps = np.arange(len(seen.rates))
        axes.plot(steps, seen.rates[:, index], label=name, drawstyle="steps-post", **line)
        probed = seen.probed_rates[:, index]
        every = max(1, len(steps) // 12)
        chosen = steps[rank * every // max(1, len(found.observed)) :: every]
        axes.plot(
            chosen, probed[chosen], "o", markersize=4.5, markerfacecolor="none", color=line["color"],
            label="probed" if rank == 0 else "_probed",
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    return _finished(axes)


def _line(rank: int) -> dict[str, Any]:
    place = rank % len(COLOURS)
    return {"color": COLOURS[place], "linestyle": DASHES[place], "linewidth": 1.6}


def _widest(found: Found) -> list[int]:
    """The sections to draw: all, or those nearest to the envelope."""
    columns = range(len(found.sections))
    if len(columns) <= _MOST_SECTIONS:
        return list(columns)

    def share(column: int) -> float:
        return max((float(_largest(pair.shares["weights"][:, column])) for pair in found.pairs), default=0.0)

    return sorted(sorted(columns, key=share, reverse=True)[:_MOST_SECTIONS])


def _largest(values: Float64) -> Any:
    return np.nanmax(values, initial=0.0)
