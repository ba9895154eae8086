"""The picture of a search: the loss over the rate on a log axis, the suggestions marked, each group's scale below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
    axes = _own_axes(inches) if ax is None else ax
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
    return axes


def _own_axes(inches: tuple[float, float]) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=inches, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


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
    if search.group is None:
        _add_scales(axes, search)


def _add_scales(axes: Axes, search: SearchView) -> None:
    """An axis for each group below the one of ``lr``, which says the group's rate at the same place."""
    scales = [(name, scale) for name, scale in search.scales.items() if scale > 0]
    for place, (name, scale) in enumerate(scales[:_MOST_SCALES], start=1):
        own = axes.secondary_xaxis(-0.17 * place, functions=(_times(scale), _times(1 / scale)))
        own.set_xlabel(shortened(name, _LONGEST_NAME), fontsize="small", labelpad=0)
        own.tick_params(labelsize="small")


def _times(factor: float) -> Any:
    return lambda values: np.asarray(values) * factor


def file_content(search: SearchView, suffix: str) -> bytes:
    """The drawing as a file's content, of ``".png"`` or ``".svg"``."""
    return content_of(plot(search).get_figure(), suffix)


def inline_svg(search: SearchView, *, narrow: bool = False) -> str:
    """The drawing as an ``<svg>`` element for an HTML page, which refers to nothing outside it."""
    rows = min(len(search.scales), _MOST_SCALES) if search.group is None else 0
    inches = (4.2, 3.6 + 0.6 * rows) if narrow else (9.0, 4.4 + 0.6 * rows)
    svg = content_of(plot(search, None, inches).get_figure(), ".svg").decode()
    return inlined(svg, "Loss at each learning rate", "narrow" if narrow else "wide")
