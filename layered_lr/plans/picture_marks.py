"""The marks in a plan's picture besides the rates: epochs, phases, warm-ups, and notes on them."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from layered_lr.plans.view import PlanView
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

_LETTER = 0.58  # width of a letter, as a part of the font's size


class Look(NamedTuple):
    """Sizes of a drawing.

    Args:
        inches: Width and height of a figure of its own.
        text: Size of its text in points.
        most_steps: Labels along the axis of steps.
        most_epochs: Labels along the axis of epochs.
        names_below: Whether the groups' names stand below the drawing, where a narrow one has room for them.
    """

    inches: tuple[float, float]
    text: float
    most_steps: int
    most_epochs: int
    names_below: bool

    @property
    def letters(self) -> int:
        """Letters that go into the figure's width."""
        return int(72 * self.inches[0] / (_LETTER * self.text))


WIDE = Look((9.0, 4.8), 9.0, 8, 12, False)
NARROW = Look((4.2, 4.4), 8.6, 4, 5, True)  # 302 points: on a screen of 390 pixels 1.1 pixels each


def add_epochs(axes: Axes, total: int, per_epoch: int, look: Look) -> None:
    """Light lines where epochs begin, numbered above: each of them, or every second, fifth, tenth, ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    epochs = total / per_epoch
    units = (unit * 10**power for power in range(20) for unit in (1, 2, 5))
    every = next(unit for unit in units if epochs / unit <= look.most_epochs)
    marks = range(0, math.floor(epochs) + 1, every)
    for mark in marks:
        axes.axvline(mark * per_epoch, color="0.88", linewidth=0.8, zorder=0)
    to_epochs: Any = lambda step: step / per_epoch  # noqa: E731
    to_steps: Any = lambda epoch: epoch * per_epoch  # noqa: E731
    above = axes.secondary_xaxis("top", functions=(to_epochs, to_steps))
    above.set_xlabel("epoch", fontsize=look.text)
    above.xaxis.set_major_locator(FixedLocator(list(marks)))
    above.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:.0f}"))
    above.tick_params(length=0, labelsize=look.text)
    above.spines["top"].set_visible(False)


def add_phases(axes: Axes, plan: PlanView, look: Look) -> None:
    """A line where each phase begins, and its number beside it where there is room, above all rates."""
    phases = [phase for phase in plan.phases if phase.start < max(plan.total_steps or 0, 1)]
    letter_steps = _LETTER * look.text * (plan.total_steps or 1) / (0.62 * 72 * look.inches[0])
    for number, phase in enumerate(phases, start=1):
        end = phases[number].start if number < len(phases) else plan.total_steps or 1
        axes.axvline(phase.start, color="0.45", linewidth=1.0, linestyle=(0, (1, 2)), zorder=0)
        names = (f"phase {number}", str(number))
        name = next((name for name in names if (len(name) + 2) * letter_steps < end - phase.start), None)
        if name is not None:
            axes.annotate(
                name, (phase.start, 1), xycoords=("data", "axes fraction"), xytext=(3, -1), textcoords="offset points",
                va="top", fontsize=look.text, color="0.3", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip


def add_warmups(axes: Axes, plan: PlanView, colours: dict[int, Any]) -> str | None:
    """Shade the warm-up that all groups share; otherwise a ring on each group's line where its own ends.

    Returns:
        What the marks mean; None where there are none.
    """
    total = plan.total_steps or 0
    ends: dict[int, int] = {}
    for place, group in enumerate(plan.groups):
        length = warmup_of(group.schedule)
        if group.schedule.unit == "epoch":
            length *= plan.steps_per_epoch or 1
        if length and 0 < math.ceil(length) < total:
            ends[place] = math.ceil(length)
    if not ends:
        return None
    if len(ends) == len(plan.groups) and len(set(ends.values())) == 1:
        end = next(iter(ends.values()))
        axes.axvspan(0, end, color="0.93", linewidth=0, zorder=-1)
        return f"Grey: warm-up, to step {end:,}."
    for place, end in ends.items():
        (rate,) = plan.at([end])[:, place]
        axes.plot([end], [rate], "o", markerfacecolor="white", color=colours[place], markersize=6, label="_warm-up")
    return "Rings: a warm-up ends."


def add_notes(axes: Axes, notes: list[str], look: Look) -> None:
    """Sentences below the axis of steps, where no line can cross them."""
    lines = textwrap.wrap(" ".join(notes), int(0.8 * look.letters), break_on_hyphens=False)
    axes.set_xlabel("\n".join(["step", *lines]), fontsize=look.text)


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
