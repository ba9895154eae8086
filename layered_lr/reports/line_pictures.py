"""Small pictures of lines over a run's updates, whose names stand beside them in HTML, where they wrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.reports.figures import COLOURS, DASHES, content_of, inlined, use_linear_axis, use_log_axis
from layered_lr.reports.page import escaped, figure
from layered_lr.reports.tables import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES, _POINTS = (4.4, 2.9), 8.8  # 317 points: on a screen of 390 pixels more than one pixel each
_LETTER = 0.58  # width of a letter, as a part of the font's size
_MOST_POINTS = 6_000  # of all lines of a picture
_PRESSED = 30.0  # a log axis where the numbers reach over more than that


class Line(NamedTuple):
    """A line of a picture.

    Args:
        name: For the key.
        steps: Updates, shape (n,) ascending.
        values: At these updates, shape (n,); those that are not finite are left out.
        colour: As HTML has it, ``#0072B2``.
        dashes: Which of the patterns: 0 is a whole line.
        is_stepped: Whether a value holds until the next one.
        has_marks: Whether each point has a mark.
    """

    name: str
    steps: NDArray[np.int64]
    values: Float64
    colour: str
    dashes: int = 0
    is_stepped: bool = False
    has_marks: bool = False


class Mark(NamedTuple):
    """A vertical line where something begins.

    Args:
        step: The update.
        name: What begins there.
    """

    step: int
    name: str


def styles(count: int) -> list[tuple[str, int]]:
    """A colour and a dash pattern for each of so many lines: one of seven, or of many a colour of an even map."""
    if count <= len(COLOURS):
        return [(COLOURS[place], place) for place in range(count)]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    places = np.linspace(0.0, 0.9, count)
    return [(to_hex(colormaps["viridis"](place)), rank % 3 * (count < 16)) for rank, place in enumerate(places)]


def picture(
    title: str, lines: Sequence[Line], name: str, *, marks: Sequence[Mark] = (), may_be_log: bool = True
) -> str:
    """A ``<figure>`` with the lines over the updates.

    Args:
        title: What the lines show, also for readers who cannot see it.
        lines: At least one with a finite value.
        name: Begins each id in it; letters, digits and hyphens, another one for each picture of a page.
        marks: Where phases begin.
        may_be_log: Whether the axis may be logarithmic; a fraction's never is.
    """
    axes = _axes(title)
    parts = max(12, _MOST_POINTS // (4 * len(lines)))
    drawn = [(line, *_thinned(line.steps, line.values, parts)) for line in lines]
    for line, steps, values in drawn:
        few = len(steps) < 3
        axes.plot(
            steps,
            values,
            color=line.colour,
            linestyle=DASHES[line.dashes % len(DASHES)],
            linewidth=1.5 if len(lines) < 20 else 1.0,
            drawstyle="steps-post" if line.is_stepped else "default",
            marker="o" if few or line.has_marks else "",
            markersize=3.0,
        )
    last = max(int(steps[-1]) for _, steps, _ in drawn if len(steps))
    axes.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
    _set_scale(axes, [values for _, _, values in drawn], may_be_log)
    _add_marks(axes, marks, last)
    svg = content_of(axes.get_figure(), ".svg").decode()
    return figure(inlined(svg, f"{title}, by update", name))


def key(lines: Sequence[Line]) -> str:
    """The names of lines beside a piece of each, as HTML that wraps."""
    kinds = ("solid", "dashed", "dotted")
    items = "".join(
        f'<li><i style="border-top-color:{line.colour};border-top-style:{kinds[min(line.dashes, 2)]}"></i>'
        f"{escaped(line.name)}</li>"
        for line in lines
    )
    return f'<ul class="key">{items}</ul>'


def has_values(line: Line) -> bool:
    """Whether there is anything to draw."""
    return bool(np.isfinite(line.values).any())


def _axes(title: str) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    made: Figure = Figure(figsize=_INCHES, dpi=120, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.add_subplot()
    fitting = shortened(title, int(0.8 * 72 * _INCHES[0] / (_LETTER * _POINTS)))
    axes.set_title(fitting.replace("$", r"\$"), fontsize=_POINTS + 1, loc="left")
    axes.set_xlabel("update", fontsize=_POINTS)
    axes.tick_params(labelsize=_POINTS)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _thinned(steps: NDArray[np.int64], values: Float64, parts: int) -> tuple[NDArray[np.int64], Float64]:
    """The finite values; of many the first, lowest, highest and last of each part, so that no spike is lost."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(values) <= 4 * parts:
        return steps, values
    edges = np.linspace(0, len(values), parts + 1).astype(np.int64)
    kept: set[int] = set()
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[start:stop]
        kept |= {start, start + int(part.argmin()), start + int(part.argmax()), stop - 1}
    places = np.array(sorted(kept), dtype=np.int64)
    return steps[places], values[places]


def _set_scale(axes: Axes, lines: Sequence[Float64], may_be_log: bool) -> None:
    values = np.concatenate(lines)
    above = values[values > 0]
    if not may_be_log:
        axes.set_ylim(-0.02, 1.02)
    elif len(above) == 0:
        use_linear_axis(axes, 1.0)
    elif values.min() >= 0 and above.max() > _PRESSED * above.min():
        lowest = max(float(above.min()), float(np.quantile(above, 0.01)) / 10, float(above.max()) * 1e-12)
        use_log_axis(axes, lowest, 1.3 * float(above.max()), with_zero=bool((values < lowest).any()))
    elif values.min() >= 0:
        use_linear_axis(axes, 1.08 * float(above.max()))
    else:
        axes.margins(y=0.08)


def _add_marks(axes: Axes, marks: Sequence[Mark], last: int) -> None:
    """A dotted line where each begins, and its name at the top where there is room."""
    letter = _LETTER * _POINTS / (0.78 * 72 * _INCHES[0]) * 1.04 * max(last, 1)
    for place, mark in enumerate(marks):
        if mark.step > last:
            continue
        end = marks[place + 1].step if place + 1 < len(marks) else last
        axes.axvline(mark.step, color="0.45", linewidth=1.0, linestyle=(0, (1, 2)), zorder=0)
        for text in (mark.name, mark.name.rpartition(" ")[2]):
            if (len(text) + 1.5) * letter < min(end, last) - mark.step:
                bbox: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
                axes.annotate(
                    text, (mark.step, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                    textcoords="offset points", va="top", fontsize=_POINTS, color="0.3", bbox=bbox,
                )  # fmt: skip
                break
