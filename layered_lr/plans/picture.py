"""The picture of a plan: every group's rate over the whole run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from layered_lr.plans.group import PlanGroup
from layered_lr.plans.view import PlanView
from layered_lr.reports.curves import Outline, Scale, is_log, outlines
from layered_lr.reports.figures import COLOURS, DASHES, check_matplotlib, content_of, inlined
from layered_lr.schedules import (
    ChainedScheduler,
    ConstantLR,
    LinearLR,
    OneCycleLR,
    Schedule,
    SequentialLR,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PARTS = 1500  # more than a picture of 9 inches has pixel columns
_LONGEST_LABEL = 32
_MOST_NAMES = 16  # beside a colorbar


def plot(plan: PlanView, ax: Axes | None = None, scale: Scale = "auto") -> Axes:
    """Draw every group's rate; see ``Plan.plot``."""
    check_matplotlib()
    lines = outlines(plan, _PARTS)
    lowest = min((float(line.rates.min(initial=math.inf)) for line in lines), default=0.0)
    highest = max((float(line.rates.max(initial=0.0)) for line in lines), default=0.0)
    log = is_log(scale, lowest, highest)
    own = ax is None
    axes = _own_axes() if ax is None else ax
    order = _by_depth(plan)
    few = len(order) <= len(COLOURS)
    colours = dict(zip(order, COLOURS if few else _gradient(len(order)), strict=False))
    for rank, place in enumerate(order):
        dashes = DASHES[rank] if few else "-"
        axes.plot(
            *lines[place],
            color=colours[place],
            linestyle=dashes,
            linewidth=1.8 if few else 1.2,
            drawstyle="steps-post",
            label=_label(plan.groups[place]),
            marker="o" if len(lines[place].steps) == 1 else "",
        )
    _dress(axes, plan, log, highest)
    _mark_warmups(axes, plan, colours)
    if not few:
        _add_colorbar(axes, plan, order)
    elif own:
        _label_ends(axes, plan, order, lines, colours)
    else:
        axes.legend(frameon=False, fontsize="small", handlelength=3.5)
    return axes


def picture(plan: PlanView, suffix: str, scale: Scale = "auto") -> bytes:
    """The drawing as a file's content.

    Args:
        plan: Of known length.
        suffix: ``".png"`` or ``".svg"``.
        scale: As for ``Plan.plot``.
    """
    return content_of(plot(plan, scale=scale).get_figure(), suffix)


def inline_svg(plan: PlanView, scale: Scale = "auto") -> str:
    """The drawing as an ``<svg>`` element for an HTML page, which refers to nothing outside it."""
    return inlined(picture(plan, ".svg", scale).decode())


def _own_axes() -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(9.0, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _by_depth(plan: PlanView) -> list[int]:
    """The groups from the model's input to its output; those without parameters last."""
    depth = {parameter.name: place for place, parameter in enumerate(plan.parameters)}
    firsts = [min((depth[name] for name in group.parameters), default=len(depth)) for group in plan.groups]
    return sorted(range(len(firsts)), key=firsts.__getitem__)


def _gradient(count: int) -> list[Any]:
    """Colours of a perceptually even map that keeps its order for the colour-blind, without its palest end."""
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, count)))


def _label(group: PlanGroup) -> str:
    name = group.name if len(group.name) <= _LONGEST_LABEL else f"{group.name[: _LONGEST_LABEL - 1]}…"
    name = name.replace("$", r"\$")  # else matplotlib reads mathematics
    return f"{name} (until it reacts)" if group.is_reactive else name


def _dress(axes: Axes, plan: PlanView, log: bool, highest: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    total = plan.total_steps or 0
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.set_xlim(-0.01 * max(total, 1), 1.01 * max(total, 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    if log:
        axes.set_yscale("log", nonpositive="mask")
        axes.grid(axis="y", which="major", color="0.9", linewidth=0.8)
    else:
        axes.set_ylim(0, 1.05 * highest or 1.0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    if plan.steps_per_epoch and total:
        _mark_epochs(axes, total, plan.steps_per_epoch)
    for number, phase in enumerate(plan.phases, start=1):
        axes.axvline(phase.start, color="0.45", linewidth=1.0, linestyle=(0, (1, 2)), zorder=0)
        axes.annotate(
            f"phase {number}", (phase.start, 0), xycoords=("data", "axes fraction"), xytext=(3, 3),
            textcoords="offset points", fontsize="x-small", color="0.3",
        )  # fmt: skip


def _mark_epochs(axes: Axes, total: int, per_epoch: int) -> None:
    """Light lines where epochs begin, numbered above: each of them, or every second, fifth, tenth, ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    epochs = total / per_epoch
    every = next(unit * 10**power for power in range(20) for unit in (1, 2, 5) if epochs / (unit * 10**power) <= 12)
    marks = range(0, math.floor(epochs) + 1, every)
    for mark in marks:
        axes.axvline(mark * per_epoch, color="0.88", linewidth=0.8, zorder=0)
    to_epochs: Any = lambda step: step / per_epoch  # noqa: E731
    to_steps: Any = lambda epoch: epoch * per_epoch  # noqa: E731
    above = axes.secondary_xaxis("top", functions=(to_epochs, to_steps))
    above.set_xlabel("epoch")
    above.xaxis.set_major_locator(FixedLocator(list(marks)))
    above.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:.0f}"))
    above.tick_params(length=0)
    above.spines["top"].set_visible(False)


def _mark_warmups(axes: Axes, plan: PlanView, colours: dict[int, Any]) -> None:
    """Shade the warm-up that all groups share; otherwise a ring on each group's line where its own ends."""
    total = plan.total_steps or 0
    ends: dict[int, int] = {}
    for place, group in enumerate(plan.groups):
        length = warmup_of(group.schedule)
        if group.schedule.unit == "epoch":
            length *= plan.steps_per_epoch or 1
        if length and 0 < math.ceil(length) < total:
            ends[place] = math.ceil(length)
    if not ends:
        return
    if len(ends) == len(plan.groups) and len(set(ends.values())) == 1:
        end = next(iter(ends.values()))
        axes.axvspan(0, end, color="0.93", linewidth=0, zorder=-1)
        axes.annotate(
            "warm-up", (end, 1), xycoords=("data", "axes fraction"), xytext=(4, -4), textcoords="offset points",
            va="top", fontsize="small", color="0.35",
        )  # fmt: skip
        return
    for place, end in ends.items():
        (rate,) = plan.at([end])[:, place]
        axes.plot([end], [rate], "o", markerfacecolor="white", color=colours[place], markersize=6, label="_warm-up")
    axes.annotate(
        "○ warm-up ends", (1, 1), xycoords="axes fraction", xytext=(-4, -2), textcoords="offset points",
        ha="right", va="top", fontsize="small", color="0.35",
    )  # fmt: skip


def warmup_of(schedule: Schedule) -> float:
    """Length of the rise that a schedule begins with, in its own unit; 0 where it has none."""
    if isinstance(schedule, LinearLR):
        return schedule.total_iters if schedule.start_factor < schedule.end_factor else 0
    if isinstance(schedule, ConstantLR):
        return schedule.total_iters if schedule.factor < 1 else 0
    if isinstance(schedule, SequentialLR):
        first = warmup_of(schedule.schedulers[0])
        return min(first, schedule.milestones[0]) if schedule.milestones else first
    if isinstance(schedule, ChainedScheduler):
        return max(map(warmup_of, schedule.schedulers))
    if isinstance(schedule, OneCycleLR):
        length = schedule.total_steps or (schedule.epochs or 0) * (schedule.steps_per_epoch or 0)
        return max(0.0, schedule.pct_start * length - 1)
    return float(getattr(schedule, "warmup_steps", 0))


def _label_ends(
    axes: Axes, plan: PlanView, order: Sequence[int], lines: Sequence[Outline], colours: dict[int, Any]
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
    for rank, (place, height) in enumerate(zip(order, _apart(wanted, 0.06), strict=True)):
        axes.plot(
            [1.0, 1.015, 1.04], [wanted[rank], height, height], transform=axes.transAxes, clip_on=False,
            color=colours[place], linewidth=0.9, label="_leader",
        )  # fmt: skip
        axes.plot(
            [1.04, 1.085], [height, height], transform=axes.transAxes, clip_on=False, color=colours[place],
            linestyle=DASHES[rank], linewidth=1.8, label="_key",
        )  # fmt: skip
        axes.text(1.095, height, _label(plan.groups[place]), transform=axes.transAxes, va="center", fontsize="small")


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


def _add_colorbar(axes: Axes, plan: PlanView, order: Sequence[int]) -> None:
    """The groups' names beside their colours, from the model's input (above) to its output."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = len(order)
    mappable = ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), ListedColormap(_gradient(count)))
    every = -(-count // _MOST_NAMES)
    named = list(range(0, count, every))
    if named[-1] != count - 1:
        named = [*(named if count - 1 - named[-1] > every // 2 else named[:-1]), count - 1]
    figure: Figure = axes.get_figure()  # type: ignore[assignment]
    bar = figure.colorbar(mappable, ax=axes, ticks=named, fraction=0.04, pad=0.02)
    bar.ax.set_yticklabels([_label(plan.groups[order[rank]]) for rank in named], fontsize="x-small")
    bar.ax.invert_yaxis()
    bar.ax.set_xlabel(f"{count} groups", fontsize="small")
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=2)
