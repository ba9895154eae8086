"""The picture of a plan: every group's rate over the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from layered_lr.plans.group import PlanGroup
from layered_lr.plans.picture_marks import NARROW, WIDE, Look, add_epochs, add_notes, add_phases, add_warmups
from layered_lr.plans.view import PlanView
from layered_lr.reports.curves import Outline, Scale, is_log, low_rate, outlines
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

_PARTS = 1500  # more than a picture of 9 inches has pixel columns
_LONGEST_LABEL = 32
_MOST_LABELS = 14  # of which each stands beside its line; more have a colorbar
_MOST_NAMES = 16  # beside a colorbar
_MOST_BELOW = 12  # names below a narrow drawing
_REST_COLOUR = "#D55E00"  # none of the colours between which the others lie
_DEEPEST = 0.03  # part of the lines' low rates down to which a log axis goes, where lines end in almost nothing


def plot(plan: PlanView, ax: Axes | None = None, scale: Scale = "auto", look: Look = WIDE) -> Axes:
    """Draw every group's rate, as ``Plan.plot`` describes it.

    Args:
        plan: Of known length.
        ax: Where to draw; None makes a figure.
        scale: Of the rates.
        look: Sizes.
    """
    check_matplotlib()
    lines = outlines(plan, _PARTS)
    log = is_log(scale, [line.rates for line in lines])
    axes = _own_axes(look) if ax is None else ax
    order = _by_depth(plan)
    styles = _styles(plan, order)
    for place in order:
        axes.plot(
            *lines[place],
            **styles[place],
            drawstyle="steps-post",
            label=_label(plan.groups[place]),
            marker="o" if len(lines[place].steps) == 1 else "",
        )
    _dress(axes, plan, look)
    notes = [_set_scale(axes, plan, lines, log), add_warmups(axes, plan, {p: styles[p]["color"] for p in order})]
    add_notes(axes, [note for note in notes if note], look)
    if ax is not None and len(order) <= _MOST_LABELS:
        axes.legend(frameon=False, fontsize="small", handlelength=3.5)
    elif look.names_below:
        _name_below(axes, plan, order, look)
    elif len(order) <= _MOST_LABELS:
        _label_ends(axes, plan, order, lines, styles)
    else:
        _add_colorbar(axes, plan, order, look)
    return axes


def picture(plan: PlanView, suffix: str, scale: Scale = "auto", look: Look = WIDE) -> bytes:
    """The drawing as a file's content.

    Args:
        plan: Of known length.
        suffix: ``".png"`` or ``".svg"``.
        scale: Of the rates, as ``Plan.plot`` takes it.
        look: Sizes.
    """
    return content_of(plot(plan, scale=scale, look=look).get_figure(), suffix)


def inline_svg(plan: PlanView, scale: Scale = "auto", *, narrow: bool = False) -> str:
    """The drawing as an ``<svg>`` element for an HTML page, which refers to nothing outside it.

    Args:
        plan: Of known length.
        scale: Of the rates, as ``Plan.plot`` takes it.
        narrow: Draw it for a phone.
    """
    svg = picture(plan, ".svg", scale, NARROW if narrow else WIDE).decode()
    names = ", ".join(group.name for group in plan.groups[:_MOST_LABELS])
    more = "" if len(plan.groups) <= _MOST_LABELS else f" and {len(plan.groups) - _MOST_LABELS} more"
    return inlined(svg, f"Learning rate at each step of {names}{more}", "narrow" if narrow else "wide")


def _own_axes(look: Look) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=look.inches, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _by_depth(plan: PlanView) -> list[int]:
    """The groups from the model's input to its output; those without parameters last."""
    depth = {parameter.name: place for place, parameter in enumerate(plan.parameters)}
    firsts = [min((depth[name] for name in group.parameters), default=len(depth)) for group in plan.groups]
    return sorted(range(len(firsts)), key=firsts.__getitem__)


def _rest_of(plan: PlanView) -> int | None:
    """The place of the group of what no group matches; None where every parameter is matched."""
    return len(plan.spec.groups) if len(plan.groups) > len(plan.spec.groups) else None


def _styles(plan: PlanView, order: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Each group's colour and dashes: one of seven, or by depth, with ``rest`` apart from both."""
    if len(order) <= len(COLOURS):
        looks = zip(order, COLOURS, DASHES, strict=False)
        return {place: {"color": colour, "linestyle": dashes, "linewidth": 1.8} for place, colour, dashes in looks}
    labelled = len(order) <= _MOST_LABELS
    named = [place for place in order if place != _rest_of(plan)]
    styles = {
        place: {
            "color": colour,
            "linestyle": DASHES[rank % len(DASHES)] if labelled else "-",
            "linewidth": 1.6 if labelled else 1.2,
        }
        for rank, (place, colour) in enumerate(zip(named, _gradient(len(named)), strict=True))
    }
    return styles | {
        place: {"color": _REST_COLOUR, "linestyle": DASHES[1], "linewidth": 2.0}
        for place in order
        if place not in styles
    }


def _gradient(count: int) -> list[Any]:
    """Colours of a perceptually even map that keeps its order for the colour-blind, without its palest end."""
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, count)))


def _label(group: PlanGroup) -> str:
    name = shortened(group.name, _LONGEST_LABEL).replace("$", r"\$")  # else matplotlib reads mathematics
    return f"{name} (until it reacts)" if group.is_reactive else name


def _dress(axes: Axes, plan: PlanView, look: Look) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    total = plan.total_steps or 0
    axes.set_ylabel("learning rate", fontsize=look.text)
    axes.set_xlim(-0.01 * max(total, 1), 1.01 * max(total, 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=look.most_steps, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(labelsize=look.text)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    if plan.steps_per_epoch and total:
        add_epochs(axes, total, plan.steps_per_epoch, look)
    add_phases(axes, plan, look)


def _set_scale(axes: Axes, plan: PlanView, lines: Sequence[Outline], log: bool) -> str | None:
    """The axis of rates, with room above them for the names of phases; what there is to say of it."""
    highest = max((float(line.rates.max(initial=0.0)) for line in lines), default=0.0)
    above = 0.09 if plan.phases else 0.04
    if not log:
        use_linear_axis(axes, (1 + above) * highest or 1.0)
        return None
    lowest = min(float(line.rates[line.rates > 0].min(initial=np.inf)) for line in lines)
    deepest = _DEEPEST * min(low_rate(line.rates) for line in lines)
    is_zero = [bool(len(line.rates)) and bool((line.rates == 0).any()) for line in lines]
    lowest, cut = max(lowest, deepest), lowest < deepest
    use_log_axis(axes, lowest, highest * (highest / lowest) ** above * 1.05, with_zero=any(is_zero) or cut)
    if not cut and not any(is_zero):
        return None
    notes = [f"Log scale, below {float(f'{lowest:.1g}'):g} linear down to 0."]
    if any(is_zero):
        frozen = any(there.is_frozen(group) for there in plan.phase_plans for group in there.groups)
        notes.append(f"Lines on the bottom edge: rate 0{' (frozen)' * frozen}.")
    return " ".join(notes)


def _label_ends(
    axes: Axes, plan: PlanView, order: Sequence[int], lines: Sequence[Outline], styles: dict[int, dict[str, Any]]
) -> None:
    """Each line's name at its right end, moved apart where they would overlap, with the line's own dashes."""
    low, high = axes.get_ylim()
    to_scale = axes.yaxis.get_transform().transform
    bottom, top = (float(to_scale(np.array([bound]))[0]) for bound in (low, high))
    wanted = []
    for place in order:
        last = float(lines[place].rates[-1]) if len(lines[place].rates) else low
        height = (float(to_scale(np.array([max(last, low)]))[0]) - bottom) / (top - bottom)
        wanted.append(min(max(height, 0.0), 1.0))
    if len(order) == 1:  # nothing to tell apart, and a line would look like data
        axes.text(
            1.01, wanted[0], _label(plan.groups[order[0]]), transform=axes.transAxes, va="center", fontsize=WIDE.text
        )
        return
    for rank, (place, height) in enumerate(zip(order, _apart(wanted, 0.06), strict=True)):
        axes.plot(
            [1.005, 1.02, 1.035], [wanted[rank], height, height], transform=axes.transAxes, clip_on=False,
            color="0.6", linewidth=0.6, label="_leader",
        )  # fmt: skip
        axes.plot(
            [1.04, 1.085], [height, height], transform=axes.transAxes, clip_on=False, label="_key", **styles[place],
        )  # fmt: skip
        axes.text(1.095, height, _label(plan.groups[place]), transform=axes.transAxes, va="center", fontsize=WIDE.text)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights as near to those wanted as keeps them in order, ``gap`` apart and at most 1."""
    order = sorted(range(len(heights)), key=lambda rank: (heights[rank], -rank))
    placed = list(heights)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    over = max(0.0, placed[order[-1]] - 1.0) if order else 0.0
    if over:
        placed[order[-1]] -= over
        for below, above in reversed(list(pairwise(order))):
            placed[below] = min(placed[below], placed[above] - gap)
    return placed


def _name_below(axes: Axes, plan: PlanView, order: Sequence[int], look: Look) -> None:
    """The groups' names below the drawing; of many, some along the model, and what their colours mean."""
    if len(order) == 1:
        axes.set_title(_label(plan.groups[order[0]]), fontsize=look.text)
        return
    rest = _rest_of(plan)
    named = [place for place in order if place != rest]
    if len(named) > _MOST_LABELS:
        chosen = [named[rank] for rank in _spread(len(named), _MOST_BELOW)]
        title = f"{len(order)} groups, coloured from the model's input to its output"
    else:
        chosen, title = named, ""
    if rest is not None:
        chosen = [*chosen, rest]
    handles = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_leader")]
    by_place = dict(zip(order, handles, strict=False))
    names = [_label(plan.groups[place]) for place in chosen]
    longest = max(map(len, names)) + 8  # the dashes before it
    columns = max(1, min(2, look.letters // longest))
    rows = -(-len(names) // columns) + bool(title)
    figure = _figure_of(axes)
    figure.set_size_inches(look.inches[0], look.inches[1] + rows * 1.5 * look.text / 72)
    figure.legend(
        [by_place[place] for place in chosen],
        names,
        title=title or None,
        title_fontsize=look.text,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=look.text,
        handlelength=2.8,
    )


def _figure_of(axes: Axes) -> Figure:
    return axes.get_figure()  # type: ignore[return-value]


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` ranks, evenly, the first and the last among them."""
    every = -(-count // (most - 1))
    ranks = list(range(0, count, every))
    if ranks[-1] != count - 1:
        ranks = [*(ranks if count - 1 - ranks[-1] > every // 2 else ranks[:-1]), count - 1]
    return ranks


def _add_colorbar(axes: Axes, plan: PlanView, order: Sequence[int], look: Look) -> None:
    """The groups' names beside their colours, from the model's input (above) to its output; ``rest`` below them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    rest = _rest_of(plan)
    named = [place for place in order if place != rest]
    count = len(named)
    mappable = ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), ListedColormap(_gradient(count)))
    ticks = _spread(count, _MOST_NAMES)
    figure = _figure_of(axes)
    bar = figure.colorbar(mappable, ax=axes, ticks=ticks, fraction=0.04, pad=0.02)
    bar.ax.set_yticklabels([_label(plan.groups[named[rank]]) for rank in ticks], fontsize=look.text - 1)
    bar.ax.invert_yaxis()
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=2)
    bar.ax.set_title(f"{count} groups", fontsize=look.text, loc="left")
    if rest is not None:
        handle = axes.get_lines()[order.index(rest)]
        owner: Any = figure if figure.get_layout_engine() is not None else axes
        where = "outside lower right" if owner is figure else "best"
        owner.legend(
            [handle], [_label(plan.groups[rest])], loc=where, frameon=False, fontsize=look.text, handlelength=3
        )
