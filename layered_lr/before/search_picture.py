"""The picture of a search: the loss over the rate on a log axis, the suggestions marked, each group's scale below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layered_lr.reports.figures import COLOURS, check_matplotlib, content_of, inlined, plain_number
from layered_lr.reports.tables import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from layered_lr.before.search_view import SearchView

_MOST_SCALES = 6  # groups whose scale stands below the axis; the table has all
_MARKS = {"valley": "o", "steepest": "s", "tenth": "D"}
_LONGEST_NAME = 24


def plot(search: SearchView, ax: Axes | None = None, inches: tuple[float, float] = (9.0, 5.0)) -> Axes:
    """Draw the curve, as ``RateSearch.plot`` describes it."""
    check_matplotlib()
    scales = [] if ax is not None or search.group is not None else _scales(search)
    axes, below = (ax, []) if ax is not None else _own_axes(inches, len(scales))
    count = len(search.mean)
    lr = search.lr[:count]
    if len(search.seeds) > 1:
        axes.fill_between(lr, *search.band, color=COLOURS[0], alpha=0.2, linewidth=0, label="between the seeds")
    for losses in search.losses:
        axes.plot(search.lr, losses, color="#999999", linewidth=0.6, alpha=0.7)
    axes.plot(lr, search.mean, color=COLOURS[0], linewidth=1.8, label="smoothed loss")
    for (name, found), colour in zip(search.suggestions.items(), COLOURS[1:], strict=False):
        mark, height = _MARKS[name], float(search.mean[found.step])
        axes.axvline(found.lr, color=colour, linewidth=0.8, linestyle=":")
        axes.plot([found.lr], [height], mark, color=colour, markersize=8, label=f"{name}: {found.lr:.3g}")
    _dress(axes, search)
    for own, (name, scale) in zip(below, scales, strict=True):
        _draw_scale(own, name, tuple(scale * limit for limit in axes.get_xlim()))
    return axes


def _own_axes(inches: tuple[float, float], scales: int) -> tuple[Axes, list[Axes]]:
    """The axes of the curve, and those of the scales below them, which have no height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=inches, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + scales, 1, height_ratios=[1.0] + [0.001] * scales)
    first, *below = (figure.add_subplot(grid[row]) for row in range(1 + scales))
    return first, below


def _scales(search: SearchView) -> list[tuple[str, float]]:
    return [(name, scale) for name, scale in search.scales.items() if scale > 0][:_MOST_SCALES]


def _dress(axes: Axes, search: SearchView) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("lr" if search.group is None else f"rate of {shortened(search.group, _LONGEST_NAME)}")
    axes.set_ylabel("loss")
    axes.yaxis.set_major_formatter(plain_number)
    if len(search.mean):
        low, high = float(search.mean.min()), float(search.mean.max())
        margin = 0.08 * ((high - low) or abs(high) or 1.0)
        axes.set_ylim(low - margin, high + margin)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize="small")


def _draw_scale(axes: Axes, name: str, limits: tuple[float, ...]) -> None:
    """A group's own rates, each below the ``lr`` that it goes with."""
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.yaxis.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(shortened(name, _LONGEST_NAME), fontsize="small", labelpad=0)
    axes.tick_params(labelsize="small")


def file_content(search: SearchView, suffix: str) -> bytes:
    """The drawing as a file's content, of ``".png"`` or ``".svg"``."""
    return content_of(plot(search).get_figure(), suffix)


def inline_svg(search: SearchView, *, narrow: bool = False) -> str:
    """The drawing as an ``<svg>`` element for an HTML page, which refers to nothing outside it."""
    rows = min(len(search.scales), _MOST_SCALES) if search.group is None else 0
    inches = (4.2, 3.6 + 0.6 * rows) if narrow else (9.0, 4.4 + 0.6 * rows)
    svg = content_of(plot(search, None, inches).get_figure(), ".svg").decode()
    return inlined(svg, "Loss at each learning rate", "narrow" if narrow else "wide")
