"""The pictures of a comparison, each small enough for a phone: inline SVG by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.parity.findings import Found, Pair, largest_known
from layered_lr.reports.figures import (
    COLOURS,
    DASHES,
    check_matplotlib,
    content_of,
    inlined,
    use_linear_axis,
    use_log_axis,
)
from layered_lr.reports.tables import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_SECTIONS = 8
_WIDTH_INCHES, _HEIGHT_INCHES = 4.4, 2.9
_TEXT_POINTS = 8.8
_LETTER_POINTS = 0.6 * _TEXT_POINTS
_KEY_POINTS = 5 * _TEXT_POINTS  # the dashes before a name, and the gap to the next one
_SMALLEST_SHARE = 1e-4  # below which shares are drawn on a linear part of the axis, down to 0


def pictures(found: Found) -> list[str]:
    """One ``<svg>`` each: every pair's shares of what rounding allows, the sections' weights, the groups' rates.

    What ``not_drawn`` tells of has none.

    Raises:
        LayeredLRError: matplotlib is not installed.
    """
    check_matplotlib()
    figures = {f"Shares, {pair.name}": _shares(found, pair) for pair in found.pairs}
    figures |= {f"Weights of {found.sections[column]}": _weights(found, column) for column in _drawn_sections(found)}
    figures |= {f"Rate of {found.plan.groups[index].name}": _rates(found, index) for index in _drawn_rates(found)}
    return [
        inlined(content_of(figure, ".svg").decode(), f"{label} by update", f"picture-{number}")
        for number, (label, figure) in enumerate(figures.items(), start=1)
    ]


def not_drawn(found: Found) -> list[str]:
    """Sentences on what has no picture, and why."""
    said = []
    moving = _moving(found)
    if still := [section for column, section in enumerate(found.sections) if column not in moving]:
        said.append(f"Frozen, and the same on every backend at every update, so not drawn: {', '.join(still)}.")
    if len(moving) > _MOST_SECTIONS:
        said.append(
            f"Of {len(moving)} groups of weights, the {_MOST_SECTIONS} are drawn that come nearest to what rounding "
            "allows. The tables above have all of them."
        )
    if (with_rate := len(_groups_with_rate(found))) > _MOST_SECTIONS:
        said.append(f"The rates of the first {_MOST_SECTIONS} of {with_rate} groups are drawn.")
    return said


def _moving(found: Found) -> list[int]:
    """The sections whose weights move on some backend, or differ."""
    return [
        column
        for column in range(len(found.sections))
        if any(np.nanmax(seen.update_norms[:, column], initial=0.0) > 0 for seen in found.observed.values())
        or any(largest_known(pair.differences["weights"][:, column]) > 0 for pair in found.pairs)
    ]


def _groups_with_rate(found: Found) -> list[int]:
    groups = range(len(found.plan.groups))
    return [
        index
        for index in groups
        if any(np.nanmax(seen.rates[:, index], initial=0.0) > 0 for seen in found.observed.values())
    ]


def _drawn_rates(found: Found) -> list[int]:
    return [index for index in _groups_with_rate(found) if found.plan.groups[index].parameters][:_MOST_SECTIONS]


def _drawn_sections(found: Found) -> list[int]:
    """The sections to draw: all that move, or those nearest to what rounding allows."""
    columns = _moving(found)
    if len(columns) <= _MOST_SECTIONS:
        return columns

    def share(column: int) -> float:
        return max((largest_known(pair.shares["weights"][:, column]) for pair in found.pairs), default=0.0)

    return sorted(sorted(columns, key=share, reverse=True)[:_MOST_SECTIONS])


def _own_axes(title: str, ylabel: str) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure: Figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    name = shortened(title, int(0.8 * 72 * _WIDTH_INCHES / _LETTER_POINTS))
    axes.set_title(name.replace("$", r"\$"), fontsize=_TEXT_POINTS + 1, loc="left")
    axes.set_xlabel("update", fontsize=_TEXT_POINTS)
    axes.set_ylabel(ylabel, fontsize=_TEXT_POINTS)
    axes.tick_params(labelsize=_TEXT_POINTS)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _finished(axes: Axes) -> Figure:
    """The axes' figure, with as many names beside each other below it as there is room for."""
    figure: Any = axes.get_figure()
    handles, labels = axes.get_legend_handles_labels()
    widest = max(map(len, labels)) * _LETTER_POINTS + _KEY_POINTS
    columns = int(max(1, min(3, 72 * _WIDTH_INCHES // widest)))
    rows = -(-len(labels) // columns)
    figure.set_size_inches(_WIDTH_INCHES, _HEIGHT_INCHES + rows * 1.5 * _TEXT_POINTS / 72)
    figure.legend(
        handles,
        [label.replace("$", r"\$") for label in labels],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=_TEXT_POINTS,
        handlelength=2.8,
    )
    return figure  # type: ignore[no-any-return]


def _shares(found: Found, pair: Pair) -> Figure:
    axes = _own_axes(pair.name, "difference / what rounding allows")
    shown = {what: shares for what, shares in pair.shares.items() if shares.size and not np.isnan(shares).all()}
    lines = {what: np.fmax.reduce(shares, axis=1) for what, shares in shown.items()}
    lowest, highest, zero = _bounds(lines.values(), at_least=_SMALLEST_SHARE)
    top = 3 * max(10.0, highest)
    for rank, (what, worst) in enumerate(lines.items()):
        steps = np.arange(len(worst), dtype=np.float64)
        if what == "weights":
            steps, worst = found.rows[1 : len(worst)] - 1, worst[1:]
        axes.plot(steps, np.minimum(worst, top), label=what, **_line(rank))
    axes.axhline(1.0, color="0.25", linewidth=1.2, label="above: different")
    use_log_axis(axes, min(0.5 * lowest, 0.1), top, with_zero=zero)
    return _finished(axes)


def _weights(found: Found, column: int) -> Figure:
    axes = _own_axes(f"weights: {found.sections[column]}", "largest difference")
    steps = found.rows[1:] - 1
    nothing = np.full(len(steps), np.nan)
    limits = [_padded(pair.allowed["weights"][1:, column], len(steps)) for pair in found.pairs]
    allowed: Float64 = np.fmax.reduce([nothing, *limits])
    apart = [pair.differences["weights"][1:, column] for pair in found.pairs]
    lowest, highest, _ = _bounds([allowed, *apart])
    zero = any(bool((values == 0).any()) for values in apart)
    top = 3 * highest
    axes.fill_between(
        steps, 0.0 if zero else 0.1 * lowest, np.minimum(allowed, top), color="0.88", linewidth=0, label="rounding"
    )
    for rank, (pair, values) in enumerate(zip(found.pairs, apart, strict=True)):
        marker: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(values) < 3 else {}
        axes.plot(steps[: len(values)], np.minimum(values, top), label=pair.name, **_line(rank), **marker)
    if (since := found.uninformative.get(found.sections[column])) is not None:
        axes.axvline(since, color="0.45", linewidth=0.9, linestyle=":", label="no longer informative")
    use_log_axis(axes, 0.5 * lowest, top, with_zero=zero)
    return _finished(axes)


def _padded(values: Float64, length: int) -> Float64:
    """The values of a pair, whose runs may have ended early, with NaN behind them."""
    return np.pad(values, (0, length - len(values)), constant_values=np.nan)


def _rates(found: Found, index: int) -> Figure:
    axes = _own_axes(f"rate: {found.plan.groups[index].name}", "learning rate")
    highest = 0.0
    for rank, (name, seen) in enumerate(found.observed.items()):
        line = _line(rank)
        rates, probed = seen.rates[:, index], seen.probed_rates[:, index]
        steps = np.arange(len(rates))
        axes.plot(steps, rates, label=name, drawstyle="steps-post", **line)
        every = max(1, len(steps) // 12)
        chosen = steps[rank * every // max(1, len(found.observed)) :: every]
        axes.plot(
            chosen, probed[chosen], "o", markersize=4.5, markerfacecolor="none", color=line["color"],
            label="probed" if rank == 0 else "_probed",
        )  # fmt: skip
        highest = max(highest, largest_known(rates), largest_known(probed))
    use_linear_axis(axes, 1.08 * highest)
    return _finished(axes)


def _line(rank: int) -> dict[str, Any]:
    round_of_colours, place = divmod(rank, len(COLOURS))  # the eighth line has the first one's colour, not its dashes
    dashes = DASHES[(place + round_of_colours) % len(DASHES)]
    return {"color": COLOURS[place], "linestyle": dashes, "linewidth": 1.6}


def _bounds(lines: Any, at_least: float = 0.0) -> tuple[float, float, bool]:
    """The lowest number above zero, the highest finite one, and whether some are zero, or smaller than ``at_least``."""
    values: Sequence[Float64] = [line[np.isfinite(line)] for line in lines]
    known = np.concatenate(values) if values else np.empty(0)
    above = known[known > at_least]
    return (
        max(float(above.min(initial=1.0)), at_least),
        float(above.max(initial=at_least)),
        bool((known <= at_least).any()),
    )
