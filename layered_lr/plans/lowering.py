"""How a backend applies the rates of each group; this is decided before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from layered_lr.plans.view import PlanView
from layered_lr.registry import check_name, load_attribute


class Lowering(NamedTuple):
    """How one group's rate reaches the weights.

    Args:
        schedule: ``"constant"``: the rate is compiled in and never changes. ``"native"``: the framework's own scheduler
            gives exactly the planned rates. ``"table"``: the framework has a table of the rate at each step.
            ``"host"``: Python sets the rate before each update. ``"dynamic"``: operations inside a graph read the rate
            from a buffer.
        lr_scale: ``"native"``: the framework multiplies by it. ``"folded"``: the library has multiplied the rate by it
            already.
        detail: The scheduler's name, or the table's size.
        update: What makes the update, in words: the framework's own optimizer, or operations of this library.
    """

    schedule: Literal["constant", "native", "table", "host", "dynamic"]
    lr_scale: Literal["native", "folded"]
    detail: str = ""
    update: str = ""

    @property
    def how(self) -> str:
        """How the schedule is applied, in words."""
        words = {
            "constant": "constant",
            "native": "native",
            "table": "native table",
            "host": "set each step",
            "dynamic": "dynamic",
        }
        return f"{words[self.schedule]} {self.detail}".rstrip()

    def __str__(self) -> str:
        return f"{self.how}, {'native lr_scale' if self.lr_scale == 'native' else 'lr_scale multiplied in'}"


def lowering_of(plan: PlanView, backend: str, timeline: Sequence[PlanView] = ()) -> tuple[Lowering, ...]:
    """Return how a backend will apply each group's rate, in the order of ``plan.groups``; needs no framework.

    Args:
        plan: The plan of the whole run, or of one of its phases.
        backend: The backend's name.
        timeline: The plans of all phases, if ``plan`` is one of them.

    Raises:
        SpecError: No backend has that name.
        Unsupported: The backend cannot apply this plan exactly.
    """
    lower = load_attribute(check_name(backend).lowering)
    return tuple(lower(plan, timeline))


def cost_of_phases(plan: PlanView, backend: str) -> str:
    """Describe what a plan's phases cost on a backend, in words; empty if they cost nothing special."""
    path = check_name(backend).phases
    return load_attribute(path)(plan) if path is not None and plan.phases else ""
